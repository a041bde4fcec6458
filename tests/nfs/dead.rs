//! A server that does not answer, before a pod starts and while it writes.

use std::time::{Duration, Instant};

use orlop::pod::home::Home;
use orlop::sys::cgroup::Cgroups;

use crate::common::Machine;
use crate::common::nfs_server::{NfsServer, SERVER};
use crate::support::{IDLE, apply, described, host_mounts, nfs_mounts, on_server, plain, pod, row};

/// What may pass in user-mode Linux for a command that waits for nobody.
const PROMPT: Duration = Duration::from_secs(5);

#[track_caller]
fn promptly<T>(what: &str, job: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = job();
    let took = start.elapsed();
    assert!(took < PROMPT, "{what} took {took:?}");
    done
}

#[test]
fn a_pod_whose_server_is_away_waits_alone_and_is_deleted_at_once() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    server.freeze();
    apply(&machine, &pod("web", "/nfsdata", IDLE));
    apply(
        &machine,
        &on_server("nobody", "10.99.0.77", "/nfsdata", IDLE),
    );
    promptly("another pod", || {
        machine.run_pod(&plain("plain").to_string())
    });
    for verb in [
        &["get", "pods"][..],
        &["describe", "pods"],
        &["tree"],
        &["df"],
    ] {
        promptly(verb[0], || machine.orlop(verb).ok());
    }
    described(
        &machine,
        "web",
        &format!("Connection timed out for {SERVER}:/nfsdata"),
    );
    described(
        &machine,
        "nobody",
        "the server does not answer on port 2049",
    );
    assert_eq!(
        row(&machine, "web")[1..4],
        ["0/1", "ContainerCreating", "0"]
    );
    promptly("delete", || machine.orlop(["delete", "pod", "nobody"]).ok());

    server.thaw();
    machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
    machine
        .orlop(["delete", "pod", "web", "plain", "--now"])
        .ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_pod_that_writes_to_a_dead_server_is_deleted_and_hurts_nobody() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    let before = host_mounts();
    // What is written when the server is gone waits in memory, and the end of the
    // writer for it.
    let script = "exec 3<>/data/file; touch /tmp/open; \
                  while [ ! -e /tmp/dead ]; do sleep 0.1; done; \
                  head -c 1000000 /dev/zero >&3 & head -c 2000000 /dev/zero >&3; wait; sleep 1000";
    let mut writer = pod("writer", "/nfsdata", script);
    writer["spec"]["terminationGracePeriodSeconds"] = 2.into();
    machine.run_pod(&writer.to_string());
    machine.run_pod(&plain("other").to_string());
    machine.run_pod(&plain("third").to_string());
    let uid = machine.uid("writer");
    let group = Home::new(&machine.roots, &uid).cgroup();
    while machine.sh("writer", "c", "ls /tmp") != "open\n" {}
    server.freeze();
    machine.sh("writer", "c", "touch /tmp/dead");
    std::thread::sleep(Duration::from_secs(2));

    let df = promptly("df", || machine.orlop(["df"]).ok());
    let line = df.lines().find(|line| line.starts_with("writer"));
    let line = line.expect("a line for the writer");
    let columns: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(
        columns[..5],
        ["writer", "data", "nfs", "-", "unreachable"],
        "{df}"
    );
    let tree = promptly("tree", || machine.orlop(["tree"]).ok());
    assert!(tree.contains("unreachable  nfs"), "{tree}");
    for verb in [&["get", "pods"][..], &["describe", "pod", "writer"]] {
        promptly(verb[0], || machine.orlop(verb).ok());
    }
    promptly("apply", || machine.run_pod(&plain("fourth").to_string()));
    promptly("delete of another pod", || {
        machine.orlop(["delete", "pod", "other", "--now"]).ok()
    });

    let start = Instant::now();
    let deleted = machine.orlop(["delete", "pod", "writer"]);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2 + 5), "{took:?}: {deleted:?}");
    assert!(deleted.status.success(), "{deleted:?}");
    let lost = format!("the server of volume \"data\" ({SERVER}:/nfsdata) does not answer");
    assert!(deleted.stderr.contains(&lost), "{deleted:?}");
    assert!(
        !Cgroups::detect().expect("cgroups").exists(&group),
        "{group} is left"
    );
    assert_eq!(host_mounts(), before);
    assert_eq!(nfs_mounts(), [""; 0]);

    promptly("delete of the others", || {
        machine
            .orlop(["delete", "pod", "third", "fourth", "--now"])
            .ok()
    });
    machine.assert_nothing_is_left();
    server.thaw();
}
