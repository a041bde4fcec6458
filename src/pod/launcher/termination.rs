//! The file in which a container may say why it ended. It is one of the start's
//! own, on the host, and bound over the path that the manifest gives.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Container;
use oci_spec::runtime::{Mount, Spec};

use crate::pod::home::Home;
use crate::pod::protocol::ContainerOrder;

/// Makes the file and adds its mount to `spec`.
///
/// # Errors
/// A path that is none of a file inside the container.
pub(super) fn mount(
    home: &Home,
    order: &ContainerOrder,
    container: &Container,
    spec: &mut Spec,
) -> Result<()> {
    let path = container.termination_message_path.as_deref();
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let inside = Path::new("/").join(path);
    if inside == Path::new("/") || inside.components().any(|part| part == Component::ParentDir) {
        bail!("terminationMessagePath {path:?} must be the path of a file, without '..'");
    }
    let file = home.termination_message(&order.name, order.attempt);
    // Whatever user the container runs as may write to it.
    File::create_new(&file)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o666)))
        .context("cannot make the file for the container's termination message")?;
    let mounts = spec.mounts_mut().get_or_insert_default();
    mounts.push(bind(inside, file));
    Ok(())
}

fn bind(destination: PathBuf, source: PathBuf) -> Mount {
    let options = ["bind", "rprivate", "rw"];
    let mut mount = Mount::default();
    mount
        .set_destination(destination)
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(source))
        .set_options(Some(options.map(str::to_owned).to_vec()));
    mount
}
