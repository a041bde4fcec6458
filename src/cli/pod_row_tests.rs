use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T12:00:00Z";

fn running() -> Value {
    json!({"ready": true, "started": true, "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T11:00:00Z"}}})
}

fn waiting(reason: &str) -> Value {
    json!({"ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}})
}

fn ended(code: i32, reason: &str) -> Value {
    json!({"ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason}}})
}

/// A container that ended at `time` before it came to its present state.
fn restarted(mut status: Value, times: i32, time: &str) -> Value {
    status["restartCount"] = json!(times);
    status["lastState"] =
        json!({"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": time}});
    status
}

fn statuses(statuses: &[Value]) -> Vec<Value> {
    let named = statuses.iter().enumerate().map(|(index, status)| {
        let mut status = status.clone();
        status["name"] = json!(format!("c{index}"));
        status["image"] = json!("busybox");
        status["imageID"] = json!("");
        status
    });
    named.collect()
}

fn pod(phase: &str, ready: bool, init: &[Value], containers: &[Value]) -> Pod {
    let declared = |count: usize| -> Vec<Value> {
        (0..count)
            .map(|index| json!({"name": format!("c{index}")}))
            .collect()
    };
    let condition = |type_: &str, holds: bool| json!({"type": type_, "status": if holds { "True" } else { "False" }});
    let initialized = init
        .iter()
        .all(|status| status["state"]["terminated"]["exitCode"] == 0);
    serde_json::from_value(json!({
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T11:00:00Z"},
        "spec": {"initContainers": declared(init.len()), "containers": declared(containers.len())},
        "status": {
            "phase": phase,
            "conditions": [condition("Initialized", initialized), condition("Ready", ready)],
            "initContainerStatuses": statuses(init),
            "containerStatuses": statuses(containers),
        },
    }))
    .unwrap()
}

fn row(pod: &Pod) -> String {
    let row = pod_row(pod, NOW.parse().unwrap());
    assert_eq!(row.age, "60m");
    format!("{} {} {}", row.ready, row.status, row.restarts)
}

#[test]
fn status_is_the_word_that_kubectl_shows() {
    let init = |init: &[Value]| {
        pod(
            "Pending",
            false,
            init,
            &[waiting("PodInitializing"), waiting("PodInitializing")],
        )
    };
    let of = |phase, ready, containers: &[Value]| pod(phase, ready, &[], containers);
    let all = [
        (of("Pending", false, &[]), "0/0 Pending 0"),
        (
            of(
                "Pending",
                false,
                &[waiting("ContainerCreating"), waiting("ContainerCreating")],
            ),
            "0/2 ContainerCreating 0",
        ),
        (
            of("Pending", false, &[waiting("ErrImageNeverPull"), running()]),
            "1/2 ErrImageNeverPull 0",
        ),
        (
            of("Running", true, &[running(), running()]),
            "2/2 Running 0",
        ),
        (
            of("Running", false, &[running(), ended(1, "Error")]),
            "1/2 Error 0",
        ),
        (
            of(
                "Running",
                false,
                &[ended(137, "OOMKilled"), ended(1, "Error")],
            ),
            "0/2 OOMKilled 0",
        ),
        (
            of("Running", false, &[ended(0, "Completed"), running()]),
            "1/2 NotReady 0",
        ),
        (
            of("Running", true, &[ended(0, "Completed"), running()]),
            "1/2 Running 0",
        ),
        (
            of(
                "Succeeded",
                false,
                &[ended(0, "Completed"), ended(0, "Completed")],
            ),
            "0/2 Completed 0",
        ),
        (of("Failed", false, &[ended(3, "Error")]), "0/1 Error 0"),
        (of("Failed", false, &[ended(3, "")]), "0/1 ExitCode:3 0"),
        (
            init(&[waiting("PodInitializing"), waiting("PodInitializing")]),
            "0/2 Init:0/2 0",
        ),
        (init(&[ended(0, "Completed"), running()]), "0/2 Init:1/2 0"),
        (init(&[ended(2, "Error")]), "0/2 Init:Error 0"),
        (
            init(&[restarted(
                waiting("CrashLoopBackOff"),
                4,
                "2026-01-01T11:59:00Z",
            )]),
            "0/2 Init:CrashLoopBackOff 4 (60s ago)",
        ),
        (
            pod(
                "Pending",
                false,
                &[ended(0, "Completed")],
                &[waiting("PodInitializing")],
            ),
            "0/1 PodInitializing 0",
        ),
    ];
    for (pod, expected) in all {
        assert_eq!(row(&pod), expected, "{:?}", pod.status);
    }
}

#[test]
fn a_signal_stands_for_a_missing_reason() {
    let mut killed = ended(137, "");
    killed["state"]["terminated"]["signal"] = json!(9);
    assert_eq!(row(&pod("Failed", false, &[], &[killed])), "0/1 Signal:9 0");
}

#[test]
fn restarts_tell_when_the_last_one_was() {
    let backing_off = restarted(waiting("CrashLoopBackOff"), 3, "2026-01-01T11:58:00Z");
    let earlier = restarted(running(), 2, "2026-01-01T11:00:00Z");
    assert_eq!(
        row(&pod("Running", false, &[], &[backing_off, earlier])),
        "1/2 CrashLoopBackOff 5 (2m ago)"
    );
    let mut unknown_end = running();
    unknown_end["restartCount"] = json!(1);
    assert_eq!(
        row(&pod("Running", true, &[], &[unknown_end])),
        "1/1 Running 1"
    );
}

#[test]
fn sidecars_count_as_containers_and_their_restarts_as_the_pods() {
    let sidecar = restarted(running(), 2, "2026-01-01T11:59:00Z");
    let mut pod = pod(
        "Running",
        true,
        &[ended(0, "Completed"), sidecar],
        &[running()],
    );
    let declared = &mut pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap()[1];
    declared.restart_policy = Some("Always".into());
    assert_eq!(row(&pod), "2/2 Running 2 (60s ago)");
}

#[test]
fn a_pod_that_is_being_deleted_is_terminating_unless_it_has_ended() {
    for (phase, state, expected) in [
        ("Running", running(), "1/1 Terminating 0"),
        ("Succeeded", ended(0, "Completed"), "0/1 Completed 0"),
    ] {
        let mut pod = pod(phase, true, &[], &[state]);
        pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone();
        assert_eq!(row(&pod), expected);
    }
}

#[test]
fn after_a_reboot_pods_are_unknown_until_they_are_started_again() {
    let seen = |pod: &Pod, boot: &str| {
        let stored = StoredPod {
            pod: pod.clone(),
            boot_id: Some("before".into()),
        };
        row(&as_of_boot(stored, boot))
    };
    let mixed = [
        ended(0, "Completed"),
        running(),
        waiting("CrashLoopBackOff"),
    ];
    let alive = pod("Running", true, &[], &mixed);
    assert_eq!(
        seen(&alive, "before"),
        "1/3 CrashLoopBackOff 0".replace("CrashLoopBackOff", "Running")
    );
    assert_eq!(seen(&alive, "after"), "0/3 Unknown 0");
    let initializing = pod(
        "Pending",
        false,
        &[running()],
        &[waiting("PodInitializing")],
    );
    assert_eq!(seen(&initializing, "after"), "0/1 Unknown 0");
    let done = pod("Succeeded", false, &[], &[ended(0, "Completed")]);
    assert_eq!(
        seen(&done, "after"),
        "0/1 Completed 0",
        "what has ended stays so"
    );

    let new = StoredPod {
        pod: Pod {
            status: None,
            ..alive
        },
        boot_id: None,
    };
    assert_eq!(row(&as_of_boot(new, "after")), "0/3 Pending 0");
}
