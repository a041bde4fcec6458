//! What can go wrong with images.

use std::io;
use std::path::PathBuf;

use super::reference::ReferenceError;
use super::unpack::UnpackError;

/// Why the image store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The text names no image, and can't.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A file of the store could not be used.
    #[error("image store: cannot {step} {path:?}")]
    Store {
        /// What was being done.
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The store's list of images is not what this program writes.
    #[error("image store: {path:?} is damaged; delete it and import the images again")]
    Index {
        /// The index file.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// The archive could not be read.
    #[error("cannot {step} {archive:?}")]
    Archive {
        /// What was being done.
        step: &'static str,
        /// The file that the user named.
        archive: PathBuf,
        /// What the kernel or a decompressor said.
        source: io::Error,
    },
    /// The file is something else than an image or a root file system.
    #[error("{archive:?} is not an image archive: {reason}")]
    NotAnArchive {
        /// The file that the user named.
        archive: PathBuf,
        /// What it is instead, or what is missing.
        reason: String,
    },
    /// A part of the archive is missing or breaks the rules of its format.
    #[error("{archive:?}: {what} {reason}")]
    Damaged {
        /// The file that the user named.
        archive: PathBuf,
        /// The part, as the archive calls it.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A JSON document in the archive is malformed.
    #[error("{archive:?}: cannot parse {what}")]
    Json {
        /// The file that the user named.
        archive: PathBuf,
        /// The document, as the archive calls it.
        what: String,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// Content doesn't have the digest under which it is known.
    #[error("{archive:?}: {what} is damaged: its digest is {actual}, not {expected}")]
    Digest {
        /// The file that the user named.
        archive: PathBuf,
        /// The part, as the archive calls it.
        what: String,
        /// The digest that was announced.
        expected: String,
        /// The digest of what was there.
        actual: String,
    },
    /// A layer could not be unpacked.
    #[error("{archive:?}: cannot unpack layer {number} of {of}")]
    Unpack {
        /// The file that the user named.
        archive: PathBuf,
        /// The layer's place, from 1 at the bottom.
        number: usize,
        /// How many layers the image has.
        of: usize,
        /// The entry and what is wrong with it.
        source: UnpackError,
    },
    /// No image in the archive runs on this machine.
    #[error("{archive:?} has no image for {wanted}; it has {found}")]
    Platform {
        /// The file that the user named.
        archive: PathBuf,
        /// This machine's platform.
        wanted: String,
        /// The platforms that are there.
        found: String,
    },
    /// Neither the archive nor the user named the image.
    #[error("{archive:?} does not say what its image is called: give a name after the file")]
    NameNeeded {
        /// The file that the user named.
        archive: PathBuf,
    },
    /// One name cannot be given to several images.
    #[error("{archive:?} holds {count} images, and a name can only be given to one: leave it out")]
    OneName {
        /// The file that the user named.
        archive: PathBuf,
        /// How many images it holds.
        count: usize,
    },
    /// A name to file an image under had a digest.
    #[error("{name:?} has a digest; an image is imported under a name and a tag")]
    NameWithDigest {
        /// What the user typed.
        name: String,
    },
    /// A default command was given for an image that carries its own.
    #[error(
        "{archive:?} is a whole image with a configuration of its own; \
         a command, entrypoint or environment can be given to a root file system only"
    )]
    HasConfig {
        /// The file that the user named.
        archive: PathBuf,
    },
    /// There is no such image.
    #[error("image {reference:?} not found")]
    NotFound {
        /// What the user typed.
        reference: String,
    },
    /// The beginning of an ID fits several images.
    #[error("image ID {prefix:?} is ambiguous: {count} images begin with it, give more digits")]
    Ambiguous {
        /// What the user typed.
        prefix: String,
        /// How many images it fits.
        count: usize,
    },
    /// A running container uses layers of the image.
    #[error("image {image:?} is in use by a running container: delete its pod first")]
    InUse {
        /// The image, as people call it.
        image: String,
    },
    /// Another command is deleting a layer at this moment.
    #[error("image {image:?} is being removed")]
    BeingRemoved {
        /// The image, as people call it.
        image: String,
    },
    /// A layer's directory is gone.
    #[error("layer {layer} of image {image:?} is missing from the store: import the image again")]
    LayerMissing {
        /// The layer's diffID.
        layer: String,
        /// The image, as people call it.
        image: String,
    },
    /// A layer lies in the store that belongs to no image, but is in use.
    #[error("layer {layer} belongs to no image but is in use: delete the pods that use it first")]
    StrayLayer {
        /// The layer's diffID.
        layer: String,
    },
}
