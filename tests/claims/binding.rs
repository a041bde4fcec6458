//! Which claim gets which volume, as the guides have it.

use std::path::Path;

use serde_json::json;

use crate::common::Machine;
use crate::support::{apply, assert_legal, cells, list, object, phase, pv, pvc};

const PV: &str = include_str!("../../specs/nfs-pv.yaml");
const PVC: &str = include_str!("../../specs/nfs-pvc.yaml");
const CLASSES: &str = include_str!("../../specs/classes.yaml");

#[test]
fn the_guide_s_volume_and_claim_are_bound_and_shown_in_kubectl_s_columns() {
    let machine = Machine::bare();
    let apply = |manifest: &str| machine.orlop_with(["apply", "-f", "-"], manifest).ok();
    assert_eq!(apply(PV), "persistentvolume/mypv1 created\n");
    let table = machine.orlop(["get", "pv"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0],
        "NAME    CAPACITY   ACCESS MODES   RECLAIM POLICY   STATUS      CLAIM   STORAGECLASS   REASON   AGE"
    );
    let row = "mypv1   1Gi        RWO            Recycle          Available           nfs                     ";
    assert!(lines[1].starts_with(row), "{table}");
    assert_eq!(apply(PVC), "persistentvolumeclaim/mypvc1 created\n");
    let table = machine.orlop(["get", "pvc"]).ok();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0],
        "NAME     STATUS   VOLUME   CAPACITY   ACCESS MODES   STORAGECLASS   AGE"
    );
    let row = "mypvc1   Bound    mypv1    1Gi        RWO            nfs            ";
    assert!(lines[1].starts_with(row), "{table}");
    let row = cells(&machine, "pv", "mypv1");
    assert_eq!(
        row[..7],
        [
            "mypv1",
            "1Gi",
            "RWO",
            "Recycle",
            "Bound",
            "default/mypvc1",
            "nfs"
        ]
    );
    assert_eq!(apply(PVC), "persistentvolumeclaim/mypvc1 unchanged\n");
    assert_eq!(apply(PV), "persistentvolume/mypv1 unchanged\n");

    // Without a class; the claim has what the volume has.
    let volume = r#"{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "nfs-pv-mysql"}, "spec": {"capacity":
        {"storage": "5Gi"}, "accessModes": ["ReadWriteMany"], "persistentVolumeReclaimPolicy": "Recycle", "nfs": {"path":
        "/usr/local/kubernetes/volumes", "server": "192.168.141.140", "readOnly": false}}}"#;
    machine.orlop_with(["create", "-f", "-"], volume).ok();
    apply(&pvc("myshop", "1Gi", json!({"accessModes": ["ReadWriteMany"]})).to_string());
    let row = cells(&machine, "pvc", "myshop");
    assert_eq!(row[..5], ["myshop", "Bound", "nfs-pv-mysql", "5Gi", "RWX"]);
    assert_eq!(assert_legal(&machine), 2);
    let wide = machine.orlop(["get", "pvc", "-A", "-o", "wide"]).ok();
    assert!(
        wide.starts_with("NAMESPACE   NAME ") && wide.contains("Filesystem"),
        "{wide}"
    );
    let wide = machine.orlop(["get", "pv", "-A", "-o", "wide"]).ok();
    assert!(
        wide.starts_with("NAME ") && wide.contains("VOLUMEMODE"),
        "{wide}"
    );
}

#[test]
fn fifty_volumes_of_50_gi_are_not_one_of_100_until_there_is_one() {
    let machine = Machine::bare();
    let path = machine.path("data");
    let mut all: Vec<_> = (0..50)
        .map(|number| pv(&format!("small{number:02}"), "50Gi", &path, json!({})))
        .collect();
    all.push(pvc("large", "100Gi", json!({})));
    apply(&machine, &all);
    assert_eq!(cells(&machine, "pvc", "large")[..2], ["large", "Pending"]);
    let explained = machine.orlop(["explain-binding", "pvc/large"]).ok();
    assert!(
        explained.starts_with(
            "persistentvolumeclaim/default/large (100Gi, RWO, no storage class) is Pending\n"
        ),
        "{explained}"
    );
    assert_eq!(
        explained
            .matches(": it has 50Gi, the claim asks for 100Gi\n")
            .count(),
        50
    );
    let page = machine.orlop(["describe", "pvc", "large"]).ok();
    for text in [
        "FailedBinding  ",
        "persistentvolume-controller  no persistent volumes available for this claim and no storage class is set",
        "small00: it has 50Gi, the claim asks for 100Gi; small01: it has 50Gi",
        "and 40 more, see: orlop explain-binding pvc/large",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
    apply(&machine, &[pv("huge", "100Gi", &path, json!({}))]);
    assert_eq!(
        cells(&machine, "pvc", "large")[..3],
        ["large", "Bound", "huge"]
    );
    assert_eq!(assert_legal(&machine), 1);
}

#[test]
fn classes_keep_volumes_apart_and_the_default_is_for_claims_without_one() {
    let machine = Machine::bare();
    let said = machine.orlop_with(["apply", "-f", "-"], CLASSES).ok();
    assert!(
        said.starts_with("storageclass.storage.k8s.io/gold created\n"),
        "{said}"
    );
    let of = |claim: &str| cells(&machine, "pvc", claim)[1..6].join(" ");
    assert_eq!(of("fast"), "Bound gold-1 1Gi RWO gold");
    assert_eq!(of("ordinary"), "Bound standard-1 5Gi RWO standard");
    let table = machine.orlop(["get", "sc"]).ok();
    assert!(
        table.starts_with("NAME                 PROVISIONER                    RECLAIMPOLICY   VOLUMEBINDINGMODE   ALLOWVOLUMEEXPANSION   AGE\n"),
        "{table}"
    );
    assert!(table.contains("standard (default)   kubernetes.io/no-provisioner   Delete          Immediate           false"), "{table}");
    let names = machine.orlop(["get", "sc,pv", "-o", "name"]).ok();
    assert!(
        names.contains("storageclass.storage.k8s.io/gold\n"),
        "{names}"
    );
    assert!(names.contains("persistentvolume/gold-1\n"), "{names}");

    // A claim grows where its class allows it, and never shrinks.
    let grow = |claim: &str, size: &str| {
        let patch = format!(
            "{{\"spec\": {{\"resources\": {{\"requests\": {{\"storage\": \"{size}\"}}}}}}}}"
        );
        machine.orlop(["patch", "pvc", claim, "-p", &patch])
    };
    assert_eq!(
        grow("fast", "2Gi").ok(),
        "persistentvolumeclaim/fast patched\n"
    );
    assert_eq!(of("fast"), "Bound gold-1 2Gi RWO gold");
    assert_eq!(cells(&machine, "pv", "gold-1")[1], "2Gi");
    assert_eq!(
        grow("ordinary", "9Gi").refused(),
        "Error from server (Forbidden): persistentvolumeclaims \"ordinary\" is forbidden: only dynamically provisioned pvc can be \
         resized and the storageclass that provisions the pvc must support resize\n"
    );
    let said = grow("fast", "1Gi").refused();
    assert!(
        said.contains(
            "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
        ),
        "{said}"
    );
    let said = machine
        .orlop(["patch", "sc", "gold", "-p", "{\"provisioner\": \"x\"}"])
        .refused();
    assert!(
        said.contains("provisioner: Forbidden: updates to provisioner are forbidden."),
        "{said}"
    );
    assert_eq!(
        machine.orlop(["delete", "sc", "gold"]).ok(),
        "storageclass.storage.k8s.io \"gold\" deleted\n"
    );
    let said = machine.orlop(["get", "sc", "gold"]).refused();
    assert_eq!(
        said,
        "Error from server (NotFound): storageclasses.storage.k8s.io \"gold\" not found\n"
    );

    // The class of a volume may be edited: so claims find one in the end.
    apply(
        &machine,
        &[pvc("late", "1Gi", json!({"storageClassName": "silver"}))],
    );
    assert_eq!(phase(&machine, "pvc", "late"), "Pending");
    apply(
        &machine,
        &[pv(
            "spare",
            "1Gi",
            Path::new("/srv/spare"),
            json!({"storageClassName": "gold"}),
        )],
    );
    machine
        .orlop([
            "patch",
            "pv",
            "spare",
            "-p",
            "{\"spec\": {\"storageClassName\": \"silver\"}}",
        ])
        .ok();
    assert_eq!(
        cells(&machine, "pvc", "late")[..3],
        ["late", "Bound", "spare"]
    );
}

#[test]
fn two_commands_that_race_bind_each_volume_once() {
    let machine = Machine::bare();
    let path = machine.path("data");
    // Two halves of everything, each command in its own order.
    let half = |first: usize| {
        let mut items = Vec::new();
        for number in 0..100 {
            items.push(pvc(
                &format!("c{:03}", first * 100 + number),
                "1Gi",
                json!({}),
            ));
        }
        for number in 0..50 {
            let name = format!("v{:03}", first * 50 + number);
            items.insert(number * first, pv(&name, "1Gi", &path, json!({})));
        }
        items
    };
    // Whole manifests, and then one object after the other.
    let manifests = [half(0), half(1)];
    let one = list(&manifests[0]);
    std::thread::scope(|scope| {
        scope.spawn(|| machine.orlop_with(["apply", "-f", "-"], &one).ok());
        for part in manifests[1].chunks(10) {
            let part = list(part);
            machine.orlop_with(["apply", "-f", "-"], &part).ok();
        }
    });
    assert_eq!(assert_legal(&machine), 100, "each volume has a claim");
    // Released and bound again while others come and go.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..40 {
                let name = format!("c{number:03}");
                machine.orlop(["delete", "pvc", &name]).ok();
            }
        });
        for number in 0..20 {
            let name = format!("d{number:03}");
            apply(&machine, &[pvc(&name, "1Gi", json!({}))]);
        }
    });
    assert_legal(&machine);
    let volumes = object(&machine, "pv", "v000");
    assert_eq!(
        volumes["metadata"]["finalizers"],
        json!(["kubernetes.io/pv-protection"])
    );
}
