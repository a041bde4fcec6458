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
    group_of(machine, status(&machine.pod("web"), container))
}

/// The control group of the start of a container of the pod `web` with this status.
#[track_caller]
pub fn group_of(machine: &Machine, status: &Value) -> String {
    let id = status["containerID"].as_str().expect("an id");
    let id = id.strip_prefix("orlop://").expect("orlop's id");
    Home::new(&machine.roots, &machine.uid("web")).container_cgroup(id)
}

/// Kills the main process of a container, from outside.
#[track_caller]
pub fn kill(machine: &Machine, container: &str) {
    kill_process_of(machine, status(&machine.pod("web"), container));
}

/// Kills the main process of a container with this status.
#[track_caller]
pub fn kill_process_of(machine: &Machine, status: &Value) {
    let main = pidfd::open(main_process(machine, status)).expect("pidfd");
    pidfd::send_signal(&main, 9).expect("kill");
}

/// The id of the main process of a container with this status.
#[track_caller]
pub fn main_process(machine: &Machine, status: &Value) -> i32 {
    let groups = Cgroups::detect().expect("cgroups");
    let all = groups
        .processes(&group_of(machine, status))
        .expect("processes");
    let main = all.iter().find(|pid| is_first(**pid));
    *main.expect("a main process")
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
