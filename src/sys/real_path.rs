//! Paths that are what they say: opened without following a symbolic link anywhere.
//!
//! Who is about to delete opens what it is given like this: whatever somebody puts
//! into the place of one of the path's directories meanwhile, it leads nowhere else.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2, readlink};
use rustix::io::{Errno, Result};

use super::dir::by_number;

/// Opens the directory at `path` for reading.
///
/// # Errors
/// `ELOOP` when a component of the path is a symbolic link, `ENOTDIR` when it is no
/// directory, and others of openat2(2).
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(CWD, path, flags, Mode::empty(), resolve) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            opened => return opened,
        }
    }
}

/// Where an open file is now, as the calling process sees it (proc_pid_fd(5)).
///
/// # Errors
/// What readlink(2) says.
pub fn of(file: &impl AsFd) -> Result<PathBuf> {
    let path = readlink(by_number(file), Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_nowhere_in_a_path() {
        let ground = tempfile::tempdir().expect("a directory");
        let real = ground.path().join("real/inner");
        std::fs::create_dir_all(&real).expect("mkdir");
        let link = ground.path().join("link");
        symlink(ground.path().join("real"), &link).expect("symlink");
        let opened = open_directory(&real).expect("open");
        assert_eq!(
            of(&opened).expect("path"),
            real.canonicalize().expect("path")
        );
        for bad in [link.clone(), link.join("inner")] {
            assert_eq!(open_directory(&bad).expect_err("a link"), Errno::LOOP);
        }
    }
}
