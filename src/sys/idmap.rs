//! Mounts that show the files of one user as those of another
//! (mount_setattr(2), "ID-mapped mounts").

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Lets the mount whose root is `mount`, and with `recursive` all below it, show its
/// users and groups as the user namespace `users` (a file such as `/proc/PID/ns/user`)
/// has them: what belongs to 0 on disk belongs to that namespace's root. `mount` must
/// not be attached yet.
///
/// # Errors
/// `EINVAL` for a file system that the kernel cannot do this with, `ENOSYS` before
/// Linux 5.12; else what mount_setattr(2) says.
pub fn map_users(mount: BorrowedFd, users: BorrowedFd, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        // A descriptor is no negative number.
        userns_fd: u64::from(users.as_raw_fd().cast_unsigned()),
    };
    let depth = if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a literal with its end mark, `attributes` lives across the
    // call and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | depth,
            &attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
