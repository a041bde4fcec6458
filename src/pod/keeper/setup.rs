//! What comes before the first container: the pod's namespaces and volumes.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use super::backoff::Backoff;
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
            Ok(_) => {
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
        let (launcher, events) = (Rc::clone(&self.launcher), self.events.clone());
        tokio::task::spawn_local(async move {
            let answer = orders::order(launcher.as_fd(), &order, &[]).await;
            let mut warning = None;
            let result = answer.map(|(answer, mut descriptors)| {
                if let Answer::Mounted { warning: said } = answer {
                    warning = said;
                }
                descriptors.pop()
            });
            let _ = events.send(Event::Mounted {
                index,
                result,
                warning,
            });
        });
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
