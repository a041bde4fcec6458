//! Project quotas: limits on what a tree of directories takes of its file system
//! (quotactl_fd(2), ioctl_xfs_fsgetxattr(2); ext4 and XFS mounted with `prjquota`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
const Q_XGETQSTAT: u32 = 0x5805;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const PRJQUOTA: u32 = 2;
const QIF_LIMITS: u32 = 1 | 4;
/// Accounting and enforcement of project quotas in `qs_flags`.
const FS_QUOTA_PDQ: u16 = 1 << 4 | 1 << 5;
/// The unit of block limits, in bytes.
const UNIT: u64 = 1024;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// `struct if_dqblk` of linux/quota.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Limits {
    hard_blocks: u64,
    soft_blocks: u64,
    bytes: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// Whether the file system that `file` is on enforces project quotas.
#[must_use]
pub fn is_enforced(file: BorrowedFd) -> bool {
    // `struct fs_quota_stat`, of which the flags are in the second 16 bits.
    let mut state = [0_u64; 16];
    // SAFETY: the request fills a structure smaller than `state`.
    let known = unsafe { quotactl(file, Q_XGETQSTAT, 0, state.as_mut_ptr().cast()) };
    let flags = state[0].to_ne_bytes();
    known.is_ok() && u16::from_ne_bytes([flags[2], flags[3]]) & FS_QUOTA_PDQ == FS_QUOTA_PDQ
}

/// The project that a file or directory belongs to; 0 for none.
///
/// # Errors
/// `ENOTTY` on file systems without projects.
pub fn project(file: BorrowedFd) -> io::Result<u32> {
    Ok(attributes(file)?.project)
}

/// Makes `directory`, and whatever is made in it from now on, part of `project`.
///
/// # Errors
/// What the ioctls say.
pub fn set_project(directory: BorrowedFd, project: u32) -> io::Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    attributes.flags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: `attributes` is the structure that the request reads.
    let done = unsafe {
        libc::ioctl(
            directory.as_raw_fd(),
            FS_IOC_FSSETXATTR as _,
            &raw const attributes,
        )
    };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether nobody uses `project` on the file system that `file` is on: it has
/// neither files nor limits.
///
/// # Errors
/// What quotactl_fd(2) says.
pub fn is_unused(file: BorrowedFd, project: u32) -> io::Result<bool> {
    let mut limits = Limits::default();
    // SAFETY: `limits` is the structure that the request fills in.
    match unsafe { quotactl(file, Q_GETQUOTA, project, (&raw mut limits).cast()) } {
        Ok(()) => {}
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
            return Ok(true);
        }
        Err(error) => return Err(error),
    }
    Ok(limits.bytes == 0 && limits.inodes == 0 && limits.hard_blocks == 0)
}

/// Limits `project` to `bytes`, rounded up to a KiB; 0 for no limit.
///
/// # Errors
/// What quotactl_fd(2) says.
pub fn limit(file: BorrowedFd, project: u32, bytes: u64) -> io::Result<()> {
    let mut limits = Limits {
        hard_blocks: bytes.div_ceil(UNIT),
        valid: QIF_LIMITS,
        ..Limits::default()
    };
    // SAFETY: `limits` is the structure that the request reads.
    unsafe { quotactl(file, Q_SETQUOTA, project, (&raw mut limits).cast()) }
}

fn attributes(file: BorrowedFd) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: `attributes` is the structure that the request fills in.
    let done = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            FS_IOC_FSGETXATTR as _,
            &raw mut attributes,
        )
    };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(attributes),
    }
}

/// # Safety
/// `argument` must point to what the command reads or writes.
unsafe fn quotactl(
    file: BorrowedFd,
    command: u32,
    project: u32,
    argument: *mut libc::c_void,
) -> io::Result<()> {
    let command = command << 8 | PRJQUOTA;
    // SAFETY: by contract.
    let done = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_raw_fd(),
            command,
            project,
            argument,
        )
    };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

const _: () = assert!(size_of::<Attributes>() == 28 && size_of::<Limits>() == 72);
