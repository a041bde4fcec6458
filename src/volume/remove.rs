//! Safe deletion: takes away a tree of files that someone hostile may have made,
//! and may be changing at this moment.
//!
//! Promises:
//! - **It never leaves the directory it was given.** Everything is reached by
//!   descriptor and by one name at a time; no path is ever joined and looked up.
//! - **It never follows a symbolic link**: a link is removed as the entry it is.
//! - **It never crosses a mount.** A directory is opened with openat2(2) and
//!   `RESOLVE_NO_XDEV`, and the id of its mount is compared with that of the
//!   top. A mount found inside (of another file system or the same, on a
//!   directory or a file) stops the deletion: it shows that the tree is in use.
//! - **It changes no file that lives on elsewhere.** Modes and flags are changed
//!   on directories, and on files with no other hard link, alone.
//! - **It can be interrupted at any moment**, also by `kill -9`, and be called
//!   again to finish.
//!
//! A deep tree costs neither stack nor descriptors: from a certain depth on,
//! directories are moved up into one made for them at the top. A large tree is
//! deleted by several threads, which have all ended when the call returns; a
//! small one by the calling thread alone.

use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::sys::dir;

mod walk;

/// How to delete.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// The most threads to use, the calling one included; by default as many as
    /// there are processors, but not more than four.
    pub threads: Option<NonZeroUsize>,
    /// When to give up, with [`Cause::Deadline`].
    pub deadline: Option<Instant>,
    /// Whether to count [`Removed::bytes`], which takes one more look at each file
    /// and about a seventh more time.
    pub bytes: bool,
    /// Counters that grow while the deletion goes on.
    pub progress: Option<&'a Progress>,
}

/// What has been deleted so far; several deletions may add to one.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    directories: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    /// The counts at this moment.
    pub fn now(&self) -> Removed {
        Removed {
            files: self.files.load(Ordering::Relaxed),
            directories: self.directories.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn add(&self, more: Removed) {
        self.files.fetch_add(more.files, Ordering::Relaxed);
        self.directories
            .fetch_add(more.directories, Ordering::Relaxed);
        self.bytes.fetch_add(more.bytes, Ordering::Relaxed);
    }
}

/// What a deletion took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Entries that were no directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Space given back by files, in bytes, when [`Options::bytes`] asks for it: a
    /// file with a hard link left gives none.
    pub bytes: u64,
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, more: Removed) {
        self.files += more.files;
        self.directories += more.directories;
        self.bytes += more.bytes;
    }
}

/// A deletion that left something behind.
#[derive(Debug)]
pub struct RemoveError {
    /// The first thing that stood in the way.
    pub cause: Cause,
    /// What was deleted all the same.
    pub removed: Removed,
    /// How many entries are known to be left; what lies in directories that
    /// were not looked into is not counted.
    pub left: u64,
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        match self.left {
            0 | 1 => Ok(()),
            left => write!(f, " (at least {left} entries are left)"),
        }
    }
}

impl Error for RemoveError {
    // The cause speaks through Display already: the chain goes on with its own.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

/// What can stand in the way of a deletion. Paths are relative to the directory
/// that was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The name is not that of an entry of a directory.
    #[error("{0:?} is not the name of a file in a directory: it must be one word of a path")]
    Name(PathBuf),
    /// Something is mounted inside the tree.
    #[error(
        "{0:?} is a mount point: deletion stopped there, and nothing beneath it was touched; \
         unmount it, then delete again"
    )]
    Mount(PathBuf),
    /// An immutable or append-only file that has names elsewhere, perhaps outside the tree.
    #[error(
        "{path:?} is immutable or append-only and has {links} hard links: clearing the flag \
         would change a file that may lie outside; clear it (chattr -ia), then delete again"
    )]
    Locked {
        /// The file.
        path: PathBuf,
        /// How many hard links it has.
        links: u32,
    },
    /// New entries come as fast as the old ones go.
    #[error("{0:?} keeps filling up: end the processes that write there, then delete again")]
    KeepsFilling(PathBuf),
    /// Time was up.
    #[error("the time for deleting was up before all was deleted")]
    Deadline,
    /// The kernel refused a step.
    #[error("cannot {step} {path:?}")]
    Kernel {
        /// The step, a verb.
        step: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Deletes the entry `name` of the directory `parent`, with all that is in it.
/// An entry that does not exist counts as deleted.
///
/// `parent` may be a handle (`O_PATH`). `name` is one component.
///
/// # Errors
/// [`RemoveError`] says what first stood in the way, after everything else that
/// could be deleted has been; only a mount and the deadline stop at once.
pub fn remove_tree(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    options: Options<'_>,
) -> Result<Removed, RemoveError> {
    match dir::entry_name(name) {
        Some(name) => walk::remove(parent, name, options),
        None => Err(RemoveError {
            cause: Cause::Name(name.into()),
            removed: Removed::default(),
            left: 0,
        }),
    }
}

/// Deletes all that is in the directory `dir`, which itself stays as it is: also
/// its mode and its flags. `dir` may be a handle (`O_PATH`).
///
/// # Errors
/// As for [`remove_tree`].
pub fn empty_tree(dir: BorrowedFd<'_>, options: Options<'_>) -> Result<Removed, RemoveError> {
    walk::empty(dir, options)
}
