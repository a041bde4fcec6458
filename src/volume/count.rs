//! What a deletion would take away: files, directories and bytes, counted.
//!
//! The rules are those of [`super::remove`]: nothing is reached through a symbolic
//! link, no mount is crossed, and a file that has names elsewhere gives no bytes.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::sys::dir;

/// What is in a directory, itself not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Entries that are no directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// The space that would be free afterwards, in bytes.
    pub bytes: u64,
    /// A mount point inside, relative to the directory: deletion would stop there.
    pub mount: Option<PathBuf>,
}

/// A directory to be looked into.
struct Task {
    parent: Rc<OwnedFd>,
    name: CString,
    path: PathBuf,
}

#[derive(Default)]
struct Walk {
    count: Count,
    tasks: Vec<Task>,
    /// Names seen of each file with several.
    seen: HashMap<u64, u32>,
}

/// Counts what is in `directory`.
///
/// # Errors
/// When something in it cannot be read. What goes away meanwhile is not counted.
pub fn count(directory: BorrowedFd) -> io::Result<Count> {
    let mount = dir::status(directory)?.mount;
    let top = dir::open(directory, c".")?;
    let mut walk = Walk::default();
    walk.look(Rc::new(top), Path::new(""), mount)?;
    while let Some(task) = walk.tasks.pop() {
        match dir::open(&*task.parent, &task.name) {
            Ok(opened) => walk.look(Rc::new(opened), &task.path, mount)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(walk.count)
}

impl Walk {
    fn look(&mut self, directory: Rc<OwnedFd>, path: &Path, mount: u64) -> io::Result<()> {
        for entry in Dir::read_from(&directory)? {
            let name = entry?.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let status = match dir::status_of(&*directory, &name) {
                Err(Errno::NOENT) => continue,
                status => status?,
            };
            if status.mount != mount || status.mount_root {
                self.count.mount.get_or_insert(path);
                continue;
            }
            if status.kind == FileType::Directory {
                self.count.directories += 1;
                self.count.bytes += status.bytes;
                self.tasks.push(Task {
                    parent: Rc::clone(&directory),
                    name,
                    path,
                });
                continue;
            }
            self.count.files += 1;
            let is_last_name = status.links <= 1 || {
                let seen = self.seen.entry(status.inode).or_default();
                *seen += 1;
                *seen == status.links
            };
            if is_last_name {
                self.count.bytes += status.bytes;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn what_a_deletion_takes_away_is_counted_and_nothing_else() {
        let ground = tempfile::tempdir().expect("a directory");
        let top = ground.path().join("top");
        fs::create_dir_all(top.join("a/.hidden/c")).expect("mkdir");
        fs::write(ground.path().join("outside"), vec![7; 1 << 20]).expect("write");
        fs::write(top.join("a/.hidden/file"), vec![7; 5000]).expect("write");
        fs::hard_link(top.join("a/.hidden/file"), top.join("twice")).expect("link");
        fs::hard_link(ground.path().join("outside"), top.join("kept")).expect("link");
        symlink("/", top.join("link")).expect("symlink");
        let size = |path: &str| {
            let found = fs::symlink_metadata(top.join(path)).expect(path);
            found.blocks() * 512
        };
        let dirs = size("a") + size("a/.hidden") + size("a/.hidden/c");
        let wanted = Count {
            files: 4,
            directories: 3,
            bytes: dirs + size("twice") + size("link"),
            mount: None,
        };
        let opened = File::open(&top).expect("open");
        assert_eq!(count(opened.as_fd()).expect("count"), wanted);
    }
}
