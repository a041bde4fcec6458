//! The walk that deletes a tree: threads that share a stack of tasks.
//!
//! A task is a directory to look into, or a batch of names to unlink. Every
//! directory counts what is still to be done in it; whoever brings the count to
//! zero removes the directory and goes on with its parent. The stack is last in,
//! first out, so that the walk goes deep first and few directories are open.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::Instant;

use rustix::io::Errno;

use super::{Cause, Options, Progress, RemoveError, Removed};
use crate::sys::dir;

mod queue;
mod step;

use queue::{Names, Queue, Task};

/// Directories this far below the top have their directories moved up. Each
/// thread holds about as many descriptors as this.
const DEEP: u32 = 32;
/// What may be spent on looking through one directory again because it was not
/// empty: the entries found in it, and [`LOOK`] at the least for each time.
const PATIENCE: u64 = 256 * LOOK;
/// What one look costs, in entries.
const LOOK: u64 = 4096;
/// Names unlinked in one go: between two looks at the clock, and by one thread.
const BATCH: usize = 1024;
/// Memory for the names of directories noted in one look at their parent, in bytes.
const BROOD: usize = 64 << 20;
/// Threads used unless the caller says otherwise, processors permitting.
const THREADS: usize = 4;
/// Directories that must be waiting before another thread is worth starting or waking.
const WORTH_A_THREAD: usize = 4;

/// Deletes `name` in `parent`.
pub(super) fn remove(
    parent: BorrowedFd<'_>,
    name: CString,
    options: Options<'_>,
) -> Result<Removed, RemoveError> {
    let walk = Walk::new(options);
    let outside = parent
        .try_clone_to_owned()
        .and_then(|fd| Ok((dir::status(&fd)?.mount, fd)));
    match outside {
        Ok((mount, fd)) => walk.run(Dir::top(fd, mount, 0), |parent| Task::Name {
            parent,
            name,
            spent: 0,
        }),
        Err(source) => walk.note(Cause::Kernel {
            step: "examine the directory of",
            path: PathBuf::from(OsStr::from_bytes(name.as_bytes())),
            source,
        }),
    }
    walk.result()
}

/// Deletes all that is in `given`, looking again until it reads empty.
pub(super) fn empty(given: BorrowedFd<'_>, options: Options<'_>) -> Result<Removed, RemoveError> {
    let walk = Walk::new(options);
    let mut spent = 0;
    while spent <= PATIENCE {
        let opened = dir::open(given, c".").and_then(|fd| Ok((dir::status(&fd)?.mount, fd)));
        let (mount, fd) = match opened {
            Ok(opened) => opened,
            Err(errno) => {
                walk.note(Cause::kernel("open", PathBuf::from("."), errno));
                return walk.result();
            }
        };
        let top = Dir::top(fd, mount, 1);
        walk.run(top.clone(), Task::Look);
        if walk.has_failed() || top.found.load(Ordering::Relaxed) == 0 {
            return walk.result();
        }
        spent = top.spent_with_this_look(spent);
    }
    walk.note(Cause::KeepsFilling(PathBuf::from(".")));
    walk.result()
}

impl Cause {
    fn kernel(step: &'static str, path: PathBuf, errno: Errno) -> Cause {
        let source = io::Error::from(errno);
        Cause::Kernel { step, path, source }
    }
}

/// An open directory of the tree, or the one above the tree.
struct Dir {
    fd: OwnedFd,
    mount: u64,
    name: CString,
    /// None for the directory that the caller gave.
    parent: Option<Arc<Dir>>,
    /// 1 for the top of the tree; 0 for the directory that the top is in.
    depth: u32,
    /// What has been spent on looking through it, up to this look.
    spent: u64,
    /// Entries that this look has found.
    found: AtomicU64,
    /// Tasks about this directory and those in it that are not done yet.
    pending: AtomicUsize,
    /// Whether something in it is known to stay.
    failed: AtomicBool,
}

impl Dir {
    fn top(fd: OwnedFd, mount: u64, depth: u32) -> Arc<Dir> {
        Arc::new(Dir {
            fd,
            mount,
            name: CString::default(),
            parent: None,
            depth,
            spent: 0,
            found: AtomicU64::new(0),
            pending: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
        })
    }

    fn within(parent: Arc<Dir>, fd: OwnedFd, name: CString, spent: u64) -> Arc<Dir> {
        Arc::new(Dir {
            fd,
            mount: parent.mount,
            name,
            depth: parent.depth + 1,
            spent,
            found: AtomicU64::new(0),
            parent: Some(parent),
            pending: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
        })
    }

    /// What has been spent after this look. The first is free of what it found:
    /// however large, the directory may have been so before.
    fn spent_with_this_look(&self, before: u64) -> u64 {
        match before {
            0 => LOOK,
            _ => before + self.found.load(Ordering::Relaxed).max(LOOK),
        }
    }

    /// The path of the entry `name`, for people.
    fn path(&self, name: &CStr) -> PathBuf {
        let mut names = vec![name];
        let mut above = Some(self);
        while let Some(dir) = above {
            if dir.parent.is_some() {
                names.push(&dir.name);
            }
            above = dir.parent.as_deref();
        }
        let names = names.iter().rev().filter(|name| !name.is_empty());
        names
            .map(|name| OsStr::from_bytes(name.to_bytes()))
            .collect()
    }
}

struct Walk<'a> {
    options: Options<'a>,
    threads: usize,
    removed: Progress,
    left: AtomicU64,
    first: Mutex<Option<Cause>>,
    stopped: AtomicBool,
    queue: Mutex<Queue>,
    ready: Condvar,
    /// The directory at the top into which deep ones are moved.
    raft: Mutex<Option<Arc<Dir>>>,
    rafted: AtomicU64,
}

/// Whatever a panicking thread left behind a lock here is a plain list or value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Walk<'a> {
    fn new(options: Options<'a>) -> Self {
        let processors = || thread::available_parallelism().map_or(1, |n| n.get().min(THREADS));
        Walk {
            options,
            threads: options.threads.map_or_else(processors, |n| n.get()),
            removed: Progress::default(),
            left: AtomicU64::new(0),
            first: Mutex::new(None),
            stopped: AtomicBool::new(false),
            queue: Mutex::default(),
            ready: Condvar::new(),
            raft: Mutex::new(None),
            rafted: AtomicU64::new(0),
        }
    }

    fn result(self) -> Result<Removed, RemoveError> {
        let removed = self.removed.now();
        match self
            .first
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
        {
            None => Ok(removed),
            Some(cause) => Err(RemoveError {
                cause,
                removed,
                left: self.left.into_inner(),
            }),
        }
    }

    /// Works until everything that `first` leads to is done.
    fn run(&self, top: Arc<Dir>, first: impl FnOnce(Arc<Dir>) -> Task) {
        lock(&self.queue).push(first(top));
        thread::scope(|scope| self.work(scope));
        lock(&self.queue).helpers = 0;
    }

    fn work<'s>(&'s self, scope: &'s Scope<'s, '_>) {
        let mut buffer = vec![MaybeUninit::uninit(); 64 * 1024];
        while let Some(task) = self.next(scope) {
            self.look_at_the_clock();
            match task {
                Task::Look(dir) => self.look(scope, dir, &mut buffer),
                Task::Name {
                    parent,
                    name,
                    spent,
                } => self.enter(scope, parent, name, spent, &mut buffer),
                Task::Batch { parent, names } => {
                    self.unlink_all(scope, &parent, names);
                    self.done_with_one(scope, parent);
                }
                Task::Release(raft) => self.done_with_one(scope, raft),
            }
            let mut queue = lock(&self.queue);
            queue.busy -= 1;
            if queue.busy == 0 && queue.waiting() == 0 {
                self.ready.notify_all();
            }
        }
    }

    /// The next task; None when all is done.
    fn next<'s>(&'s self, scope: &'s Scope<'s, '_>) -> Option<Task> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(task) = queue.pop() {
                queue.busy += 1;
                self.call_for_help(scope, queue);
                return Some(task);
            }
            if queue.busy == 0 {
                let raft = lock(&self.raft).take();
                queue.busy += usize::from(raft.is_some());
                return raft.map(Task::Release);
            }
            queue.idle += 1;
            let woken = self.ready.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    /// Notes a task about `parent` or an entry of it.
    fn push<'s>(&'s self, scope: &'s Scope<'s, '_>, parent: &Arc<Dir>, task: Task) {
        parent.pending.fetch_add(1, Ordering::Relaxed);
        self.push_again(scope, task);
    }

    /// Notes a task whose turn comes when all others that wait are done.
    fn push_beneath<'s>(&'s self, scope: &'s Scope<'s, '_>, parent: &Arc<Dir>, task: Task) {
        parent.pending.fetch_add(1, Ordering::Relaxed);
        let mut queue = lock(&self.queue);
        queue.push_beneath(task);
        self.call_for_help(scope, queue);
    }

    /// Notes a task that its directory has counted already.
    fn push_again<'s>(&'s self, scope: &'s Scope<'s, '_>, task: Task) {
        let mut queue = lock(&self.queue);
        queue.push(task);
        self.call_for_help(scope, queue);
    }

    /// Notes a task about each of the directories `names` in `parent`.
    fn push_all<'s>(&'s self, scope: &'s Scope<'s, '_>, parent: &Arc<Dir>, names: Names) {
        if names.len() > 0 {
            parent.pending.fetch_add(names.len(), Ordering::Relaxed);
            let mut queue = lock(&self.queue);
            queue.push_all(parent.clone(), names);
            self.call_for_help(scope, queue);
        }
    }

    /// Wakes or starts another thread when there is work for it. With little to
    /// do, whoever is at work comes to it sooner than a thread that has to wake
    /// up: a deep tree would wait for that at every level.
    fn call_for_help<'s>(&'s self, scope: &'s Scope<'s, '_>, mut queue: MutexGuard<'_, Queue>) {
        if queue.waiting() < WORTH_A_THREAD {
            return;
        }
        if queue.idle > 0 {
            return self.ready.notify_one();
        }
        if queue.helpers + 1 < self.threads {
            queue.helpers += 1;
            drop(queue);
            // Where no thread is to be had, those that run do the work.
            let _ = thread::Builder::new()
                .name("remove".into())
                .spawn_scoped(scope, move || self.work(scope));
        }
    }

    fn look_at_the_clock(&self) {
        let deadline = self.options.deadline;
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) && !self.stopped() {
            self.note(Cause::Deadline);
        }
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn has_failed(&self) -> bool {
        lock(&self.first).is_some()
    }

    fn count(&self, removed: Removed) {
        self.removed.add(removed);
        if let Some(progress) = self.options.progress {
            progress.add(removed);
        }
    }

    /// Notes why something stays. The first cause counts, unless a later one
    /// stops the walk: that one explains most of what is left.
    fn note(&self, cause: Cause) {
        let stops = matches!(cause, Cause::Mount(_) | Cause::Deadline);
        let mut first = lock(&self.first);
        let stopped = stops && !self.stopped.swap(true, Ordering::Relaxed);
        if stopped || first.is_none() {
            *first = Some(cause);
        }
    }

    /// Notes that `entries` entries of `parent` stay.
    fn leave(&self, parent: &Dir, entries: usize) {
        self.left.fetch_add(entries as u64, Ordering::Relaxed);
        parent.failed.store(true, Ordering::Relaxed);
    }
}
