//! The steps of the walk: what is done to one directory or one name.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Scope;

use rustix::fs::{AtFlags, FileType, Mode, RawDir};
use rustix::io::Errno;

use super::{
    BATCH, BROOD, Cause, DEEP, Dir, LOOK, Names, PATIENCE, Removed, Task, WORTH_A_THREAD, Walk,
    lock,
};
use crate::sys::dir;

/// Unlinked names between two looks at the clock.
const TICK: usize = 64;

/// What the name of a directory turned out to stand for.
enum Opened {
    Directory(OwnedFd),
    SomethingElse,
    Nothing,
}

impl Walk<'_> {
    /// Removes the entry `name` of `parent`, which was a directory when last seen.
    pub(super) fn enter<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        parent: Arc<Dir>,
        name: CString,
        spent: u64,
        buffer: &mut [MaybeUninit<u8>],
    ) {
        if self.stopped() {
            self.leave(&parent, 1);
            return self.done_with_one(scope, parent);
        }
        match self.open(&parent, &name) {
            Ok(Opened::Directory(fd)) => {
                return self.look(scope, Dir::within(parent, fd, name, spent), buffer);
            }
            Ok(Opened::SomethingElse) => {
                let mut removed = Removed::default();
                self.unlink(scope, &parent, &name, spent, &mut removed);
                self.count(removed);
            }
            Ok(Opened::Nothing) => {}
            Err(cause) => {
                self.note(cause);
                self.leave(&parent, 1);
            }
        }
        self.done_with_one(scope, parent);
    }

    /// Opens the directory `name` of `parent`, and makes it fit for deletion.
    fn open(&self, parent: &Dir, name: &CStr) -> Result<Opened, Cause> {
        let failed = |step| move |errno| Cause::kernel(step, parent.path(name), errno);
        let fd = match dir::open(&parent.fd, name) {
            Err(Errno::ACCESS) => {
                let handle = dir::open_handle(&parent.fd, name).map_err(failed("open"))?;
                let status = dir::status(&handle).map_err(failed("examine"))?;
                if status.kind == FileType::Directory {
                    dir::open_up(&handle, status.mode).map_err(failed("open"))?;
                }
                dir::open(&parent.fd, name)
            }
            other => other,
        };
        let fd = match fd {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Opened::Nothing),
            Err(Errno::LOOP | Errno::NOTDIR) => return Ok(Opened::SomethingElse),
            Err(Errno::XDEV) => return Err(Cause::Mount(parent.path(name))),
            Err(errno) => return Err(failed("open")(errno)),
        };
        let status = dir::status(&fd).map_err(failed("examine"))?;
        if status.mount != parent.mount {
            return Err(Cause::Mount(parent.path(name)));
        }
        if status.locked {
            dir::unlock(&fd).map_err(failed("clear the immutable flag of"))?;
        }
        if !status.mode.contains(Mode::RWXU) {
            // Root needs no such right, and a group's may do: the next step will tell.
            let _ = dir::open_up(&fd, status.mode);
        }
        Ok(Opened::Directory(fd))
    }

    /// Reads the directory `dir`, unlinks what is in it, and notes its directories.
    pub(super) fn look<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        dir: Arc<Dir>,
        buffer: &mut [MaybeUninit<u8>],
    ) {
        let (mut names, mut brood) = (Names::default(), Names::default());
        let mut noted = 0;
        let mut entries = RawDir::new(&dir.fd, buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // Someone else has removed it.
                Err(Errno::NOENT) => break,
                Err(errno) => {
                    self.note(Cause::kernel("read", dir.path(c""), errno));
                    self.leave(&dir, 0);
                    break;
                }
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            dir.found.fetch_add(1, Ordering::Relaxed);
            match entry.file_type() {
                FileType::Directory if dir.depth >= DEEP => self.descend(scope, &dir, name),
                FileType::Directory => brood.push(entry.ino(), name),
                _ => names.push(entry.ino(), name),
            }
            if names.len() == BATCH {
                self.hand_out(scope, &dir, std::mem::take(&mut names));
            }
            if brood.len() == BATCH {
                noted += brood.size();
                self.push_all(scope, &dir, std::mem::take(&mut brood));
            }
            if noted > BROOD || self.stopped() {
                break;
            }
        }
        self.push_all(scope, &dir, brood);
        self.unlink_all(scope, &dir, names);
        self.done_with_one(scope, dir);
    }

    /// Leaves a batch to another thread, unless all have enough to do.
    fn hand_out<'s>(&'s self, scope: &'s Scope<'s, '_>, dir: &Arc<Dir>, names: Names) {
        if self.threads > 1 && lock(&self.queue).waiting() < self.threads * 2 * WORTH_A_THREAD {
            let parent = dir.clone();
            self.push(scope, dir, Task::Batch { parent, names });
        } else {
            self.unlink_all(scope, dir, names);
        }
    }

    /// Notes the directory `name` of `dir`, which is deep, as a task.
    fn descend<'s>(&'s self, scope: &'s Scope<'s, '_>, dir: &Arc<Dir>, name: &CStr) {
        let task = |parent, name| Task::Name {
            parent,
            name,
            spent: 0,
        };
        match self.move_up(dir, name) {
            // Its turn comes after all that waits above it, whose directories are
            // open: so no more are open than one descent takes.
            Some((raft, name)) => {
                self.push_beneath(scope, &raft, task(raft.clone(), name));
            }
            // What can't be moved up is gone into where it is.
            None => self.push(scope, dir, task(dir.clone(), name.to_owned())),
        }
    }

    /// Moves the directory `name` of `dir` onto the raft; its new place.
    fn move_up(&self, dir: &Arc<Dir>, name: &CStr) -> Option<(Arc<Dir>, CString)> {
        let raft = self.raft(dir)?;
        let number = self.rafted.fetch_add(1, Ordering::Relaxed);
        let place = CString::new(number.to_string()).ok()?;
        let rename = || rustix::fs::renameat(&dir.fd, name, &raft.fd, &place);
        match rename() {
            // Opening it takes away the flags and modes that forbid the move.
            Err(Errno::ACCESS | Errno::PERM) => {
                self.open(dir, name).ok()?;
                rename().ok()?;
            }
            done => done.ok()?,
        }
        Some((raft, place))
    }

    /// The raft: a directory at the top of the tree, closed to everyone else.
    fn raft(&self, dir: &Arc<Dir>) -> Option<Arc<Dir>> {
        let mut raft = lock(&self.raft);
        if raft.is_none() {
            let mut top = dir;
            while let Some(parent) = top.parent.as_ref().filter(|_| top.depth > 1) {
                top = parent;
            }
            let name = CString::new(format!(".deleting-{}", uuid::Uuid::new_v4())).ok()?;
            rustix::fs::mkdirat(&top.fd, &name, Mode::RWXU).ok()?;
            let fd = dir::open(&top.fd, &name).ok()?;
            top.pending.fetch_add(1, Ordering::Relaxed);
            *raft = Some(Dir::within(top.clone(), fd, name, 0));
        }
        raft.clone()
    }

    /// Unlinks entries of `dir`, in the order in which they lie on disk.
    pub(super) fn unlink_all<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        dir: &Arc<Dir>,
        mut names: Names,
    ) {
        let mut left = names.len();
        let mut names = names.in_order().peekable();
        while names.peek().is_some() {
            self.look_at_the_clock();
            if self.stopped() {
                return self.leave(dir, left);
            }
            let mut removed = Removed::default();
            for name in names.by_ref().take(TICK) {
                self.unlink(scope, dir, name, 0, &mut removed);
                left -= 1;
            }
            self.count(removed);
        }
    }

    /// Unlinks the entry `name` of `dir`, which was no directory when last seen.
    fn unlink<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        dir: &Arc<Dir>,
        name: &CStr,
        spent: u64,
        removed: &mut Removed,
    ) {
        let bytes = match self.options.bytes {
            true => given_back(dir, name),
            false => 0,
        };
        let unlink = || rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty());
        let done = match unlink() {
            Err(refused @ (Errno::PERM | Errno::ACCESS)) => match self.unlock(dir, name, refused) {
                Ok(()) => unlink(),
                Err(cause) => {
                    self.note(cause);
                    return self.leave(dir, 1);
                }
            },
            done => done,
        };
        match done {
            Ok(()) => {
                removed.files += 1;
                removed.bytes += bytes;
            }
            Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => {
                dir.pending.fetch_add(1, Ordering::Relaxed);
                if !self.again(scope, dir, name, spent + LOOK) {
                    dir.pending.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Err(errno) => self.refused(dir, name, errno),
        }
    }

    /// Takes the immutable and append-only flags off the entry `name` of `dir`,
    /// when it is a file of which nobody else can have a name.
    ///
    /// A file with such a flag can be given no further name (link(2)), so its
    /// count of links can't grow between the look at it and the change.
    fn unlock(&self, dir: &Dir, name: &CStr, refused: Errno) -> Result<(), Cause> {
        let failed = |step| move |errno| Cause::kernel(step, dir.path(name), errno);
        let handle = match dir::open_handle(&dir.fd, name) {
            // What it was is gone, and unlinkat will say so.
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::XDEV) => return Err(Cause::Mount(dir.path(name))),
            other => other.map_err(failed("open"))?,
        };
        let status = dir::status(&handle).map_err(failed("examine"))?;
        match status.kind {
            FileType::Directory if status.locked => {}
            FileType::RegularFile if status.locked && status.links > 1 => {
                return Err(Cause::Locked {
                    path: dir.path(name),
                    links: status.links,
                });
            }
            FileType::RegularFile if status.locked => {}
            _ => return Err(failed("remove")(refused)),
        }
        dir::unlock(&handle).map_err(failed("clear the immutable flag of"))
    }

    /// Puts the entry `name` of `parent` among the tasks again, because it has
    /// changed since it was looked at; false when that has happened too often.
    fn again<'s>(
        &'s self,
        scope: &'s Scope<'s, '_>,
        parent: &Arc<Dir>,
        name: &CStr,
        spent: u64,
    ) -> bool {
        if spent > PATIENCE {
            self.note(Cause::KeepsFilling(parent.path(name)));
            self.leave(parent, 1);
            return false;
        }
        let task = Task::Name {
            parent: parent.clone(),
            name: name.to_owned(),
            spent,
        };
        self.push_again(scope, task);
        true
    }

    /// Notes that the kernel refuses to remove the entry `name` of `dir`.
    fn refused(&self, dir: &Dir, name: &CStr, errno: Errno) {
        let elsewhere = |at: dir::Status| at.mount_root || at.mount != dir.mount;
        let mounted = errno == Errno::BUSY && dir::status_of(&dir.fd, name).is_ok_and(elsewhere);
        self.note(match mounted {
            true => Cause::Mount(dir.path(name)),
            false => Cause::kernel("remove", dir.path(name), errno),
        });
        self.leave(dir, 1);
    }

    /// Counts one task about `dir` as done; with the last one the directory goes,
    /// and then perhaps its parent, and so on.
    pub(super) fn done_with_one<'s>(&'s self, scope: &'s Scope<'s, '_>, mut dir: Arc<Dir>) {
        while dir.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            let Some(parent) = dir.parent.clone() else {
                return;
            };
            if self.stopped() || dir.failed.load(Ordering::Relaxed) {
                self.leave(&parent, 1);
                dir = parent;
                continue;
            }
            match rustix::fs::unlinkat(&parent.fd, &dir.name, AtFlags::REMOVEDIR) {
                Ok(()) => self.count(Removed {
                    directories: 1,
                    ..Removed::default()
                }),
                Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {
                    let spent = dir.spent_with_this_look(dir.spent);
                    if self.again(scope, &parent, &dir.name, spent) {
                        return;
                    }
                }
                Err(errno) => self.refused(&parent, &dir.name, errno),
            }
            dir = parent;
        }
    }
}

/// The space that the file system gets back with this name of a file, in bytes:
/// only the last one frees it. What can't be looked at shows when it is unlinked.
fn given_back(dir: &Dir, name: &CStr) -> u64 {
    let status = dir::status_of(&dir.fd, name);
    status.map_or(0, |status| match status.links {
        1 => status.bytes,
        _ => 0,
    })
}
