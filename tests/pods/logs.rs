//! What containers write.

use std::fs;

use serde_json::json;

use crate::common::Machine;
use crate::support::{container, idle, is_over, kill, output, pod, status, until};

/// The log of a container's start, entry by entry: stream, tag and text.
fn entries(machine: &Machine, start: u32) -> Vec<(String, String, String)> {
    let directory = machine
        .roots
        .pod_logs("default", "web", &machine.uid("web"));
    let text = fs::read_to_string(directory.join(format!("c/{start}.log"))).expect("a log");
    let entry = |line: &str| {
        let mut words = line.splitn(4, ' ').map(str::to_owned);
        let time = words.next().expect("a time");
        time.parse::<jiff::Timestamp>().expect("a time of RFC 3339");
        let mut next = || words.next().expect("four words");
        (next(), next(), next())
    };
    text.lines().map(entry).collect()
}

#[test]
fn logs_on_disk_have_the_runtime_interfaces_format() {
    let machine = Machine::new();
    let script = "echo out; sleep 1; echo err >&2; sleep 1; printf 'no end'";
    let printed = output(&machine, &json!({"containers": [container("c", script)]}));
    assert_eq!(printed, "out\nerr\nno end");
    let entry = |stream: &str, tag: &str, text: &str| (stream.into(), tag.into(), text.into());
    assert_eq!(
        entries(&machine, 0),
        [
            entry("stdout", "F", "out"),
            entry("stderr", "F", "err"),
            entry("stdout", "P", "no end"),
        ]
    );
    let directory = machine
        .roots
        .pod_logs("default", "web", &machine.uid("web"));
    machine.orlop(["delete", "pod", "web"]).ok();
    assert!(!directory.exists(), "logs go with their pod");
}

#[test]
fn a_line_longer_than_an_entry_is_put_together_again() {
    let machine = Machine::new();
    let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short";
    let printed = output(&machine, &json!({"containers": [container("c", script)]}));
    assert_eq!(printed, format!("{}\nshort\n", "x".repeat(40_000)));
    let tags: Vec<String> = entries(&machine, 0)
        .into_iter()
        .map(|(_, tag, _)| tag)
        .collect();
    assert_eq!(tags.last().map(String::as_str), Some("F"));
    assert!(
        tags.iter().filter(|tag| *tag == "P").count() >= 2,
        "{tags:?}"
    );
}

#[test]
fn much_output_arrives_whole_and_in_order() {
    let machine = Machine::new();
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
    let printed = output(&machine, &json!({"containers": [container("c", script)]}));
    let expected: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    assert!(
        printed == expected,
        "{} bytes of {}",
        printed.len(),
        expected.len()
    );
}

#[test]
fn following_a_log_ends_with_the_container() {
    let machine = Machine::new();
    let script = "echo one; sleep 3; echo two";
    let spec = json!({"restartPolicy": "Never", "containers": [container("c", script), idle("d")]});
    machine.run_pod(&pod(&spec));
    assert_eq!(machine.orlop(["logs", "-f", "web", "c"]).ok(), "one\ntwo\n");
    // The pod itself goes on.
    assert_eq!(machine.sh("web", "d", "echo there"), "there\n");
}

#[test]
fn following_ends_when_the_container_backs_off() {
    let machine = Machine::new();
    let spec = json!({"containers": [container("c", "echo again; sleep 1; exit 1")]});
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", |pod| status(pod, "c")["restartCount"] == 1);
    until(&machine, &["logs", "-f", "web"], |printed| {
        printed == "again\n"
    });
}

#[test]
fn each_start_has_a_log_of_its_own() {
    let machine = Machine::new();
    let script = "echo start; trap exit TERM; while :; do sleep 1; done";
    machine.run_pod(&pod(&json!({"containers": [container("c", script)]})));
    kill(&machine, "c");
    machine.wait_for("web", |pod| {
        status(pod, "c")["restartCount"] == 1 && status(pod, "c")["ready"] == true
    });
    assert_eq!(
        until(&machine, &["logs", "web"], |text| !text.is_empty()),
        "start\n"
    );
    assert_eq!(entries(&machine, 0).len(), 1);
    assert_eq!(entries(&machine, 1).len(), 1);
}

#[test]
fn the_first_container_is_the_default_and_others_are_named() {
    let machine = Machine::new();
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [container("a", "echo from a"), container("b", "echo from b")],
    });
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", is_over);
    let outcome = machine.orlop(["logs", "web"]);
    assert_eq!(outcome.stderr, "Defaulted container \"a\" out of: a, b\n");
    assert_eq!(outcome.ok(), "from a\n");
    for arguments in [
        ["logs", "web", "b"].as_slice(),
        &["logs", "pod/web", "-c", "b"],
    ] {
        let outcome = machine.orlop(arguments);
        assert_eq!(
            (outcome.stdout.as_str(), outcome.stderr.as_str()),
            ("from b\n", "")
        );
    }
    assert_eq!(
        machine.orlop(["logs", "web", "z"]).refused(),
        "error: container z is not valid for pod web\n"
    );
    assert_eq!(
        machine.orlop(["logs", "nobody"]).refused(),
        "Error from server (NotFound): pods \"nobody\" not found\n"
    );
}
