//! Containers that end, and what follows under each restart policy.

use orlop::pod::home::Home;
use orlop::sys::cgroup::Cgroups;
use serde_json::json;

use crate::common::{Machine, entries};
use crate::support::{container, idle, is_over, kill, pod, row, status, until, with};

#[test]
fn a_killed_container_restarts_with_its_emptydir_and_a_fresh_root() {
    let machine = Machine::new();
    let mounts = json!({"volumeMounts": [{"name": "cache", "mountPath": "/cache"}]});
    let spec = json!({
        "containers": [with(idle("c"), &mounts)],
        "volumes": [{"name": "cache", "emptyDir": {}}],
    });
    machine.run_pod(&pod(&spec));
    machine.sh("web", "c", "echo kept > /cache/file; echo lost > /file");

    kill(&machine, "c");
    machine.wait_for("web", |pod| {
        status(pod, "c")["restartCount"] == 1 && status(pod, "c")["ready"] == true
    });
    let files = machine.sh("web", "c", "cat /cache/file; ls /file 2>&1 || true");
    assert_eq!(files.lines().next(), Some("kept"));
    assert!(files.contains("/file: No such file"), "{files}");
    assert_eq!(row(&machine)[1..4], ["1/1", "Running", "1"]);
    let web = machine.pod("web");
    let last = &status(&web, "c")["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["reason"]),
        (&json!(137), &json!("Error"))
    );
    let home = Home::new(&machine.roots, &machine.uid("web"));
    assert_eq!(
        entries(&home.container("c")),
        ["1"],
        "the former root is gone"
    );

    kill(&machine, "c");
    machine.wait_for("web", |pod| {
        status(pod, "c")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    assert_eq!(
        row(&machine)[1..4],
        ["0/1", "CrashLoopBackOff", "1"],
        "the second restart has not come yet"
    );
    let web = machine.pod("web");
    let name = format!("web_default({})", machine.uid("web"));
    assert_eq!(
        status(&web, "c")["state"]["waiting"]["message"],
        format!("back-off 10s restarting failed container=c pod={name}")
    );
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    let event = format!("Back-off restarting failed container c in pod {name}");
    assert!(page.contains("BackOff") && page.contains(&event), "{page}");
    assert_eq!(machine.orlop(["logs", "web"]).ok(), "");
    let refused = machine.orlop(["exec", "web", "--", "true"]).refused();
    assert!(refused.contains("\"c\" is not running"), "{refused}");

    machine.wait_for("web", |pod| status(pod, "c")["ready"] == true);
    assert_eq!(row(&machine)[1..4], ["1/1", "Running", "2"]);
    assert_eq!(machine.sh("web", "c", "cat /cache/file"), "kept\n");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

/// Nothing serves a pod that is over, but its data is there until it is deleted.
#[track_caller]
fn assert_at_rest(machine: &Machine) {
    let home = Home::new(&machine.roots, &machine.uid("web"));
    let start = std::time::Instant::now();
    while !machine.keepers().is_empty() || home.lock().exists() {
        assert!(start.elapsed() < crate::common::LIMIT, "the keeper goes on");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let groups = Cgroups::detect().expect("cgroups");
    assert!(!groups.exists(&home.cgroup()), "a control group is left");
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mark = crate::common::path(machine.directory.path());
    assert!(!table.contains(mark), "a mount is left: {table}");
    assert!(home.data().exists());
}

#[test]
fn a_pod_that_never_restarts_succeeds_and_leaves_only_its_data() {
    let machine = Machine::new();
    let mounts = json!({"volumeMounts": [{"name": "cache", "mountPath": "/cache"}]});
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [with(container("c", "echo done | tee /cache/file"), &mounts)],
        "volumes": [{"name": "cache", "emptyDir": {}}],
    });
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", is_over);
    assert_eq!(machine.pod("web")["status"]["phase"], "Succeeded");
    assert_eq!(row(&machine)[1..4], ["0/1", "Completed", "0"]);
    assert_at_rest(&machine);
    assert_eq!(machine.orlop(["logs", "web"]).ok(), "done\n");
    assert_eq!(machine.orlop(["logs", "-f", "web"]).ok(), "done\n");
    assert_eq!(
        machine.orlop(["exec", "web", "--", "true"]).refused(),
        "error: cannot exec into a container in a completed pod; current phase is Succeeded\n"
    );
    assert_eq!(machine.orlop(["reconcile"]).ok(), "");
    machine.orlop(["delete", "pod", "web"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_pod_that_never_restarts_fails_with_its_container() {
    let machine = Machine::new();
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [ container("bad", "echo no >&2; exit 3"), container("good", "exit 0")],
    });
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", is_over);
    let web = machine.pod("web");
    assert_eq!(web["status"]["phase"], "Failed");
    assert_eq!(status(&web, "bad")["state"]["terminated"]["exitCode"], 3);
    assert_eq!(row(&machine)[1..4], ["0/2", "Error", "0"]);
    assert_at_rest(&machine);
    assert_eq!(machine.orlop(["logs", "web", "bad"]).ok(), "no\n");
    machine.orlop(["delete", "pod/web"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn on_failure_restarts_what_failed_and_nothing_else() {
    let machine = Machine::new();
    let mounts = json!({"volumeMounts": [{"name": "cache", "mountPath": "/cache"}]});
    let script = "test -e /cache/once && exit 0; touch /cache/once; exit 3";
    let spec = json!({
        "restartPolicy": "OnFailure",
        "containers": [with(container("c", script), &mounts), container("d", "exit 0")],
        "volumes": [{"name": "cache", "emptyDir": {}}],
    });
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", is_over);
    let web = machine.pod("web");
    assert_eq!(web["status"]["phase"], "Succeeded");
    assert_eq!(status(&web, "c")["restartCount"], 1);
    assert_eq!(status(&web, "d")["restartCount"], 0);
    assert_eq!(row(&machine)[1..4], ["0/2", "Completed", "1"]);
    assert_at_rest(&machine);
    machine.orlop(["delete", "pod", "web"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_pod_of_which_one_container_has_completed_is_not_ready() {
    let machine = Machine::new();
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [idle("stays"), container("ends", "exit 0")],
    });
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", |pod| {
        !status(pod, "ends")["state"]["terminated"].is_null()
    });
    assert_eq!(row(&machine)[1..4], ["1/2", "NotReady", "0"]);
    assert_eq!(machine.pod("web")["status"]["phase"], "Running");
    assert_eq!(machine.sh("web", "stays", "echo there"), "there\n");
}

#[test]
fn a_program_that_is_not_in_the_image_is_named() {
    let machine = Machine::new();
    let broken = json!({"name": "c", "image": "busybox", "command": ["/no/such/program"]});
    let spec = json!({"restartPolicy": "Never", "containers": [broken]});
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", is_over);
    let web = machine.pod("web");
    let ended = &status(&web, "c")["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"]),
        (&json!(128), &json!("StartError"))
    );
    let message = ended["message"].as_str().expect("a message");
    assert!(message.contains("/no/such/program"), "{message}");
    assert!(message.contains("no such file or directory"), "{message}");
    until(&machine, &["describe", "pod", "web"], |page| {
        page.contains(message)
    });
    assert_eq!(row(&machine)[1..3], ["0/1", "StartError"]);
}
