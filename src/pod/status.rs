//! The status of a pod as the Kubernetes API has it: phase, conditions and the
//! states of containers
//! (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{amounts, volume_mounts};
use crate::kube::qos;

/// Why a container waits that ended too often to be restarted at once.
pub const BACK_OFF: &str = "CrashLoopBackOff";

/// Why a container waits whose manifest asks for what is not there.
pub const CONFIG_ERROR: &str = "CreateContainerConfigError";

/// A state in which a container waits for `reason`.
#[must_use]
pub fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: Some(reason.to_owned()),
        message,
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
}

/// The state of a container that runs since `started`.
#[must_use]
pub fn running(started: Timestamp) -> ContainerState {
    let running = ContainerStateRunning {
        started_at: Some(Time(started)),
    };
    ContainerState {
        running: Some(running),
        ..ContainerState::default()
    }
}

/// The state of a container that has ended.
#[must_use]
pub fn terminated(terminated: ContainerStateTerminated) -> ContainerState {
    ContainerState {
        terminated: Some(terminated),
        ..ContainerState::default()
    }
}

/// Why a container waits while init containers run.
pub const INITIALIZING: &str = "PodInitializing";

/// True for an init container that is restarted for as long as the pod lives.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What a status is made of besides the pod itself.
pub struct Facts {
    /// The init containers, in list order.
    pub init_containers: Vec<ContainerStatus>,
    /// The containers, in list order.
    pub containers: Vec<ContainerStatus>,
    /// True when no container runs, and none will be started again.
    pub over: bool,
    /// Why the pod as a whole has failed (reason and message), if it has.
    pub failure: Option<(String, String)>,
    /// What the pod waits for before it may run, in the scheduler's words.
    pub unplaced: Option<String>,
    /// True when the pod's namespaces exist.
    pub sandbox: bool,
    /// When the pod's keeper first took it up.
    pub started: Timestamp,
    /// The address of this machine.
    pub host_ip: Option<String>,
}

impl Facts {
    /// The init containers with whether each of them is a sidecar.
    fn init<'a>(&'a self, spec: &'a PodSpec) -> impl Iterator<Item = (&'a ContainerStatus, bool)> {
        let declared = spec.init_containers.as_deref().unwrap_or_default();
        self.init_containers.iter().map(|status| {
            let found = declared.iter().find(|one| one.name == status.name);
            (status, found.is_some_and(is_sidecar))
        })
    }

    /// The phase of the pod.
    fn phase(&self, spec: &PodSpec) -> &'static str {
        if self.over {
            let failed = |status: &ContainerStatus| match ended(status) {
                Some(ended) => ended.exit_code != 0,
                None => true,
            };
            let init_failed = self
                .init(spec)
                .any(|(status, sidecar)| !sidecar && failed(status));
            let any = init_failed || self.containers.iter().any(failed);
            return match self.failure.is_some() || any {
                true => "Failed",
                false => "Succeeded",
            };
        }
        let initialized = self.init(spec).all(|(status, sidecar)| {
            ended(status).is_some_and(|ended| ended.exit_code == 0)
                || (sidecar && status.started == Some(true))
        });
        let started = self.containers.iter().any(has_started);
        if (initialized || started) && self.containers.iter().all(has_started) {
            "Running"
        } else {
            "Pending"
        }
    }

    /// Names of the containers that keep the pod from being initialized.
    fn incomplete<'a>(&'a self, spec: &'a PodSpec) -> Vec<&'a str> {
        let incomplete = self.init(spec).filter(|(status, sidecar)| match sidecar {
            true => status.started != Some(true),
            false => !status.ready,
        });
        incomplete.map(|(status, _)| status.name.as_str()).collect()
    }

    /// Names of the containers that keep the pod from being ready.
    fn unready<'a>(&'a self, spec: &'a PodSpec) -> Vec<&'a str> {
        let sidecars = self.init(spec).filter(|(_, sidecar)| *sidecar);
        let all = sidecars
            .map(|(status, _)| status)
            .chain(self.containers.iter());
        all.filter(|status| !status.ready)
            .map(|status| status.name.as_str())
            .collect()
    }
}

fn ended(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn has_ended_before(status: &ContainerStatus) -> bool {
    let last = status.last_state.as_ref();
    last.is_some_and(|last| last.terminated.is_some())
}

/// True for a container that runs or ran, however it is now.
fn has_started(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    let waits = state.is_none_or(|state| state.waiting.is_some());
    !waits || status.restart_count > 0 || has_ended_before(status)
}

/// The status of `pod`. Conditions keep the time of their last change from
/// `previous`.
#[must_use]
pub fn status(pod: &Pod, facts: Facts, previous: Option<&PodStatus>, now: Timestamp) -> PodStatus {
    let nothing = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&nothing);
    if let Some(why) = facts.unplaced.clone().filter(|_| !facts.over) {
        return unplaced(spec, why, previous, now);
    }
    let phase = facts.phase(spec);
    let conditions = conditions(spec, &facts, phase)
        .into_iter()
        .map(|condition| condition.since(previous, now))
        .collect();
    let host_network = spec.host_network.unwrap_or(false);
    let pod_ip = facts.host_ip.clone().filter(|_| host_network);
    let (reason, message) = facts.failure.filter(|_| facts.over).unzip();
    let init_containers = Some(facts.init_containers).filter(|list| !list.is_empty());
    let told = |all| amounts::told(spec, volume_mounts::told(spec, all));
    PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        conditions: Some(conditions),
        init_container_statuses: init_containers.map(told),
        container_statuses: Some(told(facts.containers)),
        host_ips: facts.host_ip.clone().map(|ip| vec![HostIP { ip }]),
        host_ip: facts.host_ip,
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        qos_class: Some(qos::qos_class(spec).as_str().to_owned()),
        start_time: Some(Time(facts.started)),
        ..PodStatus::default()
    }
}

/// The status of a pod that may not run yet.
fn unplaced(
    spec: &PodSpec,
    why: String,
    previous: Option<&PodStatus>,
    now: Timestamp,
) -> PodStatus {
    let mut scheduled = Condition::new("PodScheduled", true);
    scheduled.fails("Unschedulable", Some(why));
    PodStatus {
        phase: Some("Pending".to_owned()),
        conditions: Some(vec![scheduled.since(previous, now)]),
        qos_class: Some(qos::qos_class(spec).as_str().to_owned()),
        ..PodStatus::default()
    }
}

/// The conditions, by kubelet's rules, in the order in which they are shown.
fn conditions(spec: &PodSpec, facts: &Facts, phase: &str) -> [Condition; 5] {
    let terminal = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let sandbox = Condition::new("PodReadyToStartContainers", facts.sandbox && !facts.over);

    let mut initialized = Condition::new("Initialized", true);
    let incomplete = facts.incomplete(spec);
    if phase == "Succeeded" {
        initialized.reason = Some("PodCompleted");
    } else if !incomplete.is_empty() && !facts.containers.iter().any(has_started) {
        let names = incomplete.join(" ");
        initialized.fails(
            "ContainersNotInitialized",
            Some(format!("containers with incomplete status: [{names}]")),
        );
    }

    let unready = facts.unready(spec);
    let not_ready = |kind| {
        let mut ready = Condition::new(kind, true);
        if let Some(reason) = terminal {
            ready.fails(reason, None);
        } else if !unready.is_empty() {
            let names = unready.join(" ");
            ready.fails(
                "ContainersNotReady",
                Some(format!("containers with unready status: [{names}]")),
            );
        }
        ready
    };
    [
        sandbox,
        initialized,
        not_ready("Ready"),
        not_ready("ContainersReady"),
        Condition::new("PodScheduled", true),
    ]
}

/// A condition, without the time of its last change.
struct Condition {
    kind: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Condition {
    fn new(kind: &'static str, holds: bool) -> Self {
        Self {
            kind,
            holds,
            reason: None,
            message: None,
        }
    }

    fn fails(&mut self, reason: &'static str, message: Option<String>) {
        self.holds = false;
        self.reason = Some(reason);
        self.message = message;
    }

    fn since(self, previous: Option<&PodStatus>, now: Timestamp) -> PodCondition {
        let status = if self.holds { "True" } else { "False" };
        let mut before = previous
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        let before = before
            .find(|condition| condition.type_ == self.kind)
            .filter(|condition| condition.status == status);
        let since = before.and_then(|condition| condition.last_transition_time.clone());
        PodCondition {
            type_: self.kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since.unwrap_or(Time(now))),
            reason: self.reason.map(str::to_owned),
            message: self.message,
            ..PodCondition::default()
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
