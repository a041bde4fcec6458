//! Delete: what a volume stands for goes, and the volume.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Machine, entries};
use crate::support::{apply, phase, pv, pvc, until};

fn deleted(name: &str, path: &Path) -> Value {
    pv(
        name,
        "1Gi",
        path,
        json!({"persistentVolumeReclaimPolicy": "Delete"}),
    )
}

/// Gives a volume a claim and takes it away again.
#[track_caller]
fn use_up(machine: &Machine, volume: Value) {
    let name = volume["metadata"]["name"]
        .as_str()
        .expect("a name")
        .to_owned();
    let mut claim = pvc(&name, "1Gi", json!({"volumeName": name}));
    claim["spec"]["storageClassName"] = json!("");
    apply(machine, &[volume, claim]);
    assert_eq!(phase(machine, "pvc", &name), "Bound");
    machine.orlop(["delete", "pvc", &name]).ok();
}

/// Waits until a volume has failed, and returns its page.
#[track_caller]
fn fails(machine: &Machine, name: &str) -> String {
    let command = ["get", "pv", name, "-o", "jsonpath={.status.phase}"];
    until(machine, &command, |text| text == "Failed");
    machine.orlop(["describe", "pv", name]).ok()
}

#[test]
fn host_paths_are_deleted_below_tmp_only_and_the_rest_fails_in_kubelet_s_words() {
    let machine = Machine::bare();
    let below = tempfile::Builder::new()
        .prefix("orlop-test.")
        .tempdir_in("/tmp");
    let below = below.expect("a directory");
    let gone = below.path().join("cargo");
    fs::create_dir_all(gone.join("a/.b")).expect("mkdir");
    fs::write(gone.join("a/.b/c"), "x").expect("write");
    let counted = {
        apply(&machine, &[deleted("gone", &gone)]);
        machine.orlop(["reclaim", "--dry-run", "pv/gone"]).ok()
    };
    let start = "persistentvolume/gone would be deleted (dry run): 1 file and 2 directories, ";
    assert!(counted.starts_with(start), "{counted}");
    use_up(&machine, deleted("gone", &gone));
    until(&machine, &["get", "pv", "-o", "name"], |text| {
        text.is_empty()
    });
    assert_eq!(entries(below.path()), [""; 0]);
    // What is not there needs no deletion.
    use_up(&machine, deleted("gone", &gone));
    until(&machine, &["get", "pv", "-o", "name"], |text| {
        text.is_empty()
    });

    let elsewhere = tempfile::Builder::new()
        .prefix("orlop-test.")
        .tempdir_in("/var/tmp");
    let elsewhere = elsewhere.expect("a directory");
    fs::write(elsewhere.path().join("kept"), "kept").expect("write");
    for link in ["link", "itself"] {
        symlink(elsewhere.path(), below.path().join(link)).expect("symlink");
    }
    let path = elsewhere.path().to_str().expect("text").to_owned();
    use_up(&machine, deleted("var", elsewhere.path()));
    let why = format!("host_path deleter only supports /tmp/.+ but received provided {path}");
    let page = fails(&machine, "var");
    assert!(page.contains(&format!("Message:         {why}")), "{page}");
    assert!(page.contains("Warning  VolumeFailedDelete"), "{page}");
    let refused = machine.orlop(["reclaim", "--dry-run", "pv/var"]).refused();
    assert_eq!(refused, format!("error: var: {why}\n"));
    // A way out of /tmp is none.
    use_up(&machine, deleted("link", &below.path().join("link/kept")));
    assert!(fails(&machine, "link").contains("leads through one"));
    use_up(&machine, deleted("tmp", Path::new("/tmp/.")));
    assert!(fails(&machine, "tmp").contains("host_path deleter only supports /tmp/.+"));
    assert_eq!(
        fs::read(elsewhere.path().join("kept")).expect("read"),
        b"kept"
    );
    // The link itself may go, as the file that it is.
    use_up(&machine, deleted("itself", &below.path().join("itself")));
    let command = ["get", "pv", "itself", "--ignore-not-found", "-o", "name"];
    until(&machine, &command, |text| text.is_empty());
    assert_eq!(entries(below.path()), ["link"]);
    assert_eq!(entries(elsewhere.path()), ["kept"]);

    let mut nfs = deleted("nfs", Path::new("/"));
    let spec = nfs["spec"].as_object_mut().expect("spec");
    spec.remove("hostPath");
    spec.insert("nfs".into(), json!({"server": "192.0.2.1", "path": "/e"}));
    use_up(&machine, nfs);
    let why = "error getting deleter volume plugin for volume \"nfs\": no deletable volume plugin matched";
    assert!(fails(&machine, "nfs").contains(why));
    // Somebody else's: nothing is done, and nothing said to have failed.
    let mut foreign = deleted("foreign", &gone);
    foreign["metadata"]["annotations"] =
        json!({"pv.kubernetes.io/provisioned-by": "ebs.csi.aws.com"});
    use_up(&machine, foreign);
    let page = ["describe", "pv", "foreign"];
    let page = until(&machine, &page, |page| {
        page.contains("external provisioner 'ebs.csi.aws.com'")
    });
    assert!(page.contains("Status:          Released"), "{page}");
    // A policy of Retain ends all attempts.
    let patch = r#"{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}"#;
    for name in ["var", "link", "tmp", "nfs", "foreign"] {
        machine.orlop(["patch", "pv", name, "-p", patch]).ok();
        assert_eq!(phase(&machine, "pv", name), "Released");
        machine.orlop(["delete", "pv", name]).ok();
    }
    machine.assert_nothing_is_left();
}
