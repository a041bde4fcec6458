//! emptyDir: a directory that shares its pod's lifetime
//! (<https://kubernetes.io/docs/concepts/storage/volumes/#emptydir>).
//!
//! On the default medium it is a real directory of the host, at
//! `kubernetes.io~empty-dir/<name>` below the pod's volumes, so that people can
//! look into it from outside while the pod runs. On the medium `Memory` it is a
//! tmpfs, which exists in the pod's mount namespace alone and ends with it; on
//! `HugePages` it is a hugetlbfs, likewise.
//!
//! A `sizeLimit` is a hard limit, met as `ENOSPC` (or `EDQUOT`): the size of the
//! tmpfs; on disk a project quota where the file system has it, otherwise a file
//! system of that size in a file. Then the directory on the host stays empty: the
//! content is in the pod's mount namespace alone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume as ManifestVolume};
use rustix::fs::{Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::{Place, Volume, VolumeError};
use crate::kube::{self, quantity::Quantity};
use crate::sys::{mount, project_quota};

pub use self::huge_pages::HugePagesError;
pub use self::image::{ImageError, missing_programs};

mod huge_pages;
mod image;
pub mod project;

/// The name of this kind in paths.
pub const PLUGIN: &str = "kubernetes.io~empty-dir";

const EVERYBODY: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

/// One emptyDir of a manifest.
pub struct EmptyDir<'a> {
    name: &'a str,
    source: &'a EmptyDirVolumeSource,
}

/// What makes an emptyDir's limit a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// The size of a tmpfs.
    Tmpfs,
    /// The machine's huge pages.
    HugePages,
    /// A project quota of the host's file system.
    ProjectQuota,
    /// A file system of that size in a file.
    LoopImage,
}

impl Enforcement {
    /// Its name for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs size",
            Self::HugePages => "huge pages",
            Self::ProjectQuota => "project quota",
            Self::LoopImage => "loop image",
        }
    }
}

impl<'a> EmptyDir<'a> {
    /// The emptyDir called `name`.
    #[must_use]
    pub fn new(name: &'a str, source: &'a EmptyDirVolumeSource) -> Self {
        Self { name, source }
    }

    fn on_disk(&self, place: Place) -> Result<OwnedFd, VolumeError> {
        let directory = directory(place.directory, PLUGIN, Mode::RWXU)?;
        let directory = self::directory(directory.as_fd(), self.name, EVERYBODY)?;
        // The mode given to mkdir(2) is cut by the umask.
        fchmod(&directory, EVERYBODY).map_err(VolumeError::step("set the mode of", self.name))?;
        if let Some(bytes) = limit(self.source) {
            let pod = parent(place.directory)
                .map_err(VolumeError::step("open the pod's directory for", self.name))?;
            // What a volume began with it keeps: its content is there.
            let has_image = image::exists(pod.as_fd(), self.name);
            if has_image || !project_quota::is_enforced(directory.as_fd()) {
                return image::set_up(pod.as_fd(), self.name, bytes);
            }
            project::limit(pod.as_fd(), directory.as_fd(), bytes)
                .map_err(VolumeError::step("set the project quota of", self.name))?;
        }
        mount::clone_tree(directory.as_fd()).map_err(VolumeError::step("bind", self.name))
    }

    fn in_memory(&self, place: Place) -> Result<OwnedFd, VolumeError> {
        let size = place.memory.to_string();
        let options = [("mode", "0777"), ("size", size.as_str())];
        mount::tmpfs(&options, MountAttrFlags::empty())
            .map_err(VolumeError::step("mount a tmpfs for", self.name))
    }
}

impl Volume for EmptyDir<'_> {
    fn set_up(&self, place: Place) -> Result<OwnedFd, VolumeError> {
        match self.source.medium.as_deref() {
            None | Some("") => self.on_disk(place),
            Some("Memory") => self.in_memory(place),
            Some(medium) if kube::huge_pages::is_medium(medium) => {
                self::huge_pages::set_up(self.name, medium, place.huge_pages, limit(self.source))
            }
            Some(other) => Err(VolumeError::UnknownMedium(other.to_owned())),
        }
    }
}

/// The `sizeLimit` of an emptyDir in bytes; 0 means none, as in Kubernetes.
#[must_use]
pub fn limit(source: &EmptyDirVolumeSource) -> Option<u64> {
    let limit: Quantity = source.size_limit.as_ref()?.0.parse().ok()?;
    Some(limit.to_bytes()).filter(|bytes| *bytes > 0)
}

/// Whether a volume of `pod` is an emptyDir on disk with a limit.
#[must_use]
pub fn has_limit_on_disk(pod: &Pod) -> bool {
    let mut volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes.any(|volume| {
        let source = volume.empty_dir.as_ref();
        source.is_some_and(|source| {
            limit(source).is_some() && source.medium.as_deref().unwrap_or("").is_empty()
        })
    })
}

/// What enforces the limit of `volume`, an emptyDir of the pod whose directory of
/// volumes is `volumes`. None without a limit, and before it is set up.
#[must_use]
pub fn enforcement(volumes: BorrowedFd, volume: &ManifestVolume) -> Option<Enforcement> {
    let source = volume.empty_dir.as_ref()?;
    match source.medium.as_deref().unwrap_or("") {
        "" => limit(source)?,
        "Memory" => return Some(Enforcement::Tmpfs),
        _ => return Some(Enforcement::HugePages),
    };
    let pod = parent(volumes).ok()?;
    if image::exists(pod.as_fd(), &volume.name) {
        return Some(Enforcement::LoopImage);
    }
    let directory = open_on_disk(volumes, &volume.name)?;
    let project = project::own(directory.as_fd()).ok()?;
    project.map(|_| Enforcement::ProjectQuota)
}

/// The directory on the host of the emptyDir `name`, if it is there.
#[must_use]
pub fn open_on_disk(volumes: BorrowedFd, name: &str) -> Option<OwnedFd> {
    open(open(volumes, PLUGIN).ok()?, name).ok()
}

/// The directory of the pod whose directory of volumes is `volumes`.
fn parent(volumes: BorrowedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(volumes, "..", flags, Mode::empty())
}

/// Opens the directory `name` in `parent`, which is made when missing. A
/// symbolic link in its place is refused.
pub(super) fn directory(parent: impl AsFd, name: &str, mode: Mode) -> Result<OwnedFd, VolumeError> {
    match mkdirat(&parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(VolumeError::step("create the directory", name)(error)),
    }
    open(parent, name).map_err(VolumeError::step("open the directory", name))
}

fn open(parent: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(parent, name, flags, Mode::empty(), resolve)
}
