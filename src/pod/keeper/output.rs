//! From a container's pipes or terminal to its log and its clients.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use k8s_openapi::api::core::v1::Container;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

use super::attach::Hub;
use crate::pod::log_files::Log;
use crate::pod::logs::Stream;
use crate::sys::readable;

/// Tasks that read what a container writes; they end when every process has
/// closed its end.
pub(super) type Readers = Vec<JoinHandle<io::Result<()>>>;

/// The standard streams of one start of a container.
pub(super) struct Output {
    /// The container's ends: stdout, stderr, and stdin if it has one. None of
    /// them with a terminal, which is made in the container.
    given: Vec<OwnedFd>,
    pub(super) hub: Rc<Hub>,
    pub(super) readers: Readers,
}

impl Output {
    /// Makes the streams that a container's manifest asks for.
    ///
    /// # Errors
    /// What pipe2(2) or epoll_ctl(2) say.
    pub(super) fn connect(container: &Container, attempt: u32, log: Log) -> io::Result<Self> {
        let is = |field: Option<bool>| field.unwrap_or(false);
        let terminal = is(container.tty);
        let hub = Rc::new(Hub::new(attempt, terminal, is(container.stdin_once), log));
        let mut output = Self {
            given: Vec::new(),
            hub,
            readers: Vec::new(),
        };
        if terminal {
            return Ok(output);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            let reader = Receiver::from_owned_fd(read)?;
            let copy = copy_pipe(reader, stream, Rc::clone(&output.hub));
            output.readers.push(tokio::task::spawn_local(copy));
            output.given.push(write);
        }
        if is(container.stdin) {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            output.hub.set_stdin(write);
            output.given.push(read);
        }
        Ok(output)
    }

    /// What the container is given.
    pub(super) fn given(&self) -> Vec<BorrowedFd<'_>> {
        self.given.iter().map(AsFd::as_fd).collect()
    }

    /// The container has what it was given. `terminal`: the master of the one
    /// that was made in it.
    ///
    /// # Errors
    /// What ioctl(2), dup(2) or epoll_ctl(2) say.
    pub(super) fn started(
        &mut self,
        container: &Container,
        terminal: Option<OwnedFd>,
    ) -> io::Result<()> {
        self.given.clear();
        let Some(master) = terminal else {
            return Ok(());
        };
        if container.stdin == Some(true) {
            self.hub.set_stdin(master.try_clone()?);
        }
        rustix::io::ioctl_fionbio(&master, true)?;
        let copy = copy_terminal(master, Rc::clone(&self.hub));
        self.readers.push(tokio::task::spawn_local(copy));
        Ok(())
    }
}

/// A log that cannot be written, on a full disk for instance, loses lines; the
/// container is not stopped by it. The first failure is what is returned.
async fn copy_pipe(mut from: Receiver, stream: Stream, hub: Rc<Hub>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = Vec::new();
    let mut outcome = Ok(());
    while from.read_buf(&mut buffer).await? > 0 {
        outcome = outcome.and(hub.take_in(stream, &buffer, &mut entries));
        buffer.clear();
        entries.shrink_to(4096);
    }
    outcome.and(hub.finish(stream))
}

/// The same for a terminal, whose end is `EIO`.
async fn copy_terminal(master: OwnedFd, hub: Rc<Hub>) -> io::Result<()> {
    let master = readable::watch(master)?;
    let mut buffer = [0; 4096];
    let mut entries = Vec::new();
    let mut outcome = Ok(());
    loop {
        let mut ready = master.readable().await?;
        match ready.try_io(|master| Ok(rustix::io::read(master, &mut buffer)?)) {
            Err(_would_block) => {}
            Ok(Ok(0)) => break,
            Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => break,
            Ok(count) => {
                let taken = hub.take_in(Stream::Stdout, &buffer[..count?], &mut entries);
                outcome = outcome.and(taken);
                entries.shrink_to(4096);
            }
        }
    }
    outcome.and(hub.finish(Stream::Stdout))
}
