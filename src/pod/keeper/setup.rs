//! What comes before the first container: the pod's namespaces and volumes.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use k8s_openapi::api::core::v1::ImageVolumeSource;

use super::backoff::Backoff;
use super::pull::{Pull, Wanting};
use super::{Event, Keeper, orders};
use crate::pod::claims;
use crate::pod::protocol::{Answer, Failure, Order, SandboxOrder};
use crate::storage::events::EventType;
use crate::sys::node;

impl Keeper {
    /// Makes the pod's namespaces when it is time to. Returns whether they are
    /// there.
    pub(super) async fn make_sandbox(&mut self) -> bool {
        if !self.sandbox.is_due(Instant::now()) {
            return self.sandbox.is_done();
        }
        let resolved = match claims::resolve(self.pod.clone(), &self.store) {
            Ok(resolved) => resolved,
            Err(unresolved) => {
                self.sandbox.failed();
                self.happened(
                    EventType::Warning,
                    "",
                    "FailedMount",
                    unresolved.to_string(),
                );
                return false;
            }
        };
        let order = Order::Sandbox(Box::new(SandboxOrder {
            pod: resolved.pod,
            persistent: resolved.persistent,
            node_name: node::name(),
            host_ip: self.host_ip.clone(),
        }));
        match orders::order(self.launcher.as_fd(), &order, &[]).await {
            Ok((answer, _)) => {
                self.sandbox.succeeded();
                self.happened(
                    EventType::Normal,
                    "",
                    "Scheduled",
                    format!(
                        "Successfully assigned {} to {}",
                        self.qualified_name(),
                        node::name()
                    ),
                );
                if let Answer::Sandbox(lacks) = answer {
                    for lack in lacks {
                        self.happened(EventType::Warning, "", "MissingController", lack);
                    }
                }
            }
            Err(failure) => {
                self.sandbox.failed();
                let message = format!("Failed to create pod sandbox: {failure}");
                self.happened(EventType::Warning, "", "FailedCreatePodSandBox", message);
            }
        }
        self.sandbox.is_done()
    }

    /// Lets a task set a volume up: the launcher may have to wait for a disk or a
    /// server, and the keeper must not.
    pub(super) fn mount(&mut self, index: usize) {
        let (name, attempt) = &mut self.volumes[index];
        attempt.begin();
        if self.written.has(name) {
            // It is mounted; only its files are missing.
            return self.mounted(index, Ok(None), None);
        }
        let order = Order::Volume(name.clone());
        let puller = self.image_of(index).map(|source| {
            let (image, policy) = (source.reference.clone(), source.pull_policy.clone());
            self.puller(Wanting::Volume(index), image, policy)
        });
        let (launcher, events) = (Rc::clone(&self.launcher), self.events.clone());
        tokio::task::spawn_local(async move {
            let image = match puller {
                Some(puller) => puller.image().await.map(drop),
                None => Ok(()),
            };
            let mut warning = None;
            let result = match image {
                Ok(()) => orders::order(launcher.as_fd(), &order, &[]).await.map(
                    |(answer, mut descriptors)| {
                        if let Answer::Mounted { warning: said } = answer {
                            warning = said;
                        }
                        descriptors.pop()
                    },
                ),
                Err(error) => Err(error.into()),
            };
            let _ = events.send(Event::Mounted {
                index,
                result,
                warning,
            });
        });
    }

    fn image_of(&self, index: usize) -> Option<&ImageVolumeSource> {
        let volumes = self.pod.spec.as_ref()?.volumes.as_ref()?;
        let volume = volumes.iter().find(|one| one.name == self.volumes[index].0);
        volume?.image.as_ref()
    }

    /// Takes in what became of a volume.
    pub(super) fn mounted(
        &mut self,
        index: usize,
        result: Result<Option<OwnedFd>, Failure>,
        warning: Option<String>,
    ) {
        let name = self.volumes[index].0.clone();
        if let Some(warning) = warning {
            let message = format!("volume \"{name}\": {warning}");
            self.happened(EventType::Warning, "", "RootSquashed", message);
        }
        let result = result.and_then(|root| {
            if let Some(root) = root {
                self.written.add(&name, root);
            }
            match self.written.has(&name) {
                true => self.fill(&name),
                false => Ok(()),
            }
        });
        let (_, attempt) = &mut self.volumes[index];
        match result {
            Ok(()) => attempt.succeeded(),
            Err(failure) => {
                attempt.failed();
                let message = format!("MountVolume.SetUp failed for volume \"{name}\" : {failure}");
                self.happened(EventType::Warning, "", "FailedMount", message);
            }
        }
    }
}

/// Something that is tried until it works.
pub(super) struct Attempt {
    state: State,
    backoff: Backoff,
    /// The image that is being pulled for it.
    pub(super) pull: Option<Pull>,
}

enum State {
    Due(Instant),
    UnderWay,
    Done,
}

impl Attempt {
    pub(super) fn new() -> Self {
        Self {
            state: State::Due(Instant::now()),
            backoff: Backoff::volumes(),
            pull: None,
        }
    }

    /// When to try, unless it is under way or done.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Due(due) => Some(due),
            State::UnderWay | State::Done => None,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    fn begin(&mut self) {
        self.state = State::UnderWay;
    }

    fn succeeded(&mut self) {
        self.state = State::Done;
    }

    /// What waits for its time is due now.
    pub(super) fn wait_no_longer(&mut self) {
        if let State::Due(due) = &mut self.state {
            *due = Instant::now();
        }
    }

    fn failed(&mut self) {
        self.state = State::Due(Instant::now() + self.backoff.next());
    }
}
