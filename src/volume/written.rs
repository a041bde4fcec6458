//! Volumes whose files the pod's keeper writes ([`super::atomic`]): configMap,
//! secret, downwardAPI and projected
//! (<https://kubernetes.io/docs/concepts/storage/volumes/>).
//!
//! What may be secret, or changes often, is in memory: a tmpfs in the pod's mount
//! namespace alone, which is never swapped out where the kernel can promise that.
//! configMaps are on disk, at `kubernetes.io~configmap/<name>` below the pod's
//! volumes. Memory counts for the pod's control group, whose keeper writes it.

use std::os::fd::{AsFd, OwnedFd};

use k8s_openapi::api::core::v1;
use rustix::fs::Mode;
use rustix::mount::MountAttrFlags;

use super::empty_dir::directory;
use super::{Place, Volume, VolumeError};
use crate::sys::mount;

/// The name of the one kind that is on disk in paths.
pub const CONFIG_MAP: &str = "kubernetes.io~configmap";

/// The most bytes of all files of one volume together.
pub const LARGEST: usize = 32 << 20;

/// Bytes of the tmpfs of one volume: old and new files together, with the blocks
/// that each file begins.
const MEMORY: &str = "100663296";

const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// An empty volume, for files to be written into.
pub struct Written<'a> {
    name: &'a str,
    is_on_disk: bool,
}

impl<'a> Written<'a> {
    /// The volume, when it is of one of these kinds.
    #[must_use]
    pub fn of(volume: &'a v1::Volume) -> Option<Self> {
        let is_on_disk = volume.config_map.is_some();
        let is_written = is_on_disk
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        is_written.then_some(Self {
            name: &volume.name,
            is_on_disk,
        })
    }
}

impl Volume for Written<'_> {
    fn set_up(&self, place: Place) -> Result<OwnedFd, VolumeError> {
        if self.is_on_disk {
            let kind = directory(place.directory, CONFIG_MAP, Mode::RWXU)?;
            let directory = directory(kind.as_fd(), self.name, DIRECTORY)?;
            return mount::clone_tree(directory.as_fd())
                .map_err(VolumeError::step("bind", self.name));
        }
        let options = [("mode", "0755"), ("size", MEMORY)];
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        mount::tmpfs_without_swap(&options, flags)
            .map_err(VolumeError::step("mount a tmpfs for", self.name))
    }
}

/// Whether containers may only read volumes of this kind.
#[must_use]
pub fn is_read_only(volume: &v1::Volume) -> bool {
    Written::of(volume).is_some() || volume.image.is_some()
}
