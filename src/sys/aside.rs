//! Work that may never end, done by a copy of the calling process that is killed
//! when its time is over. A process that waits for a server of files can be killed;
//! a thread cannot.

use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::pidfd;
use super::process::{self, Kind};

/// SIGKILL.
const KILL: i32 = 9;

/// A copy of the calling process that is at work.
pub struct Aside {
    process: OwnedFd,
    result: PipeReader,
}

impl Aside {
    /// Has a copy of the caller, which must have one thread, do `job` and send back
    /// what it returns.
    ///
    /// # Errors
    /// What pipe(2) or clone3(2) say; `EBUSY` when the caller has threads.
    pub fn begin(job: impl FnOnce() -> Vec<u8>) -> io::Result<Self> {
        let (result, mut send) = io::pipe()?;
        let pid = process::spawn(Kind::Child, move || {
            i32::from(send.write_all(&job()).is_err())
        })?;
        Ok(Self {
            process: pidfd::open(pid.as_raw_nonzero().get())?,
            result,
        })
    }

    /// Waits for the result until `deadline`. `None` when there was none by then,
    /// or the copy died: it is killed, and not waited for.
    ///
    /// # Errors
    /// What poll(2) or read(2) say.
    pub fn result_until(mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if !stirs_until(self.result.as_fd(), deadline)? {
                return self.give_up();
            }
            match self.result.read(&mut chunk)? {
                0 => break,
                length => bytes.extend(&chunk[..length]),
            }
        }
        // The end of the process closes the pipe, a moment before it is complete.
        if !stirs_until(self.process.as_fd(), deadline)? {
            return self.give_up();
        }
        let ended = pidfd::wait(&self.process)?;
        Ok((ended.code() == 0).then_some(bytes))
    }

    fn give_up(self) -> io::Result<Option<Vec<u8>>> {
        // It may have ended in this moment.
        let _ = pidfd::send_signal(&self.process, KILL);
        Ok(None)
    }
}

/// Whether `file` becomes readable before `deadline`.
fn stirs_until(file: BorrowedFd, deadline: Instant) -> io::Result<bool> {
    let mut watched = [PollFd::from_borrowed_fd(file, PollFlags::IN)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut watched, Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
