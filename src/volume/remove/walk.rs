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

mod step;

/// Directories this far below the top have their directories moved up. Each
/// thread holds about as many descriptors as this.
const DEEP: u32 = 32;
/// How often a directory is looked through again because it was not empty.
const ROUNDS: u32 = 256;
/// Names unlinked in one go: between two looks at the clock, and by one thread.
const BATCH: usize = 1024;
/// Directories noted in one round of their parent, so that memory stays bounded.
const BROOD: usize = 16 * 1024;
/// Threads used unless the caller says otherwise, processors permitting.
const THREADS: usize = 4;
/// Tasks that must be waiting before another thread is worth its start.
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
            round: 0,
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
    for round in 0.. {
        let before = walk.removed.now();
        let opened = dir::open(given, c".").and_then(|fd| Ok((dir::status(&fd)?.mount, fd)));
        match opened {
            Ok((mount, fd)) => walk.run(Dir::top(fd, mount, 1), Task::Look),
            Err(errno) => walk.note(Cause::kernel("open", PathBuf::from("."), errno)),
        }
        if walk.has_failed() || walk.removed.now() == before {
            break;
        }
        if round == ROUNDS {
            walk.note(Cause::KeepsFilling(PathBuf::from(".")));
            break;
        }
    }
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
    round: u32,
    /// Whether this round stopped at a full brood, and so proves nothing.
    cut_short: AtomicBool,
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
            round: 0,
            cut_short: AtomicBool::new(false),
            pending: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
        })
    }

    fn within(parent: Arc<Dir>, fd: OwnedFd, name: CString, round: u32) -> Arc<Dir> {
        Arc::new(Dir {
            fd,
            mount: parent.mount,
            name,
            depth: parent.depth + 1,
            round,
            parent: Some(parent),
            cut_short: AtomicBool::new(false),
            pending: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
        })
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

enum Task {
    /// Look into the directory.
    Look(Arc<Dir>),
    /// Remove an entry that is a directory, as far as is known.
    Name {
        parent: Arc<Dir>,
        name: CString,
        round: u32,
    },
    /// Remove entries that are no directories, as far as is known.
    Batch { parent: Arc<Dir>, names: Names },
    /// Let go of the raft, when nothing more can come to it.
    Release(Arc<Dir>),
}

/// Names, one after the other in one piece of memory.
#[derive(Default)]
struct Names {
    text: Vec<u8>,
    /// The inode and where the name begins.
    entries: Vec<(u64, usize)>,
}

impl Names {
    fn push(&mut self, inode: u64, name: &CStr) {
        self.entries.push((inode, self.text.len()));
        self.text.extend_from_slice(name.to_bytes_with_nul());
    }
}

struct Queue {
    tasks: Vec<Task>,
    /// Threads at work on a task; the walk ends when there are neither.
    busy: usize,
    threads: usize,
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
            queue: Mutex::new(Queue {
                tasks: Vec::new(),
                busy: 0,
                threads: 1,
            }),
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
        lock(&self.queue).tasks.push(first(top));
        thread::scope(|scope| self.work(scope));
        lock(&self.queue).threads = 1;
    }

    fn work<'s>(&'s self, scope: &'s Scope<'s, '_>) {
        let mut buffer = vec![MaybeUninit::uninit(); 64 * 1024];
        while let Some(task) = self.next() {
            self.look_at_the_clock();
            match task {
                Task::Look(dir) => self.look(scope, dir, &mut buffer),
                Task::Name {
                    parent,
                    name,
                    round,
                } => self.enter(scope, parent, name, round, &mut buffer),
                Task::Batch { parent, names } => {
                    self.unlink_all(scope, &parent, names);
                    self.done_with_one(scope, parent);
                }
                Task::Release(raft) => self.done_with_one(scope, raft),
            }
            let mut queue = lock(&self.queue);
            queue.busy -= 1;
            if queue.busy == 0 && queue.tasks.is_empty() {
                self.ready.notify_all();
            }
        }
    }

    /// The next task; None when all is done.
    fn next(&self) -> Option<Task> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(task) = queue.tasks.pop() {
                queue.busy += 1;
                return Some(task);
            }
            if queue.busy == 0 {
                let raft = lock(&self.raft).take();
                queue.busy += usize::from(raft.is_some());
                return raft.map(Task::Release);
            }
            queue = self
                .ready
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes a task about an entry of `parent`.
    fn push<'s>(&'s self, scope: &'s Scope<'s, '_>, parent: &Arc<Dir>, task: Task) {
        parent.pending.fetch_add(1, Ordering::Relaxed);
        self.push_again(scope, task);
    }

    /// Notes a task that its directory has counted already.
    fn push_again<'s>(&'s self, scope: &'s Scope<'s, '_>, task: Task) {
        let mut queue = lock(&self.queue);
        queue.tasks.push(task);
        let one_more = queue.threads < self.threads && queue.tasks.len() >= WORTH_A_THREAD;
        queue.threads += usize::from(one_more);
        drop(queue);
        self.ready.notify_one();
        if one_more {
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
