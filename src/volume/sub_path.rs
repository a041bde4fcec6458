//! A part of a volume: what a container gets that mounts it with `subPath`.
//!
//! Promises:
//! - **It never leads out of the volume**, whatever containers do in it at the
//!   same time. The kernel resolves the path below a descriptor of the volume's
//!   root (openat2(2), `RESOLVE_BENEATH`), once; what it found is what is
//!   mounted. Links inside of the volume that stay inside are followed, as
//!   kubelet does; a link that leads out, or an absolute one, is an error.
//! - **What is missing is made**, a directory for each name, below descriptors
//!   and never through a link, with the mode of the volume's root, so that
//!   whoever may write into the volume may write into them.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat2};
use rustix::io::Errno;

use crate::sys::mount;

/// How often a path is looked up again that changed while it was looked up.
const TRIES: usize = 128;

/// Why a part of a volume could not be found or made.
#[derive(Debug, thiserror::Error)]
#[error("{path:?} {why}")]
pub struct SubPathError {
    path: String,
    why: Why,
}

impl SubPathError {
    /// Whether it was the making of a missing directory that failed.
    #[must_use]
    pub fn is_about_making(&self) -> bool {
        matches!(self.why, Why::Made(_) | Why::Dangling)
    }
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("is no path below the volume's root")]
    NotBelow,
    #[error("leads out of the volume through a symbolic link")]
    LeadsOut,
    #[error("goes through a symbolic link to what is not there")]
    Dangling,
    #[error("goes through a file as if it were a directory")]
    NotDirectory,
    #[error("keeps changing while it is looked up")]
    Restless,
    #[error("cannot be made: {0}")]
    Made(io::Error),
    #[error("cannot be opened: {0}")]
    Opened(io::Error),
}

/// The part of the volume whose root is `volume` at `path`, as a detached mount
/// with all that is mounted in it. `path` is relative and has no `..` in it.
///
/// # Errors
/// A sentence that names the path and what is in its way.
pub fn clone(volume: BorrowedFd, path: &str) -> Result<OwnedFd, SubPathError> {
    let fail = |why| SubPathError {
        path: path.to_owned(),
        why,
    };
    let place = open(volume, path)?;
    mount::clone_tree(place.as_fd()).map_err(|error| fail(Why::Opened(error)))
}

/// A handle (`O_PATH`, or a readable one of a directory that was made) on what is
/// at `path` below `volume`. Directories that are missing are made.
///
/// # Errors
/// As [`clone`].
pub fn open(volume: BorrowedFd, path: &str) -> Result<OwnedFd, SubPathError> {
    let fail = |why| SubPathError {
        path: path.to_owned(),
        why,
    };
    let parts: Vec<Component> = Path::new(path).components().collect();
    let descends = |part: &Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if parts.is_empty() || !parts.iter().all(descends) {
        return Err(fail(Why::NotBelow));
    }
    let names: Vec<&OsStr> = parts.iter().map(|part| part.as_os_str()).collect();
    for _ in 0..TRIES {
        match find(volume, Path::new(path)) {
            Err(Errno::NOENT) => {}
            Err(Errno::AGAIN | Errno::INTR) => continue,
            found => return found.map_err(|errno| fail(opening(errno))),
        }
        match make(volume, &names) {
            Err(Errno::AGAIN | Errno::INTR | Errno::NOENT) => {}
            made => return made.map_err(|errno| fail(making(errno))),
        }
    }
    Err(fail(Why::Restless))
}

fn find(volume: BorrowedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    openat2(volume, path, flags, Mode::empty(), resolve)
}

/// Makes the directories that are missing of a path.
///
/// # Errors
/// `NOENT` when what was there a moment ago has gone.
fn make(volume: BorrowedFd, names: &[&OsStr]) -> rustix::io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(fstat(volume)?.st_mode & 0o7777);
    let (mut place, known) = deepest(volume, names)?;
    for name in &names[known..] {
        let made = match mkdirat(&place, *name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        place = openat2(&place, *name, flags, Mode::empty(), resolve)?;
        if made {
            // The mode given to mkdir(2) is cut by the umask.
            fchmod(&place, mode)?;
        }
    }
    Ok(place)
}

/// The deepest directory on the way that is there, and how many names lead to it.
fn deepest(volume: BorrowedFd, names: &[&OsStr]) -> rustix::io::Result<(OwnedFd, usize)> {
    for known in (1..names.len()).rev() {
        let path: std::path::PathBuf = names[..known].iter().collect();
        match find(volume, &path) {
            Err(Errno::NOENT) => {}
            found => return Ok((found?, known)),
        }
    }
    Ok((find(volume, Path::new("."))?, 0))
}

fn opening(errno: Errno) -> Why {
    match errno {
        Errno::XDEV | Errno::LOOP => Why::LeadsOut,
        Errno::NOTDIR => Why::NotDirectory,
        other => Why::Opened(other.into()),
    }
}

fn making(errno: Errno) -> Why {
    match errno {
        Errno::XDEV => Why::LeadsOut,
        // Something with the name is there, and it is a link to nothing.
        Errno::LOOP => Why::Dangling,
        Errno::NOTDIR => Why::NotDirectory,
        other => Why::Made(other.into()),
    }
}

#[cfg(test)]
mod tests;
