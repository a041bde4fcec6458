//! Short words for what most of these tests do.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::common::{LIMIT, Machine};

/// A volume on a directory of the host, with further fields of its spec.
pub fn pv(name: &str, size: &str, path: &Path, fields: Value) -> Value {
    let mut volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": path}},
    });
    json_patch::merge(&mut volume["spec"], &fields);
    volume
}

/// A claim, with further fields of its spec.
pub fn pvc(name: &str, size: &str, fields: Value) -> Value {
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    });
    json_patch::merge(&mut claim["spec"], &fields);
    claim
}

/// A pod that has the volume `volume` at `/data` and runs until it is stopped.
pub fn pod(name: &str, volume: Value) -> Value {
    let mut volume = volume;
    volume["name"] = json!("data");
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "c", "image": "busybox", "imagePullPolicy": "Never",
                "command": ["/bin/sh", "-c", "trap exit TERM; while :; do sleep 1; done"],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [volume],
        },
    })
}

/// The volume of a claim.
pub fn of_claim(claim: &str) -> Value {
    json!({"persistentVolumeClaim": {"claimName": claim}})
}

/// Objects as one manifest.
pub fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Applies objects in one command.
#[track_caller]
pub fn apply(machine: &Machine, items: &[Value]) -> String {
    machine.orlop_with(["apply", "-f", "-"], &list(items)).ok()
}

/// The cells of one object's row, which is that of `get KIND NAME`.
#[track_caller]
pub fn cells(machine: &Machine, kind: &str, name: &str) -> Vec<String> {
    let row = machine.orlop(["get", kind, name, "--no-headers"]).ok();
    let cells = row.split("   ").map(str::trim);
    cells
        .filter(|cell| !cell.is_empty())
        .map(str::to_owned)
        .collect()
}

/// An object as the store has it.
#[track_caller]
pub fn object(machine: &Machine, kind: &str, name: &str) -> Value {
    let text = machine.orlop(["get", kind, name, "-o", "json"]).ok();
    serde_json::from_str(&text).expect("JSON")
}

/// The phase of a claim or volume.
#[track_caller]
pub fn phase(machine: &Machine, kind: &str, name: &str) -> String {
    let object = object(machine, kind, name);
    object["status"]["phase"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Waits until a command prints what is wanted.
#[track_caller]
pub fn until(machine: &Machine, command: &[&str], wanted: impl Fn(&str) -> bool) -> String {
    let start = Instant::now();
    loop {
        let outcome = machine.orlop(command);
        if wanted(&outcome.stdout) {
            return outcome.stdout;
        }
        assert!(start.elapsed() < LIMIT, "{command:?}: {outcome:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Waits until a pod runs.
#[track_caller]
pub fn runs(machine: &Machine, pod: &str) {
    machine.wait_for(pod, |pod| pod["status"]["phase"] == "Running");
}

/// No volume is bound to two claims, no claim to another's volume; returns how many
/// claims are bound.
#[track_caller]
pub fn assert_legal(machine: &Machine) -> usize {
    let all = |kind: &str| -> Vec<Value> {
        let text = machine.orlop(["get", kind, "-A", "-o", "json"]).ok();
        let list: Value = serde_json::from_str(&text).expect("JSON");
        list["items"].as_array().expect("items").clone()
    };
    let (volumes, claims) = (all("pv"), all("pvc"));
    let mut bound = std::collections::BTreeSet::new();
    for claim in &claims {
        let phase = claim["status"]["phase"].as_str().expect("a phase");
        let volume = &claim["spec"]["volumeName"];
        assert!(["Pending", "Bound", "Lost"].contains(&phase), "{claim:#}");
        assert_eq!(phase == "Pending", volume.is_null(), "{claim:#}");
        if phase == "Bound" {
            assert!(bound.insert(volume.to_string()), "{volume} is bound twice");
            let mut volumes = volumes.iter();
            let volume = volumes.find(|one| one["metadata"]["name"] == *volume);
            let volume = volume.expect("the volume of a bound claim");
            assert_eq!(volume["spec"]["claimRef"]["uid"], claim["metadata"]["uid"]);
            assert_eq!(volume["status"]["phase"], "Bound");
        }
    }
    let phases = ["Available", "Bound", "Released", "Failed"];
    for volume in &volumes {
        let phase = volume["status"]["phase"].as_str().expect("a phase");
        assert!(phases.contains(&phase), "{volume:#}");
    }
    let all = volumes
        .iter()
        .filter(|one| one["status"]["phase"] == "Bound");
    assert_eq!(all.count(), bound.len(), "a volume is bound to nobody");
    bound.len()
}
