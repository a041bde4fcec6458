use serde_json::{Value, json};

use super::*;

const GIB: u64 = 1 << 30;
const ALL: Controllers = Controllers {
    cpu: true,
    memory: true,
    hugetlb: true,
    swap: true,
};

fn spec(value: Value) -> PodSpec {
    serde_json::from_value(value).expect("a pod spec")
}

fn one(resources: Value) -> PodSpec {
    spec(json!({"containers": [{"name": "c", "resources": resources}]}))
}

/// Shares, quota in microseconds, memory in bytes.
fn numbers(resources: &LinuxResources) -> (Option<u64>, Option<i64>, Option<i64>) {
    let cpu = resources.cpu().as_ref();
    (
        cpu.and_then(LinuxCpu::shares),
        cpu.and_then(LinuxCpu::quota),
        resources.memory().as_ref().and_then(LinuxMemory::limit),
    )
}

fn of_container(resources: Value) -> (Option<u64>, Option<i64>, Option<i64>) {
    numbers(&container(&one(resources).containers[0], false, true, ALL))
}

fn of_pod(value: Value) -> (Option<u64>, Option<i64>, Option<i64>) {
    numbers(&pod(&spec(value), &[]))
}

#[test]
fn a_container_without_resources_has_the_fewest_shares_and_no_limits() {
    assert_eq!(of_container(json!({})), (Some(2), None, None));
}

#[test]
fn requests_become_shares_and_limits_become_quota_and_bytes() {
    let resources = json!({
        "requests": {"cpu": "250m"},
        "limits": {"cpu": "1500m", "memory": "64Mi"},
    });
    assert_eq!(
        of_container(resources),
        (Some(256), Some(150_000), Some(67_108_864))
    );
}

#[test]
fn a_limit_without_a_request_is_the_request() {
    let resources = json!({"limits": {"cpu": "2"}});
    assert_eq!(of_container(resources), (Some(2048), Some(200_000), None));
}

#[test]
fn shares_and_quota_stay_within_what_the_kernel_takes() {
    let tiny = json!({"limits": {"cpu": "1m"}});
    assert_eq!(of_container(tiny), (Some(2), Some(1000), None));
    let huge = json!({"requests": {"cpu": "1000"}});
    assert_eq!(of_container(huge), (Some(262_144), None, None));
}

#[test]
fn a_privileged_container_may_open_every_device() {
    let spec = one(json!({}));
    let rules = |privileged| {
        let resources = container(&spec.containers[0], privileged, true, ALL);
        resources.devices().clone().expect("rules")
    };
    assert!(!rules(false)[0].allow());
    assert_eq!(rules(true).len(), 1);
    assert!(rules(true)[0].allow());
}

#[test]
fn a_pod_sums_up_its_containers() {
    let resources = json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "1Gi"}});
    let containers = json!([
        {"name": "a", "resources": resources},
        {"name": "b", "resources": resources},
    ]);
    assert_eq!(
        of_pod(json!({"containers": containers})),
        (Some(1024), Some(200_000), Some(2_147_483_648))
    );
}

#[test]
fn a_pod_has_no_limit_if_one_container_has_none() {
    let limited = json!({"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}});
    let free = json!({"name": "b", "resources": {"limits": {"cpu": "1"}}});
    assert_eq!(
        of_pod(json!({"containers": [limited, free]})),
        (Some(2048), Some(200_000), None)
    );
    assert_eq!(
        of_pod(json!({"containers": [limited], "initContainers": [{"name": "i"}]})),
        (Some(1024), None, None)
    );
}

#[test]
fn a_large_init_container_counts_alone_and_a_sidecar_counts_along() {
    let asking =
        |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
    let mut sidecar = asking("s", "1");
    sidecar["restartPolicy"] = json!("Always");
    let shares =
        |init: Value| of_pod(json!({"initContainers": init, "containers": [asking("c", "1")]})).0;
    assert_eq!(shares(json!([asking("i", "3")])), Some(3072));
    assert_eq!(shares(json!([sidecar])), Some(2048));
    assert_eq!(shares(json!([sidecar, asking("i", "3")])), Some(4096));
}

#[test]
fn the_cgroup_of_a_pod_has_no_device_rules_of_its_own() {
    assert_eq!(pod(&one(json!({})), &[]).devices(), &None);
}

#[test]
fn an_emptydir_in_memory_is_bounded_by_node_pod_and_its_own_limit() {
    let limited = one(json!({"limits": {"memory": "4Gi"}}));
    let free = one(json!({}));
    let volume = |limit: Option<&str>| -> Volume {
        let source = json!({"medium": "Memory", "sizeLimit": limit});
        serde_json::from_value(json!({"name": "v", "emptyDir": source})).expect("a volume")
    };
    for (spec, limit, size) in [
        (&free, None, 8 * GIB),
        (&free, Some("1Gi"), GIB),
        (&free, Some("16Gi"), 8 * GIB),
        (&free, Some("0"), 8 * GIB),
        (&limited, None, 4 * GIB),
        (&limited, Some("1Gi"), GIB),
        (&limited, Some("6Gi"), 4 * GIB),
    ] {
        assert_eq!(
            memory_volume_size(spec, &volume(limit), 8 * GIB),
            size,
            "{limit:?}"
        );
    }
}

#[test]
fn the_oom_score_follows_class_and_reserved_memory() {
    let score = |spec: &PodSpec| oom_score_adj(spec, &spec.containers[0], 8 * GIB);
    assert_eq!(score(&one(json!({}))), 1000);
    assert_eq!(
        score(&one(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))),
        -997
    );
    assert_eq!(score(&one(json!({"requests": {"cpu": "1"}}))), 999);
    assert_eq!(score(&one(json!({"requests": {"memory": "2Gi"}}))), 750);
    assert_eq!(score(&one(json!({"requests": {"memory": "64Gi"}}))), 3);
}

#[test]
fn a_node_critical_pod_is_killed_last() {
    let mut spec = one(json!({}));
    spec.priority_class_name = Some("system-node-critical".into());
    assert_eq!(oom_score_adj(&spec, &spec.containers[0], GIB), -997);
}

#[test]
fn a_score_is_raised_freely_and_lowered_with_permission_only() {
    assert_eq!(clamp_oom_score(-997, 0, true), -997);
    assert_eq!(clamp_oom_score(-997, -100, false), -100);
    assert_eq!(clamp_oom_score(1000, 0, false), 1000);
}

#[test]
fn a_sidecar_goes_no_sooner_than_the_first_of_those_it_serves() {
    let asking = |name: &str, memory: &str| json!({"name": name, "resources": {"requests": {"memory": memory}}});
    let sidecar = |memory: &str| {
        let mut sidecar = asking("s", memory);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    };
    let score = |memory: &str| {
        let init = json!([sidecar(memory), asking("i", "1Mi")]);
        let containers = json!([asking("a", "4Gi"), asking("b", "2Gi")]);
        let spec = spec(json!({"initContainers": init, "containers": containers}));
        let init = spec.init_containers.as_ref().expect("init containers");
        [&init[0], &init[1]].map(|container| oom_score_adj(&spec, container, 8 * GIB))
    };
    assert_eq!(score("1Mi"), [750, 999]);
    assert_eq!(score("3Gi"), [625, 999]);
}

#[test]
fn memory_that_the_pod_requests_beyond_its_containers_counts_for_all_of_them() {
    let spec = spec(json!({
        "resources": {"requests": {"memory": "4Gi"}},
        "containers": [
            {"name": "a", "resources": {"requests": {"memory": "2Gi"}}},
            {"name": "b"},
        ],
    }));
    let scores = [0, 1].map(|i| oom_score_adj(&spec, &spec.containers[i], 8 * GIB));
    assert_eq!(scores, [625, 875]);
}

#[test]
fn huge_pages_that_nobody_asks_for_are_none() {
    let limits = json!({"limits": {"memory": "1Gi", "hugepages-2Mi": "4Mi"}});
    let spec = spec(json!({"containers": [
        {"name": "a", "resources": limits}, {"name": "b", "resources": limits},
    ]}));
    let resources = pod(&spec, &[2 << 20, 1 << 30]);
    let limits = resources.hugepage_limits().as_ref().expect("limits");
    let limits: Vec<_> = limits
        .iter()
        .map(|limit| (limit.page_size().as_str(), limit.limit()))
        .collect();
    assert_eq!(limits, [("2MB", 8 << 20), ("1GB", 0)]);
}

#[test]
fn no_container_swaps_and_one_process_out_of_memory_ends_all() {
    let limited = one(json!({"limits": {"cpu": "1", "memory": "64Mi"}}));
    let of = |unified, controllers| {
        let resources = container(&limited.containers[0], false, unified, controllers);
        serde_json::to_value(resources).expect("JSON")
    };
    let unified = of(true, ALL);
    let files = json!({"memory.oom.group": "1", "memory.swap.max": "0"});
    assert_eq!(unified["unified"], files);
    assert_eq!(unified["memory"], json!({"limit": 64 << 20}));
    let legacy = of(false, ALL);
    assert_eq!(
        legacy["memory"],
        json!({"limit": 64 << 20, "swap": 64 << 20})
    );
    assert_eq!(legacy.get("unified"), None);

    let bare = of(true, Controllers::default());
    assert_eq!(bare["unified"], json!({}));
    assert_eq!(bare["cpu"], json!({"quota": 100_000, "period": 100_000}));
}
