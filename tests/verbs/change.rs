//! Changing what is there, as far as Kubernetes lets a pod change.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::common::{Machine, Outcome, path};
use crate::support::{idle, pod, status};

fn running() -> Machine {
    let machine = Machine::new();
    machine.run_pod(&manifest(&json!({"app": "web"})));
    machine
}

fn manifest(labels: &Value) -> String {
    let mut manifest: Value = serde_json::from_str(&pod(&json!({
        "terminationGracePeriodSeconds": 1, "containers": [idle("c")],
    })))
    .expect("JSON");
    manifest["metadata"]["labels"] = labels.clone();
    manifest.to_string()
}

fn labels(machine: &Machine) -> Value {
    machine.pod("web")["metadata"]["labels"].clone()
}

const FORBIDDEN: &str = "The Pod \"web\" is invalid: spec: Forbidden: pod updates may not change fields other than \
    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` \
    (only additions to existing tolerations),`spec.terminationGracePeriodSeconds`";

#[test]
fn creating_makes_only_what_is_not_there() {
    let machine = Machine::new();
    let file = machine.path("pod.json");
    fs::write(&file, manifest(&json!({}))).expect("write");
    let dry = machine
        .orlop([
            "create",
            "-f",
            path(&file),
            "--dry-run=client",
            "-o",
            "yaml",
        ])
        .ok();
    assert!(dry.starts_with("apiVersion: v1\nkind: Pod\n"), "{dry}");
    let dry = machine
        .orlop(["create", "-f", path(&file), "--dry-run=client"])
        .ok();
    assert_eq!(dry, "pod/web created (dry run)\n");
    assert_eq!(
        machine.orlop(["get", "pods"]).stderr,
        "No resources found in default namespace.\n"
    );

    assert_eq!(
        machine.orlop(["create", "-f", path(&file)]).ok(),
        "pod/web created\n"
    );
    machine
        .orlop(["wait", "--for=condition=Ready", "pod/web", "--timeout=100s"])
        .ok();
    let uid = machine.uid("web");
    let refused = machine.orlop(["create", "-f", path(&file)]).refused();
    assert_eq!(
        refused,
        format!(
            "Error from server (AlreadyExists): error when creating {file:?}: pods \"web\" already exists\n"
        )
    );
    assert_eq!(machine.uid("web"), uid);
}

#[test]
fn patches_of_three_kinds_change_metadata_and_images_only() {
    let machine = running();
    let patch = |options: &[&str]| machine.orlop([&["patch", "pod", "web"], options].concat());
    let strategic = r#"{"metadata": {"labels": {"tier": "front"}}, "spec": {"terminationGracePeriodSeconds": 2}}"#;
    assert_eq!(patch(&["-p", strategic]).ok(), "pod/web patched\n");
    assert_eq!(
        patch(&["-p", strategic]).ok(),
        "pod/web patched (no change)\n"
    );
    assert_eq!(labels(&machine), json!({"app": "web", "tier": "front"}));
    let merge = "metadata: {labels: {app: null, tier: back}}";
    assert_eq!(
        patch(&["--type=merge", "-p", merge]).ok(),
        "pod/web patched\n"
    );
    let json_patch = r#"[{"op": "test", "path": "/metadata/labels/tier", "value": "back"},
                         {"op": "add", "path": "/metadata/labels/x", "value": "1"}]"#;
    let file = machine.path("patch.json");
    fs::write(&file, json_patch).expect("write");
    let outcome = patch(&[
        "--type=json",
        "--patch-file",
        path(&file),
        "-o",
        "jsonpath={.metadata.labels}",
    ]);
    assert_eq!(outcome.ok(), r#"{"tier":"back","x":"1"}"#);

    let before = machine.pod("web");
    for (options, why) in [
        (
            [
                "-p",
                r#"{"spec": {"containers": [{"name": "c", "command": ["true"]}]}}"#,
            ],
            FORBIDDEN,
        ),
        (["-p", r#"{"spec": {"hostNetwork": true}}"#], FORBIDDEN),
        (
            ["-p", r#"{"metadata": {"name": "other"}}"#],
            "error: metadata.name: Invalid value: \"other\": field is immutable",
        ),
        (
            ["-p", r#"{"metadata": {"labels": {"a": "b c"}}}"#],
            "The Pod \"web\" is invalid: metadata.labels[a]: Invalid value",
        ),
        (
            ["-p", r#"{"spec": {"containers": [{"image": "x"}]}}"#],
            "error: map: {\"image\":\"x\"} does not contain declared merge key: name",
        ),
        (
            ["-p", r#"{"spec": {"colour": "red"}}"#],
            "error: strict decoding error: unknown field \"spec.colour\"",
        ),
        (["-p", "{"], "error: unable to parse \"{\""),
    ] {
        let refused = patch(&options).refused();
        assert!(refused.starts_with(why), "{options:?}: {refused}");
    }
    let refused = patch(&[
        "--type=json",
        "-p",
        r#"[{"op": "test", "path": "/kind", "value": "x"}]"#,
    ])
    .refused();
    assert!(
        refused.contains("the server rejected our request"),
        "{refused}"
    );
    assert_eq!(
        machine.pod("web"),
        before,
        "nothing that was refused changed anything"
    );

    // A new image reaches the keeper, which replaces the container.
    machine
        .orlop([
            "image",
            "import",
            path(&machine.path("busybox.tar")),
            "busybox:2",
            "--cmd",
            "sh",
        ])
        .ok();
    patch(&[
        "-p",
        r#"{"spec": {"containers": [{"name": "c", "image": "busybox:2"}]}}"#,
    ])
    .ok();
    machine.wait_for("web", |pod| {
        status(pod, "c")["restartCount"] == 1
            && status(pod, "c")["image"] == "busybox:2"
            && status(pod, "c")["ready"] == true
    });
}

#[test]
fn labels_and_annotations_are_set_and_taken_away() {
    let machine = running();
    let label = |words: &[&str]| machine.orlop([&["label"], words].concat());
    assert_eq!(
        label(&["pod", "web", "tier=front", "x=1"]).ok(),
        "pod/web labeled\n"
    );
    assert_eq!(label(&["pod/web", "x=1"]).ok(), "pod/web not labeled\n");
    assert_eq!(
        label(&["pod", "web", "tier=back"]).refused(),
        "error: 'tier' already has a value (front), and --overwrite is false\n"
    );
    assert_eq!(
        label(&["pods", "--all", "tier=back", "--overwrite"]).ok(),
        "pod/web labeled\n"
    );
    assert_eq!(
        label(&["pods", "-l", "app=web", "x-"]).ok(),
        "pod/web unlabeled\n"
    );
    let missing = label(&["pod", "web", "x-"]);
    assert_eq!(
        (missing.stdout.as_str(), missing.stderr.as_str()),
        ("pod/web not labeled\n", "label \"x\" not found.\n")
    );
    assert_eq!(labels(&machine), json!({"app": "web", "tier": "back"}));
    assert_eq!(
        label(&["pod", "web", "--list"]).ok(),
        "app=web\ntier=back\n"
    );
    let refused = label(&["pod", "web", "bad key=1"]).refused();
    assert!(
        refused.starts_with("The Pod \"web\" is invalid: metadata.labels"),
        "{refused}"
    );
    assert_eq!(
        label(&["pod", "web"]).refused(),
        "error: at least one label update is required\n"
    );

    let said = machine
        .orlop(["annotate", "pod", "web", "note=what I did, and why"])
        .ok();
    assert_eq!(said, "pod/web annotated\n");
    assert_eq!(
        machine.pod("web")["metadata"]["annotations"]["note"],
        "what I did, and why"
    );
    // Many at once: none is lost.
    let children: Vec<_> = (0..8)
        .map(|i| {
            machine
                .command(["label", "pod", "web", &format!("n{i}=1")])
                .spawn()
                .expect("spawn")
        })
        .collect();
    for child in children {
        assert!(child.wait_with_output().expect("wait").status.success());
    }
    assert_eq!(labels(&machine).as_object().expect("labels").len(), 10);
}

#[test]
fn a_pod_is_replaced_in_place_or_by_force() {
    let machine = running();
    let uid = machine.uid("web");
    let replace = |labels: Value, command: Option<Value>, options: &[&str]| {
        let mut manifest: Value = serde_json::from_str(&manifest(&labels)).expect("JSON");
        if let Some(command) = command {
            manifest["spec"]["containers"][0]["command"] = command;
        }
        machine.orlop_with(
            [&["replace", "-f", "-"], options].concat(),
            &manifest.to_string(),
        )
    };
    assert_eq!(
        replace(json!({"app": "shop"}), None, &[]).ok(),
        "pod/web replaced\n"
    );
    assert_eq!(labels(&machine), json!({"app": "shop"}));
    assert_eq!(machine.uid("web"), uid);
    let other = json!(["sleep", "1000"]);
    let refused = replace(json!({}), Some(other.clone()), &[]).refused();
    assert!(refused.starts_with(FORBIDDEN), "{refused}");
    assert_eq!(
        replace(json!({}), Some(other), &["--force", "--grace-period=1"]).ok(),
        "pod \"web\" deleted from default namespace\npod/web replaced\n"
    );
    assert_ne!(machine.uid("web"), uid);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    let gone = replace(json!({}), None, &[]).refused();
    assert_eq!(
        gone,
        "Error from server (NotFound): pods \"web\" not found\n"
    );
}

/// Runs `orlop edit` with a shell script as editor, which has the file as `$1`.
fn edit(machine: &Machine, script: &str) -> Outcome {
    let editor = machine.path("editor");
    fs::write(&editor, format!("#!/bin/sh\n{script}\n")).expect("write");
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).expect("chmod");
    let mut command = machine.command(["edit", "pod", "web"]);
    command
        .env("KUBE_EDITOR", &editor)
        .env("TMPDIR", machine.directory.path());
    crate::common::finish(command)
}

#[test]
fn an_edit_is_stored_cancelled_or_opened_again_with_the_reason() {
    let machine = running();
    assert_eq!(
        edit(&machine, "sed -i 's/app: web/app: shop/' $1").ok(),
        "pod/web edited\n"
    );
    assert_eq!(labels(&machine), json!({"app": "shop"}));
    let same = edit(&machine, "true");
    assert_eq!(same.stderr, "Edit cancelled, no changes made.\n");
    assert_eq!(same.ok(), "");
    let empty = edit(&machine, ": >$1");
    assert_eq!(empty.stderr, "Edit cancelled, saved file was empty.\n");
    empty.ok();

    // The first try is wrong; the second one sees why, and is right.
    let twice = "if grep -q Forbidden $1; then cp $1 $1.seen; sed -i 's/hostNetwork: true//; s/shop/store/' $1; \
                 else sed -i 's/^spec:/spec:\\n  hostNetwork: true/' $1; fi";
    assert_eq!(edit(&machine, twice).ok(), "pod/web edited\n");
    assert_eq!(labels(&machine), json!({"app": "store"}));
    let seen = crate::common::entries(machine.directory.path());
    let seen = seen
        .iter()
        .find(|name| name.ends_with(".seen"))
        .expect("the reason was shown");
    let seen = fs::read_to_string(machine.path(seen)).expect("read");
    assert!(
        seen.contains(
            "# pods \"web\" was not valid:\n# * The Pod \"web\" is invalid: spec: Forbidden"
        ),
        "{seen}"
    );

    // A try that stays wrong is kept in a file.
    let wrong = edit(
        &machine,
        "grep -q 'was not valid' $1 || sed -i 's/^spec:/spec: [/' $1",
    );
    let stderr = wrong.refused();
    let (copy, last) = stderr.split_once('\n').expect("two lines");
    assert_eq!(
        last,
        "error: Edit cancelled, no valid changes were saved.\n"
    );
    let copy = copy
        .strip_prefix("A copy of your changes has been stored to \"")
        .expect("a path");
    assert!(
        fs::read_to_string(copy.trim_end_matches('"'))
            .expect("the copy")
            .contains("spec: [")
    );
    let broken = edit(&machine, "exit 3").refused();
    assert!(
        broken.starts_with("error: there was a problem with the editor"),
        "{broken}"
    );
    let left = crate::common::entries(machine.directory.path());
    let left = left.iter().filter(|name| name.ends_with(".yaml")).count();
    assert_eq!(left, 1, "only the kept one is left");
}
