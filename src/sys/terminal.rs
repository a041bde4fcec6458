//! The user's terminal: raw mode, size, and word of its changes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// A terminal in raw mode. Dropping it gives the terminal its former mode back.
pub struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    former: Termios,
}

impl<'a> RawMode<'a> {
    /// Puts a terminal into raw mode (termios(3)).
    ///
    /// # Errors
    /// `ENOTTY` when it is no terminal.
    pub fn enter(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let former = tcgetattr(terminal)?;
        let mut raw = former.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, former })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // There is nothing to fall back on when the terminal is gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.former);
    }
}

/// Gives the terminal `to` the size of the terminal `from`.
///
/// # Errors
/// What the ioctls `TIOCGWINSZ` and `TIOCSWINSZ` say.
pub fn copy_size(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    Ok(tcsetwinsize(to, tcgetwinsize(from)?)?)
}

/// A descriptor that becomes readable when the terminal's size changes
/// (SIGWINCH through signalfd(2)). To be called before the process has threads,
/// so that they all leave the signal to the descriptor.
///
/// # Errors
/// What sigprocmask(2) or signalfd(2) say.
pub fn size_changes() -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data that sigemptyset(3) initialises; the set
    // lives across the calls; signalfd(2) returns a new descriptor or -1.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGWINCH);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) == -1 {
            return Err(io::Error::last_os_error());
        }
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}
