//! Helpers of the calling process: copies of it that end with it, children that
//! have ended, and what a copy does with what it inherited.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::clone::{CloneOptions, clone_process};

/// How long a thread that has ended may still be counted, on a busy machine.
const THREAD_END: Duration = Duration::from_secs(2);

/// How the new process relates to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A child of the caller.
    Child,
    /// A child of the caller's own parent (`CLONE_PARENT`).
    Sibling,
    /// A child that is the first process of a new PID namespace
    /// (`CLONE_NEWPID`).
    Init,
}

/// Copies the calling process; the copy runs `body` and exits with its result.
///
/// The copy is killed when its parent dies, so that no helper outlives the
/// process it helps.
///
/// # Errors
/// What clone3(2) says; and `EBUSY` when the caller has more than
/// one thread.
pub fn spawn(kind: Kind, body: impl FnOnce() -> i32) -> io::Result<Pid> {
    await_single_thread()?;
    let options = CloneOptions {
        sibling: kind == Kind::Sibling,
        new_pid: kind == Kind::Init,
        ..CloneOptions::default()
    };
    let cloned = clone_process(
        options,
        || match rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
            Ok(()) => body(),
            Err(_) => 1,
        },
    )?;
    Pid::from_raw(cloned.pid).ok_or_else(|| io::Error::other("clone3(2) returned no process id"))
}

/// Fails with `EBUSY` when the caller has further threads. One that was joined is
/// counted by the kernel for a moment longer: it is waited for.
fn await_single_thread() -> io::Result<()> {
    let start = Instant::now();
    while std::fs::read_dir("/proc/self/task")?.count() != 1 {
        if start.elapsed() > THREAD_END {
            return Err(io::Error::from(rustix::io::Errno::BUSY));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Does nothing for ever, while the kernel reaps the children that fall to the
/// caller: the whole duty of the first process of a PID namespace which
/// containers share.
pub fn hold_namespace() -> ! {
    // SAFETY: no handler is installed; an ignored SIGCHLD lets the kernel reap
    // every child (wait(2), NOTES).
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    loop {
        // SAFETY: pause(2) has no arguments.
        unsafe { libc::pause() };
    }
}

/// Has the kernel end the calling process after `limit` (alarm(2)), unless it handles
/// SIGALRM; also out of a wait for a server, which only a deadly signal ends. Copies
/// of the process do not inherit it.
pub fn end_after(limit: Duration) {
    let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).max(1);
    // SAFETY: alarm(2) touches no memory.
    unsafe { libc::alarm(seconds) };
}

/// Closes every descriptor of the calling process but the first three and
/// `kept`, for a copy that shall hold on to nothing of its original. Whatever
/// else owned one of them in this process must not be used afterwards.
///
/// # Errors
/// What close_range(2) says.
pub fn close_descriptors_except(kept: BorrowedFd) -> io::Result<()> {
    let kept = kept.as_raw_fd().cast_unsigned();
    for (first, last) in [(3, kept.saturating_sub(1)), (kept.max(2) + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: closing touches no memory; the caller promises that no
            // owner of these descriptors is used again.
            if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// Replaces standard output with `/dev/null`.
///
/// # Errors
/// What open(2) or dup2(2) say.
pub fn forget_standard_output() -> io::Result<()> {
    let nothing = std::fs::File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(&nothing)?)
}

/// The process id of a child that has ended and was not waited for yet, which
/// it is left to be. `None` when there is none.
///
/// # Errors
/// What waitid(2) says.
pub fn ended_child() -> io::Result<Option<Pid>> {
    // SAFETY: siginfo_t is plain data, for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` lives across the call.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } == -1 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ECHILD) => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: waitid(2) has filled in the part of the union that si_pid reads,
    // or left it zero.
    Ok(Pid::from_raw(unsafe { info.si_pid() }))
}

/// Waits for a child that has ended, so that the kernel can forget it.
///
/// # Errors
/// What waitpid(2) says.
pub fn reap(pid: Pid) -> io::Result<()> {
    rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::NOHANG)?;
    Ok(())
}

/// Executes the program of the calling process anew, with the same arguments.
/// Returns only when that is not possible.
#[must_use]
pub fn execute_again() -> io::Error {
    use std::os::unix::process::CommandExt;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    std::process::Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_several_threads_is_refused() {
        // The test harness itself runs tests in threads.
        let error = spawn(Kind::Child, || 0).expect_err("several threads");
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    }
}
