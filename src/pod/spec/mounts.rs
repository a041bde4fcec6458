//! What is mounted in a container: the kernel's own file systems, the pod's
//! volumes, and the files that orlop writes for every container.
//!
//! A volume mount wins over what would otherwise be at its path. Outer mounts
//! come before those inside them, whatever order the manifest has them in.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};
use oci_spec::runtime::Mount;

use super::{Sandbox, SpecError, is_plain, sub_path};
use crate::oci::defaults;
use crate::volume::written::is_read_only;

/// The mounts of `container`, in the order in which they must be made.
///
/// `read_only_root` makes the files in `/etc` read-only along with the root
/// file system; volumes and `/dev/shm` are not touched by it.
///
/// # Errors
/// A volume mount whose path or volume cannot be used.
pub fn mounts(
    spec: &PodSpec,
    container: &Container,
    sandbox: &Sandbox,
    privileged: bool,
    read_only_root: bool,
) -> Result<Vec<Mount>, SpecError> {
    if container
        .volume_devices
        .as_ref()
        .is_some_and(|d| !d.is_empty())
    {
        return Err(SpecError::VolumeDevices(container.name.clone()));
    }
    let mut own: Vec<Mount> = Vec::new();
    for (index, volume_mount) in container.volume_mounts.iter().flatten().enumerate() {
        let source = match sub_path::is_asked_for(volume_mount) {
            true => sandbox.sub_paths.join(index.to_string()),
            false => sandbox.volumes.join(&volume_mount.name),
        };
        let mount = volume(spec, volume_mount, source)?;
        if own.iter().any(|m| m.destination() == mount.destination()) {
            return Err(refuse(volume_mount, "another volume is mounted there"));
        }
        own.push(mount);
    }

    let access = if read_only_root { "ro" } else { "rw" };
    let managed = [
        ("/etc/hosts", sandbox.hosts, access),
        ("/etc/resolv.conf", sandbox.resolv_conf, access),
        ("/etc/hostname", sandbox.hostname_file, access),
        ("/dev/shm", sandbox.shm, "rw"),
    ];
    for (path, source, access) in managed {
        let destination = PathBuf::from(path);
        if own.iter().all(|m| m.destination() != &destination) {
            own.push(bind(destination, source.to_path_buf(), "rprivate", access));
        }
    }
    own.sort_by_key(|mount| mount.destination().components().count());

    let own_dev = own.iter().any(|m| m.destination() == Path::new("/dev"));
    let mut all = defaults::mounts(sandbox.cgroup_v2, privileged);
    all.retain(|default| {
        let path = default.destination();
        own.iter().all(|m| m.destination() != path) && !(own_dev && path.starts_with("/dev"))
    });
    all.append(&mut own);
    Ok(all)
}

fn volume(spec: &PodSpec, mount: &VolumeMount, source: PathBuf) -> Result<Mount, SpecError> {
    let name = mount.name.as_str();
    let declared = spec.volumes.iter().flatten().any(|v| v.name == name);
    if !declared || !is_plain(name) {
        return Err(SpecError::UnknownVolume {
            volume: name.to_owned(),
            path: mount.mount_path.clone(),
        });
    }
    let propagation = match mount.mount_propagation.as_deref() {
        None | Some("None" | "") => "rprivate",
        Some("HostToContainer") => "rslave",
        Some("Bidirectional") => "rshared",
        Some(_) => {
            return Err(refuse(
                mount,
                "mountPropagation must be None, HostToContainer or Bidirectional",
            ));
        }
    };
    let recursive = matches!(
        mount.recursive_read_only.as_deref(),
        Some("Enabled" | "IfPossible")
    );
    let volume = spec.volumes.iter().flatten().find(|v| v.name == name);
    let read_only = mount.read_only == Some(true) || volume.is_some_and(is_read_only);
    let access = match (read_only, recursive) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, _) => "rw",
    };
    Ok(bind(destination(mount)?, source, propagation, access))
}

/// What the root of a container's mounts must do for its volumes: pass on what is
/// mounted in them, or take in what others mount there (`linux.rootfsPropagation`).
pub fn root_propagation(container: &Container) -> Option<&'static str> {
    let asked = |wanted| {
        let mut mounts = container.volume_mounts.iter().flatten();
        mounts.any(|mount| mount.mount_propagation.as_deref() == Some(wanted))
    };
    if asked("Bidirectional") {
        Some("shared")
    } else if asked("HostToContainer") {
        Some("slave")
    } else {
        None
    }
}

/// `mountPath` as an absolute path without superfluous parts.
fn destination(mount: &VolumeMount) -> Result<PathBuf, SpecError> {
    let given = mount.mount_path.as_str();
    if given.contains('\0') {
        return Err(refuse(mount, "contains a NUL character"));
    }
    if given.split('/').any(|part| part == "..") {
        return Err(refuse(mount, "must not contain '..'"));
    }
    let mut path = PathBuf::from("/");
    path.extend(given.split('/').filter(|part| !matches!(*part, "" | ".")));
    if path == Path::new("/") {
        return Err(refuse(
            mount,
            "would hide the container's whole root file system; choose a directory in it",
        ));
    }
    Ok(path)
}

fn refuse(mount: &VolumeMount, reason: &'static str) -> SpecError {
    SpecError::MountPath {
        path: mount.mount_path.clone(),
        reason,
    }
}

fn bind(destination: PathBuf, source: PathBuf, propagation: &str, access: &str) -> Mount {
    let options = ["rbind", propagation, access];
    let mut mount = Mount::default();
    mount
        .set_destination(destination)
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(source))
        .set_options(Some(options.map(str::to_owned).to_vec()));
    mount
}

#[cfg(test)]
mod tests;
