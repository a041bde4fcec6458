//! What a process takes along into a user namespace that was there before: mounts
//! which it could not make from within, or not reach.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Spec;
use rustix::fs::CWD;
use rustix::mount::MountPropagationFlags;

use super::error::RootfsError;
use super::label;
use super::mounts::{Made, lend};
use crate::sys::mount::{Change, clone_at};

/// Mounts that are attached nowhere yet.
pub(crate) struct Lent {
    /// The container's root.
    pub(super) root: OwnedFd,
    /// One for each mount of the configuration, where there is one to lend.
    pub(super) mounts: Vec<Option<Made>>,
}

impl Lent {
    /// Makes them with the rights that the calling process has.
    ///
    /// # Errors
    /// The source, the destination or the option at fault.
    pub(crate) fn of(spec: &Spec, rootfs: &Path) -> Result<Self, RootfsError> {
        let root = || -> io::Result<OwnedFd> {
            let root = clone_at(CWD, rootfs, true)?;
            let received = Change {
                propagation: MountPropagationFlags::DOWNSTREAM,
                ..Change::default()
            };
            received.apply(root.as_fd(), true)?;
            Ok(root)
        };
        let root = root().map_err(RootfsError::step::<io::Error>(format!(
            "mount the root {rootfs:?}"
        )))?;
        let mounts = spec.mounts().iter().flatten();
        let mounts = mounts.map(|mount| lend(spec, mount, label(spec)));
        Ok(Self {
            root,
            mounts: mounts.collect::<Result<_, _>>()?,
        })
    }
}
