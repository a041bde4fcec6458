//! The group of a volume's files (`fsGroup`): every file and directory gets it, with
//! the permissions to go with it, and directories hand it on to what is made in them
//! (<https://kubernetes.io/docs/tasks/configure-pod-container/security-context/>).
//!
//! The tree is not trusted: it is what containers left behind. Each step goes by
//! descriptor, follows no link and enters no other mount; however deep the tree, only
//! two descriptors are open.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chmodat, chownat,
    fstat, openat2,
};
use rustix::io::Errno;

/// Who a volume's files belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// The user's id; `None` leaves every file its own.
    pub user: Option<u32>,
    /// The group's id.
    pub group: u32,
    /// Whether the group may do what the owner may (`fsGroup`).
    pub is_shared: bool,
    /// Whether containers may only read.
    pub is_read_only: bool,
    /// Whether a root that is as it should be means that all the rest is
    /// (`fsGroupChangePolicy: OnRootMismatch`).
    pub trusts_root: bool,
}

impl Ownership {
    /// Gives the directory `root`, and all that is below it, to the group.
    ///
    /// # Errors
    /// What the kernel says; some of the tree may have been changed.
    pub fn give(&self, root: BorrowedFd) -> io::Result<()> {
        let stat = fstat(root)?;
        if self.trusts_root && self.is_given(&stat) {
            return Ok(());
        }
        let mut directory = open(root, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.change(directory.as_fd())?;
        let mut above: Vec<(Stat, Vec<CString>)> = Vec::new();
        let mut waiting = self.change_entries(directory.as_fd())?;
        loop {
            if let Some(name) = waiting.pop() {
                let below = match open(
                    directory.as_fd(),
                    &name,
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
                ) {
                    Err(Errno::NOENT | Errno::XDEV | Errno::NOTDIR | Errno::LOOP) => continue,
                    opened => opened?,
                };
                above.push((fstat(&directory)?, std::mem::take(&mut waiting)));
                waiting = self.change_entries(below.as_fd())?;
                directory = below;
            } else if let Some((parent, rest)) = above.pop() {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                directory = rustix::fs::openat(&directory, "..", flags, Mode::empty())?;
                let now = fstat(&directory)?;
                if (now.st_dev, now.st_ino) != (parent.st_dev, parent.st_ino) {
                    return Err(io::Error::other("a directory was moved meanwhile"));
                }
                waiting = rest;
            } else {
                return Ok(());
            }
        }
    }

    /// Changes what is in a directory, and returns its directories.
    fn change_entries(&self, directory: BorrowedFd) -> io::Result<Vec<CString>> {
        let mut directories = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let opened = match open(directory, name, OFlags::PATH | OFlags::NOFOLLOW) {
                Err(Errno::NOENT | Errno::XDEV) => continue,
                opened => opened?,
            };
            if self.change(opened.as_fd())? == FileType::Directory {
                directories.push(name.to_owned());
            }
        }
        Ok(directories)
    }

    fn change(&self, file: BorrowedFd) -> io::Result<FileType> {
        let stat = fstat(file)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.is_given(&stat) {
            return Ok(kind);
        }
        if !self.owns(&stat) {
            let user = self.user.map(Uid::from_raw);
            let group = Some(Gid::from_raw(self.group));
            chownat(file, c"", user, group, AtFlags::EMPTY_PATH)?;
        }
        if kind == FileType::Symlink {
            // It has an owner, and permissions that mean nothing.
            return Ok(kind);
        }
        // After the owner: a change of that takes bits away.
        let mode = Mode::from_raw_mode((stat.st_mode & 0o7777) | self.bits(kind));
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        chmodat(CWD, path, mode, AtFlags::empty())?;
        Ok(kind)
    }

    fn is_given(&self, stat: &Stat) -> bool {
        let bits = self.bits(FileType::from_raw_mode(stat.st_mode));
        self.owns(stat) && stat.st_mode & bits == bits
    }

    fn owns(&self, stat: &Stat) -> bool {
        stat.st_gid == self.group && self.user.is_none_or(|user| user == stat.st_uid)
    }

    /// The permissions that a file of this kind must have at least.
    fn bits(&self, kind: FileType) -> u32 {
        if !self.is_shared {
            return 0;
        }
        let access = if self.is_read_only { 0o440 } else { 0o660 };
        match kind {
            FileType::Directory => access | 0o2110,
            _ => access,
        }
    }
}

fn open(at: BorrowedFd, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(at, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    const OURS: Ownership = Ownership {
        user: None,
        group: 4242,
        is_shared: true,
        is_read_only: false,
        trusts_root: false,
    };

    fn seen(path: &Path) -> (u32, u32) {
        let status = fs::symlink_metadata(path).expect("status");
        (status.gid(), status.mode() & 0o7777)
    }

    #[test]
    fn all_of_a_tree_is_given_and_nothing_outside() {
        let directory = tempfile::tempdir().expect("tempdir");
        let (root, outside) = (directory.path().join("root"), directory.path().join("out"));
        fs::create_dir_all(root.join("a/b/c")).expect("mkdir");
        fs::write(&outside, "").expect("write");
        fs::write(root.join("a/b/file"), "").expect("write");
        fs::set_permissions(root.join("a/b/file"), fs::Permissions::from_mode(0o4500))
            .expect("mode");
        symlink(&outside, root.join("a/link")).expect("symlink");
        let before = seen(&outside);
        let opened = fs::File::open(&root).expect("open");
        OURS.give(opened.as_fd()).expect("given");
        for path in ["", "a", "a/b", "a/b/c"] {
            assert_eq!(seen(&root.join(path)), (4242, 0o2775), "{path:?}");
        }
        assert_eq!(seen(&root.join("a/b/file")), (4242, 0o4760));
        assert_eq!(seen(&root.join("a/link")).0, 4242);
        assert_eq!(seen(&outside), before);

        // Only who does not trust the root looks further.
        fs::write(root.join("later"), "").expect("write");
        std::os::unix::fs::chown(root.join("later"), None, Some(1)).expect("chown");
        let trusting = Ownership {
            trusts_root: true,
            ..OURS
        };
        trusting.give(opened.as_fd()).expect("given");
        assert_eq!(seen(&root.join("later")).0, 1);
        OURS.give(opened.as_fd()).expect("given");
        assert_eq!(seen(&root.join("later")).0, 4242);
    }

    #[test]
    fn a_very_deep_tree_needs_no_descriptor_for_each_level() {
        let directory = tempfile::tempdir().expect("tempdir");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::File::open(directory.path()).expect("open");
        let mut at: OwnedFd = root.try_clone().expect("dup").into();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("mkdir");
            at = rustix::fs::openat(&at, "d", flags, Mode::empty()).expect("open");
        }
        OURS.give(root.as_fd()).expect("given");
        assert_eq!(fstat(&at).expect("status").st_gid, 4242);
        let options = crate::volume::remove::Options::default();
        crate::volume::remove::remove_tree(root.as_fd(), "d".as_ref(), options).expect("removed");
    }
}
