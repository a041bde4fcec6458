//! What containers have written, in all the ways it can be asked for.

use std::fs;
use std::io::{BufRead, BufReader};

use orlop::pod::log_files::Directory;
use serde_json::json;

use crate::common::Machine;
use crate::support::{container, idle, is_over, kill, pod, status, until, with};

/// A machine on which logs are rotated after a few lines.
fn apply_with_small_logs(machine: &Machine, manifest: &str, size: u32) {
    let file = machine.path("pod.json");
    fs::write(&file, manifest).expect("write");
    let mut command = machine.command(["apply", "--wait", "-f"]);
    command
        .arg(&file)
        .env("ORLOP_TEST_LOG_SIZE", size.to_string());
    crate::common::finish(command).ok();
}

#[test]
fn lines_are_chosen_by_number_time_and_bytes() {
    let machine = Machine::new();
    let script = "echo one; echo two; sleep 1; echo three; printf four";
    let spec = json!({"restartPolicy": "Never", "containers": [container("c", script)]});
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", is_over);
    let logs = |options: &[&str]| {
        let arguments = [&["logs", "web"], options].concat();
        machine.orlop(arguments).ok()
    };
    assert_eq!(logs(&[]), "one\ntwo\nthree\nfour");
    assert_eq!(logs(&["--tail", "2"]), "three\nfour");
    assert_eq!(logs(&["--tail=0"]), "");
    assert_eq!(logs(&["--tail", "-1"]), "one\ntwo\nthree\nfour");
    assert_eq!(logs(&["--tail", "100"]), "one\ntwo\nthree\nfour");
    assert_eq!(logs(&["--limit-bytes", "6"]), "one\ntw");
    assert_eq!(logs(&["--tail", "3", "--limit-bytes=5"]), "two\nt");

    let timed = logs(&["--timestamps"]);
    let lines: Vec<(&str, &str)> = timed
        .lines()
        .map(|line| line.split_once(' ').expect("a time"))
        .collect();
    let texts: Vec<&str> = lines.iter().map(|(_, text)| *text).collect();
    assert_eq!(texts, ["one", "two", "three", "four"]);
    let third: jiff::Timestamp = lines[2].0.parse().expect("a time");
    assert_eq!(logs(&["--since-time", &third.to_string()]), "three\nfour");
    assert_eq!(logs(&["--since", "1h"]), "one\ntwo\nthree\nfour");
    assert_eq!(logs(&["--since", "1ms"]), "");
    assert_eq!(logs(&["--prefix", "--tail=1"]), "[pod/web/c] four");

    let refused = machine.orlop(["logs", "web", "--since", "soon"]).refused();
    assert!(
        refused.contains("unknown unit") || refused.contains("invalid duration"),
        "{refused}"
    );
}

#[test]
fn all_containers_and_all_pods_with_a_label() {
    let machine = Machine::new();
    for name in ["a", "b"] {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "shop", "one": name}},
            "spec": {"restartPolicy": "Never", "containers": [
                container("x", &format!("seq 1 12; echo {name}x")),
                container("y", &format!("echo {name}y")),
            ]},
        });
        machine.run_pod(&manifest.to_string());
        machine.wait_for(name, is_over);
    }
    let both = machine
        .orlop(["logs", "a", "--all-containers", "--prefix", "--tail=1"])
        .ok();
    assert_eq!(both, "[pod/a/x] ax\n[pod/a/y] ay\n");
    let all = machine
        .orlop(["logs", "-l", "app in (shop)", "-c", "y"])
        .ok();
    assert_eq!(all, "ay\nby\n");
    // Ten lines of each when they are chosen by labels.
    let ten = machine
        .orlop(["logs", "-l", "app=shop,one!=b", "-c", "x"])
        .ok();
    assert_eq!(ten.lines().count(), 10);
    // A pod may say itself which container is meant.
    let choice = "kubectl.kubernetes.io/default-container=y";
    machine.orlop(["annotate", "pod", "a", choice]).ok();
    let chosen = machine.orlop(["logs", "a"]);
    assert_eq!(
        (chosen.stdout.as_str(), chosen.stderr.as_str()),
        ("ay\n", "")
    );
    let none = machine.orlop(["logs", "-l", "app=none"]);
    assert_eq!(none.stderr, "No resources found in default namespace.\n");
    let many = [
        "logs",
        "-f",
        "-l",
        "app=shop",
        "--all-containers",
        "--max-log-requests=3",
    ];
    let refused = machine.orlop(many).refused();
    assert!(
        refused
            .contains("attempting to follow 4 log streams, but maximum allowed concurrency is 3"),
        "{refused}"
    );
    let followed = machine
        .orlop([
            "logs",
            "-f",
            "-l",
            "app=shop",
            "--all-containers",
            "--tail=1",
        ])
        .ok();
    let mut lines: Vec<&str> = followed.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["ax", "ay", "bx", "by"]);
}

#[test]
fn the_log_of_the_start_before_is_kept() {
    let machine = Machine::new();
    let script = "n=$(cat /v/n 2>/dev/null || echo 0); echo $((n+1)) >/v/n; echo start $n; \
                  trap exit TERM; while :; do sleep 1; done";
    let spec = json!({
        "containers": [with(container("c", script), &json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})), idle("d")],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    machine.run_pod(&pod(&spec));
    let refused = machine.orlop(["logs", "web", "-c", "c", "-p"]).refused();
    assert_eq!(
        refused,
        "Error from server (BadRequest): previous terminated container \"c\" in pod \"web\" not found\n"
    );
    // Followed from the first start on, it goes on with the second.
    let mut follow = machine.command(["logs", "-f", "web", "-c", "c"]);
    let mut child = follow.spawn().expect("spawn");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!(next(), "start 0");
    kill(&machine, "c");
    assert_eq!(next(), "start 1");
    machine.wait_for("web", |pod| status(pod, "c")["ready"] == true);
    until(&machine, &["logs", "web", "-c", "c"], |text| {
        text == "start 1\n"
    });
    assert_eq!(
        machine.orlop(["logs", "web", "-c", "c", "--previous"]).ok(),
        "start 0\n"
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    assert!(lines.next().is_none(), "following ends with the pod");
    assert!(child.wait().expect("wait").success());
}

#[test]
fn a_log_is_rotated_and_nothing_of_it_is_lost_or_doubled() {
    let machine = Machine::new();
    // The first lines wait for the reader that follows.
    let script = "while ! test -e /tmp/go; do sleep 0.05; done; \
                  i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; sleep 1";
    let spec = json!({"restartPolicy": "Never", "containers": [container("c", script)]});
    apply_with_small_logs(&machine, &pod(&spec), 60_000);
    let mut child = machine
        .command(["logs", "-f", "web"])
        .spawn()
        .expect("spawn");
    let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    std::thread::sleep(std::time::Duration::from_millis(300));
    machine.sh("web", "c", "touch /tmp/go");
    let seen: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert!(child.wait().expect("wait").success());
    let expected: Vec<String> = (0..3000).map(|i| format!("line {i}")).collect();
    assert!(
        seen == expected,
        "{} lines followed: {:?} …",
        seen.len(),
        &seen[..seen.len().min(5)]
    );

    machine.wait_for("web", is_over);
    // What is on disk has kubelet's names.
    let logs = machine
        .roots
        .pod_logs("default", "web", &machine.uid("web"));
    let names = crate::common::entries(&logs.join("c"));
    assert!(orlop::pod::logs::file(&logs, "c", 0).exists());
    assert!(names.contains(&"0.log".to_owned()), "{names:?}");
    assert!(names.len() > 1 && names.len() <= 5, "{names:?}");
    let rotated = names
        .iter()
        .filter(|name| name.starts_with("0.log.20"))
        .count();
    assert_eq!(rotated, names.len() - 1, "{names:?}");
    // What is printed afterwards is an unbroken part of it, up to the last line.
    let printed = machine.orlop(["logs", "web"]).ok();
    let kept: Vec<&str> = printed.lines().collect();
    assert_eq!(
        kept,
        expected[3000 - kept.len()..].iter().collect::<Vec<_>>()
    );
    assert!(kept.len() > 1000, "{}", kept.len());
    assert_eq!(
        machine
            .orlop(["logs", "web", "--tail=1500"])
            .ok()
            .lines()
            .count(),
        1500
    );
    let directory = Directory::open(&logs, "c").expect("open").expect("there");
    assert!(directory.has(0).expect("has"));
}
