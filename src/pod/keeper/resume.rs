//! Taking up a pod: alone, and with what an earlier keeper recorded of its
//! containers; and how containers are given up.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::container::{Container, Kind, State};
use crate::pod::control::Client;
use crate::pod::home::Home;
use crate::pod::lock::Lock;
use crate::pod::status::BACK_OFF;

/// How long a keeper that finds its pod taken waits before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Takes the pod's lock, or returns `None` when another keeper has it and
/// listens. Somebody else who has it only looks at the pod, or cleans up after
/// it, and is waited for: nobody but this keeper may come to start the pod.
pub(super) fn take_up(home: &Home) -> Result<Option<Lock>> {
    loop {
        if let Some(lock) = Lock::try_take(home).context("cannot take the pod's lock")? {
            return Ok(Some(lock));
        }
        if Client::connect(home)
            .context("cannot reach the pod's other keeper")?
            .is_some()
        {
            return Ok(None);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

impl Container {
    /// Takes up what an earlier keeper recorded. `interrupted` says that a start
    /// was under way which nobody saw end.
    pub(super) fn resume(&mut self, recorded: &ContainerStatus, interrupted: bool) {
        self.restarts = recorded.restart_count.try_into().unwrap_or(0);
        self.image_id.clone_from(&recorded.image_id);
        self.last = recorded
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.clone());
        let state = recorded.state.clone().unwrap_or_default();
        if let Some(ended) = state.terminated {
            self.id = recorded
                .container_id
                .as_deref()
                .and_then(|id| id.strip_prefix("orlop://"))
                .map(str::to_owned);
            self.begun = true;
            self.state = State::Ended(ended);
        } else if interrupted || state.running.is_some() {
            let ended = ContainerStateTerminated {
                container_id: recorded.container_id.clone(),
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some("the container was running when its keeper ended".to_owned()),
                started_at: state.running.and_then(|running| running.started_at),
                finished_at: Some(Time(Timestamp::now())),
                signal: None,
            };
            if self.policy == "Never" {
                self.begun = true;
                self.state = State::Ended(ended);
            } else {
                self.last = Some(ended);
                self.restarting = true;
            }
        } else if let Some(waiting) = state.waiting {
            self.restarting = waiting.reason.as_deref() == Some(BACK_OFF);
        }
    }

    /// Has an init container that has done its work do it again: the pod's mounts
    /// are new.
    pub(super) fn repeat(&mut self) {
        if let State::Ended(ended) = &self.state
            && self.kind == Kind::Init
            && ended.exit_code == 0
        {
            self.last = Some(ended.clone());
            self.restarting = true;
            self.begun = false;
            self.state = self.waiting_to_be_made(None);
        }
    }

    /// It will not be started any more. `initialized` says that its turn had
    /// come, or would have.
    pub(super) fn give_up(&mut self, initialized: bool) {
        let State::Waiting { due, .. } = &mut self.state else {
            return;
        };
        *due = None;
        if let Some(last) = self.last.clone() {
            self.state = State::Ended(last);
        } else if initialized || self.begun {
            self.state = State::Ended(never_ran(&self.name));
        }
    }
}

/// How a container ends that was stopped before it ever ran.
pub(super) fn never_ran(name: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some(format!("container {name} was never started")),
        finished_at: Some(Time(Timestamp::now())),
        ..ContainerStateTerminated::default()
    }
}
