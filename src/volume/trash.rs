//! The trash: what is to be deleted is first renamed into `<data root>/trash/`,
//! which takes the same short time whatever its size, and deleted from there.
//!
//! Promises:
//! - [`Trash::bury`] is one rename by descriptor. After it the old name is free;
//!   a crash leaves the tree under the one name or the other, never half.
//! - [`Trash::sweep`] deletes what is in the trash with [`remove_tree`] and its
//!   promises. One sweeper works at a time on a machine, and it leaves nothing
//!   that was buried while it worked, so a caller that finds it busy can go.
//! - Whatever is killed at whatever moment, the next sweep finishes the work.

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Instant;

use rustix::fs::{Dir, FileType, FlockOperation, Mode, RenameFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::remove::{Cause, Options, RemoveError, Removed, remove_tree};
use crate::sys::dir;

const NAME: &CStr = c"trash";
/// With a dot and a UUID a label stays within the 255 bytes of a file name.
const LABEL: usize = 200;

/// What can go wrong with the trash. Names are relative to the directory given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrashError {
    /// The trash directory cannot be made or opened.
    #[error("cannot {step} the directory \"trash\" of the data root")]
    Open {
        /// The step, a verb.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// `trash` is a symbolic link, a file or a mount point.
    #[error(
        "\"trash\" of the data root is {0}, but must be a plain directory on the data root's \
         own file system: move it away"
    )]
    NotOurs(&'static str),
    /// The name is not that of an entry of a directory.
    #[error("{0:?} is not the name of a file in a directory: it must be one word of a path")]
    Name(OsString),
    /// The entry is a mount point.
    #[error("{0:?} is a mount point and was left alone; unmount it, then delete again")]
    Mount(OsString),
    /// The entry is on another file system than the trash.
    #[error(
        "{0:?} is not on the file system and mount of the trash, so it can't be renamed into \
         it: it has to be deleted where it is"
    )]
    Elsewhere(OsString),
    /// An immutable or append-only file that has other names.
    #[error(
        "{name:?} is immutable or append-only and has {links} hard links: clearing the flag \
         would change a file that may be in use elsewhere; clear it (chattr -ia) first"
    )]
    Locked {
        /// The file.
        name: OsString,
        /// How many hard links it has.
        links: u32,
    },
    /// The kernel refused a step of burying.
    #[error("cannot {step} {name:?}")]
    Bury {
        /// The step, a verb.
        step: &'static str,
        /// The entry.
        name: OsString,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The trash directory of a data root, open.
#[derive(Debug)]
pub struct Trash {
    fd: OwnedFd,
    mount: u64,
}

/// What has been moved to the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buried {
    /// Its name there: the label and something unique.
    pub name: OsString,
}

/// What came of an attempt to sweep.
#[derive(Debug)]
pub enum Sweep {
    /// Another sweeper is at work, and will take all that is in the trash now.
    Busy,
    /// The trash has been swept.
    Done(Swept),
}

/// What a sweeper did.
#[derive(Debug, Default)]
pub struct Swept {
    /// What it deleted, also of entries that are stuck.
    pub removed: Removed,
    /// The entries that could not be deleted. They stay for the next sweep.
    pub stuck: Vec<Stuck>,
    /// Whether the deadline came before every entry had its turn.
    pub out_of_time: bool,
}

/// An entry of the trash that could not be deleted.
#[derive(Debug)]
pub struct Stuck {
    /// Its name in the trash.
    pub name: OsString,
    /// Why it is still there.
    pub error: RemoveError,
}

impl Trash {
    /// Opens the trash of the data root that `data_root` is open on, and makes
    /// it when it is missing; only its owner may look into it.
    ///
    /// # Errors
    /// [`TrashError::NotOurs`] and [`TrashError::Open`].
    pub fn open(data_root: BorrowedFd<'_>) -> Result<Trash, TrashError> {
        let failed = |step| {
            move |errno: Errno| TrashError::Open {
                step,
                source: errno.into(),
            }
        };
        match rustix::fs::mkdirat(data_root, NAME, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            made => made.map_err(failed("make"))?,
        }
        let fd = match dir::open(data_root, NAME) {
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(TrashError::NotOurs("a file or a symbolic link"));
            }
            Err(Errno::XDEV) => return Err(TrashError::NotOurs("a mount point")),
            opened => opened.map_err(failed("open"))?,
        };
        let status = dir::status(&fd).map_err(failed("examine"))?;
        if status.mode != Mode::RWXU {
            rustix::fs::fchmod(&fd, Mode::RWXU).map_err(failed("close to others"))?;
        }
        let mount = status.mount;
        Ok(Trash { fd, mount })
    }

    /// Moves the entry `name` of the directory `parent` into the trash, under a
    /// name that begins with `label` (for people; what would be awkward in a
    /// file name becomes `_`). None when there is no such entry.
    ///
    /// # Errors
    /// [`TrashError::Mount`] for a mount point; [`TrashError::Elsewhere`] when
    /// the entry can only be deleted in place, by [`remove_tree`]; and others
    /// that name the step. The entry is where it was then.
    pub fn bury(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        label: &str,
    ) -> Result<Option<Buried>, TrashError> {
        let failed = |step| {
            move |errno: Errno| TrashError::Bury {
                step,
                name: name.to_owned(),
                source: errno.into(),
            }
        };
        let entry = dir::entry_name(name).ok_or_else(|| TrashError::Name(name.to_owned()))?;
        let handle = match dir::open_handle(parent, &entry) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::XDEV) => return Err(TrashError::Mount(name.to_owned())),
            opened => opened.map_err(failed("open"))?,
        };
        let status = dir::status(&handle).map_err(failed("examine"))?;
        if status.mount != self.mount {
            return Err(TrashError::Elsewhere(name.to_owned()));
        }

        let buried = unique(label);
        let done = match self.rename(parent, &entry, &buried) {
            Err(Errno::PERM | Errno::ACCESS) => {
                make_movable(&handle, status, name)?;
                self.rename(parent, &entry, &buried)
            }
            done => done,
        };
        match done {
            Ok(()) => Ok(Some(Buried { name: buried })),
            Err(Errno::NOENT) => Ok(None),
            // The kernel moves no mount point, also when it became one just now.
            Err(Errno::BUSY) if dir::status_of(parent, &entry).is_ok_and(|now| now.mount_root) => {
                Err(TrashError::Mount(name.to_owned()))
            }
            Err(Errno::XDEV) => Err(TrashError::Elsewhere(name.to_owned())),
            Err(errno) => Err(failed("move to the trash")(errno)),
        }
    }

    fn rename(&self, parent: BorrowedFd<'_>, from: &CStr, to: &OsStr) -> Result<(), Errno> {
        match rustix::fs::renameat_with(parent, from, &self.fd, to, RenameFlags::NOREPLACE) {
            // Not every file system knows the flag; the name is unique without it.
            Err(Errno::INVAL) => rustix::fs::renameat(parent, from, &self.fd, to),
            done => done,
        }
    }

    /// Deletes everything in the trash, also what comes in meanwhile.
    ///
    /// An entry that can't be deleted stays, is reported, and stops no other.
    ///
    /// # Errors
    /// [`TrashError::Open`] when the trash can't be read or locked.
    pub fn sweep(&self, options: Options<'_>) -> Result<Sweep, TrashError> {
        let mut swept = Swept::default();
        let mut worked = false;
        // Someone who buries between the last look and the end of the lock finds
        // the sweeper busy and goes: hence one more look after it.
        while !worked || (!swept.out_of_time && !self.untried(&swept)?.is_empty()) {
            let Some(lock) = self.lock()? else {
                return Ok(match worked {
                    true => Sweep::Done(swept),
                    false => Sweep::Busy,
                });
            };
            worked = true;
            self.sweep_alone(&mut swept, options)?;
            drop(lock);
        }
        Ok(Sweep::Done(swept))
    }

    fn sweep_alone(&self, swept: &mut Swept, options: Options<'_>) -> Result<(), TrashError> {
        loop {
            let names = self.untried(swept)?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                if options
                    .deadline
                    .is_some_and(|deadline| Instant::now() >= deadline)
                {
                    swept.out_of_time = true;
                    return Ok(());
                }
                match remove_tree(self.fd.as_fd(), &name, options) {
                    Ok(removed) => swept.removed += removed,
                    Err(error) => {
                        swept.removed += error.removed;
                        swept.out_of_time |= matches!(error.cause, Cause::Deadline);
                        swept.stuck.push(Stuck { name, error });
                    }
                }
            }
        }
    }

    /// Whether nothing is in the trash, nor stuck there.
    ///
    /// # Errors
    /// [`TrashError::Open`] when the trash can't be read.
    pub fn is_empty(&self) -> Result<bool, TrashError> {
        Ok(self.untried(&Swept::default())?.is_empty())
    }

    /// The names in the trash, but for those that `swept` lists as stuck.
    fn untried(&self, swept: &Swept) -> Result<Vec<OsString>, TrashError> {
        let failed = |errno: Errno| TrashError::Open {
            step: "read",
            source: errno.into(),
        };
        let mut names = Vec::new();
        let listing = dir::open(&self.fd, c".")
            .and_then(Dir::new)
            .map_err(failed)?;
        for entry in listing {
            let name = entry.map_err(failed)?.file_name().to_owned();
            let name = OsString::from_vec(name.into_bytes());
            let stuck = || swept.stuck.iter().any(|stuck| stuck.name == name);
            if name != "." && name != ".." && !stuck() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The right to sweep; None when someone else has it.
    fn lock(&self) -> Result<Option<Lock>, TrashError> {
        let failed = |errno: Errno| TrashError::Open {
            step: "lock",
            source: errno.into(),
        };
        // A lock belongs to one opening of the directory: one of its own keeps
        // the sweepers of one process apart, too.
        let fd = dir::open(&self.fd, c".").map_err(failed)?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(fd))),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }
}

/// The right to sweep.
struct Lock(OwnedFd);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough when a process forked meanwhile holds a copy; and
        // if unlocking fails there is nothing left to do but close.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

/// Takes away the flags and modes that forbid to rename what `handle` stands
/// for; never from a file that has another name.
fn make_movable(handle: &OwnedFd, status: dir::Status, name: &OsStr) -> Result<(), TrashError> {
    let failed = |step| {
        move |errno: Errno| TrashError::Bury {
            step,
            name: name.to_owned(),
            source: errno.into(),
        }
    };
    let directory = status.kind == FileType::Directory;
    if status.locked && !directory && status.links > 1 {
        return Err(TrashError::Locked {
            name: name.to_owned(),
            links: status.links,
        });
    }
    if status.locked {
        dir::unlock(handle).map_err(failed("clear the immutable flag of"))?;
    }
    if directory && !status.mode.contains(Mode::RWXU) {
        dir::open_up(handle, status.mode).map_err(failed("open"))?;
    }
    Ok(())
}

/// A name for the trash that nothing has had before.
fn unique(label: &str) -> OsString {
    let fit = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => c,
        _ => '_',
    };
    let label: String = label.chars().take(LABEL).map(fit).collect();
    format!("{label}.{}", Uuid::new_v4()).into()
}
