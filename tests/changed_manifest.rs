//! What happens to a running pod when its manifest changes.

mod common;

use common::Machine;

fn manifest(image: &str, command: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "changed"}},
            "spec": {{"terminationGracePeriodSeconds": 1, "restartPolicy": "Never", "containers": [
                {{"name": "one", "image": "{image}", "command": ["sh", "-c", "{command}"]}},
                {{"name": "other", "image": "busybox", "command": ["sleep", "1000"]}}]}}}}"#
    )
}

const COMMAND: &str = "echo $VERSION; sleep 1000";

#[test]
fn a_container_whose_image_changed_is_replaced_and_the_others_go_on() {
    let machine = Machine::new();
    for version in ["1", "2"] {
        let name = format!("versioned:{version}");
        let env = format!("VERSION={version}");
        let archive = machine.path("busybox.tar");
        let archive = common::path(&archive);
        machine
            .orlop([
                "image",
                "import",
                archive,
                &name,
                "--env",
                "PATH=/bin",
                "--env",
                &env,
            ])
            .ok();
    }
    machine.run_pod(&manifest("versioned:1", COMMAND));
    assert_eq!(machine.orlop(["logs", "changed", "one"]).ok(), "1\n");

    let changed = manifest("versioned:2", COMMAND);
    let applied = machine.orlop_with(["apply", "-f", "-"], &changed).ok();
    assert_eq!(applied, "pod/changed configured\n");
    machine.wait_for("changed", |pod| {
        let one = &pod["status"]["containerStatuses"][0];
        one["restartCount"] == 1 && one["ready"] == true
    });
    assert_eq!(machine.orlop(["logs", "changed", "one"]).ok(), "2\n");
    assert_eq!(
        machine.pod("changed")["status"]["containerStatuses"][1]["restartCount"],
        0
    );
}

#[test]
fn a_change_that_kubernetes_forbids_is_refused_and_changes_nothing() {
    let machine = Machine::new();
    machine.run_pod(&manifest("busybox", COMMAND));
    let before = machine.pod("changed");
    let changed = manifest("busybox", "sleep 5");
    let error = machine.orlop_with(["apply", "-f", "-"], &changed).refused();
    assert!(
        error.contains(
            "spec.containers[0].command[2]: this field of an existing Pod cannot be changed"
        ),
        "{error}"
    );
    assert_eq!(machine.pod("changed"), before);
}
