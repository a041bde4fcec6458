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

/// What a session is told by signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The terminal's size has changed (SIGWINCH).
    Resized,
    /// Somebody wants the program to end by the signal of this number (SIGTERM,
    /// SIGHUP, SIGINT or SIGQUIT).
    End(i32),
}

/// A descriptor that becomes readable when the terminal's size changes, or when
/// the program is asked to end (signalfd(2)): a terminal in raw mode must get its
/// former mode back first.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// To be called before the process has threads, so that they all leave the
    /// signals to the descriptor.
    ///
    /// # Errors
    /// What sigprocmask(2) or signalfd(2) say.
    pub fn new() -> io::Result<Self> {
        let all = [
            libc::SIGWINCH,
            libc::SIGTERM,
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
        ];
        // SAFETY: sigset_t is plain data that sigemptyset(3) initialises; the set
        // lives across the calls; signalfd(2) returns a new descriptor or -1.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in all {
                libc::sigaddset(&raw mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) == -1 {
                return Err(io::Error::last_os_error());
            }
            match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// The next signal, waited for.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn next(&self) -> io::Result<Signal> {
        // signalfd_siginfo: 128 bytes, of which the first four are the number.
        let mut info = [0_u8; 128];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut info[..]))?;
        let number = info
            .first_chunk()
            .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        Ok(match number {
            libc::SIGWINCH => Signal::Resized,
            number => Signal::End(number),
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
