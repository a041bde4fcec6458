//! The files of an image as a volume that nobody can write
//! (<https://kubernetes.io/docs/concepts/storage/volumes/#image>).

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ImageVolumeSource;

use super::sandbox::Sandbox;
use crate::image::store::ImageStore;
use crate::pod::home::Home;
use crate::sys::mount;

/// Mounts the image at the place of the volume `name`. Returns the image's layers,
/// which nobody can delete while their descriptors are open.
pub(super) fn mount(
    home: &Home,
    sandbox: &Sandbox,
    name: &str,
    source: &ImageVolumeSource,
) -> Result<Vec<OwnedFd>> {
    let reference = source.reference.as_deref().unwrap_or_default();
    let store = ImageStore::open(&home.roots.images()).context("cannot open the image store")?;
    let found = store
        .resolve(reference)
        .with_context(|| format!("cannot look image {reference:?} up"))?;
    let image = found.with_context(|| format!("image {reference:?} was removed meanwhile"))?;
    let layers = image
        .open_layers(&store)
        .with_context(|| format!("cannot open the layers of image {reference:?}"))?;
    let nothing = sandbox
        .directory("nothing")
        .context("cannot make an empty directory")?;
    if layers.is_empty() {
        let tree = mount::clone_tree(nothing.as_fd())?;
        sandbox.attach_volume(name, tree)?;
        return Ok(layers);
    }
    let target = sandbox
        .volume(name)
        .context("cannot make the place of the volume")?;
    let shown = sandbox.shown(&layers)?;
    let lower = shown
        .as_ref()
        .map_or(layers.as_slice(), |shown| &shown.roots);
    // An overlay that nothing is written to has two layers at least.
    let lower: Vec<_> = lower.iter().chain([&nothing]).map(AsFd::as_fd).collect();
    mount::overlay_read_only(target.as_fd(), &lower)
        .with_context(|| format!("cannot mount image {reference:?}"))?;
    let mounted = sandbox.volume(name)?;
    mount::make_private(mounted.as_fd())
        .with_context(|| format!("cannot make the mount of volume {name:?} private"))?;
    Ok(layers)
}
