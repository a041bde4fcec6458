//! New user namespaces (user_namespaces(7)) that the calling process stays out of.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read, write};
use rustix::process::{Gid, Pid, Uid, WaitOptions, waitpid};
use rustix::thread::{
    ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces, set_thread_res_gid,
    set_thread_res_uid,
};

use super::clone::{CloneOptions, clone_process};
use super::namespace::leave;

/// Makes a user namespace in which users and groups 0 to `count` are those from `first`
/// on outside of it, and returns its file. New namespaces of the kinds in `others`
/// belong to it, and the calling process, which must have one thread, moves into them.
///
/// A process makes them all and ends; they live on by the descriptor and by the caller.
///
/// # Errors
/// What clone3(2), setns(2) or writing the mappings say: `ENOSPC` when there may be no
/// more namespaces, `EPERM` without privilege.
pub fn make(first: u32, count: u32, others: ThreadNameSpaceType) -> io::Result<OwnedFd> {
    let (mapped, map) = io::pipe()?;
    let (made, make) = io::pipe()?;
    let options = CloneOptions {
        new_user: true,
        without: &[map.as_raw_fd(), made.as_raw_fd()],
        ..CloneOptions::default()
    };
    let kinds = UnshareFlags::from_bits_retain(others.bits());
    let child = clone_process(options, || match hold(&mapped, &make, kinds) {
        Ok(()) => 0,
        Err(error) => {
            // A closed pipe says as much.
            let _ = write(&make, &error.raw_os_error().to_ne_bytes());
            1
        }
    })?;
    drop((mapped, make));
    let enter = || -> io::Result<OwnedFd> {
        let line = format!("0 {first} {count}\n");
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{file}", child.pid), &line)?;
        }
        write(&map, b"0")?;
        let mut errno = [0; 4];
        let told = read(&made, &mut errno)?;
        match i32::from_ne_bytes(errno) {
            _ if told < errno.len() => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        let path = format!("/proc/{}/ns/user", child.pid);
        let namespace = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        if !others.is_empty() {
            move_into_thread_name_spaces(child.pidfd.as_fd(), others)?;
        }
        Ok(namespace)
    };
    let namespace = enter();
    drop(map);
    waitpid(Pid::from_raw(child.pid), WaitOptions::empty())?;
    namespace
}

/// Becomes user and group 0 of the user namespace that the calling process is in.
///
/// # Errors
/// What setresgid(2) or setresuid(2) say.
pub fn become_root() -> rustix::io::Result<()> {
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
}

/// What the process does that makes the namespaces; it ends when its creator has what
/// it needs, or has ended itself.
fn hold(mapped: impl AsFd, made: impl AsFd, kinds: UnshareFlags) -> rustix::io::Result<()> {
    if read(mapped.as_fd(), &mut [0])? == 0 {
        return Err(Errno::CANCELED);
    }
    become_root()?;
    leave(kinds).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    write(made, &0_i32.to_ne_bytes())?;
    read(mapped, &mut [0]).map(drop)
}
