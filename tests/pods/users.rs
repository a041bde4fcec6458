//! Pods with users of their own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::common::Machine;
use crate::support::{container, idle, kill, pod, status, with};

const SPEC: &str = include_str!("../../specs/user-namespace.yaml");

#[test]
fn root_of_a_pod_with_users_of_its_own_is_nobody_on_the_machine() {
    let machine = Machine::new();
    machine.run_pod(SPEC);
    let app = |script: &str| machine.sh("user-namespace", "app", script);
    assert_eq!(app("id -u; id -g; cat /data/who"), "0\n0\nuid=0 gid=0\n");
    let map = app("cat /proc/self/uid_map");
    let map: Vec<&str> = map.split_whitespace().collect();
    let first: u32 = map[1].parse().expect("a number");
    assert_eq!((map[0], map[2]), ("0", "65536"));
    assert!(first >= 65536, "{first}");
    machine.orlop(["delete", "pod", "user-namespace", "--now"]).ok();
    machine.assert_nothing_is_left();
}
