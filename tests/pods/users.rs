//! Pods with users of their own.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::process::Command;

use orlop::pod::home::Home;
use orlop::sys::cgroup::Cgroups;
use orlop::sys::pidfd;
use serde_json::{Value, json};

use crate::common::{Machine, path};
use crate::support::{idle, pod, status, until, with};

const SPEC: &str = include_str!("../../specs/user-namespace.yaml");

/// A file system whose files every kernel can show as other users': older ones lack
/// that for tmpfs.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        let disk = Self(tempfile::tempdir().expect("tempdir"));
        let image = disk.0.path().join("image");
        let file = fs::File::create(&image).expect("create");
        file.set_len(256 << 20).expect("size");
        fs::create_dir(disk.root()).expect("mkdir");
        disk.run("mke2fs", &["-q", "-t", "ext4", path(&image)]);
        disk.run("mount", &["-o", "loop", path(&image), path(&disk.root())]);
        disk
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let ended = Command::new(program).args(arguments).status();
        assert!(ended.is_ok_and(|status| status.success()), "{program}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let root = self.root();
        self.run("umount", &["-l", path(&root)]);
    }
}

/// A machine on such a disk; it goes before the disk does.
struct Ground {
    machine: Machine,
    _disk: Disk,
}

impl Ground {
    fn new() -> Self {
        let disk = Disk::new();
        Self {
            machine: Machine::bare_in(&disk.root()).with_busybox(),
            _disk: disk,
        }
    }

    fn apply(&self, spec: &Value) -> crate::common::Outcome {
        let file = self.machine.path("pod.yaml");
        fs::write(&file, pod(spec)).expect("write");
        self.machine
            .orlop(["apply".as_ref(), "-f".as_ref(), file.as_os_str()])
    }

    fn object(&self, object: &Value) {
        let arguments = ["apply", "-f", "-"];
        self.machine.orlop_with(arguments, &object.to_string()).ok();
    }
}

/// The machine's users that the processes of a pod are: the pod's 0, and how many.
fn users(machine: &Machine, pod: &str, container: &str) -> (u32, u32) {
    let map = machine.sh(pod, container, "cat /proc/self/uid_map");
    let numbers: Vec<u32> = map
        .split_whitespace()
        .map(|number| number.parse().expect("a number"))
        .collect();
    assert_eq!(numbers[0], 0);
    (numbers[1], numbers[2])
}

#[test]
fn root_of_a_pod_with_users_of_its_own_is_nobody_on_the_machine() {
    let ground = Ground::new();
    let machine = &ground.machine;
    machine.run_pod(SPEC);
    let app = |script: &str| machine.sh("user-namespace", "app", script);
    let (first, count) = users(machine, "user-namespace", "app");
    assert_eq!(count, 65_536);
    assert!(first >= 65_536, "{first}");

    // What it writes to a disk belongs to 0 there, the process is another.
    assert_eq!(app("id -u; stat -c '%u %g' /data/who"), "0\n0 0\n");
    let volumes = machine.roots.pod_data(&machine.uid("user-namespace"));
    let file = volumes.join("volumes/kubernetes.io~empty-dir/data/who");
    assert_eq!(fs::metadata(file).expect("status").uid(), 0);
    let stored = machine.pod("user-namespace");
    let id = status(&stored, "app")["containerID"]
        .as_str()
        .expect("an id");
    let home = Home::new(&machine.roots, &machine.uid("user-namespace"));
    let group = home.container_cgroup(id.trim_start_matches("orlop://"));
    let groups = Cgroups::detect().expect("cgroups");
    let processes = groups.processes(&group).expect("processes");
    assert!(!processes.is_empty());
    for process in processes {
        let owner = fs::metadata(format!("/proc/{process}"))
            .expect("status")
            .uid();
        assert_eq!(owner, first, "process {process}");
    }

    // All that a container has is its root's own.
    let seen = app("touch /memory/a /new /etc/hosts /dev/shm/a /dev/x && \
         for f in / /bin/sh /memory /memory/a /about/name /new /etc/hosts /etc/resolv.conf /dev /tmp; do \
         stat -Lc '%u %g %n' $f; done; cat /about/name; echo; echo out > /dev/stdout; echo x > /dev/null; chown 5 /new");
    for line in seen.lines().filter(|line| line.contains('/')) {
        assert!(line.starts_with("0 0 "), "{seen}");
    }
    assert!(seen.ends_with("user-namespace\nout\n"), "{seen}");
    // Files that are copied in are its user's own.
    let (source, copy) = (machine.path("source"), machine.path("copy"));
    fs::create_dir_all(source.join("deep")).expect("mkdir");
    fs::write(source.join("deep/file"), "copied").expect("write");
    for place in ["/data/copied", "/memory/copied", "/copied"] {
        let target = format!("user-namespace:{place}");
        machine.orlop(["cp", path(&source), &target]).ok();
        let seen = app(&format!(
            "cat {place}/deep/file; stat -c ' %u %g' {place} {place}/deep/file"
        ));
        assert_eq!(seen, "copied 0 0\n 0 0\n");
    }
    machine
        .orlop(["cp", "user-namespace:/data/who", path(&copy)])
        .ok();
    assert_eq!(fs::metadata(&copy).expect("a copy").uid(), 0);
    // And nothing of the machine's.
    let said = app(
        "echo 1 2>&1 > /proc/sys/kernel/printk; mount -t tmpfs x /tmp 2>&1; cat /proc/1/environ > /dev/null && echo fine",
    );
    assert!(said.ends_with("fine\n"), "{said}");
    assert!(
        said.contains("Read-only") && said.contains("ermission denied"),
        "{said}"
    );

    machine
        .orlop(["delete", "pod", "user-namespace", "--now"])
        .ok();
    machine.assert_nothing_is_left();
}

#[test]
fn every_kind_of_volume_shows_its_files_to_the_pods_users() {
    let ground = Ground::new();
    let machine = &ground.machine;
    let host = machine.path("host");
    fs::create_dir(&host).expect("mkdir");
    for (name, owner) in [("root", 0), ("user", 1000), ("far", 70_000)] {
        fs::write(host.join(name), "").expect("write");
        chown(host.join(name), Some(owner), Some(owner)).expect("chown");
    }
    ground.object(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"key": "old"}}));
    ground.object(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "x"}}));
    let kinds = [
        ("disk", json!({"emptyDir": {}})),
        ("limited", json!({"emptyDir": {"sizeLimit": "8Mi"}})),
        ("memory", json!({"emptyDir": {"medium": "Memory"}})),
        (
            "config",
            json!({"configMap": {"name": "c", "defaultMode": 0o400}}),
        ),
        (
            "secret",
            json!({"secret": {"secretName": "s", "defaultMode": 0o400}}),
        ),
        ("host", json!({"hostPath": {"path": host}})),
        ("image", json!({"image": {"reference": "busybox"}})),
    ];
    let volumes: Vec<Value> = kinds
        .iter()
        .map(|(name, kind)| with(kind.clone(), &json!({"name": name})))
        .collect();
    let mount = |name: &str| json!({"name": name, "mountPath": format!("/v/{name}")});
    let mut mounts: Vec<Value> = kinds.iter().map(|(name, _)| mount(name)).collect();
    for name in ["disk", "memory", "host"] {
        mounts
            .push(json!({"name": name, "mountPath": format!("/p/{name}"), "subPath": "deep/part"}));
    }
    let mounts = json!({"volumeMounts": mounts});
    let user = json!({"securityContext": {
        "runAsUser": 1000, "runAsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"},
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
    }, "workingDir": "/made/here"});
    let filtered = json!({"workingDir": "/v/disk/made/here", "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}});
    let spec = json!({
        "hostUsers": false,
        "shareProcessNamespace": true,
        "securityContext": {"fsGroup": 2000, "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]},
        "containers": [with(with(idle("root"), &mounts), &filtered), with(with(idle("user"), &mounts), &user)],
        "volumes": volumes,
    });
    ground.apply(&spec).ok();
    let ready = |pod: &Value| {
        ["root", "user"]
            .iter()
            .all(|name| status(pod, name)["ready"] == true)
    };
    machine.wait_for("web", ready);
    let root = |script: &str| machine.sh("web", "root", script);
    let user = |script: &str| machine.sh("web", "user", script);

    for (path, want) in [
        ("/v/disk", "2777 0 2000"),
        ("/v/limited", "2777 0 2000"),
        ("/v/memory", "2777 0 2000"),
        ("/v/config/key", "440 0 2000"),
        ("/v/secret/key", "440 0 2000"),
        ("/v/host/root", "644 0 0"),
        ("/v/host/user", "644 1000 1000"),
        ("/v/host/far", "644 65534 65534"),
        ("/v/image/bin/busybox", "755 0 0"),
        ("/p/disk", "2777 0 2000"),
        ("/p/memory", "2777 0 2000"),
        ("/p/host", "755 0 0"),
        // Made as working directories of the containers.
        ("/v/disk/made/here", "2755 0 2000"),
    ] {
        let seen = root(&format!("stat -Lc '%a %u %g' {path}"));
        assert_eq!(seen.trim_end(), want, "{path}");
    }
    assert_eq!(user("pwd; stat -c '%u %g' ."), "/made/here\n0 0\n");
    // Everybody writes as themselves, there and on the machine's disk.
    root(
        "for d in /v/disk /v/limited /v/memory /v/host /p/disk /p/memory /p/host; do echo hi > $d/by-root; done",
    );
    assert_eq!(
        user("echo hi > /v/disk/own; cat /v/secret/key; echo hi > /v/host/user; stat -c '%u %g' /v/disk/own; touch /v/host/new 2>/dev/null; true"
            ).as_str(),
        "x1000 2000\n",
    );
    let on_disk = fs::metadata(host.join("by-root")).expect("status");
    assert_eq!((on_disk.uid(), on_disk.gid()), (0, 0));
    let made = fs::metadata(host.join("deep/part")).expect("status");
    assert_eq!((made.uid(), made.gid()), (0, 0));
    assert_eq!(fs::read_to_string(host.join("user")).expect("read"), "hi\n");

    // The pod's root is the pod's, and has its capabilities over what is the pod's.
    let status_of = |process: &str| {
        format!("sed -n 's/^\\(Uid\\|NoNewPrivs\\|Seccomp\\):.//p' /proc/{process}/status")
    };
    assert_eq!(root(&status_of("self")), "0\t0\t0\t0\n0\n2\n");
    assert_eq!(user(&status_of("self")), "1000\t1000\t1000\t1000\n1\n2\n");
    assert_eq!(
        root("stat -c %u /proc/1; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"),
        "0\n80\n"
    );

    ground.object(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"key": "new"}}));
    let read = ["exec", "web", "-c", "user", "--", "cat", "/v/config/key"];
    until(machine, &read, |key| key == "new");

    // All is there after a restart, of the container and of the whole sandbox.
    let (first, _) = users(machine, "web", "root");
    let id = status(&machine.pod("web"), "root")["containerID"].to_string();
    let id = id.trim_matches('"').trim_start_matches("orlop://");
    let home = Home::new(&machine.roots, &machine.uid("web"));
    let groups = Cgroups::detect().expect("cgroups");
    let processes = groups.processes(&home.container_cgroup(id));
    let main = *processes.expect("processes").first().expect("one");
    pidfd::send_signal(pidfd::open(main).expect("pidfd"), 9).expect("killed");
    machine.wait_for("web", |pod| {
        ready(pod) && status(pod, "root")["restartCount"] == 1
    });
    assert_eq!(root("cat /v/disk/by-root /v/memory/by-root"), "hi\nhi\n");
    for keeper in machine.keepers() {
        // A launcher may have gone with its keeper.
        if let Ok(process) = pidfd::open(keeper) {
            let _ = pidfd::send_signal(&process, 9);
        }
    }
    machine.orlop(["reconcile"]).ok();
    machine.wait_for("web", |pod| {
        ready(pod) && status(pod, "root")["restartCount"] == 2
    });
    assert_eq!(users(machine, "web", "user").0, first);
    assert_eq!(
        root("cat /v/disk/by-root /v/config/key; stat -c '%u %g' /v/disk/own"),
        "hi\nnew1000 2000\n"
    );
}

#[test]
fn pods_have_different_users_and_privileges_end_at_the_pods_border() {
    let ground = Ground::new();
    let machine = &ground.machine;
    let named = |name: &str| {
        let context = json!({"securityContext": {"privileged": true, "procMount": "Unmasked"}});
        let spec = json!({"hostUsers": false, "containers": [with(idle("c"), &context)]});
        let metadata = json!({"name": name});
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string()
    };
    machine.run_pod(&named("one"));
    machine.run_pod(&named("other"));
    let (one, other) = (users(machine, "one", "c"), users(machine, "other", "c"));
    assert_eq!(one.0.abs_diff(other.0), 65_536);
    let sh = |script: &str| machine.sh("one", "c", script);
    // It may do to itself what it likes.
    let own = "mkdir /m && mount -t tmpfs x /m && touch /m/a && hostname renamed && hostname; \
               ip link add dummy0 type dummy 2>/dev/null; ip addr add 10.9.9.9/32 dev lo && echo fine";
    assert_eq!(sh(own), "renamed\nfine\n");
    // Its /proc is whole (privileged, or `Unmasked`).
    assert_eq!(sh("grep -c ' /proc/' /proc/self/mountinfo; true"), "0\n");
    // And nothing to the machine.
    let said = sh("mknod /d b 1 0 2>&1; echo 7 2>&1 > /proc/sys/vm/swappiness; true");
    assert!(
        said.contains("mknod: /d: Operation not permitted"),
        "{said}"
    );
    assert_eq!(said.matches("ermission denied").count(), 1, "{said}");
}

#[test]
fn what_cannot_go_with_users_of_its_own_says_so() {
    let ground = Ground::new();
    let spec = |fields: Value| {
        with(
            json!({"hostUsers": false, "containers": [idle("c")]}),
            &fields,
        )
    };
    let unmasked = json!({"securityContext": {"procMount": "Unmasked"}});
    for (spec, why) in [
        (
            spec(json!({"hostNetwork": true})),
            "spec.hostNetwork: Forbidden: when `hostUsers` is false",
        ),
        (
            spec(json!({"hostPID": true})),
            "spec.hostPID: Forbidden: when `hostUsers` is false",
        ),
        (
            spec(json!({"hostIPC": true})),
            "spec.hostIPC: Forbidden: when `hostUsers` is false",
        ),
        (
            json!({"containers": [with(idle("c"), &unmasked)]}),
            "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
        ),
    ] {
        let said = ground.apply(&spec).refused();
        assert!(said.contains(why), "{said}");
    }

    let machine = &ground.machine;
    ground
        .apply(&spec(json!({"securityContext": {"runAsUser": 70_000}})))
        .ok();
    machine.wait_for("web", |pod| {
        let waiting = &status(pod, "c")["state"]["waiting"];
        let message = waiting["message"].as_str().unwrap_or_default();
        waiting["reason"] == "CreateContainerConfigError"
            && message.contains("user or group 70000 is not among the pod's own")
    });
    machine.orlop(["delete", "pod", "web", "--now"]).ok();

    let volume = json!([{"name": "kernel", "hostPath": {"path": "/proc/sys"}}]);
    ground.apply(&spec(json!({"volumes": volume}))).ok();
    let why = "cannot show volume \"kernel\" to the pod's users: this kernel cannot mount a file system of type \"proc\" with the users of a pod";
    until(machine, &["describe", "pod", "web"], |page| {
        page.contains(why)
    });
    assert_eq!(machine.pod("web")["status"]["phase"], "Pending");
}
