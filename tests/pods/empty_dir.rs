//! emptyDir on disk and in memory, and how volumes are mounted.

use serde_json::{Value, json};

use crate::common::{Machine, entries};
use crate::support::{container, idle, output, pod, with};

fn mount(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path})
}

fn mounts(mounts: &[Value]) -> Value {
    json!({"volumeMounts": mounts})
}

#[test]
fn an_emptydir_in_memory_is_a_tmpfs_of_its_size_that_containers_share() {
    let machine = Machine::new();
    let memory = mounts(&[mount("memory", "/memory")]);
    let spec = json!({
        "containers": [with(idle("a"), &memory), with(idle("b"), &memory)],
        "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
    });
    machine.run_pod(&pod(&spec));
    let table = machine.sh("web", "a", "grep ' /memory ' /proc/mounts");
    assert!(table.starts_with("tmpfs /memory tmpfs rw"), "{table}");
    assert!(table.contains("size=1024k"), "{table}");
    let fill = "dd if=/dev/zero of=/memory/big bs=1024 count=2048 2>&1; stat -c %s /memory/big";
    let said = machine.sh("web", "a", fill);
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.ends_with("\n1048576\n"), "{said}");
    machine.sh("web", "a", "rm /memory/big; echo shared > /memory/file");
    assert_eq!(machine.sh("web", "b", "cat /memory/file"), "shared\n");

    let volumes = machine.roots.pod_data(&machine.uid("web")).join("volumes");
    let on_disk = entries(&volumes.join("kubernetes.io~empty-dir/memory"));
    assert_eq!(on_disk, [""; 0], "nothing of it is on the disk");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn everybody_may_write_to_an_emptydir_on_either_medium() {
    let machine = Machine::new();
    let fields = json!({
        "volumeMounts": [mount("disk", "/disk"), mount("memory", "/memory")],
        "securityContext": {"runAsUser": 4711, "runAsGroup": 4712},
    });
    let script =
        "stat -c '%a %u %g' /disk; touch /disk/f /memory/f; stat -c '%u %g' /memory/f /disk/f";
    let spec = json!({
        "containers": [with(container("c", script), &fields)],
        "volumes": [
            {"name": "disk", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
    });
    assert_eq!(output(&machine, &spec), "777 0 0\n4711 4712\n4711 4712\n");
}

#[test]
fn a_volume_inside_another_is_mounted_after_it_whatever_the_manifests_order() {
    let machine = Machine::new();
    let nested = mounts(&[
        mount("innermost", "/data/inner/most"),
        mount("inner", "/data/inner"),
        mount("outer", "/data"),
    ]);
    let alone = mounts(&[mount("outer", "/outer"), mount("inner", "/inner")]);
    let spec = json!({
        "containers": [with(idle("nested"), &nested), with(idle("alone"), &alone)],
        "volumes": [
            {"name": "outer", "emptyDir": {}},
            {"name": "inner", "emptyDir": {}},
            {"name": "innermost", "emptyDir": {"medium": "Memory"}},
        ],
    });
    machine.run_pod(&pod(&spec));
    let write = "echo 1 > /data/f; echo 2 > /data/inner/f; echo 3 > /data/inner/most/f";
    machine.sh("web", "nested", write);
    let read = "cat /outer/f /inner/f; ls /outer/inner /inner/most";
    assert_eq!(
        machine.sh("web", "alone", read),
        "1\n2\n/inner/most:\n\n/outer/inner:\n"
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn one_container_may_read_what_another_writes() {
    let machine = Machine::new();
    let read_only = json!({"name": "v", "mountPath": "/v", "readOnly": true});
    let spec = json!({
        "containers": [
            with(idle("writer"), &mounts(&[mount("v", "/v")])),
            with(idle("reader"), &mounts(&[read_only])),
        ],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    machine.run_pod(&pod(&spec));
    machine.sh("web", "writer", "echo text > /v/file");
    assert_eq!(machine.sh("web", "reader", "cat /v/file"), "text\n");
    let said = machine.sh("web", "reader", "touch /v/new 2>&1; rm /v/file 2>&1; true");
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
}

#[test]
fn a_container_cannot_lead_a_mount_out_of_its_root() {
    let machine = Machine::new();
    let outer = mounts(&[mount("outer", "/data")]);
    let both = mounts(&[mount("outer", "/data"), mount("inner", "/data/inner")]);
    let host = machine.path("canary");
    std::fs::create_dir(&host).expect("mkdir");
    // The first container makes a link where the second one's mount belongs.
    let lay = format!(
        "ln -s {} /data/inner; trap exit TERM; while :; do sleep 1; done",
        host.display()
    );
    let spec = json!({
        "containers": [with(container("evil", &lay), &outer), with(idle("c"), &both)],
        "volumes": [{"name": "outer", "emptyDir": {}}, {"name": "inner", "emptyDir": {}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    machine.wait_for("web", |pod| {
        let state = &crate::support::status(pod, "c");
        state["ready"] == true
            || state["restartCount"].as_i64() > Some(0)
            || !state["lastState"]["terminated"].is_null()
    });
    if crate::support::status(&machine.pod("web"), "c")["ready"] == true {
        machine.sh("web", "c", "touch /data/inner/file");
    }
    assert_eq!(entries(&host), [""; 0]);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}
