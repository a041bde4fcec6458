//! Volumes on a server: emptied, made for claims, archived.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::nfs_server::{NfsServer, SERVER};
use crate::common::{LIMIT, Machine, entries};
use crate::support::{apply, object, of_claim, phase, pod, pv, pvc, runs, until};

const SPEC: &str = include_str!("../../specs/dynamic-nfs.yaml");
const GUIDE: [&str; 2] = [
    include_str!("../../specs/nfs-pv.yaml"),
    include_str!("../../specs/nfs-pvc.yaml"),
];

const POD: &str = include_str!("../../specs/nfs-pod.yaml");

fn class(name: &str, provisioner: &str, parameters: Value) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "parameters": parameters,
    })
}

fn claim(name: &str, class: &str) -> Value {
    pvc(name, "1Gi", json!({"storageClassName": class}))
}

#[track_caller]
fn comes_to(machine: &Machine, kind: &str, name: &str, phase: &str) {
    let command = ["get", kind, name, "-o", "jsonpath={.status.phase}"];
    until(machine, &command, |text| text == phase);
}

#[track_caller]
fn no_volume_is_left(machine: &Machine) {
    until(machine, &["get", "pv", "-o", "name"], |text| {
        text.is_empty()
    });
}

#[test]
fn a_server_s_directory_is_emptied_and_stays() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    let cargo = server.path("nfsdata/pv1");
    for version in ["nfsvers=4.2", "nfsvers=3"] {
        for document in GUIDE {
            let text = document.replace("192.168.168.10", SERVER);
            machine.orlop_with(["apply", "-f", "-"], &text).ok();
        }
        let options = json!({"spec": {"mountOptions": [version, "nolock"]}}).to_string();
        machine.orlop(["patch", "pv", "mypv1", "-p", &options]).ok();
        // A claim whose directory is not there cannot be recycled, which is said.
        if version == "nfsvers=4.2" {
            machine.orlop(["delete", "pvc", "mypvc1"]).ok();
            let page = until(&machine, &["describe", "pv", "mypv1"], |page| {
                page.contains("VolumeFailedRecycle")
            });
            let why = "failed, reason given by server: No such file or directory";
            assert!(page.contains(why), "{page}");
            fs::create_dir(&cargo).expect("mkdir");
            machine.orlop(["reclaim", "pv/mypv1"]).ok();
            let claim = GUIDE[1].to_owned();
            machine.orlop_with(["apply", "-f", "-"], &claim).ok();
        }
        comes_to(&machine, "pvc", "mypvc1", "Bound");
        let before = fs::metadata(&cargo).expect("stat");
        machine.run_pod(&pod("writer", of_claim("mypvc1")).to_string());
        machine.sh(
            "writer",
            "c",
            "cd /data && echo x > test.txt && echo x > .hidden && mkdir -p a/.b/c && echo x > a/.b/c/.d",
        );
        let mounts = machine.sh("writer", "c", "grep ' /data ' /proc/mounts");
        let version = version.trim_start_matches("nfs");
        assert!(mounts.contains(version), "{mounts}");
        symlink("/nfsdata", cargo.join("link")).expect("symlink");
        machine.orlop(["delete", "pod", "writer"]).ok();
        assert_eq!(fs::read(cargo.join("test.txt")).expect("read"), b"x\n");
        let counted = machine.orlop(["reclaim", "--dry-run", "pv/mypv1"]).ok();
        assert!(counted.contains("4 files and 3 directories"), "{counted}");
        assert!(
            counted.contains(&format!("in {SERVER}:/nfsdata/pv1")),
            "{counted}"
        );
        machine.orlop(["delete", "pvc", "mypvc1"]).ok();
        comes_to(&machine, "pv", "mypv1", "Available");
        assert_eq!(entries(&cargo), [""; 0]);
        let after = fs::metadata(&cargo).expect("the directory itself stays");
        assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
    }
    machine.assert_nothing_is_left();
}

/// The guides' story, with the manifests as they stand but for the server's address.
#[test]
fn from_a_volume_and_its_claim_to_a_pod_and_back_to_an_empty_directory() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    let apply = |document: &str| {
        let text = document.replace("192.168.168.10", SERVER);
        machine.orlop_with(["apply", "-f", "-"], &text).ok()
    };
    let row = |kind: &str| {
        let row = machine.orlop(["get", kind, "--no-headers"]).ok();
        let cells = row.split("   ").map(str::trim);
        let cells: Vec<_> = cells.filter(|cell| !cell.is_empty()).collect();
        cells[..cells.len() - 1].join("|")
    };
    assert_eq!(apply(GUIDE[0]), "persistentvolume/mypv1 created\n");
    assert_eq!(row("pv"), "mypv1|1Gi|RWO|Recycle|Available|nfs");
    assert_eq!(apply(GUIDE[1]), "persistentvolumeclaim/mypvc1 created\n");
    assert_eq!(row("pvc"), "mypvc1|Bound|mypv1|1Gi|RWO|nfs");
    assert_eq!(row("pv"), "mypv1|1Gi|RWO|Recycle|Bound|default/mypvc1|nfs");

    // The directory is not there yet.
    assert_eq!(apply(POD), "pod/mypod1 created\n");
    let why =
        format!("{SERVER}:/nfsdata/pv1 failed, reason given by server: No such file or directory");
    until(&machine, &["describe", "pod", "mypod1"], |page| {
        page.contains(&why)
    });
    assert_eq!(row("pods"), "mypod1|0/1|ContainerCreating|0");
    let cargo = server.path("nfsdata/pv1");
    fs::create_dir(&cargo).expect("mkdir");
    runs(&machine, "mypod1");
    // As the guide types it.
    machine
        .orlop(["exec", "mypod1", "touch", "/mydata/hello"])
        .ok();
    let file = fs::metadata(cargo.join("hello")).expect("on the server");
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (0, 0, 0o644));

    machine.orlop(["delete", "pod", "mypod1", "--now"]).ok();
    assert_eq!(entries(&cargo), ["hello"]);
    apply(POD);
    runs(&machine, "mypod1");
    machine
        .orlop(["exec", "mypod1", "--", "ls", "/mydata/hello"])
        .ok();
    machine.orlop(["delete", "pod", "mypod1", "--now"]).ok();
    machine.orlop(["delete", "pvc", "mypvc1"]).ok();
    comes_to(&machine, "pv", "mypv1", "Available");
    assert_eq!(entries(&cargo), [""; 0]);
    assert_eq!(row("pv"), "mypv1|1Gi|RWO|Recycle|Available|nfs");
    machine.assert_nothing_is_left();
}

#[test]
fn a_file_that_is_open_is_waited_for() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    let cargo = server.path("nfsdata/pv1");
    fs::create_dir(&cargo).expect("mkdir");
    for document in GUIDE {
        let text = document.replace("192.168.168.10", SERVER);
        machine.orlop_with(["apply", "-f", "-"], &text).ok();
    }
    fs::write(cargo.join("open"), "x").expect("write");
    fs::write(cargo.join("closed"), "x").expect("write");
    // A pod that does not have it by the claim.
    let nfs = json!({"nfs": {"server": SERVER, "path": "/nfsdata/pv1"}});
    let mut reader = pod("reader", nfs);
    let script = "exec 3< /data/open; trap exit TERM; while :; do sleep 1; done";
    reader["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", script]);
    machine.run_pod(&reader.to_string());
    machine.orlop(["delete", "pvc", "mypvc1"]).ok();
    comes_to(&machine, "pv", "mypv1", "Failed");
    let page = machine.orlop(["describe", "pv", "mypv1"]).ok();
    assert!(
        page.contains("is open on this machine: it goes when"),
        "{page}"
    );
    let left = entries(&cargo);
    assert!(left.len() == 1 && left[0].starts_with(".nfs"), "{left:?}");
    machine.orlop(["delete", "pod", "reader"]).ok();
    comes_to(&machine, "pv", "mypv1", "Available");
    assert_eq!(entries(&cargo), [""; 0]);
    machine.assert_nothing_is_left();
}

#[test]
fn directories_are_made_for_claims_and_archived() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    machine
        .orlop_with(
            ["apply", "-f", "-"],
            &SPEC.replace("192.168.168.10", SERVER),
        )
        .ok();
    machine.wait_for("test-pod", |pod| pod["status"]["phase"] == "Succeeded");
    let made = server.path("nfsdata/default/test-claim");
    assert_eq!(entries(&made), ["SUCCESS"]);
    assert_eq!(fs::metadata(&made).expect("made").mode() & 0o7777, 0o777);
    let volume = object(&machine, "pvc", "test-claim")["spec"]["volumeName"].clone();
    let spec = object(&machine, "pv", volume.as_str().expect("a volume"))["spec"].clone();
    assert_eq!(spec["nfs"]["path"], "/nfsdata/default/test-claim");
    assert_eq!(spec["persistentVolumeReclaimPolicy"], "Delete");
    assert_eq!(spec["accessModes"], json!(["ReadWriteMany"]));
    machine.orlop(["delete", "pod", "test-pod"]).ok();
    machine.orlop(["delete", "pvc", "test-claim"]).ok();
    no_volume_is_left(&machine);
    let archive = server.path("nfsdata/default/archived-test-claim");
    assert_eq!(entries(&archive), ["SUCCESS"]);
    assert!(!made.exists());
    // The next of that name takes no archive's place.
    apply(&machine, &[claim("test-claim", "nfs-client")]);
    comes_to(&machine, "pvc", "test-claim", "Bound");
    machine.orlop(["delete", "pvc", "test-claim"]).ok();
    no_volume_is_left(&machine);
    assert_eq!(entries(&archive), ["SUCCESS"]);
    assert!(
        server
            .path("nfsdata/default/archived-test-claim-2")
            .is_dir()
    );

    // What each of the names leaves open is as it is there.
    let share = |more: Value| {
        let mut parameters = json!({"server": SERVER, "share": "/nfsdata/"});
        json_patch::merge(&mut parameters, &more);
        parameters
    };
    let deep = "${pvc.metadata.namespace}/x/${pvc.metadata.name}";
    apply(
        &machine,
        &[
            class("csi", "nfs.csi.k8s.io", share(json!({}))),
            class(
                "subdir",
                "k8s-sigs.io/nfs-subdir-external-provisioner",
                share(json!({})),
            ),
            class(
                "gone",
                "cluster.local/nfs-subdir-external-provisioner",
                share(json!({"archiveOnDelete": "false"})),
            ),
            class(
                "deep",
                "nfs.orlop.dev",
                share(json!({"subDir": deep, "mountPermissions": "0750"})),
            ),
            class(
                "stays",
                "nfs.orlop.dev",
                share(json!({"onDelete": "retain"})),
            ),
            class(
                "labels",
                "nfs.orlop.dev",
                share(json!({"pathPattern": "${.PVC.labels.app}"})),
            ),
        ],
    );
    let names = ["csi", "subdir", "gone", "deep", "stays", "labels"];
    let mut places = Vec::new();
    for name in names {
        let mut claim = claim(name, name);
        claim["metadata"]["labels"] = json!({"app": "web"});
        apply(&machine, &[claim]);
        comes_to(&machine, "pvc", name, "Bound");
        let volume = object(&machine, "pvc", name)["spec"]["volumeName"].clone();
        let volume = volume.as_str().expect("a volume").to_owned();
        let path = object(&machine, "pv", &volume)["spec"]["nfs"]["path"].clone();
        let path = path.as_str().expect("a path").to_owned();
        let wanted = match name {
            "csi" | "stays" => format!("/nfsdata/{volume}"),
            "subdir" | "gone" => format!("/nfsdata/default-{name}-{volume}"),
            "deep" => "/nfsdata/default/x/deep".to_owned(),
            _ => "/nfsdata/web".to_owned(),
        };
        assert_eq!(path, wanted);
        let place = server.path(&path);
        let mode = fs::metadata(&place).expect("made").mode() & 0o7777;
        let wanted = match name {
            "csi" => 0o755,
            "deep" => 0o750,
            _ => 0o777,
        };
        assert_eq!(mode, wanted, "{name}: {mode:o}");
        fs::create_dir(place.join("d")).expect("mkdir");
        fs::write(place.join("d/data"), name).expect("write");
        places.push(place);
    }
    for name in names {
        machine.orlop(["delete", "pvc", name]).ok();
    }
    no_volume_is_left(&machine);
    let there = |index: usize| places[index].join("d/data").exists();
    assert_eq!(
        [0, 1, 2, 3, 4, 5].map(there),
        [false, false, false, false, true, false]
    );
    let archived = format!(
        "archived-{}",
        places[1].file_name().expect("name").display()
    );
    let archived = places[1].with_file_name(archived).join("d/data");
    assert_eq!(fs::read(archived).expect("archived"), b"subdir");
    assert!(
        !server.path("nfsdata/default/x").exists(),
        "with the empty one above"
    );
    assert!(server.path("nfsdata/default").exists());
    machine.assert_nothing_is_left();
}

#[test]
fn no_parameter_or_name_leads_out_of_the_share() {
    let machine = Machine::bare();
    let good = json!({"server": "192.0.2.1", "share": "/nfsdata"});
    let bad = [
        (json!({"subDir": ".."}), "cannot be part of a path"),
        (json!({"subDir": "../../etc"}), "cannot be part of a path"),
        (json!({"subDir": "a/../../b"}), "cannot be part of a path"),
        (json!({"subDir": "/etc"}), "it is empty"),
        (json!({"subDir": "a\\..\\b"}), "has a slash in it"),
        (json!({"subDir": "${pvc.metadata.name}/"}), "it is empty"),
        (json!({"subDir": "${pvc.metadata.uid}"}), "unknown variable"),
        (
            json!({"pathPattern": "${.PVC.annotations.dir}"}),
            "has a slash in it",
        ),
        (
            json!({"pathPattern": "a${.PVC.annotations.dots}"}),
            "stands for another directory",
        ),
        (json!({"pathPattern": "x", "subDir": "y"}), "leave one out"),
        (json!({"share": "nfsdata"}), "is no absolute path"),
        (
            json!({"share": "/nfsdata/../etc"}),
            "cannot be part of a path",
        ),
        (json!({"share": null}), "it is required"),
        (json!({"server": "a b"}), "is no name or address"),
        (json!({"server": "a/b"}), "is no name or address"),
        (json!({"mountPermissions": "rwx"}), "is no mode"),
        (
            json!({"onDelete": "shred"}),
            "is not one of delete, retain, archive",
        ),
        (json!({"path": "/x"}), "knows no such parameter"),
    ];
    for (number, (change, why)) in bad.iter().enumerate() {
        let name = format!("bad-{number}");
        let mut parameters = good.clone();
        json_patch::merge(&mut parameters, change);
        let mut wanted = claim(&name, &name);
        wanted["metadata"]["annotations"] = json!({"dir": "../../etc", "dots": ".."});
        apply(
            &machine,
            &[class(&name, "nfs.csi.k8s.io", parameters), wanted],
        );
        let page = until(&machine, &["describe", "pvc", &name], |page| {
            page.contains("ProvisioningFailed")
        });
        assert!(page.contains(why), "{change}: {page}");
        assert_eq!(phase(&machine, "pvc", &name), "Pending");
    }
    // A selector is for volumes that are there.
    let mut wanted = claim("selects", "good");
    wanted["spec"]["selector"] = json!({"matchLabels": {"a": "b"}});
    apply(&machine, &[class("good", "nfs.orlop.dev", good), wanted]);
    let page = until(&machine, &["describe", "pvc", "selects"], |page| {
        page.contains("ProvisioningFailed")
    });
    assert!(page.contains("claim Selector is not supported"), "{page}");
    machine.orlop(["delete", "pvc", "--all"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_frozen_server_holds_up_no_other_volume_and_no_command() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    let cargo = server.path("nfsdata/pv1");
    let near = machine.path("near");
    fs::create_dir(&cargo).expect("mkdir");
    fs::create_dir(&near).expect("mkdir");
    for number in 0..300 {
        fs::write(cargo.join(number.to_string()), "x").expect("write");
    }
    for document in GUIDE {
        let text = document.replace("192.168.168.10", SERVER);
        machine.orlop_with(["apply", "-f", "-"], &text).ok();
    }
    server.freeze();
    machine.orlop(["delete", "pvc", "mypvc1"]).ok();
    // Meanwhile a directory of this machine is used, and emptied.
    let policy = json!({"persistentVolumeReclaimPolicy": "Recycle"});
    for round in 0..5 {
        fs::write(near.join("file"), "x").expect("write");
        let start = Instant::now();
        apply(
            &machine,
            &[
                pv("near", "1Gi", &near, policy.clone()),
                pvc("c", "1Gi", json!({})),
            ],
        );
        machine.orlop(["delete", "pvc", "c"]).ok();
        comes_to(&machine, "pv", "near", "Available");
        assert_eq!(entries(&near), [""; 0]);
        assert!(start.elapsed() < Duration::from_secs(20), "round {round}");
    }
    assert_ne!(phase(&machine, "pv", "mypv1"), "Available");
    assert_eq!(entries(&cargo).len(), 300);
    // Who changes his mind is heard, and nobody works on it any more.
    let policy = |policy: &str| {
        let patch = json!({"spec": {"persistentVolumeReclaimPolicy": policy}}).to_string();
        machine.orlop(["patch", "pv", "mypv1", "-p", &patch]).ok();
    };
    policy("Retain");
    assert_eq!(phase(&machine, "pv", "mypv1"), "Released");
    machine.assert_nothing_is_left();
    policy("Recycle");
    let start = Instant::now();
    server.thaw();
    while phase(&machine, "pv", "mypv1") != "Available" {
        assert!(start.elapsed() < LIMIT, "it is not tried again");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(entries(&cargo), [""; 0]);
    machine.run_pod(&pod("p", json!({"emptyDir": {}})).to_string());
    runs(&machine, "p");
    machine.orlop(["delete", "pod", "p"]).ok();
    machine.assert_nothing_is_left();
}
