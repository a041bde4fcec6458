//! Whatever is killed at whatever moment: every claim and every volume is in a legal
//! state, and nothing is bound twice.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::common::Machine;
use crate::support::{apply, assert_legal, cells, list, of_claim, pod, pv, pvc, runs, until};

#[test]
fn commands_that_are_killed_leave_legal_states() {
    let machine = Machine::bare();
    let path = machine.path("data");
    fs::create_dir(&path).expect("mkdir");
    fs::write(path.join("file"), "kept").expect("write");
    let volumes: Vec<_> = (0..10)
        .map(|number| pv(&format!("v{number}"), "1Gi", &path, json!({})))
        .collect();
    apply(&machine, &volumes);
    let manifest = machine.path("claims.json");
    let claims: Vec<_> = (0..20)
        .map(|number| pvc(&format!("c{number}"), "1Gi", json!({})))
        .collect();
    fs::write(&manifest, list(&claims)).expect("write");
    let manifest = manifest.to_str().expect("text");
    let release = "{\"spec\": {\"claimRef\": null}}";
    let commands: [&[&str]; 4] = [
        &["apply", "-f", manifest],
        &["patch", "pv", "v1", "v2", "v3", "-p", release],
        &[
            "delete",
            "pvc",
            "c1",
            "c2",
            "c3",
            "c4",
            "--ignore-not-found",
        ],
        &["release", "pv/v4", "pv/v5"],
    ];
    for round in 0..120_u64 {
        let command = commands[(round % 4) as usize];
        let mut child = machine.command(command).spawn().expect("spawn");
        // From the program's first moments to after its end.
        std::thread::sleep(Duration::from_micros(200 * (round * 37 % 97)));
        let _ = child.kill();
        child.wait().expect("wait");
        if round % 8 == 0 {
            assert_legal(&machine);
        }
    }
    machine.orlop(["reconcile"]).ok();
    assert_legal(&machine);
    machine.orlop(["apply", "-f", manifest]).ok();
    assert!(
        assert_legal(&machine) >= 6,
        "{}",
        machine.orlop(["get", "pv,pvc"]).ok()
    );
    assert_eq!(
        fs::read_to_string(path.join("file")).expect("a file"),
        "kept"
    );
}

#[test]
fn a_keeper_that_dies_on_the_way_out_leaves_its_claim_to_the_next_command() {
    let machine = Machine::new();
    let data = machine.path("data");
    for round in 0..6_u64 {
        apply(
            &machine,
            &[
                pv("disk", "1Gi", &data, json!({})),
                pvc("content", "1Gi", json!({})),
                pod("web", of_claim("content")),
            ],
        );
        runs(&machine, "web");
        machine
            .orlop(["delete", "pvc", "content", "--wait=false"])
            .ok();
        machine
            .orlop(["delete", "pod", "web", "--now", "--wait=false"])
            .ok();
        std::thread::sleep(Duration::from_millis(round * 7));
        for pid in machine.keepers() {
            if let Ok(process) = orlop::sys::pidfd::open(pid) {
                let _ = orlop::sys::pidfd::send_signal(&process, 9);
            }
        }
        // The first command that finds it dead does what it left.
        until(&machine, &["get", "pvc", "-o", "name"], str::is_empty);
        assert_eq!(cells(&machine, "pv", "disk")[4], "Released");
        machine.orlop(["release", "pv/disk"]).ok();
    }
    assert_legal(&machine);
    machine.assert_nothing_is_left();
}
