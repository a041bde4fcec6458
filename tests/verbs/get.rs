//! Choosing, shaping and watching what `get` shows, and waiting for it.

use std::io::{BufRead, BufReader};
use std::time::Instant;

use serde_json::json;

use crate::common::Machine;
use crate::support::{container, idle, is_over, pod};

/// The pods `a` (runs), `b` (has ended well) and `c` (has failed).
fn three() -> Machine {
    let machine = Machine::new();
    for (name, script) in [("a", "exec sleep 1000"), ("b", "true"), ("c", "exit 3")] {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "shop", "example.com/part": name}},
            "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
                     "containers": [container("x", script)]},
        });
        machine.run_pod(&manifest.to_string());
    }
    machine.wait_for("b", is_over);
    machine.wait_for("c", is_over);
    machine
}

#[test]
fn pods_are_chosen_by_labels_and_fields_and_shown_in_columns() {
    let machine = three();
    let get = |options: &[&str]| machine.orlop([&["get", "pods"], options].concat()).ok();
    assert_eq!(
        get(&["-l", "example.com/part in (a,c)", "-o", "name"]),
        "pod/a\npod/c\n"
    );
    assert_eq!(
        get(&["--field-selector", "status.phase!=Running", "-o", "name"]),
        "pod/b\npod/c\n"
    );
    assert_eq!(
        get(&[
            "-A",
            "--field-selector=metadata.namespace=default,metadata.name=b",
            "-o=name"
        ]),
        "pod/b\n"
    );
    let labels = get(&[
        "-L",
        "example.com/part",
        "--show-labels",
        "-l",
        "example.com/part=a",
    ]);
    let lines: Vec<Vec<&str>> = labels
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0][4..], ["AGE", "PART", "LABELS"]);
    assert_eq!(lines[1][5..], ["a", "app=shop,example.com/part=a"]);
    assert_eq!(
        get(&[
            "--sort-by",
            "{.status.phase}",
            "-o",
            "jsonpath={.items[*].metadata.name}"
        ]),
        "c a b"
    );
    assert_eq!(
        get(&[
            "-o",
            "custom-columns=WHO:.metadata.name,CODE:.status.containerStatuses[*].state.terminated.exitCode"
        ]),
        "WHO   CODE\na     <none>\nb     0\nc     3\n"
    );
    let range =
        "jsonpath={range .items[?(@.status.phase==\"Failed\")]}{.metadata.name}{\"\\n\"}{end}";
    assert_eq!(get(&["-o", range]), "c\n");
    let refused = machine
        .orlop(["get", "pods", "--field-selector", "spec.color=red"])
        .refused();
    assert_eq!(
        refused,
        "Error from server (BadRequest): field label not supported: spec.color\n"
    );
    let refused = machine.orlop(["get", "pods", "-l", "a=b=c"]).refused();
    assert!(refused.contains("invalid label value \"b=c\""), "{refused}");

    let page = machine
        .orlop(["describe", "pods", "-l", "example.com/part=c"])
        .ok();
    assert!(
        page.starts_with("Name:") && page.matches("Name:  ").count() == 1,
        "{page}"
    );
    let deleted = machine
        .orlop(["delete", "pods", "-l", "app=shop,example.com/part!=a"])
        .ok();
    assert_eq!(
        deleted,
        "pod \"b\" deleted from default namespace\npod \"c\" deleted from default namespace\n"
    );
    assert_eq!(get(&["-o", "name"]), "pod/a\n");
}

#[test]
fn waiting_ends_with_the_condition_or_with_the_time() {
    let machine = three();
    let wait = |options: &[&str]| machine.orlop([&["wait"], options].concat());
    assert_eq!(
        wait(&["--for=condition=Ready", "pod/a"]).ok(),
        "pod/a condition met\n"
    );
    assert_eq!(
        wait(&[
            "--for=jsonpath={.status.phase}=Failed",
            "pods",
            "-l",
            "example.com/part=c"
        ])
        .ok(),
        "pod/c condition met\n"
    );
    let late = wait(&["--for=condition=Ready", "pods", "--all", "--timeout=300ms"]);
    assert_eq!(late.status.code(), Some(1));
    assert_eq!(late.stdout, "pod/a condition met\n");
    assert_eq!(
        late.stderr,
        "error: timed out waiting for the condition on pods/b\nerror: timed out waiting for the condition on pods/c\n"
    );
    assert_eq!(
        wait(&["--for=condition=Ready", "pod/nobody"]).refused(),
        "Error from server (NotFound): pods \"nobody\" not found\n"
    );
    assert_eq!(
        wait(&["--for=condition=Ready", "pods", "-l", "app=none"]).refused(),
        "error: no matching resources found\n"
    );

    // What happens while it waits ends the waiting.
    let mut gone = machine.command(["wait", "--for=delete", "pod/a", "--timeout=60s"]);
    let gone = gone.spawn().expect("spawn");
    let mut made = machine.command(["wait", "--for=create", "pod/new", "--timeout=60s"]);
    let made = made.spawn().expect("spawn");
    std::thread::sleep(std::time::Duration::from_millis(300));
    machine.orlop(["delete", "pod", "a"]).ok();
    let start = Instant::now();
    let manifest = pod(&json!({"containers": [idle("c")]})).replace("\"web\"", "\"new\"");
    machine.run_pod(&manifest);
    for (child, said) in [
        (gone, "pod/a condition met\n"),
        (made, "pod/new condition met\n"),
    ] {
        let output = child.wait_with_output().expect("wait");
        assert_eq!(String::from_utf8_lossy(&output.stdout), said);
        assert!(output.status.success());
    }
    assert!(
        start.elapsed().as_secs() < 20,
        "told at once, not at some later look"
    );
    assert_eq!(wait(&["--for=delete", "pod/a"]).ok(), "");
    let refused = wait(&["--for=ready", "pod/new"]).refused();
    assert!(
        refused.contains("unrecognized condition: \"ready\""),
        "{refused}"
    );
}

#[test]
fn watching_shows_each_change_once_and_ends_with_the_reader() {
    let machine = Machine::new();
    let mut watch = machine.command(["get", "pods", "-w"]);
    let mut child = watch.spawn().expect("spawn");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    std::thread::sleep(std::time::Duration::from_millis(300));
    machine.run_pod(&pod(
        &json!({"restartPolicy": "Never", "containers": [container("c", "exec sleep 1000")]}),
    ));
    let mut until = |status: &str| {
        let mut seen = Vec::new();
        loop {
            let line = lines.next().expect("a line").expect("text");
            let word = line
                .split_whitespace()
                .nth(2)
                .unwrap_or_default()
                .to_owned();
            seen.push(line);
            if word == status {
                return seen;
            }
        }
    };
    let begin = until("Running");
    assert!(begin[0].starts_with("NAME   READY   STATUS"), "{begin:?}");
    assert_eq!(
        begin.iter().filter(|line| line.starts_with("NAME")).count(),
        1
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    until("Terminating");
    drop(lines);
    machine.run_pod(&pod(&json!({"containers": [idle("c")]})));
    // Nobody reads any more: it ends by itself.
    assert!(child.wait().expect("wait").success());

    let mut only = machine.command([
        "get",
        "pods",
        "--watch-only",
        "-o",
        "jsonpath={.status.phase}\n",
    ]);
    let mut child = only.spawn().expect("spawn");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    std::thread::sleep(std::time::Duration::from_millis(300));
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    assert_eq!(lines.next().expect("a line").expect("text"), "Running");
    child.kill().expect("kill");
    child.wait().expect("wait");
}

#[test]
fn events_tell_what_happened_in_columns_and_in_full() {
    let machine = three();
    let all = machine.orlop(["events"]).ok();
    assert!(all.starts_with("LAST SEEN   TYPE"), "{all}");
    let of_a = machine
        .orlop(["events", "--for", "pod/a", "--no-headers"])
        .ok();
    assert!(of_a.lines().all(|line| line.contains("Pod/a")), "{of_a}");
    let reasons: Vec<&str> = of_a
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    assert_eq!(reasons, ["Scheduled", "Pulled", "Created", "Started"]);
    let none = machine.orlop(["events", "--types=Warning"]);
    assert_eq!(none.stderr, "No resources found in default namespace.\n");
    let json = machine
        .orlop([
            "get",
            "events",
            "-o",
            "json",
            "--field-selector",
            "involvedObject.name=b",
        ])
        .ok();
    let list: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(list["items"][0]["involvedObject"]["name"], "b");
    assert_eq!(list["items"][0]["kind"], "Event");
    assert!(
        machine
            .orlop(["get", "events", "-A"])
            .ok()
            .starts_with("NAMESPACE   LAST SEEN")
    );

    let mut watch = machine.command(["events", "-w", "--for", "pod/a"]);
    let mut child = watch.spawn().expect("spawn");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    for _ in 0..5 {
        lines.next().expect("a line").expect("text");
    }
    machine.orlop(["delete", "pod", "a", "--now"]).ok();
    let killing = lines.next().expect("a line").expect("text");
    assert!(killing.contains("Killing"), "{killing}");
    child.kill().expect("kill");
    child.wait().expect("wait");
}
