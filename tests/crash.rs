//! `kill -9` of whatever runs, at any moment: the next command makes it good.

mod common;

use std::io::{Read, Write};
use std::time::Duration;

use common::Machine;
use common::processes::{Random, containers, kill, number, restarts, wait_until};

/// A pod with two containers that are killed at once when it is deleted.
fn pod(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 0
  volumes:
  - {{ name: cargo, emptyDir: {{}} }}
  containers:
  - name: one
    image: busybox
    command: [sh, -c, "echo >> /cargo/starts; exec sleep 30000"]
    volumeMounts: [{{ name: cargo, mountPath: /cargo }}]
  - name: two
    image: busybox
    command: [sleep, "30000"]
    volumeMounts: [{{ name: cargo, mountPath: /cargo }}]
"#
    )
}

#[test]
fn a_kill_at_any_moment_of_apply_or_delete_is_made_good_by_the_next_command() {
    let machine = Machine::new();
    let mut random = Random::new();
    machine.run_pod(&pod("bystander"));
    let bystander = containers(&machine.stored("bystander").expect("the bystander"));
    let aside = machine.uid("bystander");

    let mut there = false;
    for round in 0..number("ORLOP_TEST_KILLS", 100) {
        let delay = Duration::from_micros(random.below(60_000));
        let victim = ["orlop", "keeper", "launcher"][random.below(3) as usize];
        let next = ["reconcile", "get"][random.below(2) as usize];
        let verb = if there { "delete" } else { "apply" };
        println!("round {round}: {verb}, {victim} killed after {delay:?}, then {next}");

        let mut command = machine.command(match verb {
            "delete" => ["delete", "pod", "victim"],
            _ => ["apply", "-f", "-"],
        });
        let (read, mut write) = std::io::pipe().expect("pipe");
        let mut child = command.stdin(read).spawn().expect("spawn");
        drop(command);
        // A command that has ended reads nothing.
        let _ = write.write_all(pod("victim").as_bytes());
        drop(write);
        std::thread::sleep(delay);
        let mut uids = machine.shims().into_iter().map(|shim| shim.uid);
        let uid = uids.find(|uid| *uid != aside).unwrap_or_default();
        match victim {
            "keeper" => machine.keeper(&uid).into_iter().for_each(kill),
            "launcher" => machine.launcher(&uid).into_iter().for_each(kill),
            _ => child.kill().expect("kill"),
        }
        let mut said = String::new();
        let mut complaint = String::new();
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        out.as_mut()
            .expect("stdout")
            .read_to_string(&mut said)
            .expect("read");
        err.as_mut()
            .expect("stderr")
            .read_to_string(&mut complaint)
            .expect("read");
        let status = child.wait().expect("wait");
        println!("  {status}: {said:?} {complaint:?}");

        let arguments: &[&str] = match next {
            "get" => &["get", "pods"],
            _ => &["reconcile"],
        };
        print!("  {}", machine.orlop(arguments).ok());
        machine.assert_pods_are_whole();

        there = machine.stored("victim").is_some();
        match verb {
            "apply" => assert!(there || !said.contains("created"), "the pod is lost"),
            _ => assert!(!there || !said.contains("deleted"), "the pod is back"),
        }
        let now = containers(&machine.stored("bystander").expect("the bystander"));
        assert_eq!(now, bystander, "another pod was touched");
    }
    let names: &[&str] = if there {
        &["delete", "pod", "bystander", "victim"]
    } else {
        &["delete", "pod", "bystander"]
    };
    machine.orlop(names).ok();
    machine.assert_nothing_is_left();
}

/// A container that writes which start of it is alive, again and again.
const BEATS: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: heart }
spec:
  terminationGracePeriodSeconds: 0
  volumes:
  - { name: cargo, emptyDir: {} }
  containers:
  - name: heart
    image: busybox
    command:
    - sh
    - -c
    - |
      echo >> /cargo/starts
      me=$(wc -l < /cargo/starts)
      while :; do echo $me >> /cargo/beats; usleep 1000; done
    volumeMounts: [{ name: cargo, mountPath: /cargo }]
"#;

/// Kills the keeper or the launcher of a pod five times; `afterwards` is what
/// brings the pod back.
fn kill_and_watch(victim: fn(&Machine, &str) -> Option<i32>, afterwards: fn(&Machine)) -> Machine {
    let machine = Machine::new();
    machine.run_pod(BEATS);
    let uid = machine.uid("heart");
    let cargo = machine
        .roots
        .pod_data(&uid)
        .join("volumes/kubernetes.io~empty-dir/cargo");
    let beats = || std::fs::read_to_string(cargo.join("beats")).unwrap_or_default();
    for round in 1..=5 {
        let before = restarts(&machine.stored("heart").expect("the pod"));
        std::fs::write(cargo.join("kept"), round.to_string()).expect("write");
        let length = beats().len();
        kill(victim(&machine, &uid).expect("the victim"));
        afterwards(&machine);
        wait_until("the container runs again", || {
            let pod = machine.stored("heart").expect("the pod");
            assert_eq!(pod.metadata.uid.as_deref(), Some(&*uid));
            restarts(&pod) == before + 1 && containers(&pod).iter().all(|one| one.ready)
        });
        let last = format!("\n{}\n", round + 1);
        wait_until("it writes", || beats()[length..].contains(&last));
        let kept = std::fs::read_to_string(cargo.join("kept")).expect("read");
        assert_eq!(kept, round.to_string());
    }
    let beats = beats();
    let order: Vec<u32> = beats.lines().map_while(|line| line.parse().ok()).collect();
    assert!(order.is_sorted(), "two starts were alive at once");
    assert_eq!(order.last(), Some(&6));
    machine
}

#[test]
fn a_pod_whose_keeper_was_killed_comes_back_with_the_next_command() {
    let machine = kill_and_watch(Machine::keeper, |machine| {
        machine.orlop(["get", "pods"]).ok();
    });
    let row = machine.orlop(["get", "pods", "--no-headers"]).ok();
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(columns[..4], ["heart", "1/1", "Running", "5"], "{row}");
    machine.orlop(["delete", "pod", "heart"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_keeper_whose_launcher_was_killed_starts_the_containers_anew_by_itself() {
    let machine = kill_and_watch(Machine::launcher, |_| {});
    let page = machine.orlop(["describe", "pod", "heart"]).ok();
    assert!(page.contains("SandboxChanged"), "{page}");
    machine.orlop(["delete", "pod", "heart"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn what_shall_never_be_restarted_is_not_even_after_a_kill() {
    let machine = Machine::new();
    for victim in [Machine::keeper, Machine::launcher] {
        let manifest = pod("once").replace("spec:", "spec:\n  restartPolicy: Never");
        machine.run_pod(&manifest);
        let uid = machine.uid("once");
        kill(victim(&machine, &uid).expect("the victim"));
        machine.wait_for("once", |pod| pod["status"]["phase"] == "Failed");
        let cargo = machine.roots.pod_data(&uid);
        let starts = cargo.join("volumes/kubernetes.io~empty-dir/cargo/starts");
        assert_eq!(std::fs::read_to_string(starts).expect("read"), "\n");
        wait_until("nothing of the pod runs", || machine.members().is_empty());
        machine.orlop(["reconcile"]).ok();
        assert_eq!(machine.members(), [0; 0]);
        machine.orlop(["delete", "pod", "once"]).ok();
        machine.assert_nothing_is_left();
    }
}

#[test]
fn a_deletion_that_was_recorded_is_done_though_nobody_told_the_keeper() {
    let machine = Machine::new();
    for next in [&["reconcile"][..], &["get", "pods"]] {
        machine.run_pod(&pod("forgotten"));
        machine
            .store()
            .mark_pod_deleted(&machine.uid("forgotten"), 0)
            .expect("record the deletion");
        machine.orlop(next).ok();
        wait_until("the pod is gone", || machine.stored("forgotten").is_none());
        machine.assert_nothing_is_left();
    }
}

#[test]
fn after_a_reboot_pods_are_shown_as_unknown_until_reconcile_starts_them() {
    let machine = Machine::new();
    machine.run_pod(&(pod("x") + "---" + &pod("other")));
    let uid = machine.uid("x");
    let cargo = machine.roots.pod_data(&uid);
    let cargo = cargo.join("volumes/kubernetes.io~empty-dir/cargo");
    std::fs::write(cargo.join("kept"), "cargo").expect("write");
    machine.reboot();

    for _ in 0..2 {
        let rows = machine.orlop(["get", "pods", "--no-headers"]).ok();
        for row in rows.lines() {
            let columns: Vec<&str> = row.split_whitespace().collect();
            assert_eq!(columns[1..3], ["0/2", "Unknown"], "{rows}");
        }
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(
        machine.keepers(),
        [0; 0],
        "a pod was started that should not be"
    );

    // What is deleted before it is started again is never started.
    machine.orlop(["delete", "pod", "other"]).ok();
    assert_eq!(machine.orlop(["reconcile"]).ok(), "pod/default/x started\n");
    machine.assert_pods_are_whole();
    assert_eq!(machine.uid("x"), uid);
    let kept = std::fs::read_to_string(cargo.join("kept")).expect("read");
    assert_eq!(kept, "cargo");
    let starts = machine.sh("x", "two", "wc -l < /cargo/starts");
    assert_eq!(starts.trim(), "2");
    assert_eq!(machine.orlop(["reconcile"]).ok(), "");
    machine.orlop(["delete", "pod", "x"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_container_that_ends_leaves_nothing_to_be_deleted_by_the_next_command() {
    let machine = Machine::new();
    machine.run_pod(&pod("p"));
    let pod = machine.stored("p").expect("the pod");
    let (uid, before) = (machine.uid("p"), restarts(&pod));
    let shims: Vec<i32> = machine.shims().iter().map(|shim| shim.pid).collect();
    let container = machine
        .members()
        .into_iter()
        .find(|pid| !shims.contains(pid));
    kill(container.expect("a container"));
    wait_until("it is started again", || {
        let pod = machine.stored("p").expect("the pod");
        restarts(&pod) > before && containers(&pod).iter().all(|one| one.ready)
    });
    machine.assert_pods_are_whole();
    assert_eq!(machine.uid("p"), uid);
    machine.orlop(["delete", "pod", "p"]).ok();
    machine.assert_nothing_is_left();
}
