//! Many pods, many commands at once, and one pod for a long time.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;

use common::Machine;
use common::processes::{containers, kill, number, wait_until};

/// A pod with three volumes, killed at once when it is deleted.
fn pod(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 0
  volumes:
  - {{ name: one, emptyDir: {{}} }}
  - {{ name: two, emptyDir: {{}} }}
  - {{ name: memory, emptyDir: {{ medium: Memory, sizeLimit: 1Mi }} }}
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "echo {name} > /one/name; exec sleep 30000"]
    volumeMounts:
    - {{ name: one, mountPath: /one }}
    - {{ name: two, mountPath: /two }}
    - {{ name: memory, mountPath: /memory }}
"#
    )
}

fn pods() -> u64 {
    number("ORLOP_TEST_PODS", 20)
}

fn mounts() -> usize {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    table.lines().count()
}

fn descriptors(pid: i32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).expect("list the descriptors") {
        let entry = entry.expect("entry");
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        found.insert(format!("{:?} {target:?}", entry.file_name()));
    }
    found
}

#[test]
fn the_host_has_not_one_mount_more_for_many_pods_with_volumes() {
    let machine = Machine::new();
    let before = mounts();
    let mut manifests = String::new();
    for number in 0..pods() {
        write!(manifests, "---{}", pod(&format!("p{number}"))).expect("write");
    }
    machine.run_pod(&manifests);
    machine.assert_pods_are_whole();
    assert_eq!(mounts(), before);
    let last = format!("p{}", pods() - 1);
    assert_eq!(machine.sh(&last, "main", "cat /one/name").trim(), last);
    let memory = machine.sh(&last, "main", "grep -c ' /memory tmpfs ' /proc/mounts");
    assert_eq!(memory.trim(), "1");
    machine.orlop(["delete", "pods", "--all"]).ok();
    machine.assert_nothing_is_left();
    assert_eq!(mounts(), before);
}

#[test]
fn commands_that_run_at_the_same_time_do_not_disturb_each_other() {
    let machine = Machine::new();
    let names: Vec<String> = (0..pods()).map(|number| format!("p{number}")).collect();
    let in_threads = |work: &(dyn Fn(&String) + Sync)| {
        std::thread::scope(|scope| {
            for share in 0..8 {
                let names = &names;
                scope.spawn(move || names.iter().skip(share).step_by(8).for_each(work));
            }
        });
    };
    for wait in [true, false] {
        in_threads(&|name| {
            let said = match wait {
                true => machine.run_pod(&pod(name)),
                false => machine.orlop_with(["apply", "-f", "-"], &pod(name)).ok(),
            };
            assert_eq!(said, format!("pod/{name} created\n"));
        });
        machine.assert_pods_are_whole();
        for name in &names {
            let pod = machine.stored(name).expect("the pod");
            assert_eq!(
                containers(&pod)[0].restart_count,
                0,
                "{name} was started twice"
            );
        }
        in_threads(&|name| {
            let said = machine.orlop(["delete", "pod", name]).ok();
            assert_eq!(
                said,
                format!("pod {name:?} deleted from default namespace\n")
            );
        });
        machine.assert_nothing_is_left();
    }
}

#[test]
fn pods_that_come_do_not_stumble_over_pods_that_go() {
    let machine = Machine::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let machine = &machine;
            scope.spawn(move || {
                for round in 0..pods() / 4 {
                    let name = format!("p{thread}-{round}");
                    machine.run_pod(&pod(&name));
                    let stored = machine.stored(&name).expect("the pod");
                    assert_eq!(containers(&stored)[0].restart_count, 0, "{stored:?}");
                    machine.orlop(["delete", "pod", &name]).ok();
                }
            });
        }
    });
    machine.assert_nothing_is_left();
}

#[test]
fn a_keeper_opens_no_more_and_more_descriptors() {
    let machine = Machine::new();
    machine.run_pod(&pod("p"));
    let uid = machine.uid("p");
    let keeper = machine.keeper(&uid).expect("keeper");
    let launcher = machine.launcher(&uid).expect("launcher");
    // The first time may leave what is used again.
    machine.sh("p", "main", "true");
    let before = [descriptors(keeper), descriptors(launcher)];
    for _ in 0..number("ORLOP_TEST_EXECS", 100) {
        machine.sh("p", "main", "true");
    }
    let settled = || [descriptors(keeper), descriptors(launcher)].map(|all| all.len());
    wait_until("the last connection is closed", || {
        settled() <= before.clone().map(|all| all.len())
    });

    // The first restart waits for nothing; the next one would wait 10 seconds.
    let shims: Vec<i32> = machine.shims().iter().map(|shim| shim.pid).collect();
    let mut members = machine.members();
    members.retain(|pid| !shims.contains(pid));
    members.into_iter().for_each(kill);
    wait_until("the container runs again", || {
        let pod = machine.stored("p").expect("the pod");
        containers(&pod)[0].restart_count == 1 && containers(&pod)[0].ready
    });
    wait_until("the start's descriptors are closed", || {
        settled() <= before.clone().map(|all| all.len())
    });
    assert_eq!(machine.keeper(&uid), Some(keeper));
    machine.orlop(["delete", "pod", "p"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn two_orlops_on_one_machine_leave_each_other_alone() {
    let machines = [Machine::new(), Machine::new()];
    assert_ne!(machines[0].cgroup(), machines[1].cgroup());
    for machine in &machines {
        machine.run_pod(&pod("twin"));
    }
    let [one, other] = &machines;
    let untouched = (
        containers(&other.stored("twin").expect("twin")),
        other.shims().len(),
    );
    assert_ne!(one.uid("twin"), other.uid("twin"));

    kill(one.keeper(&one.uid("twin")).expect("keeper"));
    one.orlop(["reconcile"]).ok();
    one.assert_pods_are_whole();
    one.orlop(["delete", "pods", "--all"]).ok();
    one.assert_nothing_is_left();
    one.orlop(["reconcile"]).ok();

    let now = (
        containers(&other.stored("twin").expect("twin")),
        other.shims().len(),
    );
    assert_eq!(now, untouched);
    other.assert_pods_are_whole();
    other.orlop(["delete", "pod", "twin"]).ok();
    other.assert_nothing_is_left();
}

#[test]
fn data_roots_that_share_a_run_root_leave_each_others_pods_alone() {
    let machine = Machine::new();
    machine.run_pod(&pod("p"));
    let before = containers(&machine.stored("p").expect("the pod"));
    let elsewhere = machine.path("elsewhere");
    for arguments in [["get", "pods"].as_slice(), &["reconcile"], &["get", "pods"]] {
        let mut command = machine.command(arguments);
        command.env("ORLOP_ROOT", &elsewhere);
        common::finish(command).ok();
    }
    assert_eq!(containers(&machine.stored("p").expect("the pod")), before);
    machine.assert_pods_are_whole();
    machine.orlop(["delete", "pod", "p"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_run_root_with_a_long_name_is_as_good_as_any() {
    let mut machine = Machine::new();
    // A socket's address has room for 108 bytes.
    machine.roots.run = machine.path(&"long".repeat(30));
    machine.run_pod(&pod("p"));
    machine.sh("p", "main", "true");
    machine.orlop(["delete", "pod", "p"]).ok();
    machine.assert_nothing_is_left();
}
