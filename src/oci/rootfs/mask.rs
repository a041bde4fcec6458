//! Paths that a container cannot see or cannot change (config-linux.md, "Masked
//! Paths" and "Readonly Paths"). What is not there needs no mask.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Spec;
use rustix::fs::{FileType, OFlags, ResolveFlags, fstat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::devices::null_device;
use super::error::RootfsError;
use super::place::find;
use crate::sys::mount::{Change, attach, clone_at, tmpfs};

/// Makes the read-only paths read-only and hides the masked ones.
///
/// # Errors
/// The path at fault.
pub(super) fn apply(root: BorrowedFd, spec: &Spec) -> Result<(), RootfsError> {
    let Some(linux) = spec.linux() else {
        return Ok(());
    };
    for path in linux.readonly_paths().iter().flatten() {
        if let Some(place) = existing(root, path)? {
            make_read_only(place.as_fd()).map_err(RootfsError::step::<io::Error>(format!(
                "make {path:?} read-only"
            )))?;
        }
    }
    let mut masks = Masks::default();
    for path in linux.masked_paths().iter().flatten() {
        if let Some(place) = existing(root, path)? {
            masks.hide(root, place.as_fd(), path)?;
        }
    }
    Ok(())
}

fn existing(root: BorrowedFd, path: &str) -> Result<Option<OwnedFd>, RootfsError> {
    match find(root, Path::new(path), ResolveFlags::empty()) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(RootfsError::step::<Errno>(format!("find {path:?}"))(error)),
    }
}

fn make_read_only(place: BorrowedFd) -> io::Result<()> {
    let tree = clone_at(place, Path::new(""), true)?;
    // The other attributes stay what they are, and so does what lies below.
    Change {
        set: MountAttrFlags::MOUNT_ATTR_RDONLY,
        ..Change::default()
    }
    .apply(tree.as_fd(), false)?;
    attach(tree.as_fd(), place)
}

/// What hides things; made when first needed and copied from then on.
#[derive(Default)]
struct Masks {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Masks {
    fn hide(&mut self, root: BorrowedFd, place: BorrowedFd, path: &str) -> Result<(), RootfsError> {
        let failed = |error: io::Error| RootfsError::Step {
            step: format!("mask {path:?}"),
            source: error,
        };
        let stat = fstat(place).map_err(|error| failed(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let mask = match &self.empty {
                Some(first) => clone_at(first.as_fd(), Path::new(""), false),
                None => tmpfs(
                    &[("nr_inodes", "2"), ("size", "4096")],
                    MountAttrFlags::MOUNT_ATTR_RDONLY
                        | MountAttrFlags::MOUNT_ATTR_NOSUID
                        | MountAttrFlags::MOUNT_ATTR_NODEV
                        | MountAttrFlags::MOUNT_ATTR_NOEXEC,
                ),
            };
            let mask = mask.map_err(failed)?;
            attach(mask.as_fd(), place).map_err(failed)?;
            self.empty.get_or_insert(mask);
            return Ok(());
        }
        let null = match self.null.take() {
            Some(null) => null,
            // Hiding a file behind anything else could show the container what
            // it must not see, or let it write there.
            None => null_device(root, OFlags::empty())?,
        };
        let tree = clone_at(null.as_fd(), Path::new(""), false).map_err(failed)?;
        self.null = Some(null);
        attach(tree.as_fd(), place).map_err(failed)
    }
}
