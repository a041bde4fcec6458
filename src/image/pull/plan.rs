//! From a reference to all that must be fetched: the index, the manifest for
//! the platform, and the configuration, each checked before the next is asked for.

use futures_util::StreamExt;
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};

use super::PullError;
use super::error::printable;
use super::manifest::{self, Manifest, Wanted};
use super::platform::Platform;
use super::source::{Document, Source};
use crate::image::{Reference, digest};

/// How deeply indexes may nest in indexes.
const DEEPEST_INDEX: usize = 4;
/// The largest configuration of an image, in bytes.
const LARGEST_CONFIGURATION: u64 = 8 << 20;

/// An image of a registry, with all that must be fetched.
pub(super) struct Plan {
    /// The digest of what the reference leads to.
    pub top: String,
    pub platform: String,
    pub manifest: Document,
    /// The configuration's digest, which is the image's ID.
    pub id: String,
    pub config: Vec<u8>,
    pub configuration: ImageConfiguration,
    pub layers: Vec<Wanted>,
}

/// Finds out what must be fetched for an image.
pub(super) async fn plan(
    source: &Source,
    reference: &Reference,
    what: &str,
    platform: &Platform,
) -> Result<Plan, PullError> {
    let name = reference.familiar();
    let mut document = source.manifest(what).await?;
    if let Some(expected) = reference.digest() {
        same(&name, expected, &document.digest)?;
    }
    let top = document.digest.clone();
    for _ in 0..=DEEPEST_INDEX {
        let index = match manifest::read(&document)? {
            Manifest::Image(image) => {
                return of_image(source, reference, top, document, image, platform).await;
            }
            Manifest::Index(index) => index,
        };
        let Some(chosen) = platform.choose(index.manifests()) else {
            return Err(PullError::Platform {
                image: name,
                wanted: platform.to_string(),
                found: offered(index.manifests()),
            });
        };
        let expected = manifest::checked(&name, chosen)?;
        let next = source.manifest(&expected).await?;
        same(
            &format!("the manifest for {platform} of {name}"),
            &expected,
            &next.digest,
        )?;
        sized(
            source,
            "the manifest",
            chosen.size(),
            next.text.len() as u64,
        )?;
        document = next;
    }
    Err(PullError::Damaged {
        what: format!("the index of {name}"),
        reason: "nests indexes too deeply".to_owned(),
    })
}

async fn of_image(
    source: &Source,
    reference: &Reference,
    top: String,
    document: Document,
    image: ImageManifest,
    platform: &Platform,
) -> Result<Plan, PullError> {
    let name = reference.familiar();
    let descriptor = manifest::configuration(&name, &image)?;
    let config = small_blob(source, &name, descriptor).await?;
    let what = format!("the configuration of {name}");
    let configuration: ImageConfiguration = manifest::parse(&what, &config)?;
    if !platform.takes(configuration.os(), configuration.architecture()) {
        return Err(PullError::Platform {
            image: name,
            wanted: platform.to_string(),
            found: format!("{}/{}", configuration.os(), configuration.architecture()),
        });
    }
    Ok(Plan {
        layers: manifest::layers(&name, &image, &configuration)?,
        id: descriptor.digest().to_string(),
        top,
        platform: platform.to_string(),
        manifest: document,
        config,
        configuration,
    })
}

/// A blob that is kept in memory: an image's configuration.
async fn small_blob(
    source: &Source,
    name: &str,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, PullError> {
    let what = format!("the configuration of {name}");
    let size = descriptor.size();
    if size > LARGEST_CONFIGURATION {
        return Err(PullError::Damaged {
            what,
            reason: "is larger than 8 MiB".to_owned(),
        });
    }
    let expected = descriptor.digest().to_string();
    let (_, mut stream) = source.blob(&expected, 0).await?;
    let mut text = Vec::new();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => text.extend_from_slice(&piece),
            // All has come; whether it is right is seen below.
            Err(_) if text.len() as u64 == size => break,
            Err(error) => return Err(PullError::stream(source.host(), &error)),
        }
        if text.len() as u64 > size {
            break;
        }
    }
    sized(source, &what, size, text.len() as u64)?;
    same(&what, &expected, &digest::of(&text))?;
    Ok(text)
}

fn same(what: &str, expected: &str, actual: &str) -> Result<(), PullError> {
    match expected == actual {
        true => Ok(()),
        false => Err(PullError::Digest {
            what: what.to_owned(),
            expected: expected.to_owned(),
            actual: actual.to_owned(),
        }),
    }
}

fn sized(source: &Source, what: &str, announced: u64, sent: u64) -> Result<(), PullError> {
    match announced == sent {
        true => Ok(()),
        false => Err(PullError::Size {
            what: what.to_owned(),
            host: source.host().to_owned(),
            announced,
            sent: match sent > announced {
                true => "more".to_owned(),
                false => sent.to_string(),
            },
        }),
    }
}

/// The platforms of an index, for people.
fn offered(manifests: &[Descriptor]) -> String {
    let platforms = manifests.iter().filter_map(|one| one.platform().as_ref());
    let mut names: Vec<String> = platforms
        .map(|one| {
            let variant = one.variant().as_deref();
            let variant = variant.map(|text| format!("/{text}")).unwrap_or_default();
            format!("{}/{}{variant}", one.os(), one.architecture())
        })
        .filter(|name| name != "unknown/unknown")
        .collect();
    names.sort();
    names.dedup();
    match names.is_empty() {
        true => "none at all".to_owned(),
        false => printable(&names.join(", ")),
    }
}
