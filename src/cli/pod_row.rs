//! A pod in one line: the READY, STATUS, RESTARTS and AGE columns.
//!
//! STATUS is the one word that kubectl's users look at first; it is made of
//! phase, conditions and container states by the rules of the API server's
//! pod table. In short: the reason why the first container waits or ended, or
//! `Init:…` while init containers run, else the phase.
//!
//! After a reboot nothing of a pod runs until `orlop reconcile` (or any other
//! command) starts it again. Its last status is then shown the way a cluster
//! shows pods of a node that was restarted: READY `0/n`, STATUS `Unknown`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod, PodSpec,
    PodStatus,
};

use crate::kube::duration;
use crate::storage::pods::StoredPod;

const UNKNOWN: &str = "Unknown";
const REBOOTED: &str = "the machine was restarted; `orlop reconcile` starts this pod again";

/// The columns that tell how a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRow {
    /// Ready containers of all: `1/2`. Sidecars count, other init containers don't.
    pub ready: String,
    /// One word.
    pub status: String,
    /// `0`, or `3 (2m ago)`.
    pub restarts: String,
    /// Since the pod was created.
    pub age: String,
}

/// The columns of `pod` at the time `now`.
pub fn pod_row(pod: &Pod, now: Timestamp) -> PodRow {
    let nothing = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&nothing.0);
    let status = pod.status.as_ref().unwrap_or(&nothing.1);
    let phase = status.phase.as_deref().unwrap_or("Pending");

    let init = initialization(spec, status);
    let mut tally = Tally::default();
    let mut word = not_empty(&status.reason).unwrap_or(phase).to_owned();
    let initialized = condition(status, "Initialized");
    let waits_for_init = init.waits.is_some();
    if let Some(reason) = init.waits {
        word = format!("Init:{reason}");
    }
    tally.ready = init.ready;
    if waits_for_init && !initialized {
        tally.restarts = init.all;
    } else {
        tally.restarts = init.sidecars;
        if let Some(reason) = tally.containers(status) {
            word = reason;
        }
        if word == "Completed" && tally.running {
            let word_of = ["NotReady", "Running"];
            word = word_of[usize::from(condition(status, "Ready"))].to_owned();
        }
    }
    let ended = matches!(phase, "Succeeded" | "Failed");
    if phase == UNKNOWN {
        word = UNKNOWN.to_owned();
    }
    if pod.metadata.deletion_timestamp.is_some() && !ended {
        word = "Terminating".to_owned();
    }

    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| is_sidecar(c))
        .count();
    let restarts = tally.restarts;
    PodRow {
        ready: format!("{}/{}", tally.ready, spec.containers.len() + sidecars),
        status: word,
        restarts: match restarts.last {
            Some(last) if restarts.count > 0 => {
                format!("{} ({} ago)", restarts.count, duration::age(last, now))
            }
            _ => restarts.count.to_string(),
        },
        age: age(
            pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            now,
        ),
    }
}

/// The time from `since` until `now`, `<unknown>` when there is no such time.
pub fn age(since: Option<Timestamp>, now: Timestamp) -> String {
    since.map_or_else(|| "<unknown>".to_owned(), |since| duration::age(since, now))
}

/// A stored pod as it is in the boot `boot_id`: when its status was written in
/// an earlier one, nothing of it runs.
pub fn as_of_boot(stored: StoredPod, boot_id: &str) -> Pod {
    let mut pod = stored.pod;
    let Some(status) = &mut pod.status else {
        return pod;
    };
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if ended || stored.boot_id.as_deref() == Some(boot_id) {
        return pod;
    }
    status.phase = Some(UNKNOWN.to_owned());
    status.message = Some(REBOOTED.to_owned());
    let containers = status.container_statuses.iter_mut().flatten();
    for container in containers.chain(status.init_container_statuses.iter_mut().flatten()) {
        stop(container);
    }
    for condition in status.conditions.iter_mut().flatten() {
        if matches!(
            condition.type_.as_str(),
            "Ready" | "ContainersReady" | "PodReadyToStartContainers"
        ) {
            condition.status = "False".to_owned();
        }
    }
    pod
}

/// What became of a container when the machine went down.
fn stop(container: &mut ContainerStatus) {
    let state = container.state.take().unwrap_or_default();
    if state.terminated.is_none() {
        container.ready = false;
        container.started = Some(false);
    }
    container.state = Some(match state {
        ContainerState {
            running: Some(running),
            ..
        } => ContainerState {
            terminated: Some(ContainerStateTerminated {
                // As Kubernetes has it for containers whose end nobody saw.
                exit_code: 255,
                reason: Some(UNKNOWN.to_owned()),
                started_at: running.started_at,
                container_id: container.container_id.clone(),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        },
        ContainerState {
            waiting: Some(_), ..
        } => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(UNKNOWN.to_owned()),
                message: None,
            }),
            ..ContainerState::default()
        },
        ended => ended,
    });
}

/// Restarts, and when the latest of the containers that were restarted had ended.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &ContainerStatus) {
        self.count += i64::from(container.restart_count);
        let ended = container
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        let ended = ended
            .and_then(|end| end.finished_at.as_ref())
            .map(|time| time.0);
        self.last = self.last.max(ended);
    }
}

#[derive(Default)]
struct Tally {
    ready: usize,
    restarts: Restarts,
    running: bool,
}

impl Tally {
    /// Counts the containers proper and returns the reason of the first of
    /// them that waits or has ended.
    fn containers(&mut self, status: &PodStatus) -> Option<String> {
        let mut word = None;
        for container in status.container_statuses.iter().flatten() {
            self.restarts.add(container);
            let nothing = ContainerState::default();
            let state = container.state.as_ref().unwrap_or(&nothing);
            let waits = state
                .waiting
                .as_ref()
                .and_then(|waiting| not_empty(&waiting.reason));
            let reason = match (waits, &state.terminated) {
                (Some(reason), _) => Some(reason.to_owned()),
                (None, Some(end)) => Some(end_word(end)),
                (None, None) => None,
            };
            if reason.is_none() && container.ready && state.running.is_some() {
                self.running = true;
                self.ready += 1;
            }
            word = word.or(reason);
        }
        word
    }
}

/// How far the init containers are.
struct Initialization {
    /// Restarts of all that have begun.
    all: Restarts,
    /// Restarts of the sidecars among them.
    sidecars: Restarts,
    /// Ready sidecars.
    ready: usize,
    /// Why the pod's containers don't start yet, if an init container is the reason.
    waits: Option<String>,
}

fn initialization(spec: &PodSpec, status: &PodStatus) -> Initialization {
    let mut found = Initialization {
        all: Restarts::default(),
        sidecars: Restarts::default(),
        ready: 0,
        waits: None,
    };
    let declared = spec.init_containers.as_deref().unwrap_or_default();
    for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
        let sidecar = declared
            .iter()
            .any(|c| c.name == container.name && is_sidecar(c));
        found.all.add(container);
        if sidecar {
            found.sidecars.add(container);
        }
        let nothing = ContainerState::default();
        let state = container.state.as_ref().unwrap_or(&nothing);
        let waits = state
            .waiting
            .as_ref()
            .and_then(|waiting| not_empty(&waiting.reason));
        match (&state.terminated, waits) {
            (Some(end), _) if end.exit_code == 0 => continue,
            _ if sidecar && container.started == Some(true) => {
                found.ready += usize::from(container.ready);
                continue;
            }
            (Some(end), _) => found.waits = Some(end_word(end)),
            (None, Some(reason)) if reason != "PodInitializing" => {
                found.waits = Some(reason.to_owned());
            }
            _ => found.waits = Some(format!("{index}/{}", declared.len())),
        }
        break;
    }
    found
}

fn end_word(end: &ContainerStateTerminated) -> String {
    match (not_empty(&end.reason), end.signal) {
        (Some(reason), _) => reason.to_owned(),
        (None, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        (None, _) => format!("ExitCode:{}", end.exit_code),
    }
}

fn is_sidecar(container: &k8s_openapi::api::core::v1::Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn condition(status: &PodStatus, type_: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == type_ && condition.status == "True")
}

fn not_empty(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

#[cfg(test)]
#[path = "pod_row_tests.rs"]
mod tests;
