//! Recycling and deleting what PersistentVolumes stand for
//! (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reclaiming>).
//!
//! Everything here touches what is outside of the database, and may wait for a
//! server that is away: it is to be done in a process that can be killed. Doing
//! it twice does no harm.

mod directory;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::PersistentVolume;
use rustix::io::Errno;

use super::binder::facts::{
    PROVISIONED_BY, annotation, capacity, name, uid, volume_phase, volume_spec,
};
use super::provisioner;
use super::roots::Roots;
use crate::sys::real_path;
use crate::volume::count::{Count, count};
use crate::volume::nfs::NfsError;
use crate::volume::remove::{Cause, Options, RemoveError, Removed, empty_tree, remove_tree};
use crate::volume::trash::TrashError;

pub(super) use directory::{check_foreign, climbs, refusal};
pub use directory::{describe, nfs_source, open};

/// How long files that a client of the server has open are waited for, before the
/// attempt counts as failed and another is made later.
const OPEN_FILES: Duration = Duration::from_secs(5);
/// How long to wait before looking at them again: no event tells.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Bytes of a gibibyte.
const GIB: u64 = 1 << 30;

/// Why a volume could not be reclaimed.
#[derive(Debug, thiserror::Error)]
pub enum ReclaimError {
    /// Nothing here can delete what volumes of this kind stand for.
    #[error(
        "error getting deleter volume plugin for volume {0:?}: no deletable volume plugin matched"
    )]
    NoDeleter(String),
    /// What this provisioner makes is deleted by it alone.
    #[error(
        "waiting for a volume to be deleted, either by external provisioner '{0}' or manually by system administrator"
    )]
    External(String),
    /// Only directories below `/tmp` are deleted.
    #[error("host_path deleter only supports /tmp/.+ but received provided {0}")]
    NotTemporary(String),
    /// The path of the volume is not there.
    #[error("cannot open {path:?}: {source}")]
    Open {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The path of the volume leads through a link, which others may change.
    #[error(
        "{0:?} is a symbolic link or leads through one, and nothing is deleted through links: give the volume the \
         path that the link stands for"
    )]
    Link(PathBuf),
    /// The directory holds what orlop itself needs.
    #[error("{0:?} holds orlop's own data: nothing in it is deleted")]
    Own(PathBuf),
    /// Something is mounted in what is to be deleted.
    #[error("{0:?} is a mount point: nothing was deleted; unmount it")]
    Mounted(PathBuf),
    /// The server's export cannot be mounted.
    #[error(transparent)]
    Mount(#[from] NfsError),
    /// Files stay as long as somebody has them open.
    #[error("{0:?} is open on this machine: it goes when the process that has it open ends")]
    InUse(PathBuf),
    /// Something could not be deleted.
    #[error("{}", chain(.0))]
    Remove(RemoveError),
    /// It could not be moved to the trash.
    #[error("{}", chain(.0))]
    Trash(TrashError),
    /// What the volume says of how it was made is not what a provisioner writes.
    #[error(transparent)]
    Record(#[from] provisioner::ProvisionError),
    /// A step failed.
    #[error("cannot {step} {path:?}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl ReclaimError {
    /// Whether trying again is of no use before somebody has changed something.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::NoDeleter(_) | Self::External(_) | Self::NotTemporary(_) | Self::Own(_) => true,
            Self::Record(error) => error.is_lasting(),
            _ => false,
        }
    }
}

/// An error with all of its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// How long reclaiming may take, as kubelet's recyclers have it: a minimum, and more
/// for each gibibyte of the volume's capacity.
#[must_use]
pub fn limit(volume: &PersistentVolume) -> Duration {
    let spec = volume_spec(volume);
    let (least, each) = match spec.nfs.is_some() {
        true => (300, 30),
        false => (60, 30),
    };
    let more = (capacity(&spec) / GIB).saturating_mul(each);
    // A year is for ever.
    Duration::from_secs(more.clamp(least, 365 * 86_400))
}

/// Deletes everything in a volume, whose directory itself stays as it is.
///
/// # Errors
/// What stood in the way; the rest is deleted nevertheless, unless it was a mount or
/// the deadline.
pub fn recycle(
    volume: &PersistentVolume,
    roots: &Roots,
    options: Options<'_>,
) -> Result<Removed, ReclaimError> {
    let directory = open(volume, roots)?;
    empty(&directory, options)
}

/// Deletes everything in `directory`; files that were only renamed because somebody
/// has them open (`.nfsXXXX`, nfs(5)) are tried again for a while.
fn empty(directory: &OwnedFd, options: Options<'_>) -> Result<Removed, ReclaimError> {
    let patience = Instant::now() + OPEN_FILES;
    let mut removed = Removed::default();
    loop {
        let error = match empty_tree(directory.as_fd(), options) {
            Ok(more) => {
                removed += more;
                return Ok(removed);
            }
            Err(error) => error,
        };
        removed += error.removed;
        let Some(file) = open_file(&error.cause) else {
            return Err(ReclaimError::Remove(error));
        };
        if Instant::now() >= patience {
            return Err(ReclaimError::InUse(file));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The file that an NFS client keeps because it is open, if that is the cause.
fn open_file(cause: &Cause) -> Option<PathBuf> {
    let Cause::Kernel { path, source, .. } = cause else {
        return None;
    };
    let is_kept = |name: &OsStr| name.as_encoded_bytes().starts_with(b".nfs");
    let busy = source.raw_os_error() == Some(Errno::BUSY.raw_os_error());
    (busy && path.file_name().is_some_and(is_kept)).then(|| path.clone())
}

/// Whether there is anything that can delete what a volume stands for.
///
/// # Errors
/// Why there is not, in kubelet's words.
pub fn may_delete(volume: &PersistentVolume) -> Result<(), ReclaimError> {
    if let Some(maker) = annotation(volume, PROVISIONED_BY) {
        return match provisioner::of(maker) {
            Some(_) => Ok(()),
            None => Err(ReclaimError::External(maker.to_owned())),
        };
    }
    let source = volume_spec(volume).host_path;
    let source = source.ok_or_else(|| ReclaimError::NoDeleter(name(volume).to_owned()))?;
    let path = Path::new(&source.path);
    let is_temporary = path.starts_with("/tmp") && path.file_name().is_some();
    match is_temporary && path != Path::new("/tmp") && !directory::climbs(path) {
        true => Ok(()),
        false => Err(ReclaimError::NotTemporary(source.path)),
    }
}

/// Deletes what a volume stands for.
///
/// # Errors
/// What stood in the way, in kubelet's words where it has some.
pub fn delete(
    volume: &PersistentVolume,
    roots: &Roots,
    options: Options<'_>,
) -> Result<Removed, ReclaimError> {
    may_delete(volume)?;
    if let Some(maker) = annotation(volume, PROVISIONED_BY).and_then(provisioner::of) {
        return maker.remove(volume, roots, options);
    }
    let path = directory::path_of(volume).unwrap_or_default();
    delete_host_path(&path, roots, options)
}

/// Deletes a path of the host, if it really is below `/tmp`.
fn delete_host_path(
    path: &str,
    roots: &Roots,
    options: Options<'_>,
) -> Result<Removed, ReclaimError> {
    let refused = || ReclaimError::NotTemporary(path.to_owned());
    let full = Path::new(path);
    let (Some(above), Some(last)) = (full.parent(), full.file_name()) else {
        return Err(refused());
    };
    let parent = match real_path::open_directory(above) {
        Err(Errno::NOENT) => return Ok(Removed::default()),
        opened => opened.map_err(|error| directory::refusal(above, error))?,
    };
    let real = real_path::of(&parent).map_err(|error| directory::refusal(above, error))?;
    if !real.starts_with("/tmp") || real.join(last) == Path::new("/tmp") {
        return Err(refused());
    }
    directory::check_foreign(&real.join(last), roots)?;
    remove_tree(parent.as_fd(), last, options).map_err(ReclaimError::Remove)
}

/// The volume of `others` whose data would go with that of `volume`, because one's
/// directory is the other's or lies in it: one that a claim has, or that keeps its
/// data.
#[must_use]
pub fn endangered<'a>(
    volume: &PersistentVolume,
    others: &'a [PersistentVolume],
) -> Option<&'a PersistentVolume> {
    others.iter().find(|other| {
        let has_data = volume_phase(other) == "Bound" || policy(other) == Some("Retain");
        has_data && uid(*other) != uid(volume) && overlap(volume, other)
    })
}

/// The volume of `others` that is about to be emptied or deleted, and with it the
/// directory of `volume`.
#[must_use]
pub fn in_the_way<'a>(
    volume: &PersistentVolume,
    others: &'a [PersistentVolume],
) -> Option<&'a PersistentVolume> {
    others.iter().find(|other| {
        let is_going = matches!(volume_phase(other), "Released" | "Failed");
        let retains = policy(other) == Some("Retain");
        is_going && !retains && name(*other) != name(volume) && overlap(volume, other)
    })
}

fn policy(volume: &PersistentVolume) -> Option<&str> {
    let spec = volume.spec.as_ref()?;
    spec.persistent_volume_reclaim_policy.as_deref()
}

/// Whether the directory of one is that of the other, or lies in it, as far as their
/// paths tell.
fn overlap(one: &PersistentVolume, other: &PersistentVolume) -> bool {
    let place = |volume| {
        let server = nfs_source(volume).map(|source| source.server);
        let path = directory::path_of(volume)?;
        Some((server, Path::new(&path).components().collect::<PathBuf>()))
    };
    match (place(one), place(other)) {
        (Some((here, one)), Some((there, other))) => {
            here == there && (one.starts_with(&other) || other.starts_with(&one))
        }
        _ => false,
    }
}

/// Counts what reclaiming a volume would take away.
///
/// # Errors
/// When it cannot be looked at.
pub fn preview(volume: &PersistentVolume, roots: &Roots) -> Result<Count, ReclaimError> {
    let directory = open(volume, roots)?;
    count(directory.as_fd()).map_err(|source| ReclaimError::Step {
        step: "count what is in",
        path: PathBuf::from(directory::describe(volume)),
        source,
    })
}

#[cfg(test)]
mod tests;
