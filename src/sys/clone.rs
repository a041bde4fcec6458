//! clone3(2): a child process that starts life in the right namespaces and the
//! right cgroup.
//!
//! The child runs a closure in a copy of the caller's memory, as after fork(2).
//! That is sound only when no other thread can hold a lock at that instant, so
//! [`clone_process`] refuses to work in a process with more than one thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// libc's constant of this name is too narrow for its value.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Where and how the child begins.
#[derive(Debug, Default)]
pub struct CloneOptions<'a> {
    /// Give it a new user namespace (user_namespaces(7)).
    pub new_user: bool,
    /// Give it a new PID namespace, in which it is process 1.
    pub new_pid: bool,
    /// Make it a child of the caller's parent instead of the caller's.
    pub sibling: bool,
    /// A directory of the cgroup v2 tree to be born in (`CLONE_INTO_CGROUP`).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Descriptors that the child does not get, as numbers: it must not use
    /// them. Whoever waits for their other ends need not wait for the child.
    pub without: &'a [RawFd],
}

/// A process made by [`clone_process`].
#[derive(Debug)]
pub struct Cloned {
    /// Its process id as the caller sees it.
    pub pid: i32,
    /// A descriptor for it that cannot come to mean another process.
    pub pidfd: OwnedFd,
}

/// Clones the calling process; `child` runs in the clone, which ends with the
/// status that it returns (101 when it panics) without running exit handlers.
///
/// # Errors
/// `Unsupported` when the caller has more than one thread, else what clone3(2)
/// says: `EBUSY` when the cgroup may not hold processes, `ENOSPC` when
/// namespaces are used up, `EPERM` without privilege.
pub fn clone_process(options: CloneOptions<'_>, child: impl FnOnce() -> i32) -> io::Result<Cloned> {
    // A directory has one link from its parent, one from itself and one from
    // each subdirectory: here, from each thread.
    if std::fs::metadata("/proc/self/task")?.nlink() != 3 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a process with several threads cannot be cloned safely",
        ));
    }

    let mut flags = libc::CLONE_PIDFD as u64;
    for (wanted, flag) in [
        (options.new_user, libc::CLONE_NEWUSER),
        (options.new_pid, libc::CLONE_NEWPID),
        (options.sibling, libc::CLONE_PARENT),
    ] {
        if wanted {
            flags |= flag as u64;
        }
    }
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain data for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.pidfd = &raw mut pidfd as u64;
    // With CLONE_PARENT the signal is the one of the caller's own exit.
    args.exit_signal = if options.sibling {
        0
    } else {
        libc::SIGCHLD as u64
    };
    if let Some(cgroup) = options.cgroup {
        flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_fd().as_raw_fd() as u64;
    }
    args.flags = flags;

    // SAFETY: `args` is valid for its size and `pidfd` outlives the call. No
    // stack is given and CLONE_VM is not set, so the child goes on with a copy
    // of this one; it is the only thread, so no lock is held by another.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            std::mem::size_of::<libc::clone_args>(),
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            for &descriptor in options.without {
                // SAFETY: the owners of these descriptors are in the parent;
                // no destructor of the copies here ever runs.
                unsafe { libc::close(descriptor) };
            }
            let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(Cloned {
            pid: pid as i32,
            // SAFETY: clone3 succeeded with CLONE_PIDFD: the descriptor is
            // open, and nobody else knows it.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_cloned() {
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || asked.recv());
        let refused = clone_process(CloneOptions::default(), || 0).expect_err("cloned");
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
        drop(ask);
        assert!(other.join().expect("thread").is_err());
    }
}
