//! One start of a container, as a task beside the keeper's loop.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use uuid::Uuid;

use super::attach::{Hub, Hubs};
use super::children::{Child, Children};
use super::orders;
use super::output::{Output, Readers};
use super::pull::Puller;
use crate::image::Image;
use crate::pod::log_files::{Limits, Log};
use crate::pod::protocol::{Answer, ContainerOrder, Failure, FailureKind, Order};
use crate::pod::spec::ImageDefaults;
use crate::pod::spec::env::References;
use crate::sys::{pidfd, readable};

/// How long the end of a container waits for the end of its output.
const DRAIN: Duration = Duration::from_secs(2);

/// Why a container could not be started.
pub(super) enum StartError {
    /// Its image is not there.
    Image {
        reason: &'static str,
        message: String,
    },
    /// Nobody wants the image any more that was being pulled for it.
    GivenUp,
    /// The launcher, or the program itself, said no.
    Failed(Failure),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let message = match error {
            StartError::Failed(failure) => return failure,
            StartError::Image { reason, message } => format!("{reason}: {message}"),
            StartError::GivenUp => "nobody wants its image any more".to_owned(),
        };
        Self {
            kind: FailureKind::Other,
            message,
        }
    }
}

/// A container that was started.
pub(super) struct Started {
    pub(super) image_id: String,
    pub(super) stop_signal: Option<String>,
    pub(super) process: Child,
    pub(super) since: Timestamp,
    pub(super) readers: Readers,
    pub(super) hub: Rc<Hub>,
}

/// What a start needs.
pub(super) struct Start {
    pub(super) launcher: Rc<OwnedFd>,
    pub(super) children: Children,
    pub(super) puller: Puller,
    pub(super) hubs: Hubs,
    pub(super) logs: PathBuf,
    pub(super) container: Container,
    /// What its variables come from.
    pub(super) references: Result<References, Failure>,
    pub(super) id: String,
    pub(super) attempt: u32,
}

/// A new id for a start, unique on every machine.
pub(super) fn new_id() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

impl Start {
    /// Starts the container and returns once its program runs.
    pub(super) async fn run(self) -> Result<Started, StartError> {
        let image = self.puller.image().await?;
        let references = self.references.map_err(StartError::Failed)?;
        let other = |what: &str, error: std::io::Error| {
            StartError::Failed(Failure {
                kind: FailureKind::Create,
                message: format!("cannot {what}: {error}"),
            })
        };
        let limits = Limits::of_this_process();
        let log = Log::open(&self.logs, &self.container.name, self.attempt, limits)
            .map_err(|error| other("open the container's log", error))?;
        let mut output = Output::connect(&self.container, self.attempt, log)
            .map_err(|error| other("make pipes for the container's output", error))?;
        let order = Order::Container(Box::new(ContainerOrder {
            name: self.container.name.clone(),
            id: self.id.clone(),
            attempt: self.attempt,
            image: image.id.clone(),
            defaults: defaults(&image),
            references,
        }));
        let expected = self.children.expect();
        let answer = orders::order(self.launcher.as_fd(), &order, &output.given()).await;
        let (answer, descriptors) = answer.map_err(StartError::Failed)?;
        let mut descriptors = descriptors.into_iter();
        let (refusal, terminal) = (descriptors.next(), descriptors.next());
        output
            .started(&self.container, terminal)
            .map_err(|error| other("watch the container's terminal", error))?;
        let Answer::Started { pid } = answer else {
            return Err(other(
                "start the container",
                std::io::ErrorKind::InvalidData.into(),
            ));
        };
        let process = expected
            .arrived(pid)
            .map_err(|error| other("watch the container", error))?;
        let since = Timestamp::now();
        if let Some(pipe) = refusal {
            let refusal = orders::read_to_end(pipe).await;
            let refusal = refusal.map_err(|error| other("watch the container", error))?;
            if !refusal.is_empty() {
                process
                    .exit_code()
                    .await
                    .map_err(|error| other("reap the container", error))?;
                return Err(StartError::Failed(Failure {
                    kind: FailureKind::Start,
                    message: refusal,
                }));
            }
        }
        output.hub.set_process(pid, process.pidfd());
        let mut hubs = self.hubs.borrow_mut();
        hubs.insert(self.container.name.clone(), Rc::downgrade(&output.hub));
        Ok(Started {
            image_id: image.id,
            stop_signal: image.config.stop_signal,
            process,
            since,
            readers: output.readers,
            hub: output.hub,
        })
    }
}

fn defaults(image: &Image) -> ImageDefaults {
    let config = &image.config;
    ImageDefaults {
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        user: config.user.clone(),
        working_dir: config.working_dir.clone(),
    }
}

/// Waits for a child to end and reaps it. Returns its exit code, or 128 and the
/// number of the signal that ended it.
pub(super) async fn exit_code(pidfd: impl AsFd) -> std::io::Result<i32> {
    let watched = pidfd.as_fd().try_clone_to_owned()?;
    drop(readable::watch(watched)?.readable().await?);
    Ok(pidfd::wait(pidfd)?.code())
}

/// Waits for a container to end and for its output to be in the log.
pub(super) async fn end(process: Child, readers: Readers, hub: &Hub) -> std::io::Result<i32> {
    let code = process.exit_code().await?;
    // A process that left the container may keep its output open for ever.
    let drained = async {
        for reader in readers {
            // What could not be written is lost; the container has ended anyway.
            let _ = reader.await;
        }
    };
    let _ = tokio::time::timeout(DRAIN, drained).await;
    hub.close(code);
    Ok(code)
}
