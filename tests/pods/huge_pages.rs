//! emptyDirs of huge pages, on machines that have some set aside and on those that
//! have none.

use std::fs;

use serde_json::{Value, json};

use crate::common::Machine;
use crate::support::{idle, pod, until, with};

fn on(medium: &str) -> String {
    let fields = json!({
        "volumeMounts": [{"name": "pages", "mountPath": "/pages"}],
        "resources": {"limits": {"memory": "64Mi", "hugepages-2Mi": "4Mi"}},
    });
    let source: Value = json!({"medium": medium, "sizeLimit": "4Mi"});
    pod(&json!({
        "containers": [with(idle("c"), &fields)],
        "volumes": [{"name": "pages", "emptyDir": source}],
    }))
}

#[test]
fn huge_pages_are_a_hugetlbfs_or_the_reason_why_there_are_none() {
    let machine = Machine::new();
    let refused = machine
        .orlop_with(["apply", "-f", "-"], &on("HugePages-3Mi"))
        .refused();
    assert!(
        refused.contains("emptyDir.medium: Unsupported value: \"HugePages-3Mi\""),
        "{refused}"
    );

    let pages = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let set_aside: Option<u64> = fs::read_to_string(pages)
        .ok()
        .map(|text| text.trim().parse().expect("a number"));
    machine
        .orlop_with(["apply", "-f", "-"], &on("HugePages"))
        .ok();
    if set_aside > Some(0) {
        machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
        let table = machine.sh("web", "c", "grep ' /pages ' /proc/mounts");
        assert!(
            table.contains("hugetlbfs") && table.contains("pagesize=2M"),
            "{table}"
        );
    } else {
        let wanted = match set_aside {
            None => "this machine's kernel has no huge pages of 2048 KiB",
            Some(_) => "no huge pages of 2048 KiB are set aside on this machine",
        };
        until(&machine, &["describe", "pod", "web"], |page| {
            page.contains("FailedMount") && page.contains(wanted)
        });
    }
    machine.orlop(["delete", "pod", "web", "--now"]).ok();

    machine
        .orlop_with(["apply", "-f", "-"], &on("HugePages-1Gi"))
        .ok();
    until(&machine, &["describe", "pod", "web"], |page| {
        page.contains(
            "MountVolume.SetUp failed for volume \"pages\" : medium HugePages-1Gi: hugePages storage \
             requested, but there is no resource request for huge pages",
        )
    });
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}
