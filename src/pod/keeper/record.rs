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
use crate::storage::progress::Progress;

/// When a status that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);

impl Keeper {
    /// Writes down what has happened, and the pod's status when it has changed, in one
    /// transaction.
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
        let happened = self.happenings.take();
        let changed = self.recorded.as_ref() != Some(&status);
        let news = Progress {
            happened: &happened,
            status: changed.then_some((&status, &self.boot)),
        };
        let written = self.store.record_progress(&self.home.uid, news);
        if !changed {
            // An event that can't be recorded is lost: the pod itself must go on.
            return;
        }
        self.record_due = written.is_err().then(|| Instant::now() + AGAIN);
        self.publish();
        self.watchers.tell(&status);
        if self.record_due.is_none() {
            self.recorded = Some(status);
        }
    }

    /// Notes an event of the pod, which is recorded with its status; `field_path` is the
    /// part of it that is meant, empty for the whole.
    pub(super) fn happened(
        &self,
        kind: EventType,
        field_path: &str,
        reason: &str,
        message: String,
    ) {
        let metadata = &self.pod.metadata;
        let happening = Happening {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            kind: "Pod".to_owned(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: self.home.uid.clone(),
            field_path: field_path.to_owned(),
            type_: kind,
            reason: reason.to_owned(),
            message,
            source: "orlop".to_owned(),
        };
        self.happenings
            .borrow_mut()
            .push((happening, Timestamp::now()));
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
