//! `mountPropagation`: which mounts containers, their pod and the host see of each
//! other. The host of these tests is a mount namespace of their own.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use orlop::sys::mount::{self, Change};
use orlop::sys::{mount_table, namespace};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};

use crate::common::{Machine, entries, path};
use crate::support::{idle, pod, until, with};

const SPEC: &str = include_str!("../../specs/mount-propagation.yaml");

/// Runs a test on a thread with a mount namespace of its own, which stands for the
/// host's and ends with the thread.
pub fn on_a_host_of_its_own(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        namespace::leave(UnshareFlags::NEWNS).expect("a mount namespace");
        let root = File::open("/").expect("open");
        propagate(root.as_fd(), MountPropagationFlags::PRIVATE);
        test();
    });
    thread.join().expect("the test");
}

fn propagate(mount: std::os::fd::BorrowedFd, propagation: MountPropagationFlags) {
    let change = Change {
        propagation,
        ..Change::default()
    };
    change.apply(mount, true).expect("mount_setattr");
}

/// Mounts a new file system at `place`, which is made.
fn mount_at(place: &Path) {
    fs::create_dir_all(place).expect("mkdir");
    let tree = mount::tmpfs(&[("size", "64m")], MountAttrFlags::empty()).expect("tmpfs");
    let place = File::open(place).expect("open");
    mount::attach(tree.as_fd(), place.as_fd()).expect("attach");
}

/// Mounts a new file system at `place` that shares its mounts.
fn share(place: &Path) {
    mount_at(place);
    let shared = File::open(place).expect("open");
    propagate(shared.as_fd(), MountPropagationFlags::SHARED);
}

/// Imports `busybox:latest` into a bare machine.
pub fn import(machine: &Machine) {
    let archive = machine.path("busybox.tar");
    fs::write(&archive, crate::common::busybox_archive()).expect("write");
    let import = ["image", "import", path(&archive), "busybox:latest"];
    machine.orlop(import).ok();
}

fn is_mount_point(place: &Path) -> bool {
    let place_file = File::open(place).expect("open");
    let entry = mount_table::entry_of(place_file.as_fd()).expect("the table");
    entry.expect("an entry").point == place
}

/// A container that sees the volume `v` at `/v` with this propagation.
fn seeing(name: &str, propagation: &str) -> Value {
    let mount = json!({"name": "v", "mountPath": "/v", "mountPropagation": propagation});
    let privileged = propagation == "Bidirectional";
    let fields = json!({"volumeMounts": [mount], "securityContext": {"privileged": privileged}});
    with(idle(name), &fields)
}

fn on_host_path(host: &Path, containers: &[Value]) -> String {
    let volume = json!({"name": "v", "hostPath": {"path": host, "type": "Directory"}});
    pod(&json!({"containers": containers, "volumes": [volume]}))
}

#[test]
fn mounts_in_a_hostpath_go_the_way_that_each_container_asks_for() {
    on_a_host_of_its_own(|| {
        let machine = Machine::new();
        let host = machine
            .directory
            .path()
            .canonicalize()
            .expect("a path")
            .join("host");
        share(&host);
        let containers = [
            seeing("none", "None"),
            seeing("takes", "HostToContainer"),
            seeing("gives", "Bidirectional"),
        ];
        machine.run_pod(&on_host_path(&host, &containers));
        let listed = |container: &str, directory: &str| {
            machine.sh("web", container, &format!("ls {directory} 2>&1"))
        };

        // From the host into the pod.
        mount_at(&host.join("late"));
        fs::write(host.join("late/file"), "").expect("write");
        assert_eq!(listed("takes", "/v/late"), "file\n");
        assert_eq!(listed("gives", "/v/late"), "file\n");
        assert_eq!(listed("none", "/v/late"), "");

        // From a container to the host and to its neighbour.
        let script = "mkdir /v/made && mount -t tmpfs made /v/made && touch /v/made/mine";
        machine.sh("web", "gives", script);
        assert_eq!(entries(&host.join("made")), ["mine"]);
        assert_eq!(listed("takes", "/v/made"), "mine\n");
        assert_eq!(listed("none", "/v/made"), "");
        assert!(is_mount_point(&host.join("made")));
        machine.sh("web", "gives", "umount /v/made");
        assert!(!is_mount_point(&host.join("made")));
        assert_eq!(listed("takes", "/v/made"), "");

        // Back from the host, and away again.
        rustix::mount::unmount(host.join("late"), UnmountFlags::empty()).expect("unmount");
        assert_eq!(listed("takes", "/v/late"), "");

        machine.orlop(["delete", "pod", "web", "--now"]).ok();
        rustix::mount::unmount(&host, UnmountFlags::empty()).expect("nobody holds it");
        machine.assert_nothing_is_left();
    });
}

#[test]
fn a_hostpath_beside_the_run_directory_is_shared_all_the_same() {
    on_a_host_of_its_own(|| {
        let machine = Machine::bare();
        // The run directory and the hostPath on one shared mount, as in /run.
        let place = machine.directory.path().canonicalize().expect("a path");
        share(&place);
        import(&machine);
        let host = place.join("host");
        fs::create_dir(&host).expect("mkdir");
        let containers = [seeing("gives", "Bidirectional")];
        machine.run_pod(&on_host_path(&host, &containers));
        let script = "mkdir /v/made && mount -t tmpfs made /v/made && touch /v/made/mine";
        machine.sh("web", "gives", script);
        assert_eq!(entries(&host.join("made")), ["mine"]);
        let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
        let inside: Vec<&str> = table
            .lines()
            .filter(|line| line.contains(path(&place)))
            .collect();
        assert_eq!(
            inside.len(),
            2,
            "its own mount and the container's: {inside:#?}"
        );
        machine.sh("web", "gives", "umount /v/made");
        assert!(!is_mount_point(&host.join("made")));
        machine.orlop(["delete", "pod", "web", "--now"]).ok();
        rustix::mount::unmount(&place, UnmountFlags::DETACH).expect("unmount");
    });
}

#[test]
fn a_mount_in_an_emptydir_shows_in_the_pod_and_nowhere_else() {
    let machine = Machine::new();
    machine.run_pod(SPEC);
    let name = "mount-propagation";
    assert_eq!(
        machine.sh(name, "reader", "cat /shared/disk/hello"),
        "hello\n"
    );
    let volumes = machine.roots.pod_data(&machine.uid(name)).join("volumes");
    let on_host = volumes.join("kubernetes.io~empty-dir/shared/disk");
    assert_eq!(
        entries(&on_host),
        [""; 0],
        "the host sees the mount point alone"
    );
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!table.contains(path(machine.directory.path())), "{table}");

    machine.sh(name, "mounter", "umount /shared/disk");
    assert_eq!(machine.sh(name, "reader", "ls /shared/disk"), "");
    machine.sh(name, "mounter", "mount -t tmpfs again /shared/disk");
    machine.orlop(["delete", "pod", name, "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_hostpath_that_shares_nothing_keeps_the_pod_waiting_with_the_reason() {
    on_a_host_of_its_own(|| {
        let machine = Machine::new();
        let host = machine
            .directory
            .path()
            .canonicalize()
            .expect("a path")
            .join("host");
        mount_at(&host);
        let containers = [seeing("c", "HostToContainer")];
        let manifest = on_host_path(&host, &containers);
        machine.orlop_with(["apply", "-f", "-"], &manifest).ok();
        let wanted = format!(
            "path {0:?} is mounted on {0:?} but it is not a shared or slave mount: mount --make-shared {0}",
            host.to_str().expect("text")
        );
        until(&machine, &["describe", "pod", "web"], |page| {
            page.contains("FailedMount") && page.contains(&wanted)
        });
        let shared = File::open(&host).expect("open");
        propagate(shared.as_fd(), MountPropagationFlags::SHARED);
        machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
        machine.orlop(["delete", "pod", "web", "--now"]).ok();
        rustix::mount::unmount(&host, UnmountFlags::DETACH).expect("unmount");
    });
}
