//! Pulling images from registries (OCI distribution specification).
//!
//! What an image is, is asked for first; then its layers are downloaded and
//! unpacked, several at a time, into a staging directory; then all of it
//! moves into the store in one step. So an image is there as a whole or not at
//! all, and what was downloaded before an interruption is not downloaded again.
//!
//! Registries are hostile: nothing is believed before its digest was seen to
//! fit, nothing may be larger than its descriptor says, and nothing in a layer
//! reaches outside its directory.

mod arriving;
mod commit;
mod credentials;
mod error;
mod helper;
pub mod hosts;
mod layer;
mod manifest;
mod plan;
mod platform;
mod source;
pub(super) mod staging;
mod token;

use std::path::PathBuf;
use std::rc::Rc;

use futures_util::{StreamExt, TryStreamExt};

pub use error::PullError;
pub use platform::Platform;
pub use source::Patience;

use self::layer::Fetch;
use self::plan::{Plan, plan};
use self::source::Source;
use self::staging::Staging;
use super::store::ImageStore;
use super::{Image, Reference, digest};

/// Layers that are downloaded and unpacked at a time.
const AT_A_TIME: usize = 4;
/// How often layers that others took away are fetched again.
const ROUNDS: usize = 3;

/// What to pull, and how.
#[derive(Debug)]
pub struct Request {
    /// The image.
    pub reference: Reference,
    /// What it shall run on; this machine when nothing is said.
    pub platform: Option<Platform>,
    /// The directory of [`hosts`].
    pub hosts_dir: PathBuf,
    /// Decoded docker configurations, such as those of a pod's image pull
    /// secrets. They come before the user's own.
    pub secrets: Vec<String>,
    /// How long registries may be silent.
    pub patience: Patience,
}

/// How far a pull is.
#[derive(Debug, Clone, Copy)]
pub enum Report<'a> {
    /// The image is known.
    Resolved {
        /// The digests of its layers in the registry, the lowest first.
        layers: &'a [String],
    },
    /// A layer is there already.
    Present {
        /// The layer's place in its image, from 1 at the bottom.
        number: usize,
    },
    /// Somebody else downloads a layer at this moment.
    Waiting {
        /// The layer's place in its image, from 1 at the bottom.
        number: usize,
    },
    /// A layer is being downloaded, and unpacked behind that.
    Downloading {
        /// The layer's place in its image, from 1 at the bottom.
        number: usize,
        /// Bytes that are there.
        at: u64,
        /// Bytes that there will be.
        size: u64,
    },
    /// A layer is complete.
    Done {
        /// The layer's place in its image, from 1 at the bottom.
        number: usize,
    },
}

/// What a pull came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image as it is in the store now.
    pub image: Image,
    /// False when it was there already, just as the registry has it.
    pub is_new: bool,
}

/// Pulls an image into the store, unless it is there just so.
///
/// # Errors
/// [`PullError`] says what went wrong; the store is unchanged then.
pub async fn pull(
    store: &ImageStore,
    request: &Request,
    report: &dyn Fn(Report<'_>),
) -> Result<Pulled, PullError> {
    let sources = sources(request).await?;
    let wanted = request.platform.clone();
    let platform = wanted.unwrap_or_else(Platform::of_this_machine);
    let mut failure = None;
    for source in sources.iter().filter(|source| source.endpoint.resolve) {
        match resolve(store, request, source, &platform).await {
            Ok(Resolved::Present(image)) => {
                return Ok(Pulled {
                    image: *image,
                    is_new: false,
                });
            }
            Ok(Resolved::Plan(plan)) => {
                let from = from(&sources, source);
                let image = fetch(store, request, *plan, &from, report).await?;
                return Ok(Pulled {
                    image,
                    is_new: true,
                });
            }
            // The registry's own answer, which comes last, says most.
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| PullError::Client {
        host: request.reference.registry().to_owned(),
        reason: "its configuration names no host with the capability \"resolve\"".to_owned(),
    }))
}

/// Whether the store has the image of a reference just as its registry has it
/// at this moment.
///
/// # Errors
/// As [`pull`].
pub async fn is_current(store: &ImageStore, request: &Request) -> Result<bool, PullError> {
    let reference = &request.reference;
    let wanted = request.platform.clone();
    let platform = wanted.unwrap_or_else(Platform::of_this_machine).to_string();
    let name = name(reference);
    let known = store.resolve(&reference.to_string())?;
    let known = known.filter(|image| image.platform.as_ref() == Some(&platform));
    let Some(before) = known.and_then(|mut image| image.pulled.remove(&name)) else {
        return Ok(false);
    };
    let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) else {
        return Ok(true);
    };
    let mut failure = None;
    for source in sources(request).await? {
        if source.endpoint.resolve {
            match source.digest(tag).await {
                Ok(now) => return Ok(now == before),
                Err(error) => failure = Some(error),
            }
        }
    }
    failure.map_or(Ok(false), Err)
}

/// The servers for content: first the one that knew the image.
fn from(sources: &[Rc<Source>], first: &Rc<Source>) -> Vec<Rc<Source>> {
    let others = sources.iter().filter(|one| !Rc::ptr_eq(one, first));
    let all = std::iter::once(first).chain(others);
    let pulling = all.filter(|one| one.endpoint.pull);
    pulling.map(Rc::clone).collect()
}

async fn sources(request: &Request) -> Result<Vec<Rc<Source>>, PullError> {
    let reference = &request.reference;
    let mut sources = Vec::new();
    for endpoint in hosts::endpoints(&request.hosts_dir, reference.registry())? {
        let (host, repository) = (&endpoint.host, reference.repository());
        let mut known = Vec::new();
        for secret in &request.secrets {
            let found = credentials::from_secret(secret, host, repository);
            known.extend(found.map_err(|reason| PullError::Configuration {
                path: PathBuf::from("imagePullSecrets"),
                reason,
            })?);
        }
        let mut all = credentials::of_user(host, repository).await?;
        all.credentials.splice(0..0, known);
        let source = Source::new(endpoint, reference, all, request.patience)?;
        sources.push(Rc::new(source));
    }
    Ok(sources)
}

enum Resolved {
    Present(Box<Image>),
    Plan(Box<Plan>),
}

async fn resolve(
    store: &ImageStore,
    request: &Request,
    source: &Source,
    platform: &Platform,
) -> Result<Resolved, PullError> {
    let reference = &request.reference;
    let what = reference.digest().or(reference.tag()).unwrap_or("latest");
    let known = store.resolve(&reference.to_string())?;
    let known = known.filter(|image| image.platform.as_deref() == Some(&platform.to_string()));
    if let Some(image) = known
        && let Some(before) = image.pulled.get(&name(reference))
        && image
            .layers
            .iter()
            .all(|layer| is_there(store, &layer.diff_id))
        && (reference.digest().is_some() || *before == source.digest(what).await?)
    {
        return Ok(Resolved::Present(Box::new(image)));
    }
    let plan = plan(source, reference, what, platform).await?;
    Ok(Resolved::Plan(Box::new(plan)))
}

/// The name under which an image is filed: a digest takes the place of a tag
/// that stands beside it, for nobody has checked that one.
fn name(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => reference.to_string(),
    }
}

fn is_there(store: &ImageStore, diff_id: &str) -> bool {
    let name = digest::hex(diff_id).unwrap_or_default();
    matches!(store.open_layer(name), Ok(Some(_)))
}

/// Downloads and unpacks what is missing, and makes the image known.
async fn fetch(
    store: &ImageStore,
    request: &Request,
    plan: Plan,
    sources: &[Rc<Source>],
    report: &dyn Fn(Report<'_>),
) -> Result<Image, PullError> {
    let staging = Staging::open(store)?;
    let digests: Vec<String> = plan.layers.iter().map(|one| one.digest.clone()).collect();
    report(Report::Resolved { layers: &digests });
    let (staging, of) = (&staging, plan.layers.len());
    for _ in 0..ROUNDS {
        let mut missing = Vec::new();
        for (below, wanted) in plan.layers.iter().enumerate() {
            let number = below + 1;
            let there = commit::has(store, &wanted.diff_id)?;
            if there || staging.finished(&wanted.diff_id).is_some() {
                report(Report::Present { number });
            } else if plan.layers[..below]
                .iter()
                .any(|one| one.diff_id == wanted.diff_id)
            {
                // An image may have a layer twice; it is fetched once.
            } else {
                missing.push((number, wanted));
            }
        }
        futures_util::stream::iter(missing)
            .map(|(number, wanted)| async move {
                let fetch = Fetch {
                    store,
                    staging,
                    sources,
                    wanted,
                    number,
                    of,
                    report,
                };
                fetch.run().await
            })
            .buffer_unordered(AT_A_TIME)
            .try_collect::<Vec<()>>()
            .await?;
        let name = name(&request.reference);
        if let Some(image) = commit::commit(store, staging, &plan, &name)? {
            return Ok(image);
        }
    }
    Err(PullError::Removed {
        image: request.reference.familiar(),
    })
}
