//! Images: the store on disk, import, and the layers of a root file system.
//!
//! The store is a directory that only root may enter:
//!
//! ```text
//! index.json               the images: names, configuration, layers
//! layers/sha256/<diffID>/  a layer, unpacked, in the form overlayfs mounts
//! blobs/sha256/<digest>    configurations and manifests as they came
//! tmp/                     what is being made or deleted at this moment
//! pulls/                   what is being downloaded (see [`pull`])
//! lock                     held (flock) by the one process that writes
//! ```
//!
//! A layer is unpacked once, whichever images share it, and appears under its
//! final name only when it is complete and its digest was seen to fit. Reading
//! takes no lock: the index is replaced as a whole. Who uses a layer holds a
//! shared flock on its directory, so that nobody removes it meanwhile.
//!
//! Archives are hostile: nothing in them reaches outside the directory that
//! they are unpacked to ([`UnpackError`] says how each attempt is refused).

mod archive;
mod attributes;
pub mod config;
mod digest;
mod discard;
mod entries;
mod error;
mod import;
mod index;
mod inside;
mod layout;
mod pax;
pub mod pull;
pub mod reference;
mod sparse;
pub mod store;
mod unpack;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use config::{ImageConfig, RootFsConfig};
pub use error::ImageError;
pub use import::Progress;
pub use reference::{Reference, ReferenceError};
pub use store::{ImageStore, Removed};
pub use unpack::UnpackError;

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The digest of its configuration: `sha256:` and 64 hexadecimal digits.
    pub id: String,
    /// Its full names, such as `docker.io/library/busybox:latest`, sorted.
    /// Empty when another image took its last name while it was in use.
    pub names: Vec<String>,
    /// What it says about the process to run.
    pub config: ImageConfig,
    /// Its layers, the lowest first.
    pub layers: Vec<Layer>,
    /// Bytes of file data in all layers together.
    pub size: u64,
    /// When it was built, where it says so.
    pub created: Option<Timestamp>,
    /// When it came into the store.
    pub imported: Timestamp,
    /// The digest that `name@sha256:…` means: of its index or manifest.
    pub digest: Option<String>,
    /// The digest of its manifest, where it has one.
    pub manifest: Option<String>,
    /// Those of its names that came from a registry, with the digests that the
    /// registry had under them. The others came with a file.
    #[serde(default)]
    pub pulled: BTreeMap<String, String>,
    /// The platform for which it was pulled: `linux/amd64`.
    #[serde(default)]
    pub platform: Option<String>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// The digest of its uncompressed tar stream.
    pub diff_id: String,
    /// Bytes of file data in it.
    pub size: u64,
    /// Whether it hides everything below it.
    pub opaque: bool,
}

impl Image {
    /// Opens the layers for mounting, the topmost first: the order in which
    /// overlayfs takes them. A layer that occurs twice is given once, and
    /// those below a layer that hides everything are left out. Each descriptor
    /// (`O_RDONLY | O_DIRECTORY`) holds a shared flock: as long as it, or a
    /// copy of it in another process, is open, the layer cannot be removed.
    ///
    /// # Errors
    ///
    /// [`ImageError::BeingRemoved`], [`ImageError::LayerMissing`], and
    /// [`ImageError::Store`] when a layer cannot be opened.
    pub fn open_layers(&self, store: &ImageStore) -> Result<Vec<OwnedFd>, ImageError> {
        let mut opened: Vec<OwnedFd> = Vec::with_capacity(self.layers.len());
        let mut seen: Vec<&str> = Vec::with_capacity(self.layers.len());
        for layer in self.layers.iter().rev() {
            if !seen.contains(&layer.diff_id.as_str()) {
                seen.push(&layer.diff_id);
                opened.push(store.use_layer(self, layer)?);
            }
            if layer.opaque {
                break;
            }
        }
        Ok(opened)
    }

    /// Whether a registry may have something else by now under a name, in any
    /// form, by which the image was found. Never under a name that came with a
    /// file, nor under one with a digest.
    pub fn may_have_moved(&self, name: &str) -> bool {
        name.parse::<Reference>().is_ok_and(|reference| {
            reference.digest().is_none() && self.pulled.contains_key(&reference.to_string())
        })
    }

    /// What to call the image in messages: its first name in short, or its ID.
    pub fn familiar(&self) -> String {
        match self.names.first() {
            Some(name) => familiar(name),
            None => self.id.clone(),
        }
    }
}

/// The short form of a full name: `busybox:latest`.
pub fn familiar(name: &str) -> String {
    name.parse::<Reference>()
        .map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}
