//! A copy of the steward at work, seen from the steward.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};

use super::chore::{Chore, Ending, Told, perform};
use crate::storage::binder::facts::{name, uid};
use crate::storage::events::{Event, EventType};
use crate::storage::roots::Roots;
use crate::storage::work::{Action, Work};
use crate::sys::pidfd;
use crate::sys::process::{self, Kind};

/// SIGKILL.
const KILL: i32 = 9;
/// After how long the first progress is told as an event; the next after twice that.
const FIRST_NEWS: Duration = Duration::from_secs(2);

/// A copy of the steward, from its beginning until the kernel has nothing of it any
/// more.
pub(super) struct Job {
    /// The work that it does; none for what no one waits for.
    pub(super) work: Option<Work>,
    pub(super) chore: Chore,
    process: OwnedFd,
    told: PipeReader,
    line: Vec<u8>,
    state: State,
    killed: bool,
    /// Files and directories deleted so far.
    deleted: (u64, u64),
    started: Instant,
    next_news: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Working,
    /// What became of it is known; the process is about to end.
    Over,
    Gone,
}

impl Job {
    /// Has a copy of the calling process, which must have one thread and no store
    /// open, do `chore`.
    ///
    /// # Errors
    /// What pipe(2), fcntl(2) or clone3(2) say.
    pub(super) fn begin(work: Option<Work>, chore: Chore, roots: &Roots) -> io::Result<Self> {
        let (told, tell) = io::pipe()?;
        fcntl_setfl(&told, OFlags::NONBLOCK)?;
        let own = chore.clone();
        let pid = process::spawn(Kind::Child, move || {
            let tell = File::from(OwnedFd::from(tell));
            i32::from(perform(&own, roots, tell).is_err())
        })?;
        Ok(Self {
            work,
            chore,
            process: pidfd::open(pid.as_raw_nonzero().get())?,
            told,
            line: Vec::new(),
            state: State::Working,
            killed: false,
            deleted: (0, 0),
            started: Instant::now(),
            next_news: FIRST_NEWS,
        })
    }

    /// Whether it has to do with the object of this uid.
    pub(super) fn is_about(&self, object: &str) -> bool {
        let own = self.work.as_ref().map(|work| work.uid.as_str());
        own == Some(object) || uid(self.chore.volume()) == object
    }

    pub(super) fn is_working(&self) -> bool {
        self.state == State::Working
    }

    /// Whether the process has ended, and nothing of it is left.
    pub(super) fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    /// Whether it was ended before its work was.
    pub(super) fn was_killed(&self) -> bool {
        self.killed
    }

    /// Whether it is to go on when nobody wants it any more: a volume that is being
    /// made is recorded, so that it can be deleted as it should.
    pub(super) fn finishes_anyway(&self) -> bool {
        matches!(self.chore, Chore::Make(_))
    }

    /// Ends it; nothing more is heard of it.
    pub(super) fn kill(&mut self) {
        if self.state == State::Working {
            self.state = State::Over;
            self.killed = true;
        }
        // It may have ended in this moment.
        let _ = pidfd::send_signal(&self.process, KILL);
    }

    /// What becomes readable when there is something to hear.
    pub(super) fn stirs(&self) -> BorrowedFd<'_> {
        match self.state {
            State::Working => self.told.as_fd(),
            State::Over | State::Gone => self.process.as_fd(),
        }
    }

    /// When to look at it even if nothing is heard.
    pub(super) fn next_look(&self) -> Option<Instant> {
        (self.state == State::Working).then(|| self.started + self.chore.limit())
    }

    /// Takes in what it has said. Returns what became of it, once.
    ///
    /// # Errors
    /// What read(2) or waitid(2) say.
    pub(super) fn hear(&mut self) -> io::Result<Option<Ending>> {
        if self.state != State::Working {
            self.reap()?;
            return Ok(None);
        }
        let mut chunk = [0; 4096];
        let mut closed = false;
        loop {
            match self.told.read(&mut chunk) {
                Ok(0) => {
                    closed = true;
                    break;
                }
                Ok(length) => self.line.extend(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut ending = self.understand();
        if ending.is_none() && closed {
            ending = Some(failed("the process that did it was killed".to_owned()));
        }
        if ending.is_none() && self.started.elapsed() >= self.chore.limit() {
            ending = Some(failed(self.late()));
            self.kill();
        }
        if ending.is_some() {
            self.state = State::Over;
            self.reap()?;
        }
        Ok(ending)
    }

    fn understand(&mut self) -> Option<Ending> {
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(Told::Deleted(files, directories)) => self.deleted = (files, directories),
                Ok(Told::Ended(ending)) => return Some(ending),
                Err(error) => return Some(failed(format!("its word cannot be read: {error}"))),
            }
        }
        None
    }

    fn reap(&mut self) -> io::Result<()> {
        if self.state == State::Over && pidfd::has_ended(&self.process)? {
            pidfd::wait(&self.process)?;
            self.state = State::Gone;
        }
        Ok(())
    }

    fn late(&self) -> String {
        let seconds = self.chore.limit().as_secs();
        match self.deleted {
            (0, 0) => {
                format!("it was not done within {seconds} s: whatever it is on does not answer")
            }
            (files, directories) => format!(
                "it was not done within {seconds} s: {files} files and {directories} directories were deleted"
            ),
        }
    }

    /// An event with how far it is, when it is time for one.
    pub(super) fn progress(&mut self) -> Option<Event> {
        let is_news = self.state == State::Working && self.deleted != (0, 0);
        if !is_news || self.started.elapsed() < self.next_news {
            return None;
        }
        self.next_news = self.started.elapsed() + self.next_news;
        let volume = self.chore.volume();
        let (files, directories) = self.deleted;
        let recycles = self.work.as_ref().map(|work| work.action) == Some(Action::Recycle);
        Some(Event {
            namespace: String::new(),
            kind: "PersistentVolume".to_owned(),
            name: name(volume).to_owned(),
            uid: uid(volume).to_owned(),
            field_path: String::new(),
            type_: EventType::Normal,
            reason: if recycles {
                "RecyclerPod"
            } else {
                "VolumeDelete"
            }
            .to_owned(),
            message: format!("{files} files and {directories} directories are deleted so far"),
            source: "persistentvolume-controller".to_owned(),
        })
    }
}

fn failed(reason: String) -> Ending {
    Ending::Failed {
        reason,
        lasting: false,
    }
}
