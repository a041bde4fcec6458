//! Pods and the images that they run.

use std::fs;

use serde_json::json;

use crate::common::{Machine, busybox_archive, path};
use crate::support::{idle, pod, row, status, until, with};

#[test]
fn a_pod_whose_image_is_missing_starts_once_it_is_imported() {
    let machine = Machine::bare();
    let file = machine.path("busybox.tar");
    fs::write(&file, busybox_archive()).expect("write");
    // Nobody listens there.
    let image = "localhost:1/busybox";
    let mut never = with(idle("never"), &json!({"image": image}));
    never["imagePullPolicy"] = json!("Never");
    let pull = with(idle("pull"), &json!({"image": image}));
    let spec = json!({"containers": [pull, never]});
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    machine.wait_for("web", |pod| {
        ["pull", "never"]
            .iter()
            .all(|name| status(pod, name)["state"]["waiting"]["reason"] != "ContainerCreating")
            && !status(pod, "never").is_null()
    });
    let web = machine.pod("web");
    let waiting = |name: &str| status(&web, name)["state"]["waiting"].clone();
    assert_eq!(waiting("pull")["reason"], "ErrImagePull");
    let message = waiting("pull")["message"]
        .as_str()
        .expect("a message")
        .to_owned();
    assert!(message.contains("orlop image import"), "{message}");
    assert_eq!(waiting("never")["reason"], "ErrImageNeverPull");
    assert_eq!(
        waiting("never")["message"],
        "Container image \"localhost:1/busybox\" is not present with pull policy of Never"
    );
    let shown = row(&machine);
    assert_eq!(shown[1], "0/2");
    assert!(
        ["ErrImagePull", "ErrImageNeverPull"].contains(&shown[2].as_str()),
        "{shown:?}"
    );
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    for event in ["Error: ErrImagePull", "Error: ErrImageNeverPull", &message] {
        assert!(page.contains(event), "{event}\n{page}");
    }
    let logs = machine.orlop(["logs", "web", "never"]).refused();
    assert!(
        logs.contains("is waiting to start: ErrImageNeverPull"),
        "{logs}"
    );

    machine.orlop(["image", "import", path(&file), image]).ok();
    machine.wait_for("web", |pod| {
        ["pull", "never"]
            .iter()
            .all(|name| status(pod, name)["ready"] == true)
    });
    assert_eq!(row(&machine)[1..4], ["2/2", "Running", "0"]);
    until(&machine, &["describe", "pod", "web"], |page| {
        page.contains("Started container never")
    });
}

#[test]
fn an_image_in_use_is_not_removed() {
    let machine = Machine::new();
    machine.run_pod(&pod(&json!({"containers": [idle("c")]})));
    let refused = machine.orlop(["image", "rm", "busybox"]).refused();
    assert!(
        refused.contains("is in use by a running container"),
        "{refused}"
    );
    assert!(machine.orlop(["image", "ls"]).ok().contains("busybox"));
    assert_eq!(machine.sh("web", "c", "echo well"), "well\n");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    let removed = machine.orlop(["image", "rm", "busybox"]).ok();
    assert!(
        removed.starts_with("image/busybox:latest removed"),
        "{removed}"
    );
    assert!(!machine.orlop(["image", "ls"]).ok().contains("busybox"));
}

#[test]
fn a_container_whose_image_changed_is_replaced() {
    let machine = Machine::new();
    let file = machine.path("busybox.tar");
    let import = ["image", "import", path(&file), "busybox:next"];
    machine.orlop(import).ok();
    let spec = json!({"containers": [idle("c"), idle("d")]});
    machine.run_pod(&pod(&spec));
    machine.sh("web", "c", "touch /file");
    let mut changed = spec;
    changed["containers"][0]["image"] = json!("busybox:next");
    changed["containers"][0]["imagePullPolicy"] = json!("Always");
    let said = machine.orlop_with(["apply", "-f", "-"], &pod(&changed));
    assert_eq!(said.ok(), "pod/web configured\n");
    machine.wait_for("web", |pod| {
        let c = status(pod, "c");
        c["image"] == "busybox:next" && c["restartCount"] == 1 && c["ready"] == true
    });
    assert_eq!(
        machine.sh("web", "c", "ls -d /file 2>/dev/null || true"),
        ""
    );
    assert_eq!(status(&machine.pod("web"), "d")["restartCount"], 0);
}
