//! Processes by descriptor (pidfd_open(2)): a pidfd never comes to mean another
//! process, whatever happens to the number.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It called exit with this status.
    Status(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// The status as shells and container runtimes report it: 128 + n for a
    /// process killed by signal n.
    pub fn code(self) -> i32 {
        match self {
            Self::Status(status) => status,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Opens the process with this id, as seen in the caller's PID namespace.
///
/// # Errors
/// `ESRCH` when there is none, `EINVAL` for numbers below 1.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Some(pid)
        .filter(|&pid| pid > 0)
        .and_then(Pid::from_raw)
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal (1 to 64, real-time ones included).
///
/// # Errors
/// `ESRCH` when the process has been reaped, `EINVAL` for numbers that are no
/// signal, `EPERM` without privilege. A zombie takes every signal in silence.
pub fn send_signal(process: impl AsFd, signal: i32) -> io::Result<()> {
    if !(1..=64).contains(&signal) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the number lies in the kernel's range of signals. The ones libc
    // keeps for itself are only sent, never handled here.
    let signal = unsafe { Signal::from_raw_unchecked(signal) };
    Ok(rustix::process::pidfd_send_signal(process, signal)?)
}

/// Whether the process has ended; it may still have to be waited for.
///
/// # Errors
/// What poll(2) says.
pub fn has_ended(process: impl AsFd) -> io::Result<bool> {
    let file = process.as_fd();
    let mut watched = [PollFd::from_borrowed_fd(file, PollFlags::IN)];
    let at_once = Timespec::default();
    Ok(rustix::io::retry_on_intr(|| poll(&mut watched, Some(&at_once)))? > 0)
}

/// Waits for a child to end, and reaps it.
///
/// # Errors
/// `ECHILD` when it is no child of the caller, or has been reaped already.
pub fn wait(process: impl AsFd) -> io::Result<Exit> {
    let id = WaitId::PidFd(process.as_fd());
    loop {
        match rustix::process::waitid(id.clone(), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(status), _) => Exit::Status(status),
                    (None, signal) => Exit::Signal(signal.unwrap_or_default()),
                });
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    #[expect(clippy::zombie_processes, reason = "this module's wait reaps them")]
    fn the_status_of_a_child_is_its_own_or_its_signal() {
        let child = Command::new("sh")
            .args(["-c", "exit 42"])
            .spawn()
            .expect("sh");
        let process = open(child.id() as i32).expect("pidfd");
        assert_eq!(wait(&process).expect("wait").code(), 42);
        assert!(wait(&process).is_err(), "reaped twice");

        let child = Command::new("sleep").arg("100").spawn().expect("sleep");
        let process = open(child.id() as i32).expect("pidfd");
        send_signal(&process, 9).expect("kill");
        assert_eq!(wait(&process).expect("wait"), Exit::Signal(9));
    }

    #[test]
    fn numbers_that_are_no_process_or_signal_are_refused() {
        assert!(open(0).is_err() && open(-1).is_err());
        let me = open(std::process::id() as i32).expect("pidfd");
        assert!(send_signal(&me, 0).is_err() && send_signal(&me, 65).is_err());
    }
}
