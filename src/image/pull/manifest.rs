//! From the documents of a registry to what must be fetched. Each was checked
//! against its digest before it comes here.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::PullError;
use super::source::Document;
use crate::image::{digest, layout};

/// A document that registries keep under tags.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub(super) enum Manifest {
    /// One image for each platform.
    Index(ImageIndex),
    /// One image.
    Image(ImageManifest),
}

/// What tells the kinds of documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

/// Reads a manifest or an index.
///
/// # Errors
/// [`PullError::Damaged`], also for a document that could be read as both.
pub(super) fn read(document: &Document) -> Result<Manifest, PullError> {
    let what = format!("the manifest {}", document.digest);
    let damaged = |reason: String| PullError::Damaged {
        what: what.clone(),
        reason,
    };
    let shape: Shape = parse(&what, &document.text)?;
    if shape.schema_version == Some(1) {
        let reason =
            "is of docker's first schema, which nobody writes any more: push the image anew";
        return Err(damaged(reason.to_owned()));
    }
    let image = shape.layers.is_some() || shape.config.is_some();
    if shape.manifests.is_some() && image {
        return Err(damaged(
            "claims to be an index and an image at once".to_owned(),
        ));
    }
    let said = shape.media_type.or_else(|| document.content_type.clone());
    let said = said
        .as_deref()
        .map(|kind| kind.split(';').next().unwrap_or(kind).trim());
    let said = said.map(MediaType::from);
    let is_index = match &said {
        Some(kind) if layout::is(kind, &MediaType::ImageIndex) => true,
        Some(kind) if layout::is(kind, &MediaType::ImageManifest) => false,
        _ => shape.manifests.is_some(),
    };
    match is_index {
        true => Ok(Manifest::Index(parse(&what, &document.text)?)),
        false => Ok(Manifest::Image(parse(&what, &document.text)?)),
    }
}

/// One layer to be fetched.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The digest of its uncompressed content.
    pub diff_id: String,
    /// The digest of what the registry has.
    pub digest: String,
    /// Bytes of that.
    pub size: u64,
}

/// The descriptor of a manifest's configuration, if it describes an image.
pub(super) fn configuration<'a>(
    name: &str,
    manifest: &'a ImageManifest,
) -> Result<&'a Descriptor, PullError> {
    let config = manifest.config();
    let damaged = |reason: String| PullError::Damaged {
        what: format!("the manifest {name}"),
        reason,
    };
    if !layout::is(config.media_type(), &MediaType::ImageConfig) {
        let kind = config.media_type();
        return Err(damaged(format!(
            "is no image but an artifact of type {kind}"
        )));
    }
    checked(name, config)?;
    Ok(config)
}

/// The layers of an image, the lowest first.
pub(super) fn layers(
    name: &str,
    manifest: &ImageManifest,
    configuration: &ImageConfiguration,
) -> Result<Vec<Wanted>, PullError> {
    let damaged = |reason: String| PullError::Damaged {
        what: format!("the manifest {name}"),
        reason,
    };
    let diff_ids = layout::diff_ids(configuration, manifest.layers().len());
    let diff_ids = diff_ids.map_err(|reason| PullError::Damaged {
        what: format!("the configuration of {name}"),
        reason,
    })?;
    let pairs = diff_ids.iter().zip(manifest.layers());
    pairs
        .map(|(diff_id, layer)| {
            if !layout::is_layer(layer.media_type()) {
                let kind = layer.media_type();
                return Err(damaged(format!("has a layer of unknown type {kind}")));
            }
            Ok(Wanted {
                diff_id: diff_id.clone(),
                digest: checked(name, layer)?,
                size: layer.size(),
            })
        })
        .collect()
}

/// A descriptor's digest, if it is one that can be checked.
pub(super) fn checked(name: &str, descriptor: &Descriptor) -> Result<String, PullError> {
    let text = descriptor.digest().to_string();
    match digest::hex(&text) {
        Some(_) => Ok(text),
        None => Err(PullError::Damaged {
            what: format!("the manifest {name}"),
            reason: format!("names content {text:?}; only sha256 digests are read"),
        }),
    }
}

/// Reads a JSON document.
pub(super) fn parse<T: DeserializeOwned>(what: &str, text: &[u8]) -> Result<T, PullError> {
    serde_json::from_slice(text).map_err(|error| PullError::Damaged {
        what: what.to_owned(),
        reason: format!("cannot be read: {error}"),
    })
}
