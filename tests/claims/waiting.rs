//! Pods that wait for their claims, and claims that wait for their pods.

use std::fs;

use serde_json::{Value, json};

use crate::common::Machine;
use crate::support::{
    apply, assert_legal, cells, object, of_claim, phase, pod, pv, pvc, runs, until,
};

const EPHEMERAL: &str = include_str!("../../specs/ephemeral-volume.yaml");
const LATE: &str = include_str!("../../specs/wait-for-first-consumer.yaml");

#[test]
fn a_pod_waits_for_its_claim_and_starts_by_itself_when_that_is_bound() {
    let machine = Machine::new();
    let data = machine.path("data");
    apply(&machine, &[pod("web", of_claim("content"))]);
    let wanted = |text: &'static str| move |page: &str| page.contains(text);
    let describe = ["describe", "pod", "web"];
    let page = until(&machine, &describe, wanted("FailedScheduling"));
    assert!(
        page.contains("0/1 nodes are available: persistentvolumeclaim \"content\" not found."),
        "{page}"
    );
    assert!(page.contains("\nNode:         <none>\n"), "{page}");
    let row = cells(&machine, "pod", "web");
    assert_eq!(row[..4], ["web", "0/1", "Pending", "0"]);
    let scheduled = &machine.pod("web")["status"]["conditions"][0];
    assert_eq!(
        (
            &scheduled["type"],
            &scheduled["status"],
            &scheduled["reason"]
        ),
        (
            &json!("PodScheduled"),
            &json!("False"),
            &json!("Unschedulable")
        )
    );

    apply(&machine, &[pvc("content", "1Gi", json!({}))]);
    until(
        &machine,
        &describe,
        wanted("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
    );
    assert_eq!(cells(&machine, "pod", "web")[2], "Pending");
    apply(&machine, &[pv("disk", "1Gi", &data, json!({}))]);
    runs(&machine, "web");
    machine.sh("web", "c", "echo kept > /data/file");
    assert_eq!(
        fs::read_to_string(data.join("file")).expect("a file"),
        "kept\n"
    );
    let page = machine.orlop(describe).ok();
    assert!(page.contains("ClaimName:   content"), "{page}");

    // A manifest that is applied again changes nothing, where the pod runs included.
    let again = apply(&machine, &[pod("web", of_claim("content"))]);
    assert_eq!(again, "pod/web unchanged\n");
    let tree = machine.orlop(["tree", "web"]).ok();
    assert!(
        tree.contains(&format!("hostPath  content -> disk -> {}", data.display())),
        "{tree}"
    );
    let df = machine.orlop(["df", "web"]).ok();
    assert!(df.contains("hostPath (pv/disk)"), "{df}");

    // One that never ran is deleted as any other.
    apply(&machine, &[pod("idle", of_claim("nothing"))]);
    machine
        .orlop(["delete", "pod", "idle", "web", "--now"])
        .ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_claim_is_bound_at_the_first_pod_s_coming() {
    let machine = Machine::new();
    let data = machine.path("disk-1");
    let manifest = LATE.replace("/mnt/disk-1", data.to_str().expect("text"));
    let (claims, database) = manifest.rsplit_once("---\n").expect("a pod");
    machine.orlop_with(["apply", "-f", "-"], claims).ok();
    assert_eq!(cells(&machine, "pvc", "data")[..2], ["data", "Pending"]);
    let page = machine.orlop(["describe", "pvc", "data"]).ok();
    assert!(page.contains("WaitForFirstConsumer  "), "{page}");
    assert!(
        page.contains("waiting for first consumer to be created before binding"),
        "{page}"
    );

    machine.orlop_with(["apply", "-f", "-"], database).ok();
    assert_eq!(
        cells(&machine, "pvc", "data")[..3],
        ["data", "Bound", "disk-1"]
    );
    // The disk is not there: nothing is made in its place.
    let page = until(&machine, &["describe", "pod", "database"], |page| {
        page.contains("FailedMount")
    });
    let text = format!(
        "MountVolume.SetUp failed for volume \"data\" : path \"{}\" does not exist",
        data.display()
    );
    assert!(page.contains(&text), "{page}");
    assert_eq!(cells(&machine, "pod", "database")[2], "ContainerCreating");
    assert!(!data.exists());
    fs::create_dir(&data).expect("mkdir");
    runs(&machine, "database");
    until(
        &machine,
        &["exec", "database", "--", "ls", "/data"],
        |text| text == "here\n",
    );
    assert!(data.join("here").exists());
    let page = machine.orlop(["describe", "pv", "disk-1"]).ok();
    assert!(
        page.contains("Type:  LocalVolume (a persistent volume backed by local storage on a node)"),
        "{page}"
    );
    assert!(
        page.contains("Term 0:        kubernetes.io/hostname exists"),
        "{page}"
    );
}

#[test]
fn a_claim_is_made_for_a_pod_and_goes_with_it() {
    let machine = Machine::new();
    let data = machine.path("scratch");
    let manifest = EPHEMERAL.replace("/srv/scratch-1", data.to_str().expect("text"));
    // Somebody else's claim of that name is not taken.
    let theirs = pvc("scratch-data", "1Gi", json!({"storageClassName": "other"}));
    apply(&machine, &[theirs]);
    machine.orlop_with(["apply", "-f", "-"], &manifest).ok();
    until(&machine, &["describe", "pod", "scratch"], |page| {
        page.contains(
            "PVC default/scratch-data was not created for pod default/scratch (pod is not owner)",
        )
    });
    machine.orlop(["delete", "pvc", "scratch-data"]).ok();
    runs(&machine, "scratch");
    let claim = object(&machine, "pvc", "scratch-data");
    assert_eq!(claim["metadata"]["ownerReferences"][0]["name"], "scratch");
    assert_eq!(claim["metadata"]["labels"]["kind"], "scratch");
    until(
        &machine,
        &["exec", "scratch", "--", "ls", "/data"],
        |text| text == "here\n",
    );
    assert!(data.join("here").exists());
    let page = machine.orlop(["describe", "pod", "scratch"]).ok();
    assert!(
        page.contains("EphemeralVolume (an inline specification"),
        "{page}"
    );
    let again = machine.orlop_with(["apply", "-f", "-"], &manifest).ok();
    assert_eq!(again.matches(" unchanged\n").count(), 2, "{again}");
    machine.orlop(["delete", "pod", "scratch", "--now"]).ok();
    assert_eq!(machine.orlop(["get", "pvc"]).stdout, "");
    assert_eq!(phase(&machine, "pv", "scratch-1"), "Released");
    machine.assert_nothing_is_left();
}

#[test]
fn what_pods_use_is_protected_until_the_last_one_is_gone() {
    let machine = Machine::new();
    let data = machine.path("data");
    // It does not run, and holds nothing; its time has not begun.
    let mut odd = pod("odd", of_claim("missing"));
    odd["spec"]["activeDeadlineSeconds"] = json!(1);
    let since = std::time::Instant::now();
    apply(
        &machine,
        &[
            pv("disk", "1Gi", &data, json!({})),
            pvc("content", "1Gi", json!({})),
            pod("web", of_claim("content")),
            odd,
        ],
    );
    runs(&machine, "web");
    let page = machine.orlop(["describe", "pvc", "content"]).ok();
    assert!(page.contains("Used By:       web\n"), "{page}");
    for kind in ["pvc/content", "pv/disk"] {
        let said = machine.orlop(["delete", kind, "--wait=false"]).ok();
        assert!(said.contains("deleted"), "{said}");
    }
    assert_eq!(cells(&machine, "pvc", "content")[1], "Terminating");
    assert_eq!(cells(&machine, "pv", "disk")[4], "Terminating");
    let page = machine.orlop(["describe", "pvc", "content"]).ok();
    assert!(
        page.contains("Status:        Terminating (lasts "),
        "{page}"
    );
    assert_eq!(phase(&machine, "pvc", "content"), "Bound");
    machine.sh("web", "c", "touch /data/still-mounted");
    // A container that is started again still has its volume.
    machine.orlop(["exec", "web", "--", "kill", "-9", "1"]).ok();
    // A pod that comes now has to wait.
    apply(&machine, &[pod("late", of_claim("content"))]);
    until(&machine, &["describe", "pod", "late"], |page| {
        page.contains("persistentvolumeclaim \"content\" is being deleted.")
    });

    // A deletion that is waited for ends by itself when the pod does.
    let waiting = machine
        .command(["delete", "pvc", "content"])
        .spawn()
        .expect("spawn");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    let ended = waiting.wait_with_output().expect("the end");
    assert!(ended.status.success());
    let claims = machine.orlop(["get", "pvc"]);
    assert_eq!(claims.stderr, "No resources found in default namespace.\n");
    let volumes = machine.orlop(["get", "pv"]);
    assert_eq!(volumes.stdout, "");
    std::thread::sleep(std::time::Duration::from_millis(1200).saturating_sub(since.elapsed()));
    assert_eq!(cells(&machine, "pod", "odd")[2], "Pending");
    let nothing = machine.orlop(["get", "pv"]).stderr;
    assert_eq!(nothing, "No resources found\n");
    assert!(data.join("still-mounted").exists());
}

#[test]
fn a_claim_for_one_pod_is_used_by_one_after_the_other() {
    let machine = Machine::new();
    let data = machine.path("data");
    let only = json!({"accessModes": ["ReadWriteOncePod"]});
    apply(
        &machine,
        &[
            pv("disk", "1Gi", &data, only.clone()),
            pvc("content", "1Gi", only),
            pod("first", of_claim("content")),
        ],
    );
    runs(&machine, "first");
    apply(&machine, &[pod("second", of_claim("content"))]);
    let page = until(&machine, &["describe", "pod", "second"], |page| {
        page.contains("FailedScheduling")
    });
    let text = "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.";
    assert!(page.contains(text), "{page}");
    machine.orlop(["delete", "pod", "first", "--now"]).ok();
    runs(&machine, "second");

    // One that is over is out of the way, too.
    let mut third: Value = pod("third", of_claim("content"));
    third["spec"]["restartPolicy"] = json!("Never");
    third["spec"]["containers"][0]["command"][2] = json!("exit 0");
    apply(&machine, &[third, pod("fourth", of_claim("content"))]);
    machine.orlop(["delete", "pod", "second", "--now"]).ok();
    let ran = |name: &str| machine.pod(name)["status"]["phase"] != "Pending";
    let start = std::time::Instant::now();
    while !ran("third") && !ran("fourth") {
        assert!(start.elapsed() < crate::common::LIMIT);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    if machine.pod("third")["status"]["phase"] == "Pending" {
        machine.orlop(["delete", "pod", "fourth", "--now"]).ok();
        machine.wait_for("third", |pod| pod["status"]["phase"] == "Succeeded");
    } else {
        runs(&machine, "fourth");
    }
    assert_eq!(assert_legal(&machine), 1);
}
