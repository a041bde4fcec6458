//! The end of a pod: all its containers are asked to end, the sidecars after the
//! others and in reverse order.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Keeper;
use super::container::Container;
use super::serve::Connection;
use crate::storage::events::EventType;

const LATE: &str = "DeadlineExceeded";
const LATE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// A pod that is being stopped.
pub(super) struct Stopping {
    /// When the grace period ends.
    deadline: Instant,
    /// True when the pod shall be removed; else it stays, as one that is over.
    pub(super) removed: bool,
    /// Who wants to know that the pod is gone.
    pub(super) clients: Vec<Connection>,
}

impl Stopping {
    /// What is left of the grace period.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl Keeper {
    /// Stops all containers, to remove the pod, and gives them `grace` to end by
    /// themselves. A second call may only shorten the time.
    pub(super) fn stop(&mut self, grace: Duration, client: Option<Connection>) {
        let now = || Time(Timestamp::now());
        self.pod.metadata.deletion_timestamp.get_or_insert_with(now);
        self.end_all(grace);
        if let Some(stopping) = &mut self.stopping {
            stopping.removed = true;
            stopping.clients.extend(client);
        }
    }

    /// Stops what still runs of a pod that has nothing left to do, or whose time
    /// is over.
    pub(super) fn stop_when_over(&mut self) {
        let is_late = self.deadline.is_some_and(|due| due <= Instant::now());
        if is_late && !self.is_finished() {
            self.failure = Some((LATE.to_owned(), LATE_MESSAGE.to_owned()));
            self.happened(EventType::Normal, "", LATE, LATE_MESSAGE.to_owned());
        } else if !self.is_finished() {
            return;
        }
        self.end_all(self.grace());
    }

    fn end_all(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let stopping = self.stopping.get_or_insert(Stopping {
            deadline,
            removed: false,
            clients: Vec::new(),
        });
        stopping.deadline = stopping.deadline.min(deadline);
        for pull in self.volumes.iter().filter_map(|(_, one)| one.pull.as_ref()) {
            pull.give_up();
        }
        let initialized = self.is_initialized();
        for index in 0..self.containers.len() {
            self.containers[index].give_up(initialized);
            if let Some(pull) = &self.containers[index].pull {
                pull.give_up();
            }
            self.end_in_turn(index, grace);
        }
    }

    /// Asks one container of a pod that is being stopped to end.
    pub(super) fn end_in_turn(&mut self, index: usize, grace: Duration) {
        let message = format!("Stopping container {}", self.containers[index].name);
        self.end(index, grace, message, true);
    }

    /// The time that the manifest gives containers to end.
    pub(super) fn grace(&self) -> Duration {
        let spec = self.pod.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.termination_grace_period_seconds);
        Duration::from_secs(seconds.unwrap_or(30).try_into().unwrap_or(0))
    }

    /// When the loop has something to do, should nothing happen before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let endings = self.ending_due().into_iter().chain(self.record_due);
        if self.stopping.is_some() {
            return endings.min();
        }
        let endings = endings.chain(self.deadline);
        if !self.gate.is_open() {
            return endings.chain(self.gate.due()).min();
        }
        if !self.sandbox.is_done() {
            return endings.chain(self.sandbox.due()).min();
        }
        let volumes = self.volumes.iter().filter_map(|(_, attempt)| attempt.due());
        let containers = self.containers.iter().filter_map(Container::due);
        endings.chain(volumes).chain(containers).min()
    }
}

/// When the time of a pod is over that was started at `started` and may be active
/// for so many `seconds`.
pub(super) fn deadline(started: Timestamp, seconds: Option<i64>) -> Option<Instant> {
    let allowed = Duration::from_secs(seconds?.try_into().ok()?);
    let passed = Timestamp::now().duration_since(started);
    let passed = Duration::try_from(passed).unwrap_or_default();
    Some(Instant::now() + allowed.saturating_sub(passed))
}
