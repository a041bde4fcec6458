//! What a container writes and reads: its log, and the clients that are
//! attached to it.
//!
//! The keeper holds the other ends of the container's standard streams, or the
//! master of its terminal. Everything that the container writes goes into its
//! log first and then to every client's pipe. A client that does not read loses
//! output, and is told how much: neither the container nor its log ever waits
//! for it. Input does not pass the keeper: a client is given the descriptor to
//! write to.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::watch;

use crate::pod::control::{Attach, END_OF_INPUT, Reply};
use crate::pod::log_files::Log;
use crate::pod::logs::{Entries, Stream};
use crate::sys::{readable, socket};

/// The running containers by name.
pub(super) type Hubs = Rc<RefCell<BTreeMap<String, Weak<Hub>>>>;

/// One start of a container, as far as its streams go.
pub(super) struct Hub {
    attempt: u32,
    terminal: bool,
    /// Where its input is written to, while it takes any.
    stdin: RefCell<Option<OwnedFd>>,
    /// True when its input ends with the first client's.
    stdin_once: bool,
    log: RefCell<Log>,
    streams: [RefCell<Entries>; 2],
    clients: RefCell<Vec<Rc<Client>>>,
    exit_code: watch::Sender<Option<i32>>,
    /// The container's own process, by number and by descriptor.
    process: RefCell<Option<(i32, Rc<OwnedFd>)>>,
}

/// The pipes of one attached client.
struct Client {
    /// For standard output and standard error; the terminal has only the first.
    pipes: Vec<OwnedFd>,
    /// Bytes that did not fit since the client was last told.
    lost: Cell<u64>,
}

impl Hub {
    pub(super) fn new(attempt: u32, terminal: bool, stdin_once: bool, log: Log) -> Self {
        Self {
            attempt,
            terminal,
            stdin: RefCell::default(),
            stdin_once,
            log: RefCell::new(log),
            streams: [Stream::Stdout, Stream::Stderr].map(|one| RefCell::new(Entries::new(one))),
            clients: RefCell::default(),
            exit_code: watch::Sender::default(),
            process: RefCell::default(),
        }
    }

    /// Says where the container's input is written to.
    pub(super) fn set_stdin(&self, stdin: OwnedFd) {
        *self.stdin.borrow_mut() = Some(stdin);
    }

    /// Says which process the container is.
    pub(super) fn set_process(&self, pid: i32, pidfd: Rc<OwnedFd>) {
        *self.process.borrow_mut() = Some((pid, pidfd));
    }

    /// The container's root directory, and who its process is.
    ///
    /// # Errors
    /// That it has ended, or what open(2) says.
    pub(super) fn root(&self) -> Result<(Reply, OwnedFd)> {
        let process = self.process.borrow();
        let (pid, pidfd) = process.as_ref().context("the container is not running")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty());
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        // While it has not ended, its number is nobody else's.
        let mut interest = [PollFd::new(&**pidfd, PollFlags::IN)];
        if poll(&mut interest, Some(&Timespec::default()))? > 0 {
            bail!("the container has ended");
        }
        let root = root.context("cannot open the container's root directory")?;
        let status = status.context("cannot read who the container's process is")?;
        // Real, effective, saved and file system id.
        let id = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            line?.split_whitespace().nth(3)?.parse().ok()
        };
        let (uid, gid) = id("Uid:")
            .zip(id("Gid:"))
            .context("the process's status does not say who it is")?;
        Ok((Reply::Root { uid, gid }, root))
    }

    /// Takes in what arrived on one of the two streams.
    ///
    /// # Errors
    /// That it could not be logged; the clients have it all the same.
    pub(super) fn take_in(
        &self,
        stream: Stream,
        bytes: &[u8],
        log: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut entries = self.streams[stream as usize].borrow_mut();
        entries.push(bytes, Timestamp::now(), log);
        let logged = self.log.borrow_mut().append(log);
        log.clear();
        self.clients
            .borrow_mut()
            .retain(|client| client.write(stream, bytes));
        logged
    }

    /// Takes in the end of one of the two streams.
    ///
    /// # Errors
    /// That its last words could not be logged.
    pub(super) fn finish(&self, stream: Stream) -> io::Result<()> {
        let mut log = Vec::new();
        let mut entries = self.streams[stream as usize].borrow_mut();
        entries.finish(Timestamp::now(), &mut log);
        self.log.borrow_mut().append(&log)
    }

    /// The container has ended, and what it wrote has been taken in.
    pub(super) fn close(&self, exit_code: i32) {
        self.clients.borrow_mut().clear();
        self.stdin.borrow_mut().take();
        self.exit_code.send_replace(Some(exit_code));
    }

    /// Serves one client until it goes away, or the container ends: its exit
    /// code is returned then.
    pub(super) async fn attach(
        &self,
        connection: &OwnedFd,
        request: &Attach,
        pipes: Vec<OwnedFd>,
    ) -> Result<Option<i32>> {
        if pipes.is_empty() {
            bail!("a client must say where the output goes");
        }
        for pipe in &pipes {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let stdin = if request.stdin {
            let stdin = self.stdin.borrow();
            stdin.as_ref().map(OwnedFd::try_clone).transpose()?
        } else {
            None
        };
        let reply = Reply::Attached {
            attempt: self.attempt,
            terminal: self.terminal,
            written: self.log.borrow().written(),
            pending: self
                .streams
                .each_ref()
                .map(|entries| entries.borrow().pending().to_vec()),
        };
        let descriptors: Vec<_> = stdin.iter().map(AsFd::as_fd).collect();
        let gives_input = !descriptors.is_empty();
        socket::send(
            connection.as_fd(),
            &serde_json::to_vec(&reply)?,
            &descriptors,
        )?;
        drop(stdin);
        let client = Rc::new(Client {
            pipes,
            lost: Cell::new(0),
        });
        self.clients.borrow_mut().push(Rc::clone(&client));

        let mut ended = self.exit_code.subscribe();
        let over = async {
            match ended.wait_for(Option::is_some).await {
                Ok(code) => *code,
                Err(_) => None,
            }
        };
        let outcome = tokio::select! {
            code = over => Ok(code),
            gone = self.listen(connection, gives_input) => gone.map(|()| None),
        };
        self.clients
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, &client));
        if gives_input {
            self.input_ended();
        }
        outcome
    }

    /// Waits until the client has gone.
    async fn listen(&self, connection: &OwnedFd, gives_input: bool) -> Result<()> {
        rustix::io::ioctl_fionbio(connection, true)?;
        let connection = readable::watch(connection.try_clone()?)?;
        loop {
            let mut ready = connection.readable().await?;
            let mut byte = [0];
            let read = ready.try_io(|connection| Ok(rustix::io::read(connection, &mut byte)?));
            match read {
                Err(_would_block) => {}
                Ok(Ok(1)) if gives_input && byte[0] == END_OF_INPUT => self.input_ended(),
                Ok(Ok(1)) => {}
                Ok(_) => return Ok(()),
            }
        }
    }

    /// The input of the client that had it is over.
    fn input_ended(&self) {
        if self.stdin_once && !self.terminal {
            self.stdin.borrow_mut().take();
        }
    }
}

impl Client {
    /// Gives the client what fits into its pipe. False when it has gone.
    fn write(&self, stream: Stream, bytes: &[u8]) -> bool {
        let Some(pipe) = self.pipes.get(stream as usize).or(self.pipes.first()) else {
            return false;
        };
        if self.lost.get() > 0 {
            let note = format!(
                "\r\n[orlop: {} bytes are left out here, which were not read in time; `orlop logs` \
                 shows them]\r\n",
                self.lost.get()
            );
            // A note is shorter than what a pipe takes whole or not at all.
            match rustix::io::write(pipe, note.as_bytes()) {
                Ok(_) => self.lost.set(0),
                Err(Errno::AGAIN) => {}
                Err(_) => return false,
            }
        }
        let taken = match self.lost.get() {
            0 => rustix::io::write(pipe, bytes),
            _ => Ok(0),
        };
        match taken {
            Ok(count) => self
                .lost
                .set(self.lost.get() + (bytes.len() - count) as u64),
            Err(Errno::AGAIN) => self.lost.set(bytes.len() as u64),
            Err(_) => return false,
        }
        true
    }
}

/// The container that a client wants to be attached to.
///
/// # Errors
/// That it does not run.
pub(super) fn find(hubs: &Hubs, container: &str) -> Result<Rc<Hub>> {
    let hubs = hubs.borrow();
    let hub = hubs.get(container).and_then(Weak::upgrade);
    let running = hub.filter(|hub| hub.exit_code.borrow().is_none());
    running.with_context(|| format!("container {container:?} is not running"))
}
