//! The status of a pod as the Kubernetes API has it: phase, conditions and the
//! states of containers
//! (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::volume_mounts;
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

/// The phase of a pod whose containers are in these states. `over` says that
/// none of them will be started again.
#[must_use]
pub fn phase(containers: &[ContainerStatus], over: bool) -> &'static str {
    let states = || {
        containers
            .iter()
            .filter_map(|container| container.state.as_ref())
    };
    if over {
        let failed = states().filter_map(|state| state.terminated.as_ref());
        return match failed.into_iter().any(|state| state.exit_code != 0) {
            true => "Failed",
            false => "Succeeded",
        };
    }
    let begun = |container: &ContainerStatus| {
        container.restart_count > 0
            || container
                .last_state
                .as_ref()
                .is_some_and(|last| last.terminated.is_some())
            || container
                .state
                .as_ref()
                .is_some_and(|state| state.waiting.is_none())
    };
    if containers.iter().all(begun) {
        "Running"
    } else {
        "Pending"
    }
}

/// What a status is made of besides the pod itself.
pub struct Facts {
    /// The containers, in list order.
    pub containers: Vec<ContainerStatus>,
    /// True when no container will be started again.
    pub over: bool,
    /// True when the pod's namespaces exist.
    pub sandbox: bool,
    /// When the pod's keeper first took it up.
    pub started: Timestamp,
    /// The address of this machine.
    pub host_ip: Option<String>,
}

/// The status of `pod`. Conditions keep the time of their last change from
/// `previous`.
#[must_use]
pub fn status(pod: &Pod, facts: Facts, previous: Option<&PodStatus>, now: Timestamp) -> PodStatus {
    let nothing = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&nothing);
    let unready: Vec<&str> = facts
        .containers
        .iter()
        .filter(|container| !container.ready)
        .map(|container| container.name.as_str())
        .collect();
    let phase = phase(&facts.containers, facts.over);
    let ready = match (unready.is_empty(), phase) {
        (true, _) => Ok(()),
        (false, "Succeeded") => Err(("PodCompleted", None)),
        (false, _) => Err((
            "ContainersNotReady",
            Some(format!(
                "containers with unready status: [{}]",
                unready.join(" ")
            )),
        )),
    };
    let completed = if phase == "Succeeded" {
        Err(("PodCompleted", None))
    } else {
        Ok(())
    };
    let sandbox = if facts.sandbox {
        Ok(())
    } else {
        Err(("PodSandboxNotReady", None))
    };
    let conditions = [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", completed),
        ("Ready", ready.clone()),
        ("ContainersReady", ready),
        ("PodScheduled", Ok(())),
    ];
    let conditions = conditions
        .into_iter()
        .map(|(kind, holds)| condition(kind, holds, previous, now))
        .collect();
    let host_network = spec.host_network.unwrap_or(false);
    let pod_ip = facts.host_ip.clone().filter(|_| host_network);
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        container_statuses: Some(volume_mounts::told(spec, facts.containers)),
        host_ips: facts.host_ip.clone().map(|ip| vec![HostIP { ip }]),
        host_ip: facts.host_ip,
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        qos_class: Some(qos::qos_class(spec).as_str().to_owned()),
        start_time: Some(Time(facts.started)),
        ..PodStatus::default()
    }
}

fn condition(
    kind: &str,
    holds: Result<(), (&str, Option<String>)>,
    previous: Option<&PodStatus>,
    now: Timestamp,
) -> PodCondition {
    let status = if holds.is_ok() { "True" } else { "False" };
    let before = previous
        .and_then(|status| status.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == kind))
        .filter(|condition| condition.status == status);
    let since = before.and_then(|condition| condition.last_transition_time.clone());
    let (reason, message) = match holds {
        Ok(()) => (None, None),
        Err((reason, message)) => (Some(reason.to_owned()), message),
    };
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        last_transition_time: Some(since.unwrap_or(Time(now))),
        reason,
        message,
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(state: ContainerState, restarts: i32) -> ContainerStatus {
        ContainerStatus {
            name: "c".to_owned(),
            state: Some(state),
            restart_count: restarts,
            ..ContainerStatus::default()
        }
    }

    fn ended(exit_code: i32) -> ContainerState {
        terminated(ContainerStateTerminated {
            exit_code,
            ..ContainerStateTerminated::default()
        })
    }

    #[test]
    fn a_pod_is_pending_until_every_container_was_started_once() {
        let now = Timestamp::UNIX_EPOCH;
        let one = container(running(now), 0);
        let other = container(waiting("ContainerCreating", None), 0);
        assert_eq!(phase(&[one.clone(), other], false), "Pending");
        let crashed = container(waiting("CrashLoopBackOff", None), 1);
        assert_eq!(phase(&[one, crashed], false), "Running");
    }

    #[test]
    fn a_pod_that_is_over_has_succeeded_or_failed() {
        assert_eq!(phase(&[container(ended(0), 0)], true), "Succeeded");
        assert_eq!(
            phase(&[container(ended(0), 0), container(ended(3), 0)], true),
            "Failed"
        );
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let pod = Pod::default();
        let facts = |sandbox| Facts {
            containers: Vec::new(),
            over: false,
            sandbox,
            started: Timestamp::UNIX_EPOCH,
            host_ip: None,
        };
        let time = |status: &PodStatus| {
            let conditions = status.conditions.as_ref().expect("conditions");
            conditions[0]
                .last_transition_time
                .as_ref()
                .expect("time")
                .0
                .as_second()
        };
        let at = |second| Timestamp::from_second(second).expect("time");
        let first = status(&pod, facts(false), None, at(1));
        let second = status(&pod, facts(false), Some(&first), at(2));
        let third = status(&pod, facts(true), Some(&second), at(3));
        assert_eq!((time(&first), time(&second), time(&third)), (1, 1, 3));
    }
}
