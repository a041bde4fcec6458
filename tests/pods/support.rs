//! Short words for what most of these tests do.

use std::time::Instant;

use orlop::pod::home::Home;
use orlop::sys::cgroup::Cgroups;
use orlop::sys::pidfd;
use serde_json::{Value, json};

use crate::common::{LIMIT, Machine};

/// The pod `web` with this spec. JSON is YAML, too.
pub fn pod(spec: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec})
        .to_string()
}

/// A container of the busybox image that runs a shell script.
pub fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "busybox", "command": ["/bin/sh", "-c", script]})
}

/// A container with further fields.
pub fn with(mut container: Value, fields: &Value) -> Value {
    for (key, value) in fields.as_object().expect("an object") {
        container[key] = value.clone();
    }
    container
}

/// A container that does nothing for a long time, and ends at SIGTERM.
pub fn idle(name: &str) -> Value {
    container(name, "trap exit TERM; while :; do sleep 1; done")
}

/// The status of one container in the JSON of a pod.
pub fn status<'a>(pod: &'a Value, container: &str) -> &'a Value {
    let mut statuses = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten();
    statuses
        .find(|status| status["name"] == container)
        .unwrap_or(&Value::Null)
}

/// True once all containers of a pod have ended for good.
pub fn is_over(pod: &Value) -> bool {
    pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed"
}

/// Runs a pod whose containers end, and returns what the first one printed.
#[track_caller]
pub fn output(machine: &Machine, spec: &Value) -> String {
    let mut spec = spec.clone();
    spec["restartPolicy"] = json!("Never");
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", is_over);
    machine.orlop(["logs", "web"]).ok()
}

/// The columns of a pod's row.
#[track_caller]
pub fn row(machine: &Machine) -> Vec<String> {
    let row = machine.orlop(["get", "pod", "web", "--no-headers"]).ok();
    row.split_whitespace().map(str::to_owned).collect()
}

/// The control group of a container's present start.
#[track_caller]
pub fn group(machine: &Machine, container: &str) -> String {
    let pod = machine.pod("web");
    let id = status(&pod, container)["containerID"]
        .as_str()
        .expect("an id");
    let id = id.strip_prefix("orlop://").expect("orlop's id");
    let uid = pod["metadata"]["uid"].as_str().expect("uid");
    Home::new(&machine.roots, uid).container_cgroup(id)
}

/// Kills the main process of a container, from outside.
#[track_caller]
pub fn kill(machine: &Machine, container: &str) {
    let groups = Cgroups::detect().expect("cgroups");
    let all = groups
        .processes(&group(machine, container))
        .expect("processes");
    let main = all.iter().find(|pid| is_first(**pid));
    let main = pidfd::open(*main.expect("a main process")).expect("pidfd");
    pidfd::send_signal(&main, 9).expect("kill");
}

/// True for a process that is number 1 in its innermost namespace.
fn is_first(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = status.lines();
    let numbers = lines.find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_whitespace().next_back() == Some("1"))
}

/// Waits until a command prints what is wanted.
#[track_caller]
pub fn until(machine: &Machine, command: &[&str], wanted: impl Fn(&str) -> bool) -> String {
    let start = Instant::now();
    loop {
        let printed = machine.orlop(command).ok();
        if wanted(&printed) {
            return printed;
        }
        assert!(start.elapsed() < LIMIT, "{command:?} printed {printed}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
