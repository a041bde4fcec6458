//! What pods are told about themselves, in variables and in files.

use serde_json::json;

use crate::common::Machine;
use crate::support::{idle, pod, status, until, with};

const SPEC: &str = include_str!("../../specs/downward-api.yaml");

#[test]
fn the_shipped_manifest_shows_files_that_follow_the_pods_metadata() {
    let machine = Machine::new();
    machine.run_pod(SPEC);
    let sh = |script: &str| machine.sh("downward-api", "demo", script);
    assert_eq!(
        sh(
            "cd /etc/info; cat labels; echo; cat annotations; echo; cat cpu/limit; stat -Lc ' %a' cpu/limit; \
            echo $POD_NAME $TIER $MEMORY_MIB"
        ),
        "app=\"demo\"\ntier=\"front\"\nbuild=\"two\"\n250 400\ndownward-api front 64\n"
    );
    let changed = SPEC
        .replace("tier: front", "tier: back")
        .replace("build: two", "build: \"3\"");
    let said = machine.orlop_with(["apply", "-f", "-"], &changed).ok();
    assert_eq!(said, "pod/downward-api configured\n");
    let read = [
        "exec",
        "downward-api",
        "--",
        "/bin/sh",
        "-c",
        "cd -P /etc/info/..data; cat labels annotations; echo $TIER",
    ];
    let now = until(&machine, &read, |text| text.contains("back"));
    assert_eq!(
        now, "app=\"demo\"\ntier=\"back\"build=\"3\"front\n",
        "variables stay"
    );
    machine
        .orlop(["delete", "pod", "downward-api", "--now"])
        .ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_container_that_starts_again_is_told_the_new_labels() {
    let machine = Machine::new();
    let fields = json!({"env": [{"name": "TIER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier']"}}}]});
    let spec = json!({"containers": [with(idle("c"), &fields)]});
    let labelled = |tier: &str| {
        pod(&spec).replace(
            "\"name\":\"web\"",
            &format!("\"name\":\"web\",\"labels\":{{\"tier\":\"{tier}\"}}"),
        )
    };
    machine.run_pod(&labelled("front"));
    assert_eq!(machine.sh("web", "c", "echo $TIER"), "front\n");
    machine
        .orlop_with(["apply", "-f", "-"], &labelled("back"))
        .ok();
    crate::support::kill(&machine, "c");
    machine.wait_for("web", |pod| {
        status(pod, "c")["restartCount"] == 1 && status(pod, "c")["ready"] == true
    });
    assert_eq!(machine.sh("web", "c", "echo $TIER"), "back\n");
}

#[test]
fn every_field_of_kubernetes_can_be_a_variable() {
    let machine = Machine::new();
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let fields = json!({"env": [
        field("NAME", "metadata.name"), field("NAMESPACE", "metadata.namespace"), field("UID_", "metadata.uid"),
        field("LABEL", "metadata.labels['missing']"), field("NOTE", "metadata.annotations['Some/Note']"),
        field("NODE", "spec.nodeName"), field("ACCOUNT", "spec.serviceAccountName"),
        field("HOST", "status.hostIP"), field("HOSTS", "status.hostIPs"),
        field("IP", "status.podIP"), field("IPS", "status.podIPs"),
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
        {"name": "ALL", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
    ]});
    let spec = json!({"containers": [with(idle("c"), &fields)]});
    machine.run_pod(&pod(&spec));
    let uid = machine.uid("web");
    let said = machine.sh("web", "c", "echo $NAME $NAMESPACE $UID_ \"[$LABEL$NOTE$ACCOUNT]\" $CPU; [ $HOST = $HOSTS ]; echo ${#NODE} $ALL");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("web default {uid} [] 0"));
    let numbers: Vec<u64> = lines[1]
        .split(' ')
        .map(|n| n.parse().expect("a number"))
        .collect();
    assert!(
        numbers[0] > 0 && numbers[1] > 1 << 20,
        "a node's name, the machine's memory: {said}"
    );
}
