//! From a container's pipes to its log.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use jiff::Timestamp;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

use crate::pod::logs::{Entries, Stream};

/// The ends that the container writes to, and the tasks that read what it
/// writes; they end when every process has closed its end.
pub(super) struct Output {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) readers: [JoinHandle<io::Result<()>>; 2],
}

/// Connects the two streams of a container with its log.
pub(super) fn connect(log: File) -> io::Result<Output> {
    let log = Rc::new(RefCell::new(log));
    let (stdout, out) = stream(Stream::Stdout, &log)?;
    let (stderr, err) = stream(Stream::Stderr, &log)?;
    Ok(Output {
        stdout,
        stderr,
        readers: [out, err],
    })
}

fn stream(
    stream: Stream,
    log: &Rc<RefCell<File>>,
) -> io::Result<(OwnedFd, JoinHandle<io::Result<()>>)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    let reader = Receiver::from_owned_fd(read)?;
    let task = tokio::task::spawn_local(copy(reader, Entries::new(stream), Rc::clone(log)));
    Ok((write, task))
}

/// A log that cannot be written, on a full disk for instance, loses lines; the
/// container is not stopped by it. The first failure is what is returned.
async fn copy(mut from: Receiver, mut entries: Entries, log: Rc<RefCell<File>>) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    let mut output = Vec::new();
    let mut outcome = Ok(());
    while from.read_buf(&mut buffer).await? > 0 {
        entries.push(&buffer, Timestamp::now(), &mut output);
        buffer.clear();
        outcome = outcome.and(log.borrow_mut().write_all(&output));
        output.clear();
        output.shrink_to(4096);
    }
    entries.finish(Timestamp::now(), &mut output);
    outcome.and(log.borrow_mut().write_all(&output))
}
