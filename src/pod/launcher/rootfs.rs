//! The root file system of a container: an overlay of its image's layers and a
//! fresh upper directory for every start.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown, fstat};

use super::sandbox::{Sandbox, make_directory};
use crate::image::store::ImageStore;
use crate::pod::home::Home;
use crate::pod::protocol::ContainerOrder;
use crate::sys::mount;

/// Mounts the root file system for one start of a container. Returns the layers
/// of its image, which nobody can delete while their descriptors are open, and
/// the root of the overlay.
pub(super) fn mount(
    home: &Home,
    sandbox: &Sandbox,
    order: &ContainerOrder,
) -> Result<(Vec<OwnedFd>, OwnedFd)> {
    let store = ImageStore::open(&home.roots.images()).context("cannot open the image store")?;
    let image = store
        .resolve(&order.image)
        .context("cannot look the image up")?
        .with_context(|| format!("the image {:?} is gone", order.image))?;
    let layers = image
        .open_layers(&store)
        .context("cannot open the layers of the image")?;

    let directory = home.container(&order.name);
    fs::create_dir_all(&directory).context("cannot make the container's directory")?;
    let directory = fs::File::open(directory)?;
    let attempt = make_directory(directory.as_fd(), &order.attempt.to_string())?;
    let upper = make_directory(attempt.as_fd(), "upper")?;
    let work = make_directory(attempt.as_fd(), "work")?;

    if let Some(top) = layers.first() {
        // The root directory's owner and mode are those of the upper directory.
        let root = fstat(top)?;
        let first = sandbox.users.as_ref().map_or(0, |users| users.root());
        let owner = (
            Uid::from_raw(first.saturating_add(root.st_uid)),
            Gid::from_raw(first.saturating_add(root.st_gid)),
        );
        fchown(&upper, Some(owner.0), Some(owner.1))?;
        fchmod(&upper, Mode::from_raw_mode(root.st_mode))?;
    }

    let target = sandbox.rootfs(&order.name)?;
    let shown = sandbox.shown(&layers)?;
    let lower = shown
        .as_ref()
        .map_or(layers.as_slice(), |shown| &shown.roots);
    mount::overlay(target.as_fd(), lower, upper.as_fd(), work.as_fd())
        .context("cannot mount the container's root file system")?;
    Ok((layers, sandbox.rootfs(&order.name)?))
}

/// Takes the root file system of a container away, and what it had of volumes.
pub(super) fn unmount(sandbox: &Sandbox, container: &str) -> Result<()> {
    sandbox.detach_sub_paths(container)?;
    sandbox.detach_rootfs(container)
}
