//! emptyDir: a directory that shares its pod's lifetime
//! (<https://kubernetes.io/docs/concepts/storage/volumes/#emptydir>).
//!
//! On the default medium it is a real directory of the host, at
//! `kubernetes.io~empty-dir/<name>` below the pod's volumes, so that people can
//! look into it from outside while the pod runs. On the medium `Memory` it is a
//! tmpfs, which exists in the pod's mount namespace alone and ends with it.

use std::os::fd::{AsFd, OwnedFd};

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use rustix::fs::{Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat2};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::{Place, Volume, VolumeError};
use crate::sys::mount;

/// The name of this kind in paths.
pub const PLUGIN: &str = "kubernetes.io~empty-dir";

const EVERYBODY: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

/// One emptyDir of a manifest.
pub struct EmptyDir<'a> {
    name: &'a str,
    source: &'a EmptyDirVolumeSource,
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
            Some(other) => Err(VolumeError::UnknownMedium(other.to_owned())),
        }
    }
}

/// Opens the directory `name` in `parent`, which is made when missing. A
/// symbolic link in its place is refused.
pub(super) fn directory(parent: impl AsFd, name: &str, mode: Mode) -> Result<OwnedFd, VolumeError> {
    match mkdirat(&parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(VolumeError::step("create the directory", name)(error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(&parent, name, flags, Mode::empty(), resolve)
        .map_err(VolumeError::step("open the directory", name))
}
