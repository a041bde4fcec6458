//! A server that does not answer, before a pod starts and while it writes.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use orlop::pod::home::Home;
use orlop::sys::cgroup::Cgroups;
use orlop::sys::{mount, namespace, pidfd};
use orlop::volume::nfs::kernel::KernelClient;
use orlop::volume::nfs::{Mounter, NfsSource};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::UnshareFlags;
use serde_json::json;

use crate::common::Machine;
use crate::common::nfs_server::{NfsServer, SERVER};
use crate::support::{IDLE, apply, described, host_mounts, nfs_mounts, on_server, plain, pod, row};

/// What may pass in user-mode Linux for a command that waits for nobody.
const PROMPT: Duration = Duration::from_secs(20);

/// The grace period of two seconds, five more, and what a busy machine adds.
const DELETED: Duration = Duration::from_secs(2 + 5 + 8);

/// A mount that goes before the test's directory does, also when the test fails.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::FORCE | UnmountFlags::DETACH);
    }
}

#[track_caller]
fn promptly<T>(what: &str, job: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = job();
    let took = start.elapsed();
    assert!(took < PROMPT, "{what} took {took:?}");
    done
}

/// Starts the pod `writer`: what it writes once the server is gone waits in memory,
/// and the end of the writer for it.
fn writing(machine: &Machine) {
    let script = "exec 3<>/data/file; touch /tmp/open; \
                  while [ ! -e /tmp/dead ]; do sleep 0.1; done; \
                  head -c 1000000 /dev/zero >&3 & head -c 2000000 /dev/zero >&3; wait; sleep 1000";
    let mut writer = pod("writer", "/nfsdata", script);
    writer["spec"]["terminationGracePeriodSeconds"] = 2.into();
    machine.run_pod(&writer.to_string());
    while machine.sh("writer", "c", "ls /tmp") != "open\n" {}
}

/// Loses the server, and then has the pod `writer` write.
fn lose(machine: &Machine, server: &NfsServer) {
    server.freeze();
    machine.sh("writer", "c", "touch /tmp/dead");
    std::thread::sleep(Duration::from_secs(2));
}

#[test]
fn a_pod_whose_server_is_away_waits_alone_and_is_deleted_at_once() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    server.freeze();
    apply(&machine, &pod("web", "/nfsdata", IDLE));
    apply(
        &machine,
        &on_server("nobody", "10.99.0.77", "/nfsdata", IDLE),
    );
    promptly("another pod", || {
        machine.run_pod(&plain("plain").to_string())
    });
    for verb in [
        &["get", "pods"][..],
        &["describe", "pods"],
        &["tree"],
        &["df"],
    ] {
        promptly(verb[0], || machine.orlop(verb).ok());
    }
    described(
        &machine,
        "web",
        &format!("Connection timed out for {SERVER}:/nfsdata"),
    );
    described(
        &machine,
        "nobody",
        "the server does not answer on port 2049",
    );
    assert_eq!(
        row(&machine, "web")[1..4],
        ["0/1", "ContainerCreating", "0"]
    );
    promptly("delete", || machine.orlop(["delete", "pod", "nobody"]).ok());

    server.thaw();
    machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
    machine
        .orlop(["delete", "pod", "web", "plain", "--now"])
        .ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_pod_that_writes_to_a_dead_server_is_deleted_and_hurts_nobody() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    let before = host_mounts();
    writing(&machine);
    machine.run_pod(&plain("other").to_string());
    machine.run_pod(&plain("third").to_string());
    let uid = machine.uid("writer");
    let group = Home::new(&machine.roots, &uid).cgroup();
    lose(&machine, &server);

    let df = promptly("df", || machine.orlop(["df"]).ok());
    let line = df.lines().find(|line| line.starts_with("writer"));
    let line = line.expect("a line for the writer");
    let columns: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(
        columns[..5],
        ["writer", "data", "nfs", "-", "unreachable"],
        "{df}"
    );
    let tree = promptly("tree", || machine.orlop(["tree"]).ok());
    assert!(tree.contains("unreachable  nfs"), "{tree}");
    for verb in [&["get", "pods"][..], &["describe", "pod", "writer"]] {
        promptly(verb[0], || machine.orlop(verb).ok());
    }
    promptly("apply", || machine.run_pod(&plain("fourth").to_string()));
    promptly("delete of another pod", || {
        machine.orlop(["delete", "pod", "other", "--now"]).ok()
    });

    let start = Instant::now();
    let deleted = machine.orlop(["delete", "pod", "writer"]);
    let took = start.elapsed();
    assert!(took < DELETED, "{took:?}: {deleted:?}");
    assert!(deleted.status.success(), "{deleted:?}");
    let lost = format!("the server of volume \"data\" ({SERVER}:/nfsdata) does not answer");
    assert!(deleted.stderr.contains(&lost), "{deleted:?}");
    assert!(
        !Cgroups::detect().expect("cgroups").exists(&group),
        "{group} is left"
    );
    assert_eq!(host_mounts(), before);
    assert_eq!(nfs_mounts(), [""; 0]);

    promptly("delete of the others", || {
        machine
            .orlop(["delete", "pod", "third", "fourth", "--now"])
            .ok()
    });
    machine.assert_nothing_is_left();
    server.thaw();
}

#[test]
fn a_pod_whose_keeper_died_with_its_server_is_deleted_all_the_same() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    let before = host_mounts();
    writing(&machine);
    lose(&machine, &server);
    for pid in machine.keepers() {
        // The launcher dies with its keeper, perhaps before its turn.
        if let Ok(process) = pidfd::open(pid) {
            pidfd::send_signal(&process, 9).expect("kill");
        }
    }
    promptly("get", || machine.orlop(["get", "pods"]).ok());
    machine.orlop(["delete", "pod", "writer", "--now"]).ok();
    machine.assert_nothing_is_left();
    assert_eq!(host_mounts(), before);
    assert_eq!(nfs_mounts(), [""; 0]);
    server.thaw();
}

#[test]
fn a_host_path_on_a_dead_server_holds_up_no_other_volume() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    // The machine's own mount, which is none of orlop's business.
    namespace::leave(UnshareFlags::NEWNS).expect("a mount namespace");
    let flags = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    mount_change("/", flags).expect("slave");
    let machine = Machine::new();
    let (net, late) = (machine.path("net"), machine.path("late"));
    fs::create_dir(&net).expect("mkdir");
    let source = NfsSource {
        name: "net".to_owned(),
        server: SERVER.to_owned(),
        path: "/nfsdata".to_owned(),
        read_only: false,
        mount_options: vec!["actimeo=0".to_owned()],
    };
    let tree = KernelClient.mount(&source).expect("mount");
    let place = fs::File::open(&net).expect("open");
    mount::attach(tree.as_fd(), place.as_fd()).expect("attach");
    drop((tree, place));
    let mounted = Mounted(net.clone());
    server.freeze();

    let mut manifest = plain("web");
    manifest["spec"]["volumes"] = json!([
        {"name": "data", "hostPath": {"path": net}},
        {"name": "late", "hostPath": {"path": late, "type": "Directory"}},
    ]);
    apply(&machine, &manifest);
    promptly("the other volume", || {
        described(&machine, "web", "is not a directory")
    });
    promptly("delete", || {
        machine.orlop(["delete", "pod", "web", "--now"]).ok()
    });
    server.thaw();
    manifest["spec"]["volumes"][1]["hostPath"]["type"] = json!("DirectoryOrCreate");
    machine.run_pod(&manifest.to_string());
    machine.sh("web", "c", "echo here > /data/through-the-host");
    assert!(server.path("nfsdata/through-the-host").exists());
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    drop(mounted);
    machine.assert_nothing_is_left();
}
