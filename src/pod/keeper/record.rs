//! What the keeper writes into the store: the pod's status and its events.
//!
//! A store that cannot be written, on a full disk for instance, stops no pod:
//! the status is tried again, an event is lost.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Keeper;
use super::container::{Container, Kind};
use crate::pod::status::{Facts, status};
use crate::storage::events::{Event as Happening, EventType};

/// When a status that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);

impl Keeper {
    /// Writes the pod's status down when it has changed.
    pub(super) fn record(&mut self) {
        let (proper, init): (Vec<&Container>, Vec<&Container>) = self
            .containers
            .iter()
            .partition(|container| container.kind == Kind::App);
        let facts = Facts {
            init_containers: init.into_iter().map(Container::status).collect(),
            containers: proper.into_iter().map(Container::status).collect(),
            failure: self.failure.clone(),
            over: self.is_over(),
            sandbox: self.sandbox.is_done(),
            unplaced: self.unplaced.clone(),
            started: self.started,
            host_ip: self.host_ip.clone(),
        };
        let now = Timestamp::now();
        let status = status(&self.pod, facts, self.recorded.as_ref(), now);
        if self.recorded.as_ref() == Some(&status) {
            return;
        }
        let written = self
            .store
            .set_pod_status(&self.home.uid, &status, &self.boot);
        self.record_due = written.is_err().then(|| Instant::now() + AGAIN);
        self.publish();
        self.watchers.tell(&status);
        if self.record_due.is_none() {
            self.recorded = Some(status);
        }
    }

    /// Records an event of the pod; `field_path` is the part of it that is meant,
    /// empty for the whole.
    pub(super) fn happened(
        &self,
        kind: EventType,
        field_path: &str,
        reason: &str,
        message: String,
    ) {
        let metadata = &self.pod.metadata;
        // An event that can't be recorded is lost: the pod itself must go on.
        let _ = self.store.record(&Happening {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            kind: "Pod".to_owned(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: self.home.uid.clone(),
            field_path: field_path.to_owned(),
            type_: kind,
            reason: reason.to_owned(),
            message,
            source: "orlop".to_owned(),
        });
    }

    /// The pod as `namespace/name`.
    pub(super) fn qualified_name(&self) -> String {
        let metadata = &self.pod.metadata;
        format!(
            "{}/{}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default()
        )
    }
}
