use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"spec": spec})).expect("a pod")
}

fn container(state: ContainerState, restarts: i32) -> ContainerStatus {
    ContainerStatus {
        name: "c".to_owned(),
        ready: state.running.is_some(),
        started: Some(state.running.is_some()),
        state: Some(state),
        restart_count: restarts,
        ..ContainerStatus::default()
    }
}

fn init(name: &str, state: ContainerState) -> ContainerStatus {
    let ready = ended_well(&state) || state.running.is_some();
    ContainerStatus {
        name: name.to_owned(),
        ready,
        ..container(state, 0)
    }
}

fn ended_well(state: &ContainerState) -> bool {
    state
        .terminated
        .as_ref()
        .is_some_and(|ended| ended.exit_code == 0)
}

fn exited(exit_code: i32) -> ContainerState {
    terminated(ContainerStateTerminated {
        exit_code,
        ..ContainerStateTerminated::default()
    })
}

fn up() -> ContainerState {
    running(Timestamp::UNIX_EPOCH)
}

fn facts(init_containers: Vec<ContainerStatus>, containers: Vec<ContainerStatus>) -> Facts {
    Facts {
        unplaced: None,
        init_containers,
        containers,
        over: false,
        failure: None,
        sandbox: true,
        started: Timestamp::UNIX_EPOCH,
        host_ip: None,
    }
}

fn phase(pod: &Pod, facts: Facts) -> String {
    let status = status(pod, facts, None, Timestamp::UNIX_EPOCH);
    status.phase.expect("a phase")
}

/// `Type=Status reason message` of each condition that has a reason.
fn reasons(pod: &Pod, facts: Facts) -> Vec<String> {
    let status = status(pod, facts, None, Timestamp::UNIX_EPOCH);
    let conditions = status.conditions.expect("conditions").into_iter();
    conditions
        .filter_map(|condition| {
            let message = condition.message.unwrap_or_default();
            let text = format!(
                "{}={} {} {message}",
                condition.type_, condition.status, condition.reason?
            );
            Some(text.trim_end().to_owned())
        })
        .collect()
}

#[test]
fn a_pod_is_pending_until_every_container_was_started_once() {
    let pod = pod(json!({"containers": []}));
    let new = container(waiting("ContainerCreating", None), 0);
    assert_eq!(
        phase(&pod, facts(vec![], vec![container(up(), 0), new])),
        "Pending"
    );
    let crashed = container(waiting(BACK_OFF, None), 1);
    assert_eq!(
        phase(&pod, facts(vec![], vec![container(up(), 0), crashed])),
        "Running"
    );
}

#[test]
fn a_pod_that_is_over_has_succeeded_or_failed() {
    let pod = pod(json!({"containers": []}));
    let over = |init, containers| Facts {
        over: true,
        ..facts(init, containers)
    };
    let good = || container(exited(0), 0);
    assert_eq!(phase(&pod, over(vec![], vec![good()])), "Succeeded");
    let bad = vec![good(), container(exited(3), 0)];
    assert_eq!(phase(&pod, over(vec![], bad)), "Failed");
    let late = Facts {
        failure: Some(("DeadlineExceeded".to_owned(), "late".to_owned())),
        ..over(vec![], vec![good()])
    };
    assert_eq!(phase(&pod, late), "Failed");
}

#[test]
fn how_a_sidecar_ends_says_nothing_of_its_pod() {
    let pod = pod(json!({
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [],
    }));
    let over = |init: i32, app| Facts {
        over: true,
        ..facts(
            vec![self::init("i", exited(init)), self::init("s", exited(137))],
            vec![container(app, 0)],
        )
    };
    assert_eq!(phase(&pod, over(0, exited(0))), "Succeeded");
    assert_eq!(
        phase(&pod, over(1, waiting(INITIALIZING, None))),
        "Failed",
        "an init container that fails does"
    );
}

#[test]
fn init_containers_keep_a_pod_pending_and_are_named_in_its_conditions() {
    let pod = pod(json!({
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [],
    }));
    let app = || container(waiting(INITIALIZING, None), 0);
    let first = || {
        facts(
            vec![
                self::init("i", up()),
                self::init("s", waiting(INITIALIZING, None)),
            ],
            vec![app()],
        )
    };
    assert_eq!(phase(&pod, first()), "Pending");
    let mut first = first();
    first.init_containers[0].ready = false;
    assert_eq!(
        reasons(&pod, first),
        [
            "Initialized=False ContainersNotInitialized containers with incomplete status: [i s]",
            "Ready=False ContainersNotReady containers with unready status: [s c]",
            "ContainersReady=False ContainersNotReady containers with unready status: [s c]",
        ]
    );
    let later = || vec![self::init("i", exited(0)), self::init("s", up())];
    assert_eq!(
        reasons(&pod, facts(later(), vec![app()])).len(),
        2,
        "it is initialized"
    );
    assert_eq!(
        phase(&pod, facts(later(), vec![container(up(), 0)])),
        "Running"
    );
    let down = vec![
        self::init("i", exited(0)),
        self::init("s", waiting(BACK_OFF, None)),
    ];
    assert_eq!(
        reasons(&pod, facts(down, vec![container(up(), 0)])),
        [
            "Ready=False ContainersNotReady containers with unready status: [s]",
            "ContainersReady=False ContainersNotReady containers with unready status: [s]",
        ],
        "once initialized, a pod stays it"
    );
    let over = Facts {
        over: true,
        ..facts(later(), vec![container(exited(0), 0)])
    };
    assert_eq!(
        reasons(&pod, over),
        [
            "Initialized=True PodCompleted",
            "Ready=False PodCompleted",
            "ContainersReady=False PodCompleted",
        ]
    );
}

#[test]
fn a_condition_keeps_the_time_of_its_last_change() {
    let pod = Pod::default();
    let facts = |sandbox| Facts {
        sandbox,
        ..facts(vec![], vec![])
    };
    let time = |status: &PodStatus| {
        let conditions = status.conditions.as_ref().expect("conditions");
        let time = conditions[0].last_transition_time.as_ref();
        time.expect("time").0.as_second()
    };
    let at = |second| Timestamp::from_second(second).expect("time");
    let first = status(&pod, facts(false), None, at(1));
    let second = status(&pod, facts(false), Some(&first), at(2));
    let third = status(&pod, facts(true), Some(&second), at(3));
    assert_eq!((time(&first), time(&second), time(&third)), (1, 1, 3));
}
