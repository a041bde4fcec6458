//! The limit of an emptyDir as a project quota of the file system that it is on.
//!
//! The project's number is the volume's own from the moment when its directory
//! carries it until [`release`]. Numbers are taken from a range that people do not
//! use, and none that has files or limits is taken.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FlockOperation, Mode, OFlags, flock, openat};
use uuid::Uuid;

use super::PLUGIN;
use crate::sys::{dir, project_quota};

/// The first number of orlop's range, and how many there are.
const FIRST: u32 = 0x4f00_0000;
const COUNT: u32 = 1 << 24;
/// How many numbers are tried.
const TRIES: usize = 1000;

/// Limits what is in `directory`, the directory of a volume in the pod's directory
/// `pod`, to `bytes`.
///
/// # Errors
/// What the kernel says.
pub(super) fn limit(pod: BorrowedFd, directory: BorrowedFd, bytes: u64) -> io::Result<()> {
    let number = match own(directory)? {
        Some(number) => number,
        None => choose(pod, directory)?,
    };
    project_quota::limit(directory, number, bytes)
}

/// The project of a volume's directory, if orlop gave it one.
pub(super) fn own(directory: BorrowedFd) -> io::Result<Option<u32>> {
    let number = project_quota::project(directory)?;
    Ok((FIRST..FIRST + COUNT).contains(&number).then_some(number))
}

fn choose(pod: BorrowedFd, directory: BorrowedFd) -> io::Result<u32> {
    // Two volumes that look at the same moment would find the same number free.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let pods = openat(pod, "..", flags, Mode::empty())?;
    flock(&pods, FlockOperation::LockExclusive)?;
    for _ in 0..TRIES {
        let [.., a, b, c] = *Uuid::new_v4().as_bytes();
        let number = FIRST + u32::from_be_bytes([0, a, b, c]);
        if project_quota::is_unused(directory, number)? {
            project_quota::set_project(directory, number)?;
            return Ok(number);
        }
    }
    Err(io::Error::other("no project number is free"))
}

/// Gives back the projects of all volumes of the pod whose directory of volumes is
/// `volumes`. Without their limits they are no more than numbers on files that are
/// about to be deleted.
///
/// # Errors
/// What the kernel says.
pub fn release(volumes: BorrowedFd) -> io::Result<()> {
    let Some(kind) = dir::entry_name(PLUGIN.as_ref()) else {
        return Ok(());
    };
    let kind = match dir::open(volumes, &kind) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    if !project_quota::is_enforced(kind.as_fd()) {
        return Ok(());
    }
    for entry in Dir::read_from(&kind)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let directory: OwnedFd = dir::open(&kind, entry.file_name())?;
        if let Some(number) = own(directory.as_fd())? {
            project_quota::limit(directory.as_fd(), number, 0)?;
        }
    }
    Ok(())
}
