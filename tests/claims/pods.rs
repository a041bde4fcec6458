//! What pods see of the volumes of their claims.

use std::fs;

use serde_json::json;

use crate::common::Machine;
use crate::support::{apply, cells, of_claim, pod, pv, pvc, runs, until};

#[test]
fn a_claim_s_volume_is_the_same_for_all_pods_and_read_only_where_they_say_so() {
    let machine = Machine::new();
    let data = machine.path("data");
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mut reader = pod(
        "reader",
        json!({"persistentVolumeClaim": {"claimName": "content", "readOnly": true}}),
    );
    reader["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "data", "mountPath": "/data"},
        {"name": "data", "mountPath": "/part", "subPath": "part"},
    ]);
    apply(
        &machine,
        &[
            pv("disk", "1Gi", &data, json!({})),
            pvc("content", "1Gi", json!({})),
            pod("writer", of_claim("content")),
        ],
    );
    runs(&machine, "writer");
    machine.sh(
        "writer",
        "c",
        "mkdir /data/part; echo hello > /data/part/file",
    );
    apply(&machine, &[reader]);
    runs(&machine, "reader");
    assert_eq!(machine.sh("reader", "c", "cat /part/file"), "hello\n");
    let said = machine
        .orlop([
            "exec",
            "reader",
            "--",
            "/bin/sh",
            "-c",
            "touch /data/x /part/x 2>&1",
        ])
        .stdout;
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
    machine.sh("writer", "c", "touch /data/x");
    let page = machine.orlop(["describe", "pvc", "content"]).ok();
    assert!(
        page.contains("Used By:       reader\n               writer\n"),
        "{page}"
    );
    let now = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert_eq!(table, now, "the host's table of mounts");
    machine
        .orlop(["delete", "pod", "reader", "writer", "--now"])
        .ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_local_volume_is_its_pods_group_s_and_a_host_path_is_not() {
    let machine = Machine::new();
    let (local, host) = (machine.path("local"), machine.path("host"));
    for directory in [&local, &host] {
        fs::create_dir(directory).expect("mkdir");
        fs::write(directory.join("file"), "").expect("write");
    }
    let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "Exists"},
    ]}]}});
    let source = json!({"hostPath": null, "local": {"path": local}, "nodeAffinity": affinity, "storageClassName": "local"});
    let mut shared = pod("shared", of_claim("local"));
    shared["spec"]["securityContext"] = json!({"fsGroup": 4321});
    let mut theirs = pod("theirs", of_claim("host"));
    theirs["spec"]["securityContext"] = json!({"fsGroup": 4321});
    apply(
        &machine,
        &[
            pv("local", "1Gi", &local, source),
            pv("host", "1Gi", &host, json!({"storageClassName": "host"})),
            pvc("local", "1Gi", json!({"storageClassName": "local"})),
            pvc("host", "1Gi", json!({"storageClassName": "host"})),
            shared,
            theirs,
        ],
    );
    runs(&machine, "shared");
    runs(&machine, "theirs");
    let groups = "stat -c %g /data /data/file | tr '\\n' ' '";
    assert_eq!(machine.sh("shared", "c", groups), "4321 4321 ");
    assert_eq!(machine.sh("theirs", "c", groups), "0 0 ");
}

#[test]
fn what_cannot_be_mounted_is_said_and_tried_again() {
    let machine = Machine::new();
    let data = machine.path("data");
    apply(
        &machine,
        &[
            pv(
                "raw",
                "1Gi",
                &data,
                json!({"volumeMode": "Block", "storageClassName": "raw"}),
            ),
            pvc(
                "raw",
                "1Gi",
                json!({"volumeMode": "Block", "storageClassName": "raw"}),
            ),
            pod("raw", of_claim("raw")),
            pv(
                "options",
                "1Gi",
                &data,
                json!({"mountOptions": ["noatime"], "storageClassName": "options"}),
            ),
            pvc("options", "1Gi", json!({"storageClassName": "options"})),
            pod("options", of_claim("options")),
        ],
    );
    for (pod, why) in [
        (
            "raw",
            "volume \"data\" has volumeMode Block, but is specified in volumeMounts",
        ),
        (
            "options",
            "mount options are not supported for volumes of type hostPath: noatime",
        ),
    ] {
        let text = format!("MountVolume.SetUp failed for volume \"data\" : {why}");
        until(&machine, &["describe", "pod", pod], |page| {
            page.contains(&text)
        });
        assert_eq!(cells(&machine, "pod", pod)[2], "ContainerCreating");
    }
    machine
        .orlop([
            "patch",
            "pv",
            "options",
            "-p",
            "{\"spec\": {\"mountOptions\": null}}",
        ])
        .ok();
    runs(&machine, "options");
    machine.orlop(["delete", "pod", "--all", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_pod_is_kept_on_its_claim_across_the_death_of_its_keeper() {
    let machine = Machine::new();
    let data = machine.path("data");
    apply(
        &machine,
        &[
            pv("disk", "1Gi", &data, json!({})),
            pvc("content", "1Gi", json!({})),
            pod("web", of_claim("content")),
        ],
    );
    runs(&machine, "web");
    // The claim is going: the pod that has it keeps it, and gets it again.
    machine
        .orlop(["delete", "pvc", "content", "--wait=false"])
        .ok();
    for pid in machine.keepers() {
        if let Ok(process) = orlop::sys::pidfd::open(pid) {
            orlop::sys::pidfd::send_signal(&process, 9).expect("kill");
        }
    }
    until(
        &machine,
        &[
            "exec",
            "web",
            "--",
            "/bin/sh",
            "-c",
            "echo back > /data/file; cat /data/file",
        ],
        |said| said == "back\n",
    );
    assert_eq!(
        fs::read_to_string(data.join("file")).expect("a file"),
        "back\n"
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    assert_eq!(machine.orlop(["get", "pvc"]).stdout, "");
    assert_eq!(cells(&machine, "pv", "disk")[4], "Released");
}
