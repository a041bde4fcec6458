//! Whose files are that a process makes (setfsuid(2)).

use std::io;

use rustix::process::{getegid, geteuid};
use rustix::thread::{capabilities, set_capabilities};

/// From now on files that the calling thread makes belong to `user` and `group`, while
/// it goes on to have every right that it has: for mounts in which the thread's own user
/// is nobody (user_namespaces(7)).
///
/// # Errors
/// `EPERM` without CAP_SETUID and CAP_SETGID.
pub fn make_files_for(user: u32, group: u32) -> io::Result<()> {
    // SAFETY: these calls take numbers and touch no memory. What they say is who it was
    // before; for an impossible id that is all they do.
    let now = unsafe {
        libc::setfsgid(group);
        libc::setfsuid(user);
        [libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX)]
    };
    if now.map(i32::cast_unsigned) != [user, group] {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    // With a user that is not root went the rights over others' files.
    let mut all = capabilities(None)?;
    all.effective = all.permitted;
    Ok(set_capabilities(None, all)?)
}

/// Does `job` with [`make_files_for`], and files are the thread's own again.
///
/// # Errors
/// As [`make_files_for`]; `job` has not been done when it was the first call.
pub fn with_files_for<T>(user: u32, group: u32, job: impl FnOnce() -> T) -> io::Result<T> {
    make_files_for(user, group)?;
    let done = job();
    make_files_for(geteuid().as_raw(), getegid().as_raw())?;
    Ok(done)
}
