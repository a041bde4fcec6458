//! The verbs on objects that nothing runs for: ConfigMaps and Secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::common::{Machine, path};
use crate::support::{idle, pod, until, with};

fn map(data: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "settings", "labels": {"app": "web"}}, "data": data,
    })
}

fn data(machine: &Machine) -> String {
    let form = ["get", "cm", "settings", "-o", "jsonpath={.data}"];
    machine.orlop(form).ok()
}

#[test]
fn a_config_map_is_created_replaced_patched_and_edited() {
    let machine = Machine::bare();
    let file = machine.path("map.json");
    let write = |value: &Value| fs::write(&file, value.to_string()).expect("write");
    write(&map(&json!({"color": "blue"})));
    assert_eq!(
        machine.orlop(["create", "-f", path(&file)]).ok(),
        "configmap/settings created\n"
    );
    let refused = machine.orlop(["create", "-f", path(&file)]).refused();
    assert!(
        refused.ends_with("configmaps \"settings\" already exists\n"),
        "{refused}"
    );
    write(&map(&json!({"size": "9"})));
    assert_eq!(
        machine.orlop(["replace", "-f", path(&file)]).ok(),
        "configmap/settings replaced\n"
    );
    assert_eq!(data(&machine), r#"{"size":"9"}"#);
    let patch = |patch: &str| machine.orlop(["patch", "cm", "settings", "-p", patch]);
    assert_eq!(
        patch(r#"{"data": {"color": "red"}}"#).ok(),
        "configmap/settings patched\n"
    );
    assert_eq!(
        patch(r#"{"data": {"color": "red"}}"#).ok(),
        "configmap/settings patched (no change)\n"
    );
    let refused = patch(r#"{"data": {"no/key": "x"}}"#).refused();
    assert!(refused.contains("data[no/key]: Invalid value"), "{refused}");
    let refused = patch(r#"{"metadata": {"name": "other"}}"#).refused();
    assert!(
        refused.contains("metadata.name: Invalid value"),
        "{refused}"
    );
    assert_eq!(data(&machine), r#"{"color":"red","size":"9"}"#);

    let editor = machine.path("editor");
    fs::write(&editor, "#!/bin/sh\nsed -i s/red/green/ \"$1\"\n").expect("write");
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).expect("mode");
    let mut command = machine.command(["edit", "configmap/settings"]);
    command.env("KUBE_EDITOR", &editor);
    assert_eq!(
        crate::common::finish(command).ok(),
        "configmap/settings edited\n"
    );
    assert_eq!(data(&machine), r#"{"color":"green","size":"9"}"#);
    machine
        .orlop(["replace", "--force", "-f", path(&file)])
        .ok();
    assert_eq!(data(&machine), r#"{"size":"9"}"#);
}

#[test]
fn selectors_labels_and_waiting_know_all_kinds() {
    let machine = Machine::bare();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"user": "sailor"}});
    let all = json!({"apiVersion": "v1", "kind": "List", "items": [map(&json!({"color": "blue"})), secret]});
    machine
        .orlop_with(["apply", "-f", "-"], &all.to_string())
        .ok();
    assert_eq!(
        machine.orlop(["label", "secret", "login", "app=shop"]).ok(),
        "secret/login labeled\n"
    );
    let names = |selector: &str| {
        let form = ["get", "cm,secrets", "-l", selector, "-o", "name"];
        machine.orlop(form).ok()
    };
    assert_eq!(names("app=web"), "configmap/settings\n");
    assert_eq!(
        names("app in (web,shop)"),
        "configmap/settings\nsecret/login\n"
    );
    let table = machine
        .orlop(["get", "secrets", "--show-labels", "--no-headers"])
        .ok();
    let columns: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(
        (columns[1], columns[2], columns[4]),
        ("Opaque", "1", "app=shop")
    );
    let by_field = ["get", "cm", "--field-selector", "metadata.name!=settings"];
    assert_eq!(machine.orlop(by_field).ok(), "");
    let unknown = ["get", "cm", "--field-selector", "status.phase=Running"];
    let refused = machine.orlop(unknown).refused();
    assert!(refused.contains("field label not supported"), "{refused}");
    let goal = "--for=jsonpath={.data.color}=blue";
    assert_eq!(
        machine.orlop(["wait", goal, "cm/settings"]).ok(),
        "configmap/settings condition met\n"
    );
    let late = machine.orlop(["wait", "--for=delete", "cm/settings", "--timeout=0s"]);
    assert_eq!(
        late.refused(),
        "error: timed out waiting for the condition on configmaps/settings\n"
    );
    assert_eq!(
        machine
            .orlop(["delete", "cm,secrets", "-l", "app=web"])
            .ok(),
        "configmap \"settings\" deleted from default namespace\n"
    );
    assert_eq!(names("app"), "secret/login\n");
}

#[test]
fn a_patched_config_map_reaches_the_pod_that_has_it_mounted() {
    let machine = Machine::new();
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let pod = pod(&json!({
        "terminationGracePeriodSeconds": 0, "containers": [with(idle("c"), &mount)],
        "volumes": [{"name": "v", "configMap": {"name": "settings"}}],
    }));
    machine
        .orlop_with(
            ["apply", "-f", "-"],
            &map(&json!({"color": "blue"})).to_string(),
        )
        .ok();
    machine.run_pod(&pod);
    let patch = r#"{"data": {"color": "red"}}"#;
    machine.orlop(["patch", "cm", "settings", "-p", patch]).ok();
    let read = ["exec", "web", "--", "cat", "/v/color"];
    until(&machine, &read, |color| color == "red");
}
