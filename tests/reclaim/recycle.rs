//! Recycle: everything in a volume goes, the volume stays.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Machine, entries, path, skip};
use crate::support::{apply, cells, of_claim, phase, pod, pv, pvc, runs, until};

fn recycled(name: &str, path: &Path) -> Value {
    pv(
        name,
        "1Gi",
        path,
        json!({"persistentVolumeReclaimPolicy": "Recycle"}),
    )
}

/// Waits until a volume is in a phase.
#[track_caller]
fn comes_to(machine: &Machine, volume: &str, phase: &str) {
    let command = ["get", "pv", volume, "-o", "jsonpath={.status.phase}"];
    until(machine, &command, |text| text == phase);
}

#[test]
fn all_that_pods_wrote_goes_and_the_directory_itself_stays() {
    let machine = Machine::new();
    let cargo = machine.path("cargo");
    let outside = machine.path("outside");
    fs::create_dir(&outside).expect("mkdir");
    fs::write(outside.join("kept"), "kept").expect("write");
    fs::create_dir(&cargo).expect("mkdir");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o1770)).expect("chmod");
    let before = fs::metadata(&cargo).expect("stat");
    apply(
        &machine,
        &[recycled("v", &cargo), pvc("c", "1Gi", json!({}))],
    );
    machine.run_pod(&pod("writer", of_claim("c")).to_string());
    machine.sh(
        "writer",
        "c",
        "cd /data && echo x > test.txt && echo x > .hidden && mkdir -p a/.b/c && echo x > a/.b/c/.d && ln -s / root \
         && mkfifo pipe && touch -- -rf && chmod 0 a",
    );
    symlink(&outside, cargo.join("a/.b/out")).expect("symlink");
    fs::hard_link(outside.join("kept"), cargo.join("twice")).expect("link");

    let counted = machine.orlop(["reclaim", "--dry-run", "pv/v"]).ok();
    let start = "persistentvolume/v would be emptied (dry run): 8 files and 3 directories, ";
    assert!(counted.starts_with(start), "{counted}");
    let end = format!(", in {}, once claim default/c is gone\n", path(&cargo));
    assert!(counted.ends_with(&end), "{counted}");
    let refused = machine.orlop(["reclaim", "pv/v"]).refused();
    assert_eq!(
        refused,
        "error: persistentvolume \"v\" is bound to claim default/c: delete the claim first\n"
    );

    machine.orlop(["delete", "pod", "writer"]).ok();
    assert_eq!(entries(&cargo).len(), 7, "the data outlives the pod");
    machine.orlop(["delete", "pvc", "c"]).ok();
    comes_to(&machine, "v", "Available");
    assert_eq!(entries(&cargo), [""; 0]);
    let after = fs::metadata(&cargo).expect("the directory is there");
    assert_eq!(
        (after.ino(), after.mode(), after.uid()),
        (before.ino(), before.mode(), before.uid())
    );
    assert_eq!(fs::read(outside.join("kept")).expect("read"), b"kept");
    assert_eq!(
        cells(&machine, "pv", "v")[..5],
        ["v", "1Gi", "RWO", "Recycle", "Available"],
    );
    let page = machine.orlop(["describe", "pv", "v"]).ok();
    assert!(page.contains("Normal  VolumeRecycled"), "{page}");
    assert!(page.contains("Claim:           \n"), "{page}");

    // The next claim gets it.
    apply(&machine, &[pvc("c", "1Gi", json!({}))]);
    assert_eq!(phase(&machine, "pvc", "c"), "Bound");
    machine.run_pod(&pod("reader", of_claim("c")).to_string());
    assert_eq!(machine.sh("reader", "c", "ls -A /data"), "");
    machine.orlop(["delete", "pod", "reader"]).ok();
    machine.assert_nothing_is_left();
}

/// A mount of the test's own, taken away in any case.
pub struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    pub fn tmpfs(on: &'a Path) -> Option<Self> {
        let flags = rustix::mount::MountFlags::empty();
        let mounted = rustix::mount::mount("none", on, "tmpfs", flags, None);
        mounted.ok().map(|()| Self(on))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_mount_inside_stops_it_and_it_is_done_when_the_mount_is_gone() {
    let machine = Machine::bare();
    let cargo = machine.path("cargo");
    let inner = cargo.join("a/mounted");
    fs::create_dir_all(&inner).expect("mkdir");
    let Some(mounted) = Mounted::tmpfs(&inner) else {
        return skip("nothing can be mounted here");
    };
    fs::write(inner.join("foreign"), "foreign").expect("write");
    apply(
        &machine,
        &[recycled("v", &cargo), pvc("c", "1Gi", json!({}))],
    );
    let counted = machine.orlop(["reclaim", "--dry-run", "pv/v"]).ok();
    let end = "; it stops at the mount point \"a/mounted\" inside\n";
    assert!(counted.ends_with(end), "{counted}");

    machine.orlop(["delete", "pvc", "c"]).ok();
    comes_to(&machine, "v", "Failed");
    assert_eq!(fs::read(inner.join("foreign")).expect("read"), b"foreign");
    let page = machine.orlop(["describe", "pv", "v"]).ok();
    let why = "Recycle failed: \"a/mounted\" is a mount point: deletion stopped there";
    assert!(page.contains(&format!("Message:         {why}")), "{page}");
    assert!(page.contains("Warning  VolumeFailedRecycle"), "{page}");
    let row = cells(&machine, "pv", "v");
    assert!(row.contains(&"VolumeFailedRecycle".to_owned()), "{row:?}");
    let refused = machine.orlop(["reclaim", "pv/v"]).refused();
    assert!(refused.contains(why), "{refused}");
    // A failed volume is nobody's, and stays what it is.
    apply(&machine, &[pvc("other", "1Gi", json!({}))]);
    assert_eq!(phase(&machine, "pvc", "other"), "Pending");

    drop(mounted);
    machine.orlop(["reclaim", "pv/v"]).ok();
    assert_eq!(entries(&cargo), [""; 0]);
    assert_eq!(phase(&machine, "pvc", "other"), "Bound");
}

#[test]
fn what_failed_is_tried_again_by_itself() {
    let machine = Machine::bare();
    let cargo = machine.path("cargo");
    apply(
        &machine,
        &[recycled("v", &cargo), pvc("c", "1Gi", json!({}))],
    );
    machine.orlop(["delete", "pvc", "c"]).ok();
    comes_to(&machine, "v", "Failed");
    let page = machine.orlop(["describe", "pv", "v"]).ok();
    let why = format!("Recycle failed: cannot open {cargo:?}: No such file or directory\n");
    assert!(page.contains(&why), "{page}");
    fs::create_dir(&cargo).expect("mkdir");
    fs::write(cargo.join("file"), "x").expect("write");
    // No command has a hand in it: the store is read without one.
    let start = std::time::Instant::now();
    while !entries(&cargo).is_empty() {
        assert!(
            start.elapsed() < crate::common::LIMIT,
            "it is not tried again"
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    comes_to(&machine, "v", "Available");
}

#[test]
fn nothing_is_deleted_through_links_nor_among_what_is_orlop_s() {
    let machine = Machine::bare();
    let real = machine.path("real");
    fs::create_dir_all(real.join("inner")).expect("mkdir");
    fs::write(real.join("inner/file"), "x").expect("write");
    let link = machine.path("link");
    symlink(&real, &link).expect("symlink");
    let volumes = [
        ("through", link.join("inner"), "leads through one"),
        ("data", machine.roots.data.clone(), "holds orlop's own data"),
        (
            "above",
            machine.directory.path().to_owned(),
            "holds orlop's own data",
        ),
        ("images", machine.roots.images(), "holds orlop's own data"),
        ("file", real.join("inner/file"), "Not a directory"),
    ];
    for (name, path, why) in &volumes {
        let claim = json!({"volumeName": name});
        apply(&machine, &[recycled(name, path), pvc(name, "1Gi", claim)]);
        assert_eq!(phase(&machine, "pvc", name), "Bound");
        machine.orlop(["delete", "pvc", name]).ok();
        comes_to(&machine, name, "Failed");
        let page = machine.orlop(["describe", "pv", name]).ok();
        assert!(page.contains(why), "{page}");
    }
    assert_eq!(fs::read(real.join("inner/file")).expect("read"), b"x");
    assert!(machine.roots.database().exists() && machine.roots.images().is_dir());
}

#[test]
fn the_policy_that_counts_is_the_one_that_the_volume_has_now() {
    let machine = Machine::bare();
    let cargo = machine.path("cargo");
    fs::create_dir(&cargo).expect("mkdir");
    fs::write(cargo.join("file"), "x").expect("write");
    let keep = json!({"persistentVolumeReclaimPolicy": "Retain"});
    apply(
        &machine,
        &[pv("v", "1Gi", &cargo, keep), pvc("c", "1Gi", json!({}))],
    );
    machine.orlop(["delete", "pvc", "c"]).ok();
    comes_to(&machine, "v", "Released");
    let counted = machine.orlop(["reclaim", "--dry-run", "pv/v"]).ok();
    assert!(
        counted.contains("would keep its data (dry run): 1 file and"),
        "{counted}"
    );
    let refused = machine.orlop(["reclaim", "pv/v"]).refused();
    assert!(
        refused.contains("has the policy Retain: nothing of it is deleted"),
        "{refused}"
    );
    assert_eq!(entries(&cargo), ["file"]);

    // Another volume in the same place has a claim: what is its, stays.
    let inner = recycled("inner", &cargo.join("."));
    apply(
        &machine,
        &[inner, pvc("c", "1Gi", json!({"volumeName": "inner"}))],
    );
    let policy = |policy: &str| {
        let patch = json!({"spec": {"persistentVolumeReclaimPolicy": policy}}).to_string();
        machine.orlop(["patch", "pv", "v", "-p", &patch]).ok();
    };
    policy("Recycle");
    comes_to(&machine, "v", "Failed");
    let page = machine.orlop(["describe", "pv", "v"]).ok();
    assert!(
        page.contains("persistentvolume \"inner\" has its data in the same directory"),
        "{page}"
    );
    policy("Retain");
    comes_to(&machine, "v", "Released");
    assert_eq!(entries(&cargo), ["file"]);
    machine.orlop(["delete", "pvc", "c"]).ok();
    comes_to(&machine, "inner", "Failed");
    assert_eq!(entries(&cargo), ["file"], "the volume v retains it");
    machine.orlop(["delete", "pv", "inner"]).ok();
    policy("Recycle");
    comes_to(&machine, "v", "Available");
    assert_eq!(entries(&cargo), [""; 0]);
    let refused = machine.orlop(["reclaim", "pv/v"]).refused();
    assert!(
        refused.contains("is Available: there is nothing to reclaim"),
        "{refused}"
    );
    // Nothing is left to be done, and nobody to do it.
    machine.assert_nothing_is_left();
}

#[test]
fn a_large_volume_is_emptied_while_commands_go_on_and_pods_wait_for_it() {
    let machine = Machine::new();
    let cargo = machine.path("cargo");
    for directory in 0..20 {
        let directory = cargo.join(directory.to_string());
        fs::create_dir_all(&directory).expect("mkdir");
        for file in 0..500 {
            fs::write(directory.join(file.to_string()), "").expect("write");
        }
    }
    apply(
        &machine,
        &[recycled("v", &cargo), pvc("c", "1Gi", json!({}))],
    );
    machine.orlop(["delete", "pvc", "c"]).ok();
    apply(
        &machine,
        &[pvc("c", "1Gi", json!({})), pod("p", of_claim("c"))],
    );
    runs(&machine, "p");
    assert_eq!(machine.sh("p", "c", "ls -A /data"), "");
    machine.orlop(["delete", "pod", "p"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_volume_that_pods_still_use_is_not_emptied() {
    let machine = Machine::new();
    let cargo = machine.path("cargo");
    apply(
        &machine,
        &[recycled("v", &cargo), pvc("c", "1Gi", json!({}))],
    );
    machine.run_pod(&pod("p", of_claim("c")).to_string());
    machine.sh("p", "c", "echo x > /data/file");
    // By force the claim goes, though a pod uses it.
    machine.orlop(["delete", "pvc", "c", "--wait=false"]).ok();
    assert_eq!(phase(&machine, "pvc", "c"), "Bound");
    let patch = r#"{"metadata": {"finalizers": null}}"#;
    machine.orlop(["patch", "pvc", "c", "-p", patch]).ok();
    let page = until(&machine, &["describe", "pv", "v"], |page| {
        page.contains("Volume is used by pods: default/p")
    });
    assert!(page.contains("Status:          Released"), "{page}");
    let refused = machine.orlop(["reclaim", "pv/v"]).refused();
    assert!(refused.contains("cannot be reclaimed yet"), "{refused}");
    assert_eq!(machine.sh("p", "c", "cat /data/file"), "x\n");
    machine.orlop(["delete", "pod", "p"]).ok();
    let said = machine.orlop(["reclaim", "pv/v"]).ok();
    assert_eq!(said, "persistentvolume/v recycled\n");
    assert_eq!(entries(&cargo), [""; 0]);
    machine.assert_nothing_is_left();
}
