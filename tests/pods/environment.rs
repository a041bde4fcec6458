//! Variables that come from ConfigMaps and Secrets.

use serde_json::{Value, json};

use crate::common::Machine;
use crate::support::{container, idle, output, pod, status, until, with};

fn object(kind: &str, name: &str, fields: &Value) -> String {
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
    for (key, value) in fields.as_object().expect("fields") {
        object[key] = value.clone();
    }
    object.to_string()
}

#[track_caller]
fn apply(machine: &Machine, manifest: &str) {
    machine.orlop_with(["apply", "-f", "-"], manifest).ok();
}

#[test]
fn sources_come_before_variables_and_names_that_are_none_are_left_out() {
    let machine = Machine::new();
    let data =
        json!({"colour": "blue", "both": "map", "1bad": "x", "2bad": "x", "dotted.key": "dot"});
    apply(
        &machine,
        &object(
            "ConfigMap",
            "settings",
            &json!({"data": data, "binaryData": {"raw": "AAE="}}),
        ),
    );
    apply(
        &machine,
        &object(
            "Secret",
            "login",
            &json!({"stringData": {"both": "secret", "pin": "1234"}}),
        ),
    );
    let fields = json!({
        "envFrom": [
            {"configMapRef": {"name": "settings"}},
            {"secretRef": {"name": "login"}},
            {"prefix": "P_", "configMapRef": {"name": "settings"}},
            {"configMapRef": {"name": "missing", "optional": true}},
            {"secretRef": {"name": "missing", "optional": true}},
        ],
        "env": [
            {"name": "colour", "value": "$(colour)-green"},
            {"name": "PIN", "valueFrom": {"secretKeyRef": {"name": "login", "key": "pin"}}},
            {"name": "SIZE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "size", "optional": true}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "missing", "key": "k", "optional": true}}},
            {"name": "JOINED", "value": "$(PIN)/$(P_colour)/$(SIZE)"},
        ],
        "command": ["/bin/env", "LAST=$(both)"],
    });
    let spec = json!({"containers": [with(container("c", ""), &fields)]});
    let printed = output(&machine, &spec);
    let ordinary = ["PATH", "HOME", "HOSTNAME"];
    let mut given: Vec<&str> = printed
        .lines()
        .filter(|line| {
            !ordinary
                .iter()
                .any(|name| line.starts_with(&format!("{name}=")))
        })
        .collect();
    given.sort_unstable();
    let expected = "JOINED=1234/blue/$(SIZE) LAST=secret PIN=1234 P_1bad=x P_2bad=x P_both=map P_colour=blue \
                    P_dotted.key=dot both=secret colour=blue-green dotted.key=dot pin=1234";
    assert_eq!(given.join(" "), expected);
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    let message = "Keys [1bad, 2bad] from the EnvFrom configMap default/settings were skipped since they are \
                   considered invalid environment variable names.";
    assert!(
        page.contains("InvalidEnvironmentVariableNames") && page.contains(message),
        "{page}"
    );
}

#[test]
fn a_container_waits_for_what_its_variables_come_from() {
    let machine = Machine::new();
    let fields = json!({
        "envFrom": [{"configMapRef": {"name": "settings"}}],
        "env": [{"name": "PIN", "valueFrom": {"secretKeyRef": {"name": "login", "key": "pin"}}}],
    });
    let spec =
        json!({"containers": [with(idle("c"), &fields), idle("other")], "restartPolicy": "Never"});
    apply(&machine, &pod(&spec));
    let waits = |message: &str| {
        machine.wait_for("web", |pod| {
            let waiting = &status(pod, "c")["state"]["waiting"];
            waiting["reason"] == "CreateContainerConfigError" && waiting["message"] == message
        });
    };
    waits("configmap \"settings\" not found");
    machine.wait_for("web", |pod| status(pod, "other")["ready"] == true);
    let row = machine.orlop(["get", "pod", "web", "--no-headers"]).ok();
    assert!(
        row.contains("1/2") && row.contains("CreateContainerConfigError"),
        "{row}"
    );
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    assert!(
        page.contains("Error: configmap \"settings\" not found"),
        "{page}"
    );
    apply(
        &machine,
        &object(
            "ConfigMap",
            "settings",
            &json!({"data": {"colour": "blue"}}),
        ),
    );
    waits("secret \"login\" not found");
    apply(
        &machine,
        &object("Secret", "login", &json!({"stringData": {"puk": "1"}})),
    );
    waits("couldn't find key pin in Secret default/login");
    apply(
        &machine,
        &object("Secret", "login", &json!({"stringData": {"pin": "1234"}})),
    );
    machine.wait_for("web", |pod| status(pod, "c")["ready"] == true);
    let pod = machine.pod("web");
    assert_eq!(
        status(&pod, "c")["restartCount"],
        0,
        "it was never restarted"
    );
    assert_eq!(machine.sh("web", "c", "echo $colour $PIN"), "blue 1234\n");

    // Variables are those of the start: a change reaches the next one.
    apply(
        &machine,
        &object("ConfigMap", "settings", &json!({"data": {"colour": "red"}})),
    );
    let read = [
        "exec",
        "web",
        "-c",
        "c",
        "--",
        "/bin/sh",
        "-c",
        "echo $colour",
    ];
    assert_eq!(until(&machine, &read, |_| true), "blue\n");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn bytes_that_are_no_text_are_no_variable() {
    let machine = Machine::new();
    apply(
        &machine,
        &object("Secret", "raw", &json!({"data": {"bytes": "/4A="}})),
    );
    let fields = json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "raw", "key": "bytes"}}}]});
    apply(
        &machine,
        &pod(&json!({"containers": [with(idle("c"), &fields)]})),
    );
    machine.wait_for("web", |pod| {
        let waiting = &status(pod, "c")["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default();
        waiting["reason"] == "CreateContainerConfigError"
            && message.starts_with("key bytes in Secret default/raw is not UTF-8 text")
    });
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}
