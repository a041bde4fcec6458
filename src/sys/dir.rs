//! Directories and what lies in them, reached by descriptor.
//!
//! Every function takes an open directory and the name of one entry of it, and
//! promises three things about that name: no symbolic link is followed, no
//! mount point is crossed, and nothing outside the directory is opened
//! (openat2(2): `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`, `RESOLVE_NO_XDEV`).

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags,
};
use rustix::io::{Errno, Result};

const LOCKS: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// What statx(2) tells about an entry.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// The kind of file.
    pub kind: FileType,
    /// The permission bits.
    pub mode: Mode,
    /// The number that the file system has given it.
    pub inode: u64,
    /// The number of hard links.
    pub links: u32,
    /// The space taken on disk, in bytes.
    pub bytes: u64,
    /// The id of the mount that the entry was reached through. It stays this
    /// mount's own for as long as a descriptor on the mount is open.
    pub mount: u64,
    /// Whether the entry is the root of a mount.
    pub mount_root: bool,
    /// Whether the entry carries the immutable or the append-only flag.
    pub locked: bool,
}

/// `name` as the kernel takes it, when it can be the name of an entry: one
/// component of a path, and neither `.` nor `..`.
pub fn entry_name(name: &OsStr) -> Option<CString> {
    let name = name.as_bytes();
    let path = matches!(name, b"" | b"." | b"..") || name.contains(&b'/');
    CString::new(name).ok().filter(|_| !path)
}

/// Opens the directory `name` of `parent` for reading; `name` may be `.`.
///
/// # Errors
/// `EXDEV` when `name` is a mount point; `ELOOP` or `ENOTDIR` when it is no
/// directory; and those of openat2(2).
pub fn open(parent: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    open_beneath(parent.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens the entry `name` of `parent`, of whatever kind, as a mere handle
/// (`O_PATH`): a fifo does not block, a device does not notice.
///
/// # Errors
/// `EXDEV` when `name` is a mount point, and those of openat2(2).
pub fn open_handle(parent: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    open_beneath(parent.as_fd(), name, OFlags::PATH)
}

fn open_beneath(parent: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd> {
    // A symbolic link is an entry like any other to a handle, and it is
    // O_NOFOLLOW that yields the link itself; RESOLVE_NO_SYMLINKS lets that pass.
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            done => return done,
        }
    }
}

/// The status of an open file or handle.
///
/// # Errors
/// Those of statx(2).
pub fn status(file: impl AsFd) -> Result<Status> {
    statx(file.as_fd(), c"", AtFlags::EMPTY_PATH)
}

/// The status of the entry `name` of `parent`; of a mount point, that of the
/// root of what is mounted on it. A network file system may answer from memory.
///
/// # Errors
/// Those of statx(2).
pub fn status_of(parent: impl AsFd, name: &CStr) -> Result<Status> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    statx(parent.as_fd(), name, flags)
}

fn statx(file: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<Status> {
    let wanted = StatxFlags::TYPE
        | StatxFlags::MODE
        | StatxFlags::INO
        | StatxFlags::NLINK
        | StatxFlags::BLOCKS
        | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(file, name, flags | AtFlags::NO_AUTOMOUNT, wanted)?;
    let has = |attribute| found.stx_attributes.intersects(attribute);
    Ok(Status {
        kind: FileType::from_raw_mode(found.stx_mode.into()),
        mode: Mode::from_raw_mode(found.stx_mode.into()),
        inode: found.stx_ino,
        links: found.stx_nlink,
        bytes: found.stx_blocks * 512,
        mount: found.stx_mnt_id,
        mount_root: has(StatxAttributes::MOUNT_ROOT),
        locked: has(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND),
    })
}

/// Gives the owner of the directory that `handle` stands for the right to list
/// and change it. `mode` is what it has now.
///
/// # Errors
/// Those of chmod(2), to which the handle goes through `/proc/self/fd`:
/// fchmod(2) refuses handles, and fchmodat2(2) is newer than Linux 6.1.
pub fn open_up(handle: impl AsFd, mode: Mode) -> Result<()> {
    rustix::fs::chmod(by_number(&handle), mode | Mode::RWXU)
}

/// Clears the immutable and append-only flags (chattr(1): `i` and `a`) of the
/// regular file or directory that `handle` stands for.
///
/// # Errors
/// `EPERM` without `CAP_LINUX_IMMUTABLE`; those of open(2) and ioctl(2).
pub fn unlock(handle: impl AsFd) -> Result<()> {
    // The flags belong to an open file, and a handle is not one. The way through
    // /proc/self/fd opens this very inode, whatever its name stands for by now.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(by_number(&handle), flags, Mode::empty())?;
    let now = rustix::fs::ioctl_getflags(&file)?;
    rustix::fs::ioctl_setflags(&file, now.difference(LOCKS))
}

/// The path under which the calling process finds its own descriptor `handle`, for
/// the system calls that take no descriptor.
pub fn by_number(handle: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())
}
