//! What the keeper tells the launcher, and what comes back.
//!
//! An order travels with a socket of its own for the answer, so that a helper
//! process which dies without one is noticed: its socket closes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use super::spec::ImageDefaults;
use super::spec::env::References;
use crate::volume::Persistent;
use crate::volume::usage::Report;

/// An order from the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Make the pod's namespaces and the place for its mounts.
    Sandbox(Box<SandboxOrder>),
    /// Set the volume of this name up. Descriptor that comes back: its root, when
    /// the keeper is to write its files.
    Volume(String),
    /// Make and start a container. Descriptors: its stdout, its stderr and, if
    /// it has one, its stdin; none when it gets a terminal.
    Container(Box<ContainerOrder>),
    /// Run a further process in a container. Descriptors: its stdin, stdout and
    /// stderr, unless it gets a terminal.
    Exec(Box<ExecOrder>),
    /// The pod's labels and annotations are these now.
    Metadata {
        /// Its labels.
        labels: Option<BTreeMap<String, String>>,
        /// Its annotations.
        annotations: Option<BTreeMap<String, String>>,
    },
    /// Make a TCP socket in the pod's network namespace; it comes back with the
    /// answer.
    Socket {
        /// True for one that connects to IPv6 addresses.
        ipv6: bool,
    },
    /// Take away the root file system of a container that has ended.
    Discard(String),
    /// Tell what the pod's volumes take.
    Usage,
    /// End what waits for servers of volumes that do not answer: what was not
    /// stored there is lost.
    GiveServersUp,
}

/// What the launcher needs to know of its pod.
#[derive(Debug, Serialize, Deserialize)]
pub struct SandboxOrder {
    /// The pod as it is stored, its claims replaced by what they stand for.
    pub pod: Pod,
    /// What PersistentVolumes say of its volumes, by the name of the volume.
    pub persistent: BTreeMap<String, Persistent>,
    /// The name of this machine.
    pub node_name: String,
    /// The machine's address, when it has one.
    pub host_ip: Option<String>,
}

/// One start of a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct ContainerOrder {
    /// Its name in the pod.
    pub name: String,
    /// The id of this start, unique on the machine.
    pub id: String,
    /// Which start it is, from 0.
    pub attempt: u32,
    /// The id of its image.
    pub image: String,
    /// What the image says about its process.
    pub defaults: ImageDefaults,
    /// What its variables come from.
    pub references: References,
}

/// One further process in a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExecOrder {
    /// The container's name.
    pub name: String,
    /// The id of the container's present start.
    pub id: String,
    /// The command with its arguments.
    pub command: Vec<String>,
    /// True when the process shall have a terminal; its other side comes back
    /// with the answer.
    pub terminal: bool,
    /// What `TERM` is on the user's side.
    pub term: Option<String>,
}

/// What became of an order.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It is done. Descriptor: the socket, if one was asked for.
    Done,
    /// The sandbox is made; what the pod asks for and does without, one sentence each.
    Sandbox(Vec<String>),
    /// A process was started. Descriptors: a pipe that tells when its program
    /// runs (it closes) or why it does not (a text); then the terminal, if one
    /// was asked for.
    Started {
        /// The process, a child of the keeper.
        pid: i32,
    },
    /// A volume is mounted whose server has something about it that people should
    /// know.
    Mounted {
        /// One sentence, if there is anything to say.
        warning: Option<String>,
    },
    /// What the file system of each volume tells that is mounted.
    Usage(BTreeMap<String, Report>),
    /// What was given up: volumes and their servers, as in `"data" (10.0.0.1:/e)`.
    GivenUp(Vec<String>),
    /// It failed.
    Failed(Failure),
}

/// Why an order failed, in the terms in which a pod's status says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which part failed.
    pub kind: FailureKind,
    /// One sentence.
    pub message: String,
}

/// The parts of a start that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The manifest asks for what cannot be: `CreateContainerConfigError`.
    Config,
    /// The container could not be made: `CreateContainerError`.
    Create,
    /// Its program could not be started: `StartError`.
    Start,
    /// Anything else.
    Other,
}

impl Failure {
    /// A failure of this kind with the text of `error` and its causes.
    #[must_use]
    pub fn new(kind: FailureKind, error: &anyhow::Error) -> Self {
        Self {
            kind,
            message: format!("{error:#}"),
        }
    }
}

/// The files of a pod that its containers see, below its run directory.
#[must_use]
pub fn files(run: &std::path::Path) -> [PathBuf; 3] {
    ["etc-hosts", "resolv.conf", "hostname"].map(|name| run.join("files").join(name))
}
