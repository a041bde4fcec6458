//! Images as volumes.

use serde_json::json;

use crate::common::{Machine, path};
use crate::support::{idle, pod, row, until, with};

const SPEC: &str = include_str!("../../specs/image-volume.yaml");

#[test]
fn the_shipped_manifest_shows_the_files_of_an_image_that_nobody_can_change() {
    let machine = Machine::new();
    machine.run_pod(SPEC);
    let sh = |script: &str| machine.sh("image-volume", "demo", script);
    assert_eq!(
        sh("/tools/bin/busybox echo runs; stat -c '%a %u' /tools/root"),
        "runs\n700 0\n"
    );
    let said = sh("touch /tools/new 2>&1; rm /tools/bin/sh 2>&1; echo x > /tools/etc/passwd; true");
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
    machine
        .orlop(["delete", "pod", "image-volume", "--now"])
        .ok();
    machine.assert_nothing_is_left();
}

/// An image called `tools:1` that holds one file.
fn import_tools(machine: &Machine) {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    archive
        .append_data(&mut header, "deep/message", &b"hello"[..])
        .expect("append");
    let file = machine.path("tools.tar");
    std::fs::write(&file, archive.into_inner().expect("finish")).expect("write");
    machine
        .orlop(["image", "import", path(&file), "tools:1"])
        .ok();
}

#[test]
fn a_pod_waits_for_the_image_of_its_volume_and_starts_when_it_is_there() {
    let machine = Machine::new();
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({
        "containers": [with(idle("c"), &mount)],
        "volumes": [{"name": "v", "image": {"reference": "tools:1", "pullPolicy": "Never"}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    let message = "MountVolume.SetUp failed for volume \"v\" : ErrImageNeverPull: Container image \"tools:1\" is not present with pull \
                   policy of Never";
    until(&machine, &["describe", "pod", "web"], |page| {
        page.contains("FailedMount") && page.contains(message)
    });
    assert_eq!(row(&machine)[1..4], ["0/1", "ContainerCreating", "0"]);
    import_tools(&machine);
    machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
    assert_eq!(machine.sh("web", "c", "cat /v/deep/message"), "hello");
    // As long as the pod runs, the image stays.
    machine.orlop(["image", "rm", "tools:1"]).refused();
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
    machine.orlop(["image", "rm", "tools:1"]).ok();
}
