//! The systemd cgroup driver, with a real systemd: it is the first process of a PID
//! namespace, and has a mount namespace and a part of the control groups to itself.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use orlop::sys::cgroup::Cgroups;
use serde_json::{Value, json};

/// How long systemd may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
const SYSTEMD: &str = "/lib/systemd/systemd";
const SLICE: &str = "kubepods-burstable-pod1_2.slice";
const PLACE: &str =
    "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-box.scope";

/// Enters a group of its own, and starts systemd on it.
const BOOT: &str = r#"
exec unshare --pid --mount --uts --fork --kill-child --propagation private sh -ec '
    mkdir /sys/fs/cgroup/$GROUP
    echo 0 >/sys/fs/cgroup/$GROUP/cgroup.procs
    mount -t proc proc /proc
    mount -t tmpfs run /run
    mount --bind /sys/fs/cgroup/$GROUP /sys/fs/cgroup
    mkdir -p /run/systemd/system
    printf "[Unit]\nDescription=Nothing\n" >/run/systemd/system/nothing.target
    exec env -i container=test PATH=$PATH unshare --cgroup \
        $SYSTEMD --unit=nothing.target --log-target=console --log-level=warning
'
"#;

/// A running systemd.
struct Systemd {
    outside: Child,
    /// Its process id.
    pid: u32,
    group: String,
    dir: tempfile::TempDir,
}

impl Systemd {
    fn boot() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let group = format!("orlop-test-systemd-{}", std::process::id());
        let log = fs::File::create(dir.path().join("log")).expect("log");
        let outside = Command::new("sh")
            .args(["-c", BOOT])
            .env("GROUP", &group)
            .env("SYSTEMD", SYSTEMD)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .expect("sh");
        let mut systemd = Self {
            outside,
            pid: 0,
            group,
            dir,
        };
        let started = Instant::now();
        loop {
            let children = format!("/proc/{0}/task/{0}/children", systemd.outside.id());
            let child = fs::read_to_string(children).unwrap_or_default();
            systemd.pid = child.trim().parse().unwrap_or(0);
            let socket = format!("/proc/{}/root/run/systemd/private", systemd.pid);
            if systemd.pid != 0 && Path::new(&socket).exists() {
                return systemd;
            }
            let log = fs::read_to_string(systemd.dir.path().join("log")).expect("log");
            let ended = systemd.outside.try_wait().expect("wait");
            assert!(ended.is_none(), "it ended: {log}");
            assert!(
                started.elapsed() < PATIENCE,
                "systemd does not start: {log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a command beside it. What it starts may keep its streams.
    fn run(&self, command: &[&str]) -> Output {
        let streams = ["stdout", "stderr"].map(|name| self.dir.path().join(name));
        let [stdout, stderr] = streams
            .each_ref()
            .map(|path| fs::File::create(path).expect("log"));
        let status = Command::new("nsenter")
            .args(["-t", &self.pid.to_string(), "-m", "-p", "-C", "--"])
            .args(command)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .status()
            .expect("nsenter");
        let [stdout, stderr] = streams.map(|path| fs::read(path).expect("log"));
        Output {
            status,
            stdout,
            stderr,
        }
    }

    #[track_caller]
    fn ok(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).expect("utf-8")
    }

    fn property(&self, unit: &str, name: &str) -> String {
        let text = self.ok(&["systemctl", "show", "-P", name, unit]);
        text.trim_end().to_owned()
    }

    /// The group of the container, as this side sees it.
    fn group(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup").join(&self.group).join(PLACE)
    }

    #[track_caller]
    fn oci(&self, arguments: &[&str]) -> String {
        self.ok(&self
            .command(arguments)
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>())
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str]) -> String {
        let command = self.command(arguments);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let output = self.run(&command);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).expect("utf-8")
    }

    fn command(&self, arguments: &[&str]) -> Vec<String> {
        let records = self.dir.path().join("records");
        let records = records.to_str().expect("utf-8");
        let fixed = [
            env!("CARGO_BIN_EXE_orlop-oci"),
            "--root",
            records,
            "--systemd-cgroup",
        ];
        let all = fixed.into_iter().chain(arguments.iter().copied());
        all.map(str::to_owned).collect()
    }

    /// A bundle whose program is `args`, with this path and these resources of its
    /// control group. Returns its directory.
    fn bundle(&self, args: &[&str], group: &str, resources: Value) -> String {
        let bundle = self.dir.path().join("bundle");
        let bin = bundle.join("rootfs/bin");
        if !bin.exists() {
            for directory in ["bin", "proc"] {
                fs::create_dir_all(bundle.join("rootfs").join(directory)).expect("rootfs");
            }
            fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox-static is needed");
            for tool in ["cat", "sleep"] {
                symlink("busybox", bin.join(tool)).expect("symlink");
            }
        }
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "mount"}],
                "cgroupsPath": group,
                "resources": resources,
            },
        });
        fs::write(bundle.join("config.json"), config.to_string()).expect("config");
        bundle.to_str().expect("utf-8").to_owned()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // Its namespace ends with it, and every process there.
        let _ = self.outside.kill();
        let _ = self.outside.wait();
        let cgroups = Cgroups::detect().expect("cgroups");
        let group = format!("/{}", self.group);
        let deadline = Instant::now() + Duration::from_secs(20);
        let gone = cgroups
            .kill(&group, None, deadline)
            .and_then(|()| cgroups.remove(&group, deadline));
        if !std::thread::panicking() {
            gone.expect("remove the groups");
        }
    }
}

fn read(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.trim_end().to_owned()
}

#[test]
fn systemd_makes_the_group_of_a_container_and_keeps_its_limits() {
    if !Cgroups::detect().expect("cgroups").is_unified() {
        eprintln!("skipped: systemd's driver is for cgroup v2");
        return;
    }
    let systemd = Systemd::boot();
    let resources = json!({
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000},
        "memory": {"limit": 64 << 20},
        "pids": {"limit": 20},
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
    });
    let path = format!("{SLICE}:cri:box");
    let bundle = systemd.bundle(&["sleep", "1000"], &path, resources.clone());
    systemd.oci(&["create", "--bundle", &bundle, "box"]);
    systemd.oci(&["start", "box"]);

    // It is in a scope that systemd knows, and that is called what the caller said.
    let unit = "cri-box.scope";
    assert_eq!(systemd.property(unit, "ActiveState"), "active");
    assert_eq!(systemd.property(unit, "ControlGroup"), format!("/{PLACE}"));
    assert_eq!(systemd.property(unit, "Slice"), SLICE);
    assert_eq!(systemd.property(unit, "Delegate"), "yes");
    assert_eq!(systemd.property(unit, "TasksMax"), "20");
    assert_eq!(systemd.property(unit, "CPUQuotaPerSecUSec"), "500ms");
    let state: Value = serde_json::from_str(&systemd.oci(&["state", "box"])).expect("JSON");
    assert_eq!(state["status"], "running");
    let pid = state["pid"].to_string();
    let own = systemd.ok(&["cat", &format!("/proc/{pid}/cgroup")]);
    for line in own.lines() {
        assert!(line.ends_with(&format!(":/{PLACE}")), "{own}");
    }
    // Only it: who held its place has gone.
    let group = systemd.group();
    assert_eq!(read(&group.join("cgroup.procs")).lines().count(), 1);

    // Its limits are the kernel's, and stay when systemd writes them again.
    let limits =
        || ["memory.max", "cpu.weight", "cpu.max", "pids.max"].map(|file| read(&group.join(file)));
    assert_eq!(limits(), ["67108864", "59", "50000 100000", "20"]);
    systemd.ok(&["systemctl", "daemon-reload"]);
    systemd.ok(&[
        "systemctl",
        "set-property",
        "--runtime",
        unit,
        "TasksMax=30",
    ]);
    assert_eq!(limits(), ["67108864", "59", "50000 100000", "30"]);

    // A second container of that name is refused, and leaves the first alone.
    let refused = systemd.refused(&["create", "--bundle", &bundle, "other"]);
    assert!(
        refused.contains("systemd has a unit \"cri-box.scope\" already"),
        "{refused}"
    );
    let state: Value = serde_json::from_str(&systemd.oci(&["state", "box"])).expect("JSON");
    assert_eq!(state["status"], "running");

    systemd.oci(&["delete", "--force", "box"]);
    assert_eq!(systemd.property(unit, "LoadState"), "not-found");
    assert!(!group.exists());

    // The name is free again, also for a container that runs in the foreground.
    let bundle = systemd.bundle(&["cat", "/proc/self/cgroup"], &path, resources);
    let own = systemd.oci(&["run", "--bundle", &bundle, "box"]);
    assert!(
        own.lines().any(|line| line.ends_with(&format!("/{PLACE}"))),
        "{own}"
    );
    assert_eq!(systemd.property(unit, "LoadState"), "not-found");

    // What systemd does not take is said in its own words, and leaves nothing.
    let bundle = systemd.bundle(&["cat"], "a.slice:b:c+d", json!({}));
    let refused = systemd.refused(&["run", "--bundle", &bundle, "box"]);
    assert!(
        refused.contains("systemd does not start \"b-c+d.scope\": "),
        "{refused}"
    );
    let gone = systemd.refused(&["state", "box"]);
    assert!(gone.contains("does not exist"), "{gone}");
}

#[test]
fn a_pod_has_a_scope_of_systemds_for_as_long_as_it_is_there() {
    if !Cgroups::detect().expect("cgroups").is_unified() {
        eprintln!("skipped: systemd's driver is for cgroup v2");
        return;
    }
    let systemd = Systemd::boot();
    let at = |name: &str| {
        systemd
            .dir
            .path()
            .join(name)
            .to_str()
            .expect("utf-8")
            .to_owned()
    };
    let roots = ["data", "run", "logs"].map(at);
    let variables = ["ORLOP_ROOT", "ORLOP_RUN", "ORLOP_LOG_ROOT"];
    let environment: Vec<String> = variables
        .iter()
        .zip(&roots)
        .map(|(name, root)| format!("{name}={root}"))
        .collect();
    let orlop = |driver: &str, arguments: &[&str]| {
        let driver = format!("ORLOP_CGROUP_DRIVER={driver}");
        let mut command = vec!["env", &driver];
        command.extend(environment.iter().map(String::as_str));
        command.push(env!("CARGO_BIN_EXE_orlop"));
        command.extend(arguments);
        systemd.run(&command)
    };
    let ok = |driver: &str, arguments: &[&str]| {
        let output = orlop(driver, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("utf-8")
    };
    let wrong = orlop("docker", &["get", "pods"]);
    assert_eq!(
        String::from_utf8_lossy(&wrong.stderr),
        "error: ORLOP_CGROUP_DRIVER=\"docker\" is no cgroup driver: use \"cgroupfs\" or \"systemd\"\n"
    );

    let archive = at("busybox.tar");
    fs::write(&archive, common::busybox_archive()).expect("write the archive");
    ok(
        "",
        &["image", "import", &archive, "busybox:latest", "--cmd", "sh"],
    );
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/specs/resources.yaml");
    ok("systemd", &["apply", "--wait", "-f", manifest]);

    // systemd knows the pod, and leaves what is in its scope to orlop.
    let told = |pod: &str, what: &str| {
        let path = format!("jsonpath={{{what}}}");
        ok("systemd", &["get", "pod", pod, "-o", &path])
    };
    let uid = told("guaranteed", ".metadata.uid");
    let unit = format!("orlop-pod{uid}.scope");
    assert_eq!(systemd.property(&unit, "Delegate"), "yes");
    assert_eq!(systemd.property(&unit, "TasksMax"), "infinity");
    let group = systemd.property(&unit, "ControlGroup");
    let slice = systemd.property(&unit, "Slice");
    assert_eq!(group, format!("/orlop.slice/{slice}/{unit}"));
    let scope = Path::new("/sys/fs/cgroup").join(&systemd.group);
    let scope = scope.join(group.trim_start_matches('/'));
    let memory = || read(&scope.join("pod/memory.max"));
    assert_eq!(memory(), (96 << 20).to_string());
    systemd.ok(&["systemctl", "daemon-reload"]);
    assert_eq!(memory(), (96 << 20).to_string());
    assert!(scope.join("keeper").exists());
    assert!(read(&scope.join("cgroup.procs")).is_empty());

    // A pod whose keeper is killed comes back in a scope, also when the next command
    // has another idea: it does not touch what runs, and clears what does not.
    let keeper = format!("/sys/fs/cgroup{group}/keeper/cgroup.procs");
    systemd.ok(&["sh", "-c", &format!("kill -9 $(cat {keeper})")]);
    ok(
        "systemd",
        &[
            "wait",
            "--for=jsonpath={.status.containerStatuses[0].restartCount}=1",
            "pod/guaranteed",
        ],
    );
    assert_eq!(systemd.property(&unit, "ActiveState"), "active");
    assert_eq!(memory(), (96 << 20).to_string());
    let app = ok(
        "",
        &[
            "exec",
            "guaranteed",
            "-c",
            "app",
            "--",
            "cat",
            "/proc/self/cgroup",
        ],
    );
    assert!(app.starts_with("0::/"), "{app}");

    // All of it goes, whoever asks.
    ok("cgroupfs", &["delete", "--now", "-f", manifest]);
    let started = Instant::now();
    while systemd.property(&unit, "LoadState") != "not-found" || scope.exists() {
        assert!(started.elapsed() < PATIENCE, "the scope stays");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pods = fs::read_dir(Path::new(&roots[0]).join("pods")).expect("pods");
    assert_eq!(pods.count(), 0);
}

#[test]
fn a_group_for_systemd_is_refused_where_there_is_none() {
    if Path::new("/run/systemd/system").exists() {
        eprintln!("skipped: systemd runs this machine");
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let rootfs = dir.path().join("rootfs");
    fs::create_dir(&rootfs).expect("rootfs");
    let pods = Command::new(env!("CARGO_BIN_EXE_orlop"))
        .args(["get", "pods", "--root"])
        .arg(dir.path().join("data"))
        .arg("--run")
        .arg(dir.path().join("run"))
        .env("ORLOP_CGROUP_DRIVER", "systemd")
        .output()
        .expect("orlop");
    assert_eq!(pods.status.code(), Some(1), "{pods:?}");
    let said = String::from_utf8_lossy(&pods.stderr);
    assert!(
        said.contains("ORLOP_CGROUP_DRIVER=systemd "),
        "it says who asked for it: {said}"
    );
    assert!(!dir.path().join("data").exists());
    let call = |group: &str, option: &[&str]| {
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/"},
            "root": {"path": "rootfs"},
            "linux": {"namespaces": [{"type": "mount"}], "cgroupsPath": group},
        });
        fs::write(dir.path().join("config.json"), config.to_string()).expect("config");
        let output = Command::new(env!("CARGO_BIN_EXE_orlop-oci"))
            .arg("--root")
            .arg(dir.path().join("records"))
            .args(option)
            .args(["run", "--bundle"])
            .arg(dir.path())
            .arg("orlop-test-nobody")
            .output()
            .expect("orlop-oci");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let records = fs::read_dir(dir.path().join("records"));
        assert_eq!(records.map_or(0, |entries| entries.count()), 0);
        String::from_utf8(output.stderr).expect("utf-8")
    };
    let no_systemd = call("system.slice:orlop:x", &["--systemd-cgroup"]);
    assert!(
        no_systemd.contains("systemd does not run this machine (/run/systemd/system is missing)"),
        "{no_systemd}"
    );
    let no_option = call("system.slice:orlop:x", &[]);
    assert!(no_option.contains("add --systemd-cgroup"), "{no_option}");
    let no_scope = call("/a/b", &["--systemd-cgroup"]);
    assert!(no_scope.contains("write SLICE:PREFIX:NAME"), "{no_scope}");
}
