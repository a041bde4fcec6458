//! Short words for what these tests do.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};

use crate::common::nfs_server::SERVER;
use crate::common::{LIMIT, Machine};

/// A pod with one container that runs `script` and has `path` of the server at
/// `/data`.
pub fn pod(name: &str, path: &str, script: &str) -> Value {
    on_server(name, SERVER, path, script)
}

/// The same, of another server.
pub fn on_server(name: &str, server: &str, path: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "containers": [{
                "name": "c", "image": "busybox", "command": ["/bin/sh", "-c", script],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "nfs": {"server": server, "path": path}}],
        },
    })
}

/// A pod that needs nobody.
pub fn plain(name: &str) -> Value {
    let mut pod = pod(name, "/", IDLE);
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod
}

/// What a container does that does nothing, and ends when it is asked to.
pub const IDLE: &str = "trap exit TERM; while :; do sleep 1; done";

/// Applies a pod and does not wait for it.
#[track_caller]
pub fn apply(machine: &Machine, pod: &Value) {
    machine
        .orlop_with(["apply", "-f", "-"], &pod.to_string())
        .ok();
}

/// Waits until the page of a pod says what is wanted.
#[track_caller]
pub fn described(machine: &Machine, pod: &str, wanted: &str) -> String {
    let start = Instant::now();
    loop {
        let page = machine.orlop(["describe", "pod", pod]).ok();
        if page.contains(wanted) {
            return page;
        }
        assert!(start.elapsed() < LIMIT, "no {wanted:?} in: {page}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// The columns of a pod's row.
#[track_caller]
pub fn row(machine: &Machine, pod: &str) -> Vec<String> {
    let row = machine.orlop(["get", "pod", pod, "--no-headers"]).ok();
    row.split_whitespace().map(str::to_owned).collect()
}

/// The mount tables of all processes, those of NFS servers' exports alone, without
/// the server's own file system of control.
pub fn nfs_mounts() -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        // A process that has ended meanwhile has no mounts.
        let table = fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        let lines = table.lines().filter(|line| {
            let kind = line.split(" - ").nth(1).unwrap_or_default();
            kind.starts_with("nfs ") || kind.starts_with("nfs4 ")
        });
        let name = process.file_name().to_string_lossy().into_owned();
        found.extend(lines.map(|line| format!("{name}: {line}")));
    }
    found
}

/// This machine's table of mounts.
pub fn host_mounts() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo")
}
