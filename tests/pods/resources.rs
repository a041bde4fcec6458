//! Requests and limits, as the kernel has them: read in the control groups of
//! containers and pods on the host, and by the containers themselves.

use orlop::pod::home::Home;
use orlop::sys::cgroup::Cgroups;
use serde_json::{Value, json};

use crate::common::Machine;
use crate::support::{container, idle, is_over, pod, status, with};

fn unified() -> bool {
    Cgroups::detect().expect("cgroups").is_unified()
}

/// Reads a file of a group on the host, by its name on cgroup v2 or v1.
#[track_caller]
fn read(group: &str, v2: &str, v1: &str) -> String {
    let path = if unified() {
        format!("/sys/fs/cgroup{group}/{v2}")
    } else {
        let controller = v1.split('.').next().expect("a controller");
        format!("/sys/fs/cgroup/{controller}{group}/{v1}")
    };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.trim().to_owned()
}

/// Weight or shares, quota, and memory of a group.
#[derive(Debug, PartialEq)]
struct Amounts {
    weight: u64,
    quota: Option<u64>,
    memory: Option<u64>,
}

#[track_caller]
fn amounts(group: &str) -> Amounts {
    let number = |text: &str| text.parse::<u64>().ok();
    let quota = read(group, "cpu.max", "cpu.cfs_quota_us");
    let memory = read(group, "memory.max", "memory.limit_in_bytes");
    Amounts {
        weight: number(&read(group, "cpu.weight", "cpu.shares")).expect("a number"),
        quota: quota.split_whitespace().next().and_then(number),
        // What cgroup v1 has for no limit.
        memory: number(&memory).filter(|bytes| *bytes < 1 << 62),
    }
}

/// The amounts that are wanted: shares on v1, their weight on v2.
fn wanted(shares: u64, weight: u64, quota: Option<u64>, memory: Option<u64>) -> Amounts {
    let weight = if unified() { weight } else { shares };
    Amounts {
        weight,
        quota,
        memory,
    }
}

fn group_of(machine: &Machine, name: &str, status: &Value) -> String {
    let id = status["containerID"].as_str().expect("an id");
    let id = id.strip_prefix("orlop://").expect("orlop's id");
    Home::new(&machine.roots, &machine.uid(name)).container_cgroup(id)
}

fn pod_group(machine: &Machine, name: &str) -> String {
    Home::new(&machine.roots, &machine.uid(name)).cgroup()
}

fn score(machine: &Machine, pod: &str, container: &str) -> i32 {
    let text = machine.sh(pod, container, "cat /proc/1/oom_score_adj");
    text.trim().parse().expect("a number")
}

const MI: u64 = 1 << 20;

#[test]
fn pods_of_every_class_have_what_they_ask_for() {
    let machine = Machine::new();
    machine
        .orlop(["apply", "--wait", "-f", "specs/resources.yaml"])
        .ok();
    let class = |name: &str| machine.pod(name)["status"]["qosClass"].clone();
    assert_eq!(class("guaranteed"), "Guaranteed");
    assert_eq!(class("burstable"), "Burstable");
    assert_eq!(class("best-effort"), "BestEffort");

    // The pods as wholes.
    let of = |name: &str| amounts(&pod_group(&machine, name));
    let sums = wanted(768, 80, Some(75_000), Some(96 * MI));
    assert_eq!(of("guaranteed"), sums);
    assert_eq!(
        of("burstable"),
        wanted(1024, 100, Some(200_000), Some(128 * MI))
    );
    assert_eq!(of("best-effort"), wanted(2, 1, None, None));

    // Their containers.
    let guaranteed = machine.pod("guaranteed");
    let app = status(&guaranteed, "app");
    let group = group_of(&machine, "guaranteed", app);
    assert_eq!(
        amounts(&group),
        wanted(512, 59, Some(50_000), Some(64 * MI))
    );
    let both = json!({"cpu": "500m", "memory": "64Mi"});
    assert_eq!(app["allocatedResources"], both);
    assert_eq!(app["resources"], json!({"limits": both, "requests": both}));
    let burstable = machine.pod("burstable");
    let app = status(&burstable, "app");
    let group = group_of(&machine, "burstable", app);
    assert_eq!(amounts(&group), wanted(256, 35, None, Some(96 * MI)));
    let sidecar = &burstable["status"]["initContainerStatuses"][0];
    let group = group_of(&machine, "burstable", sidecar);
    assert_eq!(amounts(&group), wanted(102, 17, None, None));
    assert_eq!(
        sidecar["allocatedResources"],
        json!({"cpu": "100m", "memory": "16Mi"})
    );
    let best_effort = machine.pod("best-effort");
    let app = status(&best_effort, "app");
    let group = group_of(&machine, "best-effort", app);
    assert_eq!(amounts(&group), wanted(2, 1, None, None));
    assert_eq!(app["resources"], json!({}));

    // How many processes it may have, and what comes of trying to have more.
    let pod = pod_group(&machine, "best-effort");
    assert_eq!(read(&pod, "pids.max", "pids.max"), "64");
    let bomb = "(while :; do sleep 2 & done) 2>&1 | tail -n 1";
    let said = machine.sh("best-effort", "app", bomb);
    assert!(said.contains("can't fork"), "{said}");

    // What a container sees of itself, and who is killed first.
    let file = if unified() {
        "memory.max"
    } else {
        "memory/memory.limit_in_bytes"
    };
    let seen = machine.sh(
        "guaranteed",
        "helper",
        &format!("cat /sys/fs/cgroup/{file}"),
    );
    assert_eq!(seen.trim(), (32 * MI).to_string());
    if unified() {
        assert_eq!(read(&group, "memory.oom.group", ""), "1");
        for group in [&group, &pod_group(&machine, "best-effort")] {
            assert_eq!(read(group, "memory.swap.max", ""), "0");
        }
    }
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj")
        .expect("a score")
        .trim()
        .parse()
        .expect("a number");
    let lowered = |wanted: i32| match may_lower_scores() {
        true => wanted,
        false => wanted.max(own),
    };
    assert_eq!(score(&machine, "guaranteed", "app"), lowered(-997));
    assert_eq!(score(&machine, "best-effort", "app"), 1000);
    let between = score(&machine, "burstable", "app");
    assert!((lowered(3)..1000).contains(&between), "{between}");

    let page = machine.orlop(["describe", "pod", "burstable"]).ok();
    let page: Vec<&str> = page.lines().map(str::trim_end).collect();
    let resources = [
        "Resources:",
        "  Limits:",
        "    cpu:     2",
        "    memory:  128Mi",
        "  Requests:",
        "    cpu:     1",
        "    memory:  64Mi",
        "Init Containers:",
    ];
    assert!(
        page.windows(resources.len())
            .any(|lines| lines == resources),
        "{page:#?}"
    );

    // Nothing is resized in place.
    let mut resized = guaranteed.clone();
    resized["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("1");
    resized["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1");
    let refused = machine
        .orlop_with(["apply", "-f", "-"], &resized.to_string())
        .refused();
    let forbidden =
        "The Pod \"guaranteed\" is invalid: spec: Forbidden: pod updates may not change fields";
    assert!(refused.starts_with(forbidden), "{refused}");
    let field = "spec.containers[0].resources.limits.cpu differs";
    assert!(refused.contains(field), "{refused}");

    machine
        .orlop(["delete", "--now", "-f", "specs/resources.yaml"])
        .ok();
    machine.assert_nothing_is_left();
}

fn may_lower_scores() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let set = u64::from_str_radix(line.expect("a set").trim(), 16).expect("hexadecimal");
    set & (1 << 24) != 0
}

#[test]
fn a_process_that_takes_too_much_ends_its_container_and_no_other() {
    if !unified() {
        return crate::common::skip("cgroup v1 cannot end all processes of a group");
    }
    let machine = Machine::new();
    // The first process never takes anything; its child does.
    let greedy = "tail -c 100000000 /dev/zero & while :; do sleep 1; done";
    let limits = json!({"resources": {"limits": {"memory": "16Mi"}}});
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [with(container("greedy", greedy), &limits), idle("modest")],
    });
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", |web| {
        status(web, "greedy")["state"].get("terminated").is_some()
    });
    let web = machine.pod("web");
    let ended = &status(&web, "greedy")["state"]["terminated"];
    assert_eq!(
        (&ended["reason"], &ended["exitCode"]),
        (&json!("OOMKilled"), &json!(137))
    );
    assert!(
        status(&web, "modest")["state"].get("running").is_some(),
        "{web:#}"
    );
}

#[test]
fn what_containers_leave_in_memory_counts_for_their_pod() {
    let machine = Machine::new();
    let limits = json!({
        "resources": {"limits": {"memory": "24Mi"}},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    });
    // Each fills some of the volume; together it is more than the pod may have.
    let fill = |name: &str| {
        let script = format!("exec dd if=/dev/zero of=/v/{name} bs=1M count=20");
        with(container(name, &script), &limits)
    };
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [fill("i")],
        "containers": [fill("c")],
        "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    machine.wait_for("web", is_over);
    let web = machine.pod("web");
    let ended = &status(&web, "c")["state"]["terminated"];
    assert_eq!(ended["reason"], "OOMKilled", "{web:#}");
}
