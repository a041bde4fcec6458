//! Entering and leaving namespaces (namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Moves the calling process, which must have one thread, into new namespaces
/// of the kinds in `flags`.
///
/// # Errors
/// What unshare(2) says.
pub fn leave(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the flags that can break a process are those which unshare memory
    // resources between threads (FILES, FS); with one thread nothing is shared.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

/// Moves the calling process into the network namespace `other`, an open file such
/// as `/proc/PID/ns/net`.
///
/// # Errors
/// What setns(2) says.
pub fn join_network(other: BorrowedFd) -> io::Result<()> {
    let kind = Some(LinkNameSpaceType::Network);
    Ok(move_into_link_name_space(other, kind)?)
}

/// Moves the calling process, which must have one thread, into the mount namespace
/// `other`, an open file such as `/proc/PID/ns/mnt`. Its root and working directory
/// are those of that namespace then, and so is what it finds at `/proc`.
///
/// # Errors
/// What setns(2) says.
pub fn join_mounts(other: BorrowedFd) -> io::Result<()> {
    let kind = Some(LinkNameSpaceType::Mount);
    Ok(move_into_link_name_space(other, kind)?)
}

/// Does `job` in the mount namespace `other`, an open file such as
/// `/proc/PID/ns/mnt`, and comes back. The calling process must have one thread;
/// its root and working directory are those of the namespace it is in.
///
/// There is no going on in the wrong namespace: when the way back is closed, the
/// process ends.
///
/// # Errors
/// What open(2) and setns(2) say; `job` has not been done then.
pub fn in_mount_namespace<T>(other: BorrowedFd, job: impl FnOnce() -> T) -> io::Result<T> {
    let own = File::open("/proc/self/ns/mnt")?;
    let kind = Some(LinkNameSpaceType::Mount);
    move_into_link_name_space(other, kind)?;
    let done = job();
    if move_into_link_name_space(own.as_fd(), kind).is_err() {
        std::process::abort();
    }
    Ok(done)
}

/// While this lives, children of the caller are born in another PID or time
/// namespace than its own; dropping it ends that.
#[derive(Debug)]
pub struct ForChildren {
    own: File,
    kind: LinkNameSpaceType,
}

impl ForChildren {
    /// Children are born in the existing PID namespace at `path`, a file such
    /// as `/proc/PID/ns/pid`.
    ///
    /// # Errors
    /// What open(2) and setns(2) say; `EINVAL` when the file is no PID
    /// namespace, or one outside the caller's own.
    pub fn join_pid(path: &Path) -> io::Result<Self> {
        Self::join_pid_of(File::open(path)?)
    }

    /// The same for an open namespace file or the pidfd of one of its members.
    ///
    /// # Errors
    /// As [`ForChildren::join_pid`].
    pub fn join_pid_of(namespace: impl AsFd) -> io::Result<Self> {
        let own = File::open("/proc/self/ns/pid")?;
        let kind = LinkNameSpaceType::ProcessID;
        move_into_link_name_space(namespace.as_fd(), Some(kind))?;
        Ok(Self { own, kind })
    }

    /// Children are born in a new time namespace; `offsets` is what goes into
    /// `/proc/self/timens_offsets` (time_namespaces(7)), empty for none.
    ///
    /// # Errors
    /// What unshare(2) says, and `EINVAL` or `ERANGE` for bad offsets.
    pub fn new_time(offsets: &str) -> io::Result<Self> {
        let own = File::open("/proc/self/ns/time")?;
        // SAFETY: CLONE_NEWTIME touches no descriptor table and no memory of
        // the caller.
        unsafe { unshare_unsafe(UnshareFlags::NEWTIME)? };
        let guard = Self {
            own,
            kind: LinkNameSpaceType::Time,
        };
        if !offsets.is_empty() {
            std::fs::write("/proc/self/timens_offsets", offsets)?;
        }
        Ok(guard)
    }
}

impl Drop for ForChildren {
    fn drop(&mut self) {
        // Going back to one's own namespace needs nothing that was not needed
        // to leave it, so there is no failure to report.
        let _ = move_into_link_name_space(self.own.as_fd(), Some(self.kind));
    }
}
