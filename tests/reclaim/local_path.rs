//! Directories of this machine that are made for claims.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::{Machine, entries, path};
use crate::recycle::Mounted;
use crate::support::{apply, cells, list, object, of_claim, phase, pod, pvc, until};

const SPEC: &str = include_str!("../../specs/local-path.yaml");

fn class(name: &str, provisioner: &str, fields: Value) -> Value {
    let mut class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner,
    });
    json_patch::merge(&mut class, &fields);
    class
}

/// A claim of a class.
fn claim(name: &str, class: &str) -> Value {
    pvc(name, "1Gi", json!({"storageClassName": class}))
}

#[track_caller]
fn is_bound(machine: &Machine, claim: &str) -> PathBuf {
    let command = ["get", "pvc", claim, "-o", "jsonpath={.status.phase}"];
    until(machine, &command, |text| text == "Bound");
    let volume = object(machine, "pvc", claim)["spec"]["volumeName"].clone();
    let volume = object(machine, "pv", volume.as_str().expect("a volume"));
    let spec = &volume["spec"];
    let path = spec["hostPath"]["path"]
        .as_str()
        .or(spec["local"]["path"].as_str());
    PathBuf::from(path.expect("a path"))
}

#[track_caller]
fn no_volume_is_left(machine: &Machine) {
    until(machine, &["get", "pv", "-o", "name"], |text| {
        text.is_empty()
    });
}

#[test]
fn a_directory_is_made_for_the_first_pod_of_a_claim_and_goes_with_the_claim() {
    let machine = Machine::new();
    let (before, pod) = SPEC.rsplit_once("---\n").expect("three documents");
    machine.orlop_with(["apply", "-f", "-"], before).ok();
    assert_eq!(phase(&machine, "pvc", "local-path-pvc"), "Pending");
    assert!(
        !machine.roots.local_path().exists(),
        "made before it is needed"
    );
    let page = machine.orlop(["describe", "pvc", "local-path-pvc"]).ok();
    assert!(page.contains("waiting for first consumer"), "{page}");

    machine.run_pod(pod);
    let directory = is_bound(&machine, "local-path-pvc");
    let uid = object(&machine, "pvc", "local-path-pvc")["metadata"]["uid"].clone();
    let uid = uid.as_str().expect("uid");
    let name = format!("pvc-{uid}_default_local-path-pvc");
    assert_eq!(directory, machine.roots.local_path().join(name));
    assert_eq!(
        fs::metadata(&directory).expect("made").mode() & 0o7777,
        0o777
    );
    assert_eq!(
        fs::metadata(machine.roots.local_path())
            .expect("base")
            .mode()
            & 0o777,
        0o700
    );
    let volume = format!("pvc-{uid}");
    assert_eq!(
        cells(&machine, "pv", &volume),
        [
            &volume,
            "128Mi",
            "RWO",
            "Delete",
            "Bound",
            "default/local-path-pvc",
            "local-path"
        ]
        .map(str::to_owned)
        .into_iter()
        .chain(cells(&machine, "pv", &volume).pop())
        .collect::<Vec<_>>()
    );
    let stored = object(&machine, "pv", &volume);
    let by = &stored["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"];
    assert_eq!(by, "local-path.orlop.dev");
    let page = machine.orlop(["describe", "pvc", "local-path-pvc"]).ok();
    let made = format!("Successfully provisioned volume {volume}");
    assert!(page.contains(&made), "{page}");

    machine.sh(
        "volume-test",
        "volume-test",
        "echo local-path-test > /data/test",
    );
    machine.orlop(["delete", "pod", "volume-test"]).ok();
    machine.run_pod(pod);
    let read = machine.sh("volume-test", "volume-test", "cat /data/test");
    assert_eq!(read, "local-path-test\n");
    machine.orlop(["delete", "pod", "volume-test"]).ok();
    let counted = machine.orlop(["reclaim", "--dry-run", "pv", &volume]).ok();
    assert!(
        counted.contains("would be deleted (dry run): 1 file and 0 directories"),
        "{counted}"
    );
    machine.orlop(["delete", "pvc", "local-path-pvc"]).ok();
    no_volume_is_left(&machine);
    assert_eq!(entries(&machine.roots.local_path()), [""; 0]);
    machine.assert_nothing_is_left();
    assert_eq!(entries(&machine.roots.data.join("provisioning")), [""; 0]);
}

#[test]
fn rancher_s_parameters_say_where_and_under_which_name() {
    let machine = Machine::bare();
    // Another disk, if there may be one: what is there cannot be moved to the trash.
    let disk = machine.path("disk");
    fs::create_dir(&disk).expect("mkdir");
    let mounted = Mounted::tmpfs(&disk);
    let base = disk.join("volumes");
    let pattern = "{{ .PVC.Namespace }}/{{ .PVC.Name }}-{{ .PVName }}";
    let parameters = json!({"nodePath": path(&base), "pathPattern": pattern});
    let local = json!({"defaultVolumeType": "local"});
    apply(
        &machine,
        &[
            class(
                "there",
                "rancher.io/local-path",
                json!({"parameters": parameters, "metadata": {"annotations": local}, "reclaimPolicy": "Retain"}),
            ),
            claim("c", "there"),
        ],
    );
    let directory = is_bound(&machine, "c");
    let stored = object(&machine, "pvc", "c");
    let volume = stored["spec"]["volumeName"].as_str().expect("a volume");
    assert_eq!(directory, base.join(format!("default/c-{volume}")));
    let spec = object(&machine, "pv", volume)["spec"].clone();
    assert_eq!(spec["local"]["path"], path(&directory));
    let term = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    assert_eq!(term["key"], "kubernetes.io/hostname");
    fs::write(directory.join("data"), "data").expect("write");

    // Retain keeps it, until the policy says otherwise.
    machine.orlop(["delete", "pvc", "c"]).ok();
    assert_eq!(phase(&machine, "pv", volume), "Released");
    assert_eq!(entries(&directory), ["data"]);
    let patch = r#"{"spec": {"persistentVolumeReclaimPolicy": "Delete"}}"#;
    machine.orlop(["patch", "pv", volume, "-p", patch]).ok();
    no_volume_is_left(&machine);
    assert_eq!(
        entries(&base),
        [""; 0],
        "with the directories on the way to it"
    );

    let modes = json!({"accessModes": ["ReadWriteMany"], "storageClassName": "there"});
    apply(&machine, &[pvc("many", "1Gi", modes)]);
    let page = until(&machine, &["describe", "pvc", "many"], |page| {
        page.contains("ProvisioningFailed")
    });
    let why = "failed to provision volume with StorageClass \"there\": NodePath only supports ReadWriteOnce";
    assert!(page.contains(why), "{page}");
    machine.orlop(["delete", "pvc", "many"]).ok();
    drop(mounted);
    machine.assert_nothing_is_left();
}

#[test]
fn no_identifier_of_a_claim_or_class_leads_anywhere_else() {
    let machine = Machine::bare();
    let base = machine.path("base");
    let victim = machine.path("victim");
    fs::create_dir_all(&victim).expect("mkdir");
    fs::write(victim.join("kept"), "kept").expect("write");
    fs::create_dir(&base).expect("mkdir");
    let link = machine.path("link");
    symlink(&victim, &link).expect("symlink");
    let node_path = path(&base);
    let prefix = "{{ .PVC.Namespace }}/{{ .PVC.Name }}";
    let with = |pattern: &str| json!({"nodePath": node_path, "pathPattern": pattern});
    let bad = [
        (
            with(&format!("{prefix}/../../../victim")),
            "cannot be part of a path",
        ),
        (
            with(&format!("{prefix}/{{{{ .PVC.Annotations.dir }}}}")),
            "has a slash in it",
        ),
        (with(&format!("{prefix}\\..\\victim")), "has a slash in it"),
        (with("/etc/{{ .PVC.Name }}"), "it is empty"),
        (with("{{ .PVC.Name }}"), "it must begin with"),
        (
            with(&format!("{prefix}{{{{ .PVC.UID }}}}")),
            "unknown variable",
        ),
        (
            with(&format!("{prefix}{{{{ .PVC.Name")),
            "without \\\"}}\\\" at its end",
        ),
        (
            json!({"nodePath": format!("{node_path}/../victim")}),
            "without '..'",
        ),
        (json!({"nodePath": "relative"}), "must be an absolute path"),
        (json!({"nodePath": "/"}), "is the root of everything"),
        (
            json!({"nodePath": path(&link)}),
            "is a symbolic link or leads through one",
        ),
        (
            json!({"nodePath": path(&machine.roots.pods())}),
            "holds orlop's own data",
        ),
        (
            json!({"allowUnsafePathPattern": "true"}),
            "no path is taken that may lead elsewhere",
        ),
        (json!({"nodepaths": "/x"}), "knows no such parameter"),
    ];
    for (number, (parameters, why)) in bad.iter().enumerate() {
        let name = format!("bad-{number}");
        let mut wanted = claim(&name, &name);
        wanted["metadata"]["annotations"] = json!({"dir": "../../../victim"});
        let class = class(
            &name,
            "local-path.orlop.dev",
            json!({"parameters": parameters}),
        );
        apply(&machine, &[class, wanted]);
        let page = until(&machine, &["describe", "pvc", &name], |page| {
            page.contains("ProvisioningFailed")
        });
        assert!(
            page.replace("\\\"", "\"")
                .contains(&why.replace("\\\"", "\"")),
            "{parameters}: {page}"
        );
        assert_eq!(phase(&machine, "pvc", &name), "Pending");
        machine.orlop(["delete", "pvc", &name]).ok();
    }
    // A directory on the way that was exchanged for a link is not followed either.
    let good = class(
        "good",
        "local-path.orlop.dev",
        json!({"parameters": with(prefix)}),
    );
    symlink(&victim, base.join("default")).expect("symlink");
    apply(&machine, &[good, claim("kept", "good")]);
    let page = until(&machine, &["describe", "pvc", "kept"], |page| {
        page.contains("ProvisioningFailed")
    });
    assert!(page.contains("cannot make the directory"), "{page}");
    fs::remove_file(base.join("default")).expect("unlink");
    let made = is_bound(&machine, "kept");
    assert_eq!(made, base.join("default/kept"));
    fs::remove_dir_all(base.join("default")).expect("remove");
    symlink(
        machine.directory.path().join("victim"),
        base.join("default"),
    )
    .expect("symlink");
    fs::create_dir(victim.join("kept.d")).expect("mkdir");
    machine.orlop(["delete", "pvc", "kept"]).ok();
    let volume = ["get", "pv", "-o", "jsonpath={.items[0].status.phase}"];
    until(&machine, &volume, |text| text == "Failed");
    assert_eq!(fs::read(victim.join("kept")).expect("read"), b"kept");
    fs::remove_file(base.join("default")).expect("unlink");
    no_volume_is_left(&machine);
    let mut left = entries(&victim);
    left.sort();
    assert_eq!(left, ["kept", "kept.d"]);
    machine.assert_nothing_is_left();
}

#[test]
fn a_claim_waits_until_the_directory_of_the_same_name_is_gone() {
    let machine = Machine::new();
    let pattern = "{{ .PVC.Namespace }}/{{ .PVC.Name }}";
    let class = class(
        "named",
        "local-path.orlop.dev",
        json!({"parameters": {"pathPattern": pattern}}),
    );
    apply(&machine, &[class, claim("c", "named")]);
    let directory = is_bound(&machine, "c");
    for round in 0..4 {
        fs::write(directory.join("old"), round.to_string()).expect("write");
        machine.orlop(["delete", "pvc", "c"]).ok();
        apply(&machine, &[claim("c", "named")]);
        assert_eq!(is_bound(&machine, "c"), directory);
        assert_eq!(entries(&directory), [""; 0], "what the former claim had");
    }
    machine
        .orlop_with(["apply", "-f", "-"], &list(&[pod("p", of_claim("c"))]))
        .ok();
    crate::support::runs(&machine, "p");
    machine.orlop(["delete", "pod", "p"]).ok();
    machine.orlop(["delete", "pvc", "c"]).ok();
    no_volume_is_left(&machine);
    machine.assert_nothing_is_left();
}

#[test]
fn a_volume_that_is_to_be_removed_is_so_after_its_data_and_with_retain_without() {
    let machine = Machine::bare();
    let made = class("made", "local-path.orlop.dev", json!({}));
    for (policy, is_left) in [("Delete", false), ("Retain", true)] {
        apply(&machine, &[made.clone(), claim("c", "made")]);
        let directory = is_bound(&machine, "c");
        fs::write(directory.join("data"), "data").expect("write");
        let volume = object(&machine, "pvc", "c")["spec"]["volumeName"].clone();
        let volume = volume.as_str().expect("a volume");
        machine.orlop(["delete", "pv", volume, "--wait=false"]).ok();
        let row = cells(&machine, "pv", volume);
        assert!(row.contains(&"Terminating".to_owned()), "{row:?}");
        let patch = json!({"spec": {"persistentVolumeReclaimPolicy": policy}}).to_string();
        machine.orlop(["patch", "pv", volume, "-p", &patch]).ok();
        machine.orlop(["delete", "pvc", "c"]).ok();
        no_volume_is_left(&machine);
        assert_eq!(directory.join("data").exists(), is_left, "{policy}");
    }
    machine.assert_nothing_is_left();
}

#[test]
fn volumes_of_others_are_not_deleted_as_if_they_had_been_made_here() {
    let machine = Machine::bare();
    let foreign = machine.path("foreign");
    fs::create_dir(&foreign).expect("mkdir");
    fs::write(foreign.join("kept"), "kept").expect("write");
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "v", "annotations": {"pv.kubernetes.io/provisioned-by": "rancher.io/local-path"}},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                 "persistentVolumeReclaimPolicy": "Delete", "hostPath": {"path": foreign}},
    });
    apply(&machine, &[volume, pvc("c", "1Gi", json!({}))]);
    machine.orlop(["delete", "pvc", "c"]).ok();
    let page = until(&machine, &["describe", "pv", "v"], |page| {
        page.contains("VolumeFailedDelete")
    });
    assert!(page.contains("was not made by this provisioner"), "{page}");
    assert_eq!(entries(&foreign), ["kept"]);
}
