//! The kinds of volumes, one file each, and safe deletion.
//!
//! Every kind answers one question: which tree of mounts shall the containers
//! see? The answer is a *detached* mount, made by descriptors in the pod's own
//! mount namespace; where it is attached, and with what each container sees of
//! it, is the business of the pod. Nothing here ever shows in the host's table
//! of mounts.
//!
//! A new kind is a new file and a line in [`of`].

pub mod atomic;
pub mod count;
pub mod empty_dir;
pub mod host_path;
pub mod nfs;
pub mod ownership;
pub mod remove;
pub mod sub_path;
pub mod trash;
pub mod usage;
pub mod written;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use k8s_openapi::api::core::v1;
use serde::{Deserialize, Serialize};

/// What a volume may use of its pod.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The pod's directory of volumes, `<data root>/pods/<uid>/volumes`.
    pub directory: BorrowedFd<'a>,
    /// Bytes that this volume may have if it is in memory: the least of its own
    /// limit, the pod's, and what the machine has.
    pub memory: u64,
    /// The sizes of huge pages, in bytes, that the pod's containers request.
    pub huge_pages: &'a [u64],
    /// What its PersistentVolume says besides the source; none for a volume that
    /// the pod declares itself.
    pub persistent: Option<&'a Persistent>,
}

/// What a PersistentVolume says of what is mounted for its claim, besides where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistent {
    /// The PersistentVolume's name.
    pub name: String,
    /// `spec.mountOptions`.
    pub mount_options: Vec<String>,
    /// Whether it is a `local` one: nothing is made when it is not there.
    pub is_local: bool,
}

/// A kind of volume with what the manifest says of one volume of it.
pub trait Volume {
    /// Makes what the volume needs and returns it as a detached mount. Called
    /// again after a failure or a restart of the pod, it finds what is there
    /// and keeps its content.
    ///
    /// # Errors
    /// A sentence in kubelet's words, for the pod's `FailedMount` event.
    fn set_up(&self, place: Place) -> Result<OwnedFd, VolumeError>;
}

/// Why a volume could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The host's path is not what the manifest says it is.
    #[error("hostPath type check failed: {path} is not {expected}")]
    HostPathType {
        /// The path in the manifest.
        path: String,
        /// The expected type with its article, as in `a directory`.
        expected: &'static str,
    },
    /// What a local volume stands for is not there.
    #[error("path {0:?} does not exist")]
    NoLocalPath(String),
    /// The manifest names a type that does not exist.
    #[error("{0} is an invalid volume type")]
    HostPathUnknownType(String),
    /// The path tries to climb.
    #[error("the path {0:?} must not contain '..'")]
    Climbs(String),
    /// An emptyDir's medium that does not exist.
    #[error("unknown storage medium {0:?}: use \"\", \"Memory\" or \"HugePages\"")]
    UnknownMedium(String),
    /// A volume of a kind that this version cannot set up.
    #[error("volume {0:?} is of a kind that this version of orlop cannot mount")]
    Unsupported(String),
    /// An emptyDir's limit cannot be enforced.
    #[error(transparent)]
    Image(#[from] empty_dir::ImageError),
    /// An emptyDir of huge pages cannot be had.
    #[error(transparent)]
    HugePages(#[from] empty_dir::HugePagesError),
    /// A step failed.
    #[error("cannot {step} {path:?}: {source}")]
    Step {
        /// What was tried, as in `create the directory`.
        step: &'static str,
        /// On which path.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl VolumeError {
    fn step<E: Into<io::Error>>(step: &'static str, path: &str) -> impl FnOnce(E) -> Self {
        move |source| Self::Step {
            step,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// The kind of one volume of a manifest. A volume without any source is an
/// emptyDir, as in Kubernetes.
///
/// # Errors
/// [`VolumeError::Unsupported`] for kinds that are not known here.
pub fn of(volume: &v1::Volume) -> Result<Box<dyn Volume + '_>, VolumeError> {
    if let Some(source) = &volume.host_path {
        return Ok(Box::new(host_path::HostPath::new(source)));
    }
    if let Some(source) = &volume.empty_dir {
        return Ok(Box::new(empty_dir::EmptyDir::new(&volume.name, source)));
    }
    if let Some(kind) = written::Written::of(volume) {
        return Ok(Box::new(kind));
    }
    Err(VolumeError::Unsupported(volume.name.clone()))
}
