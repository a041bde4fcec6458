//! Making processes without executing a program: fork(2) and clone(2).
//!
//! Both functions here must be called by a process with one thread: the child
//! runs ordinary Rust code, which may want a lock that another thread held at
//! the moment of the copy.

#![allow(unsafe_code)]

use std::io;

use rustix::process::{Pid, Signal};

/// Where the new process hangs in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The caller.
    Caller,
    /// The caller's own parent (`CLONE_PARENT`): the new process is the
    /// caller's sibling.
    CallersParent,
}

/// Copies the calling process; the copy runs `body` and exits with its result.
///
/// The copy is killed when its parent dies, so that no helper outlives the
/// process it helps.
///
/// # Errors
/// What fork(2) or clone(2) say; and `EBUSY` when the caller has more than
/// one thread.
pub fn spawn(parent: Parent, body: impl FnOnce() -> i32) -> io::Result<Pid> {
    if threads()? != 1 {
        return Err(io::Error::from(rustix::io::Errno::BUSY));
    }
    let flags = match parent {
        Parent::Caller => libc::SIGCHLD,
        Parent::CallersParent => libc::SIGCHLD | libc::CLONE_PARENT,
    };
    // SAFETY: without CLONE_VM and with a null stack clone(2) is fork(2): the
    // child has a copy of the whole address space. There is one thread (checked
    // above), so no lock can be held by somebody who does not exist in the child.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = match rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
                Ok(()) => body(),
                Err(_) => 1,
            };
            // SAFETY: _exit(2) ends the copy at once. The handlers and buffers
            // of the original must not run a second time here.
            unsafe { libc::_exit(code) }
        }
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            pid.ok_or_else(|| io::Error::other("clone(2) returned no process id"))
        }
    }
}

fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Lets malloc give memory that is no longer used back to the kernel
/// (malloc_trim(3)). Worth calling once a long-lived process has started up.
pub fn release_unused_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointers and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_is_refused() {
        // The test harness itself runs tests in threads.
        let error = spawn(Parent::Caller, || 0).expect_err("several threads");
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    }
}
