//! The end of a pod: signals, patience and force.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::Machine;
use crate::support::{container, idle, pod, row, until, with};

/// Ends some time after SIGTERM, with a word on the host.
const SLOW: &str = "trap 'sleep 2; echo bye > /host/bye; exit 0' TERM; while :; do sleep 0.1; done";
/// Does not end by itself.
const STUBBORN: &str = "trap '' TERM; while :; do sleep 1; done";

fn spec(machine: &Machine, script: &str) -> Value {
    let host = machine.path("host");
    fs::create_dir(&host).expect("mkdir");
    let mounts = json!({"volumeMounts": [{"name": "host", "mountPath": "/host"}]});
    json!({
        "containers": [with(container("c", script), &mounts)],
        "volumes": [{"name": "host", "hostPath": {"path": host}}],
    })
}

#[test]
fn a_container_that_handles_sigterm_gets_its_time() {
    let machine = Machine::new();
    machine.run_pod(&pod(&spec(&machine, SLOW)));
    let start = Instant::now();
    let said = machine.orlop(["delete", "pod", "web"]).ok();
    let took = start.elapsed();
    assert_eq!(said, "pod \"web\" deleted from default namespace\n");
    assert_eq!(
        fs::read_to_string(machine.path("host/bye")).expect("read"),
        "bye\n"
    );
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(30),
        "{took:?}"
    );
    machine.assert_nothing_is_left();
}

#[test]
fn a_container_that_ignores_sigterm_is_killed_when_the_grace_period_is_over() {
    let machine = Machine::new();
    let mut spec = spec(&machine, STUBBORN);
    spec["terminationGracePeriodSeconds"] = json!(2);
    machine.run_pod(&pod(&spec));
    let start = Instant::now();
    machine.orlop(["delete", "pod", "web"]).ok();
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(25),
        "{took:?}"
    );
    machine.assert_nothing_is_left();
}

#[test]
fn a_grace_period_on_the_command_line_replaces_the_pods() {
    let machine = Machine::new();
    machine.run_pod(&pod(&spec(&machine, STUBBORN)));
    let start = Instant::now();
    machine
        .orlop(["delete", "pod", "web", "--grace-period=1"])
        .ok();
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(25),
        "{took:?}"
    );
    machine.assert_nothing_is_left();
}

#[test]
fn force_waits_for_nobody() {
    let machine = Machine::new();
    machine.run_pod(&pod(&spec(&machine, SLOW)));
    let outcome = machine.orlop(["delete", "pod", "web", "--force", "--grace-period=0"]);
    assert!(
        outcome.stderr.starts_with("Warning: Immediate deletion"),
        "{outcome:?}"
    );
    assert_eq!(
        outcome.ok(),
        "pod \"web\" force deleted from default namespace\n"
    );
    machine.assert_nothing_is_left();
    assert!(
        !machine.path("host/bye").exists(),
        "the handler had no time"
    );
    let refused = machine
        .orlop(["delete", "pod", "web", "--force", "--grace-period=5"])
        .refused();
    assert!(
        refused.contains("--force and --grace-period greater than 0"),
        "{refused}"
    );
}

#[test]
fn a_pod_that_is_not_waited_for_ends_by_itself() {
    let machine = Machine::new();
    machine.run_pod(&pod(&spec(&machine, STUBBORN)));
    let said = machine
        .orlop(["delete", "pod", "web", "--wait=false", "--grace-period=15"])
        .ok();
    assert_eq!(said, "pod \"web\" deleted from default namespace\n");
    assert_eq!(row(&machine)[1..3], ["1/1", "Terminating"]);
    until(&machine, &["describe", "pod", "web"], |page| {
        page.contains("Terminating (lasts") && page.contains("Stopping container c")
    });
    let refused = machine.orlop_with(
        ["apply", "-f", "-"],
        &pod(&json!({"containers": [idle("c")]})),
    );
    assert_eq!(
        refused.status.code(),
        Some(1),
        "its name is not free yet: {refused:?}"
    );
    // A second deletion may shorten the time, never lengthen it.
    let start = Instant::now();
    machine
        .orlop(["delete", "pod", "web", "--grace-period=1"])
        .ok();
    assert!(
        start.elapsed() < Duration::from_secs(14),
        "{:?}",
        start.elapsed()
    );
    machine.assert_nothing_is_left();
}

#[test]
fn a_pod_whose_container_waits_for_its_image_can_be_deleted() {
    let machine = Machine::new();
    let missing = json!({"name": "c", "image": "localhost:1/missing:1"});
    machine
        .orlop_with(
            ["apply", "-f", "-"],
            &pod(&json!({"containers": [missing, idle("d")]})),
        )
        .ok();
    machine.wait_for("web", |pod| {
        crate::support::status(pod, "d")["ready"] == true
    });
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn all_pods_of_a_namespace_are_deleted_at_once() {
    let machine = Machine::new();
    let manifests = ["one", "two", "three"].map(|name| {
        let spec = json!({"containers": [container("c", STUBBORN)], "terminationGracePeriodSeconds": 3});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "many"}, "spec": spec})
            .to_string()
    });
    machine.run_pod(&manifests.join("\n---\n"));
    let start = Instant::now();
    let said = machine
        .orlop(["delete", "pods", "--all", "-n", "many"])
        .ok();
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(
        said.contains("pod \"two\" deleted from many namespace\n"),
        "{said}"
    );
    let took = start.elapsed();
    assert!(
        took < Duration::from_secs(20),
        "they end at the same time: {took:?}"
    );
    machine.assert_nothing_is_left();
}
