//! What a volume takes, and what is left of its file system.
//!
//! A file system of the volume's own is asked (statfs(2)). A plain directory is
//! walked: by descriptor, never through a symbolic link, never into another mount,
//! by several threads. A file with several names counts once.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Dir, FileType, fstatfs};
use serde::{Deserialize, Serialize};

use crate::sys::dir;

/// The most threads that walk one directory.
const THREADS: usize = 4;

/// Space and inodes, in the terms of df(1); bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The size of the file system.
    pub capacity_bytes: u64,
    /// What is taken: of the file system, or by the directory.
    pub used_bytes: u64,
    /// What ordinary users can still take.
    pub available_bytes: u64,
    /// Files that there can be; 0 where there is no such limit.
    pub inodes: u64,
    /// Files that there are.
    pub inodes_used: u64,
    /// Files that there still can be.
    pub inodes_free: u64,
}

/// What is told of the file system of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// Its usage.
    Usage(Usage),
    /// Nothing: it is on a server that does not answer.
    Unreachable,
}

/// The usage of the file system that `file` is on.
///
/// # Errors
/// What fstatfs(2) says.
pub fn of_file_system(file: BorrowedFd) -> io::Result<Usage> {
    let stat = fstatfs(file)?;
    let unit = u64::try_from(stat.f_frsize).unwrap_or(0).max(1);
    let used = |all: u64, free: u64| all.saturating_sub(free);
    Ok(Usage {
        capacity_bytes: stat.f_blocks.saturating_mul(unit),
        used_bytes: used(stat.f_blocks, stat.f_bfree).saturating_mul(unit),
        available_bytes: stat.f_bavail.saturating_mul(unit),
        inodes: stat.f_files,
        inodes_used: used(stat.f_files, stat.f_ffree),
        inodes_free: stat.f_ffree,
    })
}

/// The usage of a directory: what is in it, and what its file system has left.
///
/// # Errors
/// When it cannot be read. What cannot be read within it, or goes away meanwhile,
/// is not counted.
pub fn of_directory(directory: OwnedFd) -> io::Result<Usage> {
    let around = of_file_system(directory.as_fd())?;
    let taken = walk(directory)?;
    Ok(Usage {
        used_bytes: taken.bytes,
        inodes_used: taken.files,
        ..around
    })
}

#[derive(Default)]
struct Taken {
    bytes: u64,
    files: u64,
}

/// A directory to be looked into: a name in one that is open.
struct Task {
    parent: Arc<OwnedFd>,
    name: CString,
}

#[derive(Default)]
struct Shared {
    tasks: Vec<Task>,
    /// Tasks that are not done, in the list or with a thread.
    open: usize,
    taken: Taken,
    /// Files with several names that have been counted.
    counted: HashSet<u64>,
}

struct Walk {
    shared: Mutex<Shared>,
    ready: Condvar,
    mount: u64,
}

fn walk(top: OwnedFd) -> io::Result<Taken> {
    let own = dir::status(&top)?;
    let walk = Walk {
        shared: Mutex::default(),
        ready: Condvar::new(),
        mount: own.mount,
    };
    walk.lock().taken = Taken {
        bytes: own.bytes,
        files: 1,
    };
    // Most volumes are small: threads are for those that turn out not to be.
    walk.look(Arc::new(top))?;
    let waiting = walk.lock().tasks.len();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..processors.min(THREADS).min(waiting) {
            scope.spawn(|| walk.work());
        }
        walk.work();
    });
    Ok(std::mem::take(&mut walk.lock().taken))
}

impl Walk {
    /// Whatever a panicking thread left behind is plain numbers.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut shared = self.lock();
        while shared.open > 0 {
            let Some(task) = shared.tasks.pop() else {
                shared = self
                    .ready
                    .wait(shared)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(shared);
            if let Ok(directory) = dir::open(&task.parent, &task.name) {
                // It may have gone, or be nobody's to read.
                let _ = self.look(Arc::new(directory));
            }
            shared = self.lock();
            shared.open -= 1;
            if shared.open == 0 {
                self.ready.notify_all();
            }
        }
    }

    /// Counts what is in a directory, and puts the directories in it on the list.
    fn look(&self, directory: Arc<OwnedFd>) -> io::Result<()> {
        let mut taken = Taken::default();
        let mut tasks = Vec::new();
        let mut several_names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let name = entry?.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(status) = dir::status_of(&directory, &name) else {
                continue;
            };
            if status.mount != self.mount || status.mount_root {
                continue;
            }
            if status.kind == FileType::Directory {
                tasks.push(Task {
                    parent: Arc::clone(&directory),
                    name,
                });
            } else if status.links > 1 {
                several_names.push((status.inode, status.bytes));
                continue;
            }
            taken.bytes += status.bytes;
            taken.files += 1;
        }
        let mut shared = self.lock();
        for (inode, bytes) in several_names {
            if shared.counted.insert(inode) {
                taken.bytes += bytes;
                taken.files += 1;
            }
        }
        shared.taken.bytes += taken.bytes;
        shared.taken.files += taken.files;
        shared.open += tasks.len();
        shared.tasks.append(&mut tasks);
        self.ready.notify_all();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_directory_takes_what_its_files_take_each_counted_once() {
        let ground = tempfile::tempdir().expect("a directory");
        let top = ground.path().join("top");
        let outside = ground.path().join("outside");
        fs::write(&outside, vec![7; 1 << 20]).expect("write");
        let mut wanted = (0, 0);
        let mut made = |path: &std::path::Path| {
            wanted.0 += fs::symlink_metadata(path).expect("made").blocks() * 512;
            wanted.1 += 1;
        };
        for directory in 0..20 {
            let deep = top.join(format!("{directory}/a/b"));
            fs::create_dir_all(&deep).expect("mkdir");
            for file in 0..10 {
                let file = deep.join(file.to_string());
                fs::write(&file, vec![7; 5000]).expect("write");
                made(&file);
            }
            made(&deep);
            made(deep.parent().expect("a"));
            made(
                deep.parent()
                    .and_then(std::path::Path::parent)
                    .expect("top"),
            );
        }
        made(&top);
        fs::hard_link(top.join("3/a/b/3"), top.join("again")).expect("link");
        symlink(&outside, top.join("link")).expect("symlink");
        made(&top.join("link"));
        let usage = of_directory(File::open(&top).expect("open").into()).expect("usage");
        assert_eq!((usage.used_bytes, usage.inodes_used), wanted);
        assert!(usage.capacity_bytes > usage.available_bytes);
    }
}
