//! Deleting trees of the store, however an image built them.
//!
//! Nobody but the store writes here, yet an image decides how deep its
//! directories nest. So there is no recursion and there are never more than
//! two open directories: a directory that isn't empty is moved up to the top
//! of the tree before its turn comes. Names are resolved one part at a time
//! without following links or crossing mounts.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Dir, RenameFlags};
use rustix::io::{Errno, Result};

use super::inside::open_child_dir;

/// Deletes whatever has this name in the directory: a file, or a directory
/// with all that is in it. A name that does not exist is deleted already.
///
/// # Errors
///
/// `EBUSY` or `EXDEV` when something is mounted in the tree, and what
/// unlinkat(2), renameat2(2) and openat2(2) report.
pub(super) fn discard(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    match unlink(parent, name) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return other,
    }
    let top = open_child_dir(parent, name)?;
    let mut moved = 0_u64;
    loop {
        let names = names(&top)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            let name = OsStr::from_bytes(name.as_bytes());
            match unlink(top.as_fd(), name) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => flatten(&top, name, &mut moved)?,
                other => other?,
            }
        }
    }
    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// Empties one directory of the tree: its files are deleted, and its
/// directories that have something in them move to the top.
fn flatten(top: &OwnedFd, name: &OsStr, moved: &mut u64) -> Result<()> {
    let directory = open_child_dir(top.as_fd(), name)?;
    for child in names(&directory)? {
        let child = OsStr::from_bytes(child.as_bytes());
        match unlink(directory.as_fd(), child) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => move_up(&directory, child, top, moved)?,
            other => other?,
        }
    }
    fs::unlinkat(top, name, AtFlags::REMOVEDIR)
}

fn move_up(from: &OwnedFd, name: &OsStr, top: &OwnedFd, moved: &mut u64) -> Result<()> {
    loop {
        *moved += 1;
        let free = format!("moved-{moved}");
        match fs::renameat_with(from, name, top, free, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
    }
}

/// Removes a file or an empty directory.
fn unlink(parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => fs::unlinkat(parent, name, AtFlags::REMOVEDIR),
        other => other,
    }
}

fn names(directory: &OwnedFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn open(path: &Path) -> OwnedFd {
        std::fs::File::open(path).unwrap().into()
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_deleted() {
        let place = tempfile::tempdir().unwrap();
        let top = place.path().join("tree");
        std::fs::create_dir(&top).unwrap();
        let mut here = open(&top);
        for depth in 0..2100 {
            fs::mkdirat(&here, "d", fs::Mode::RWXU).unwrap();
            if depth < 50 {
                fs::mkdirat(&here, format!("moved-{depth}"), fs::Mode::RWXU).unwrap();
            }
            here = open_child_dir(here.as_fd(), OsStr::new("d")).unwrap();
        }
        drop(here);
        discard(open(place.path()).as_fd(), OsStr::new("tree")).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn links_are_deleted_and_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let canary = place.path().join("canary");
        std::fs::create_dir_all(canary.join("inner")).unwrap();
        let tree = place.path().join("tree/a/b");
        std::fs::create_dir_all(&tree).unwrap();
        symlink(&canary, tree.join("link")).unwrap();
        symlink(&canary, place.path().join("tree/link")).unwrap();
        discard(open(place.path()).as_fd(), OsStr::new("tree")).unwrap();
        assert!(!place.path().join("tree").exists());
        assert!(canary.join("inner").is_dir());
    }
}
