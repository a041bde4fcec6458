//! The keeper's socket, as its clients see it: requests, replies, and the
//! blocking side of the conversation.
//!
//! One connection carries one request; the keeper answers with one message or
//! more and closes.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use k8s_openapi::api::core::v1::PodStatus;
use serde::{Deserialize, Serialize};

use super::home::Home;
use crate::sys::socket;
use crate::volume::usage::Report;

/// What an attached client sends when its own standard input has ended.
pub const END_OF_INPUT: u8 = b'e';

/// What a client asks of a pod's keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Stop the pod and remove it: its deletion is recorded in the store.
    /// A client that waits is answered with [`Reply::Gone`]. A pod that is being
    /// stopped already is stopped earlier at most.
    Stop {
        /// Seconds between SIGTERM and SIGKILL.
        grace: u32,
        /// False when nobody waits for the end.
        wait: bool,
    },
    /// Run a process in a container. Descriptors: its stdin, stdout and stderr,
    /// unless it gets a terminal. Answered with [`Reply::Started`] and
    /// [`Reply::Exited`].
    Exec(Exec),
    /// Show what a container writes from now on, and let it be written to.
    /// Descriptors: pipes for its stdout and its stderr; the first has
    /// everything of a container with a terminal. Answered with
    /// [`Reply::Attached`] and, when the container ends, [`Reply::Exited`].
    /// The client sends the byte [`END_OF_INPUT`] when it has no more input.
    Attach(Attach),
    /// Hand out the root directory of the container of this name. Answered with
    /// [`Reply::Root`].
    Root(String),
    /// Look at the pod's manifest in the store again: it has changed.
    Reload,
    /// Tell the pod's status now and whenever it changes, as [`Reply::Status`].
    Watch,
    /// Tell what the pod's volumes take, as [`Reply::Usage`].
    Usage,
}

/// A process to run in a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exec {
    /// The container's name.
    pub container: String,
    /// The command with its arguments.
    pub command: Vec<String>,
    /// True to give it a terminal.
    pub terminal: bool,
    /// What `TERM` is on the user's side.
    pub term: Option<String>,
}

/// A container to be attached to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Attach {
    /// The container's name.
    pub container: String,
    /// True to get the descriptor that its input is written to.
    pub stdin: bool,
}

impl AsFd for Client {
    /// The connection, to wait for several things at once.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What a keeper answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The pod and all that belonged to it is gone.
    Gone {
        /// What could not be done as it should be, one sentence each.
        left: Vec<String>,
    },
    /// The process runs. Descriptor: its terminal, if it has one.
    Started,
    /// The process has ended with this code, 128 and the number of the signal
    /// when one ended it.
    Exited(i32),
    /// The client is attached. Descriptor: where to write the container's
    /// input, if that was asked for and it takes any; with a terminal it is its
    /// master, which is not to be read.
    Attached {
        /// Which start of the container this is, from 0.
        attempt: u32,
        /// True when the container has a terminal.
        terminal: bool,
        /// Bytes that were in its log when the client was attached.
        written: u64,
        /// What had arrived of lines of stdout and stderr that were not in the
        /// log yet.
        pending: [Vec<u8>; 2],
    },
    /// The root directory of a container. Descriptor: a handle on it (`O_PATH`).
    Root {
        /// The user that the container's own process runs as.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// The status of the pod.
    Status(Box<PodStatus>),
    /// What the file systems of the pod's volumes tell, by the volumes' names.
    Usage(BTreeMap<String, Report>),
    /// The request failed, for the reason in this sentence.
    Failed(String),
}

/// A connection to a pod's keeper.
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the keeper of a pod. `None` when it is not running, or not
    /// yet.
    ///
    /// # Errors
    /// What connect(2) says beyond that nobody listens.
    pub fn connect(home: &Home) -> io::Result<Option<Self>> {
        match socket::connect(&home.socket()) {
            Ok(stream) => Ok(Some(Self { stream })),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends the connection's request.
    ///
    /// # Errors
    /// What sendmsg(2) says.
    pub fn send(&self, request: &Request, descriptors: &[BorrowedFd]) -> io::Result<()> {
        socket::send(
            self.stream.as_fd(),
            &serde_json::to_vec(request)?,
            descriptors,
        )
    }

    /// [`receive`](Self::receive), but for `limit` at most.
    ///
    /// # Errors
    /// `WouldBlock` when nothing came; the connection is of no use afterwards.
    pub fn receive_within(
        &self,
        limit: std::time::Duration,
    ) -> io::Result<Option<(Reply, Vec<OwnedFd>)>> {
        if limit.is_zero() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.stream.set_read_timeout(Some(limit))?;
        self.receive()
    }

    /// Waits for the next reply. `None` when the keeper has closed the
    /// connection or is gone.
    ///
    /// # Errors
    /// What recvmsg(2) says.
    pub fn receive(&self) -> io::Result<Option<(Reply, Vec<OwnedFd>)>> {
        match socket::receive(self.stream.as_fd()) {
            Ok(Some((bytes, descriptors))) => {
                Ok(Some((serde_json::from_slice(&bytes)?, descriptors)))
            }
            Ok(None) => Ok(None),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
