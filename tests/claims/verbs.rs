//! Commands on volumes, claims and classes, in kubectl's words.

use serde_json::json;

use crate::common::Machine;
use crate::support::{apply, assert_legal, cells, phase, pv, pvc};

#[test]
fn pages_have_kubectl_s_lines() {
    let machine = Machine::bare();
    let path = machine.path("data");
    apply(
        &machine,
        &[
            pv("disk", "2Gi", &path, json!({"storageClassName": "gold"})),
            pvc("content", "1Gi", json!({"storageClassName": "gold"})),
        ],
    );
    let page = machine.orlop(["describe", "pvc/content"]).ok();
    assert_eq!(
        page,
        "Name:          content\n\
         Namespace:     default\n\
         StorageClass:  gold\n\
         Status:        Bound\n\
         Volume:        disk\n\
         Labels:        <none>\n\
         Annotations:   pv.kubernetes.io/bind-completed: yes\n\
         \x20              pv.kubernetes.io/bound-by-controller: yes\n\
         Finalizers:    [kubernetes.io/pvc-protection]\n\
         Capacity:      2Gi\n\
         Access Modes:  RWO\n\
         VolumeMode:    Filesystem\n\
         Used By:       <none>\n\
         Events:        <none>\n"
    );
    let page = machine.orlop(["describe", "pv", "disk"]).ok();
    let expected = format!(
        "Name:            disk\n\
         Labels:          <none>\n\
         Annotations:     pv.kubernetes.io/bound-by-controller: yes\n\
         Finalizers:      [kubernetes.io/pv-protection]\n\
         StorageClass:    gold\n\
         Status:          Bound\n\
         Claim:           default/content\n\
         Reclaim Policy:  Retain\n\
         Access Modes:    RWO\n\
         VolumeMode:      Filesystem\n\
         Capacity:        2Gi\n\
         Node Affinity:   <none>\n\
         Message:         \n\
         Source:\n\
         \x20   Type:          HostPath (bare host directory volume)\n\
         \x20   Path:          {}\n\
         \x20   HostPathType:  \n\
         Events:            <none>\n",
        path.display()
    );
    assert_eq!(page, expected);
    let class = r#"{"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "gold"}, "provisioner":
        "kubernetes.io/no-provisioner", "mountOptions": ["hard"], "parameters": {"a": "b"}}"#;
    machine.orlop_with(["create", "-f", "-"], class).ok();
    let page = machine.orlop(["describe", "sc", "gold"]).ok();
    for line in [
        "IsDefaultClass:        No",
        "Parameters:            a=b",
        "AllowVolumeExpansion:  <unset>",
        "MountOptions:",
        "  hard",
        "VolumeBindingMode:  Immediate",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
}

#[test]
fn bad_volumes_and_claims_change_nothing() {
    let machine = Machine::bare();
    let path = machine.path("data");
    let refused = |items: &[serde_json::Value]| {
        let manifest = crate::support::list(items);
        machine
            .orlop_with(["apply", "-f", "-"], &manifest)
            .refused()
    };
    let said = refused(&[pvc("good", "1Gi", json!({})), pvc("bad", "0", json!({}))]);
    assert_eq!(
        said,
        "error: standard input, document 1 (line 1), items[1]: The PersistentVolumeClaim \"bad\" is invalid: spec.resources[storage]: \
         Invalid value: \"0\": must be greater than zero\n"
    );
    assert_eq!(machine.orlop(["get", "pvc"]).stdout, "");
    apply(
        &machine,
        &[
            pv("disk", "1Gi", &path, json!({})),
            pvc("content", "1Gi", json!({})),
        ],
    );
    for (items, why) in [
        (
            pv("disk", "1Gi", &machine.path("other"), json!({})),
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
        ),
        (
            pv("disk", "1Gi", &path, json!({"volumeMode": "Block"})),
            "spec.volumeMode: Invalid value: \"Block\": field is immutable",
        ),
        (
            pvc("content", "1Gi", json!({"storageClassName": "gold"})),
            "spec: Forbidden: spec is immutable after creation except resources.requests",
        ),
    ] {
        let said = refused(&[items]);
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(assert_legal(&machine), 1);
    let said = machine.orlop(["delete", "pv", "none"]).refused();
    assert_eq!(
        said,
        "Error from server (NotFound): persistentvolumes \"none\" not found\n"
    );
    let said = machine.orlop(["explain-binding", "pv/disk"]).refused();
    assert_eq!(
        said,
        "error: only persistentvolumeclaims are bound to volumes, not persistentvolumes\n"
    );
}

#[test]
fn a_claim_whose_volume_is_torn_away_is_lost_and_deletions_wait_for_finalizers() {
    let machine = Machine::bare();
    let path = machine.path("data");
    apply(
        &machine,
        &[
            pv("disk", "1Gi", &path, json!({})),
            pvc("content", "1Gi", json!({})),
        ],
    );
    // A bound volume only ends when somebody takes its protection away.
    machine.orlop(["delete", "pv", "disk", "--wait=false"]).ok();
    assert_eq!(cells(&machine, "pv", "disk")[4], "Terminating");
    machine
        .orlop([
            "patch",
            "pv",
            "disk",
            "-p",
            "{\"metadata\": {\"finalizers\": null}}",
        ])
        .ok();
    assert_eq!(machine.orlop(["get", "pv"]).stdout, "");
    let row = cells(&machine, "pvc", "content");
    assert_eq!(row[..4], ["content", "Lost", "disk", "0"]);
    let page = machine.orlop(["describe", "pvc", "content"]).ok();
    assert!(
        page.contains("Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
        "{page}"
    );
    // A finalizer of somebody else's holds as well.
    let mut held = pvc("held", "1Gi", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/backup"]);
    apply(&machine, &[held]);
    machine
        .orlop(["delete", "pvc", "held", "--wait=false"])
        .ok();
    assert_eq!(cells(&machine, "pvc", "held")[1], "Terminating");
    let waited = machine
        .orlop(["wait", "--for=delete", "pvc/held", "--timeout=100ms"])
        .refused();
    assert!(
        waited.contains("timed out waiting for the condition on persistentvolumeclaims/held"),
        "{waited}"
    );
    machine
        .orlop([
            "patch",
            "pvc",
            "held",
            "--type=merge",
            "-p",
            "{\"metadata\": {\"finalizers\": []}}",
        ])
        .ok();
    machine.orlop(["get", "pvc", "held"]).refused();

    // A volume that is kept for a claim waits for it.
    let reserved =
        json!({"claimRef": {"namespace": "default", "name": "mine"}, "storageClassName": "other"});
    apply(
        &machine,
        &[
            pv("kept", "1Gi", &path, reserved),
            pvc("theirs", "1Gi", json!({})),
        ],
    );
    assert_eq!(phase(&machine, "pvc", "theirs"), "Pending");
    apply(&machine, &[pvc("mine", "1Gi", json!({}))]);
    assert_eq!(
        cells(&machine, "pvc", "mine")[..3],
        ["mine", "Bound", "kept"]
    );
    let said = machine
        .orlop(["wait", "--for=jsonpath={.status.phase}=Bound", "pvc/mine"])
        .ok();
    assert_eq!(said, "persistentvolumeclaim/mine condition met\n");
    // The policy may be edited at any time.
    machine
        .orlop([
            "patch",
            "pv",
            "kept",
            "-p",
            "{\"spec\": {\"persistentVolumeReclaimPolicy\": \"Recycle\"}}",
        ])
        .ok();
    assert_eq!(cells(&machine, "pv", "kept")[3], "Recycle");
    machine
        .orlop([
            "patch",
            "pv",
            "kept",
            "-p",
            "{\"spec\": {\"persistentVolumeReclaimPolicy\": \"Retain\"}}",
        ])
        .ok();
    machine.orlop(["delete", "pvc", "mine"]).ok();
    assert_eq!(phase(&machine, "pv", "kept"), "Released");
    assert_legal(&machine);
}
