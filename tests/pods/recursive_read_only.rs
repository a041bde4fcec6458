//! `recursiveReadOnly`: read-only for a volume and all that is mounted below it.

use serde_json::json;

use crate::common::Machine;
use crate::support::status;

const SPEC: &str = include_str!("../../specs/recursive-read-only.yaml");

#[test]
fn read_only_reaches_mounts_below_the_volume_only_if_asked_to() {
    let machine = Machine::new();
    machine.run_pod(SPEC);
    let name = "recursive-read-only";
    let file = format!("orlop-test-{}", std::process::id());
    let script = format!(
        "touch /plain/{file} 2>&1; touch /recursive/{file} 2>&1; touch /recursive/shm/{file} 2>&1; \
         touch /plain/shm/{file} && rm /plain/shm/{file} && echo written"
    );
    let said = machine.sh(name, "shell", &script);
    assert_eq!(said.matches("Read-only file system").count(), 3, "{said}");
    assert!(said.ends_with("written\n"), "{said}");

    let shown = machine.pod(name);
    let mounts = &status(&shown, "shell")["volumeMounts"];
    let mount = |path, recursive| json!({"name": "devices", "mountPath": path, "readOnly": true, "recursiveReadOnly": recursive});
    assert_eq!(
        *mounts,
        json!([mount("/plain", "Disabled"), mount("/recursive", "Enabled")])
    );
    machine.orlop(["delete", "pod", name, "--now"]).ok();
    machine.assert_nothing_is_left();
}
