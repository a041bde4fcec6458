//! Signals as data (signalfd(2)): for a process that passes on whatever is sent
//! to it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd};

/// The signals sent to this process, from the moment this is made.
///
/// They stay blocked for as long as the process lives; programs it executes by
/// [`super::exec::execve`] or the standard library start with none blocked.
#[derive(Debug)]
pub struct Signals(File);

impl Signals {
    /// Takes over every signal that can be, but for the ones that tell of the
    /// process's own affairs: SIGCHLD, SIGURG, and faults of the program.
    ///
    /// # Errors
    /// What signalfd(2) says.
    pub fn take_over() -> io::Result<Self> {
        const OWN: [i32; 8] = [
            libc::SIGCHLD,
            libc::SIGURG,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGABRT,
            libc::SIGTRAP,
        ];
        // SAFETY: the set is initialised by sigfillset before it is used, and
        // outlives the calls that get pointers to it.
        let fd = unsafe {
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigfillset(&mut set);
            for signal in OWN {
                libc::sigdelset(&mut set, signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: signalfd returned it: it is open, and nobody else knows it.
        Ok(Self(unsafe { File::from_raw_fd(fd) }))
    }

    /// The next signal that has arrived, `None` when there is none yet.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn receive(&mut self) -> io::Result<Option<i32>> {
        let mut info = [0; std::mem::size_of::<libc::signalfd_siginfo>()];
        match self.0.read_exact(&mut info) {
            // The number is the record's first field.
            Ok(()) => Ok(Some(i32::from_ne_bytes([
                info[0], info[1], info[2], info[3],
            ]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
