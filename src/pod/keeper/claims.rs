//! Before a pod with claims runs: all of them must be bound, and free for it.
//!
//! The keeper asks once, and again whenever it is told that a claim of the pod has
//! changed; in between it sleeps.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Keeper, stop};
use crate::pod::claims;
use crate::storage::events::EventType;
use crate::sys::node;

/// When a store that could not be asked is asked again.
const AGAIN: Duration = Duration::from_secs(5);

/// Whether a pod may run.
pub(super) enum Gate {
    /// It may.
    Open,
    /// It is to be found out at this time.
    Ask(Instant),
    /// It waits until something changes.
    Shut,
}

impl Gate {
    /// The gate of a pod that has been taken up.
    pub(super) fn of(pod: &k8s_openapi::api::core::v1::Pod) -> Self {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        match node.is_none_or(str::is_empty) && claims::uses_some(pod) {
            true => Self::Ask(Instant::now()),
            false => Self::Open,
        }
    }

    /// When to ask; none while there is nothing to be asked.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Ask(due) => Some(*due),
            Self::Open | Self::Shut => None,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Something has changed: asks again.
    pub(super) fn knock(&mut self) {
        if !self.is_open() {
            *self = Self::Ask(Instant::now());
        }
    }
}

impl Keeper {
    /// Whether the pod may run now.
    pub(super) fn may_run(&mut self) -> bool {
        if self.gate.due().is_some_and(|due| due <= Instant::now()) {
            self.ask();
        }
        self.gate.is_open()
    }

    fn ask(&mut self) {
        match self.store.place_pod(&self.home.uid, &node::name()) {
            Ok(Ok(pod)) => {
                self.gate = Gate::Open;
                self.unplaced = None;
                // Its time begins now.
                self.started = Timestamp::now();
                let limit = pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.active_deadline_seconds);
                self.deadline = stop::deadline(self.started, limit);
                self.pod = pod;
            }
            Ok(Err(refusal)) => {
                let refusal = refusal.to_string();
                if self.unplaced.as_ref() != Some(&refusal) {
                    let (kind, reason) = (EventType::Warning, "FailedScheduling");
                    self.happened(kind, "", reason, refusal.clone());
                }
                self.unplaced = Some(refusal);
                self.gate = Gate::Shut;
            }
            Err(error) => {
                let message = format!("cannot look at the pod's claims: {error}");
                self.happened(EventType::Warning, "", "FailedScheduling", message.clone());
                self.unplaced = Some(message);
                self.gate = Gate::Ask(Instant::now() + AGAIN);
            }
        }
    }
}
