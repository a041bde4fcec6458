//! Sidecars: init containers that are restarted for as long as the pod lives.

use serde_json::{Value, json};

use crate::common::Machine;
use crate::init::{conditions, init_status};
use crate::support::{container, idle, is_over, kill_process_of, pod, row, status, until, with};

const MANIFEST: &str = include_str!("../../specs/sidecar.yaml");

fn sidecar(container: Value) -> Value {
    with(container, &json!({"restartPolicy": "Always"}))
}

#[test]
fn a_sidecar_outlives_the_app_and_the_pod_completes() {
    let machine = Machine::new();
    machine.run_pod(MANIFEST);
    machine.wait_for("sidecar", is_over);
    let pod = machine.pod("sidecar");
    assert_eq!(pod["status"]["phase"], "Succeeded");
    assert_eq!(
        machine.orlop(["logs", "sidecar", "-c", "reader"]).ok(),
        "the job has ended: 3 lines\n"
    );
    let ended = |status: &Value| {
        let time = status["state"]["terminated"]["finishedAt"].as_str();
        time.expect("a time").to_owned()
    };
    let job = ended(status(&pod, "job"));
    assert!(job <= ended(init_status(&pod, "reader")), "{pod:#}");
    let row = machine
        .orlop(["get", "pod", "sidecar", "--no-headers"])
        .ok();
    let row: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(row[1..4], ["0/2", "Completed", "0"]);
    assert_eq!(
        conditions(&pod)[1..4],
        [
            "Initialized=True PodCompleted",
            "Ready=False PodCompleted",
            "ContainersReady=False PodCompleted",
        ]
    );
    machine.orlop(["delete", "pod", "sidecar"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn the_next_container_waits_until_a_sidecar_has_come_up() {
    let machine = Machine::new();
    let host = machine.path("host");
    std::fs::create_dir(&host).expect("mkdir");
    let mounts = json!({"volumeMounts": [{"name": "host", "mountPath": "/host"}]});
    let probe = json!({"startupProbe": {
        "exec": {"command": ["test", "-e", "/host/up"]}, "periodSeconds": 1, "failureThreshold": 100}});
    let spec = json!({
        "initContainers": [
            with(with(sidecar(idle("proxy")), &mounts), &probe),
            with(container("after", "test -e /host/up"), &mounts),
        ],
        "containers": [idle("app")],
        "volumes": [{"name": "host", "hostPath": {"path": host}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    machine.wait_for("web", |pod| {
        !init_status(pod, "proxy")["state"]["running"].is_null()
    });
    until(&machine, &["describe", "pod", "web"], |page| {
        page.contains("Startup probe failed:")
    });
    let now = machine.pod("web");
    assert_eq!(init_status(&now, "proxy")["started"], false);
    let next = &init_status(&now, "after")["state"]["waiting"]["reason"];
    assert_eq!(next, "PodInitializing");
    assert_eq!(row(&machine)[1..3], ["0/2", "Init:0/2"]);
    std::fs::write(machine.path("host/up"), "").expect("write");
    machine.wait_for("web", |pod| status(pod, "app")["ready"] == true);
    assert_eq!(
        row(&machine)[1..4],
        ["2/2", "Running", "0"],
        "sidecars count"
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_sidecar_is_restarted_on_its_own_even_if_nothing_else_is() {
    let machine = Machine::new();
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [sidecar(idle("proxy"))],
        "containers": [idle("app")],
    });
    machine.run_pod(&pod(&spec));
    kill_process_of(&machine, init_status(&machine.pod("web"), "proxy"));
    machine.wait_for("web", |pod| {
        init_status(pod, "proxy")["restartCount"] == 1 && init_status(pod, "proxy")["ready"] == true
    });
    assert_eq!(row(&machine)[1..4], ["2/2", "Running", "1"]);
    assert_eq!(status(&machine.pod("web"), "app")["restartCount"], 0);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn sidecars_are_stopped_after_the_others_and_in_reverse_order() {
    let machine = Machine::new();
    let host = machine.path("host");
    std::fs::create_dir(&host).expect("mkdir");
    let mounts = json!({"volumeMounts": [{"name": "host", "mountPath": "/host"}]});
    let ends = |name: &str| {
        let script = format!(
            "trap 'sleep 0.3; echo {name} >> /host/ends; exit 0' TERM; while :; do sleep 0.05; done"
        );
        with(container(name, &script), &mounts)
    };
    let spec = json!({
        "initContainers": [sidecar(ends("first")), sidecar(ends("second"))],
        "containers": [ends("app")],
        "volumes": [{"name": "host", "hostPath": {"path": host}}],
    });
    machine.run_pod(&pod(&spec));
    machine.orlop(["delete", "pod", "web"]).ok();
    let ends = std::fs::read_to_string(machine.path("host/ends")).expect("read");
    assert_eq!(ends, "app\nsecond\nfirst\n");
    machine.assert_nothing_is_left();
}

#[test]
fn a_pod_whose_keeper_is_killed_while_its_sidecar_ends_is_over_all_the_same() {
    let machine = Machine::new();
    let stubborn = container("proxy", "trap '' TERM; while :; do sleep 0.1; done");
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [container("init", "exit 0"), sidecar(stubborn)],
        "containers": [container("job", "sleep 1")],
    });
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", |pod| {
        !status(pod, "job")["state"]["terminated"].is_null()
    });
    let now = machine.pod("web");
    assert_eq!(
        now["status"]["phase"], "Running",
        "the sidecar has thirty seconds"
    );
    for keeper in machine.keepers() {
        if let Ok(process) = orlop::sys::pidfd::open(keeper) {
            let _ = orlop::sys::pidfd::send_signal(&process, 9);
        }
    }
    machine.wait_for("web", is_over);
    let now = machine.pod("web");
    assert_eq!(now["status"]["phase"], "Succeeded");
    assert_eq!(
        init_status(&now, "init")["restartCount"],
        0,
        "nothing is done again"
    );
    assert_eq!(init_status(&now, "proxy")["restartCount"], 0);
    machine.orlop(["delete", "pod", "web"]).ok();
    machine.assert_nothing_is_left();
}
