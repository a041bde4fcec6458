//! The directory that a volume stands for, opened for deletion.

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::PersistentVolume;
use rustix::io::Errno;

use super::ReclaimError;
use crate::storage::binder::facts::{name, volume_spec};
use crate::storage::roots::Roots;
use crate::sys::real_path;
use crate::volume::nfs::kernel::KernelClient;
use crate::volume::nfs::{Mounter, NfsSource};

/// Opens the directory of a volume. An export is mounted for it, attached nowhere:
/// it is gone with the descriptor.
///
/// # Errors
/// [`ReclaimError`] of the step.
pub fn open(volume: &PersistentVolume, roots: &Roots) -> Result<OwnedFd, ReclaimError> {
    if let Some(source) = nfs_source(volume) {
        return Ok(KernelClient.mount(&source)?);
    }
    let path = path_of(volume).ok_or_else(|| ReclaimError::NoDeleter(name(volume).to_owned()))?;
    open_path(Path::new(&path), roots)
}

/// What is to be mounted for a volume that is an export, for reading and writing, but
/// without locks: nothing here takes one, and version 3 would need a helper for them.
#[must_use]
pub fn nfs_source(volume: &PersistentVolume) -> Option<NfsSource> {
    let spec = volume.spec.as_ref()?;
    let nfs = spec.nfs.as_ref()?;
    let mut mount_options = spec.mount_options.clone().unwrap_or_default();
    mount_options.push("nolock".to_owned());
    Some(NfsSource {
        name: name(volume).to_owned(),
        server: nfs.server.clone(),
        path: nfs.path.clone(),
        read_only: false,
        mount_options,
    })
}

/// Where a volume is, for people.
#[must_use]
pub fn describe(volume: &PersistentVolume) -> String {
    match nfs_source(volume) {
        Some(source) => source.export(),
        None => path_of(volume).unwrap_or_default(),
    }
}

/// The path of a volume, on its server or on this machine.
pub(super) fn path_of(volume: &PersistentVolume) -> Option<String> {
    let spec = volume_spec(volume);
    let path = spec.host_path.map(|source| source.path);
    let path = path.or_else(|| spec.local.map(|source| source.path));
    path.or_else(|| spec.nfs.map(|source| source.path))
}

fn open_path(path: &Path, roots: &Roots) -> Result<OwnedFd, ReclaimError> {
    if climbs(path) {
        return Err(ReclaimError::Link(path.to_owned()));
    }
    let directory = real_path::open_directory(path).map_err(|error| refusal(path, error))?;
    let real = real_path::of(&directory).map_err(|error| refusal(path, error))?;
    check_foreign(&real, roots)?;
    Ok(directory)
}

/// Makes sure that a path is neither in orlop's directories nor above one of them.
/// What local-path volumes are made in is no directory of orlop's own.
pub(in crate::storage) fn check_foreign(path: &Path, roots: &Roots) -> Result<(), ReclaimError> {
    let volumes = roots.local_path();
    let real = |root: &Path| root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let is_volume = path.starts_with(real(&volumes)) && path != real(&volumes);
    for root in [&roots.data, &roots.run, &roots.logs] {
        let root = real(root);
        if root.starts_with(path) || (path.starts_with(&root) && !is_volume) {
            return Err(ReclaimError::Own(path.to_owned()));
        }
    }
    Ok(())
}

/// Whether a path has a `..` in it, or is none that begins at the root.
pub(in crate::storage) fn climbs(path: &Path) -> bool {
    !path.is_absolute() || path.components().any(|part| part == Component::ParentDir)
}

pub(in crate::storage) fn refusal(path: &Path, error: Errno) -> ReclaimError {
    let path = PathBuf::from(path);
    match error {
        Errno::LOOP => ReclaimError::Link(path),
        error => ReclaimError::Open {
            path,
            source: error.into(),
        },
    }
}
