//! `orlop-oci` as its callers see it: real containers from a busybox root file
//! system, real control groups, exit codes and messages.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything here may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// A bundle and a state root of a test's own; whatever lives in them dies with
/// them.
struct Ground {
    dir: tempfile::TempDir,
    id: String,
}

impl Ground {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let root = dir.path().join("bundle/rootfs");
        for directory in ["bin", "proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir_all(root.join(directory)).expect("rootfs");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is needed");
        for tool in [
            "cat", "echo", "false", "id", "kill", "ls", "pwd", "sh", "sleep", "stat", "touch",
            "true",
        ] {
            symlink("busybox", root.join("bin").join(tool)).expect("symlink");
        }
        Self {
            dir,
            id: format!("test-{name}-{}", std::process::id()),
        }
    }

    fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    fn records(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    /// Writes a configuration that runs `args`, after `change` had its way.
    fn configure(&self, args: &[&str], change: impl FnOnce(&mut Value)) -> &Self {
        let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
        let capabilities = ["CAP_KILL", "CAP_CHOWN", "CAP_NET_BIND_SERVICE"];
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/bin", "GREETING=hello"],
                "cwd": "/",
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                },
                "noNewPrivileges": true,
            },
            "root": {"path": "rootfs"},
            "hostname": "box",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "noexec", "nodev"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]},
            ],
            "linux": {
                "namespaces": kinds.map(|kind| json!({"type": kind})),
                "maskedPaths": ["/proc/kcore", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys"],
            },
        });
        change(&mut config);
        fs::write(self.bundle().join("config.json"), config.to_string()).expect("config");
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orlop-oci"));
        command.arg("--root").arg(self.records()).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Calls `orlop-oci` and waits for it, but not for ever.
    fn call(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().expect("orlop-oci"))
    }

    /// The same with streams that a container may keep open.
    fn call_detached(&self, arguments: &[&str]) -> i32 {
        let log = File::create(self.dir.path().join("log")).expect("log");
        let mut command = self.command(arguments);
        command.stdout(log.try_clone().expect("dup")).stderr(log);
        status(&mut command.spawn().expect("orlop-oci"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("log")
    }

    fn run(&self) -> Output {
        self.call(&["run", "--bundle", text(&self.bundle()), &self.id])
    }

    fn state(&self) -> Value {
        let output = self.call(&["state", &self.id]);
        assert!(output.status.success(), "{}", errors(&output));
        serde_json::from_slice(&output.stdout).expect("state is JSON")
    }

    fn wait_for_status(&self, wanted: &str) {
        let started = Instant::now();
        while self.state()["status"] != wanted {
            assert!(started.elapsed() < PATIENCE, "never {wanted}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn assert_no_traces(&self) {
        let traces = self.traces();
        assert!(traces.is_empty(), "left behind: {traces:?}");
    }

    /// Everything on the machine that bears this container's name.
    fn traces(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut look = vec![PathBuf::from("/sys/fs/cgroup"), self.records()];
        while let Some(directory) = look.pop() {
            // The records' directory is there only once there was a container.
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_name().to_string_lossy().contains(&self.id) {
                    found.push(path);
                } else if look.len() < 64 && directory == Path::new("/sys/fs/cgroup") {
                    look.push(path);
                }
            }
        }
        found
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", &self.id]).output();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn status(child: &mut Child) -> i32 {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return status.code().expect("orlop-oci was killed");
        }
        if started.elapsed() > PATIENCE {
            child.kill().expect("kill");
            child.wait().expect("wait");
            panic!("orlop-oci hangs");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn finish(mut child: Child) -> Output {
    let code = status(&mut child);
    let mut output = child.wait_with_output().expect("output");
    output.status = std::os::unix::process::ExitStatusExt::from_raw(code << 8);
    output
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_container_has_its_own_world_and_leaves_nothing_behind() {
    let ground = Ground::new("world");
    let script = "echo $$; echo $GREETING; cat /proc/sys/kernel/hostname; cat /proc/self/cgroup | grep -v ':/$'; \
                  ls /proc/self/fd | cat; (echo x > /proc/sys/kernel/hostname) 2>&1; cat /proc/kcore | wc -c 2>/dev/null; exit 7";
    ground.configure(&["/bin/sh", "-c", script], |_| {});
    let output = ground.run();
    assert_eq!(output.status.code(), Some(7), "{}", errors(&output));
    let lines = lines(&output);
    assert_eq!(lines[..3], ["1", "hello", "box"]);
    // Its own streams, and the directory that ls reads: nothing of the host's.
    assert_eq!(lines[3..7], ["0", "1", "2", "3"]);
    assert!(lines[7].contains("Read-only file system"), "{lines:?}");
    ground.assert_no_traces();
}

#[test]
fn run_ends_with_the_status_of_the_program_or_128_plus_its_signal() {
    let ground = Ground::new("status");
    for (script, code) in [("true", 0), ("exit 42", 42)] {
        ground.configure(&["sh", "-c", script], |_| {});
        assert_eq!(ground.run().status.code(), Some(code), "{script}");
    }
    // A process 1 is immune to its own signals: let the host send it.
    ground.configure(&["sleep", "100"], |_| {});
    let bundle = ground.bundle();
    let mut run = ground.command(&["run", "-b", text(&bundle), &ground.id]);
    let mut run = run.spawn().expect("orlop-oci");
    let started = Instant::now();
    while !ground.call(&["state", &ground.id]).status.success() {
        assert!(started.elapsed() < PATIENCE);
    }
    ground.wait_for_status("running");
    assert!(ground.call(&["kill", &ground.id, "KILL"]).status.success());
    assert_eq!(status(&mut run), 137);
    ground.assert_no_traces();
}

#[test]
fn run_passes_signals_on_to_the_program() {
    let ground = Ground::new("signals");
    let script = "trap 'exit 33' TERM; echo ready; while :; do sleep 0.01; done";
    ground.configure(&["sh", "-c", script], |_| {});
    let bundle = ground.bundle();
    let mut run = ground.command(&["run", "-b", text(&bundle), &ground.id]);
    let mut run = run.stdout(Stdio::piped()).spawn().expect("orlop-oci");
    let mut ready = [0; 6];
    let stdout = run.stdout.as_mut().expect("stdout");
    stdout.read_exact(&mut ready).expect("ready");
    let pid = run.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill")
            .success()
    );
    assert_eq!(status(&mut run), 33);
}

#[test]
fn a_program_that_ends_at_once_is_always_noticed() {
    let ground = Ground::new("quick");
    ground.configure(&["true"], |_| {});
    for _ in 0..50 {
        assert_eq!(ground.run().status.code(), Some(0));
    }
    ground.assert_no_traces();
}

#[test]
fn create_start_kill_delete_go_through_the_states_in_order() {
    let ground = Ground::new("life");
    ground.configure(
        &["sh", "-c", "echo started > /tmp/proof; sleep 100"],
        |config| {
            config["annotations"] = json!({"org.example": "x"});
        },
    );
    let pid_file = ground.dir.path().join("pid");
    let bundle = ground.bundle();
    let create = [
        "create",
        "--bundle",
        text(&bundle),
        "--pid-file",
        text(&pid_file),
        &ground.id,
    ];
    assert_eq!(ground.call_detached(&create), 0, "{}", ground.log());

    let state = ground.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["ociVersion"], "1.0.2");
    assert_eq!(state["bundle"], text(&bundle));
    assert_eq!(state["annotations"]["org.example"], "x");
    assert_eq!(
        state["pid"].to_string(),
        fs::read_to_string(&pid_file).expect("pid")
    );
    assert!(
        !ground.rootfs().join("tmp/proof").exists(),
        "ran before its start"
    );
    assert_eq!(ground.call_detached(&create), 1, "the id is taken");
    assert!(ground.log().contains("already exists"));

    assert!(ground.call(&["start", &ground.id]).status.success());
    ground.wait_for_status("running");
    let again = ground.call(&["start", &ground.id]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        errors(&again).contains("cannot start container"),
        "{}",
        errors(&again)
    );
    let running = ground.call(&["delete", &ground.id]);
    assert_eq!(running.status.code(), Some(1), "deleted while it runs");

    assert!(ground.call(&["kill", &ground.id, "9"]).status.success());
    ground.wait_for_status("stopped");
    assert_eq!(ground.state()["pid"], 0);
    let dead = ground.call(&["kill", &ground.id, "SIGTERM"]);
    assert_eq!(
        (
            dead.status.code(),
            errors(&dead).contains("container not running")
        ),
        (Some(1), true)
    );
    assert!(ground.call(&["delete", &ground.id]).status.success());
    assert!(ground.rootfs().join("tmp/proof").exists());
    ground.assert_no_traces();
}

#[test]
fn an_unknown_container_does_not_exist_and_deleting_it_by_force_is_fine() {
    let ground = Ground::new("unknown");
    for verb in ["state", "start", "kill", "delete"] {
        let output = ground.call(&[verb, "nobody"]);
        assert_eq!(output.status.code(), Some(1), "{verb}");
        assert!(
            errors(&output).contains("does not exist"),
            "{}",
            errors(&output)
        );
    }
    assert!(
        ground
            .call(&["delete", "--force", "nobody"])
            .status
            .success()
    );
}

#[test]
fn delete_by_force_ends_a_running_container_with_all_its_processes() {
    let ground = Ground::new("force");
    ground.configure(&["sh", "-c", "sleep 1000 & sleep 1000 & wait"], |config| {
        // Without its own PID namespace nothing dies with its init.
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("array");
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    let bundle = ground.bundle();
    assert_eq!(
        ground.call_detached(&["run", "-d", "-b", text(&bundle), &ground.id]),
        0
    );
    let started = Instant::now();
    assert!(ground.call(&["delete", "-f", &ground.id]).status.success());
    assert!(started.elapsed() < Duration::from_secs(5));
    ground.assert_no_traces();
}

#[test]
fn what_cannot_be_run_is_said_in_the_words_that_callers_look_for() {
    let ground = Ground::new("cannot");
    fs::write(ground.rootfs().join("bin/plain"), "x").expect("write");
    let bad = ground.rootfs().join("bin/bad");
    fs::write(&bad, "not a program").expect("write");
    fs::set_permissions(&bad, fs::Permissions::from_mode(0o755)).expect("chmod");
    for (program, message) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        (
            "/bin/nope",
            "exec: \"/bin/nope\": no such file or directory",
        ),
        ("/bin/plain", "exec: \"/bin/plain\": permission denied"),
        ("/bin", "exec: \"/bin\": is a directory"),
        ("bad", "exec: \"bad\": exec format error"),
    ] {
        ground.configure(&[program], |_| {});
        let output = ground.run();
        assert_eq!(output.status.code(), Some(1), "{program}");
        assert_eq!(errors(&output), format!("orlop-oci: {message}\n"));
        ground.assert_no_traces();
    }
}

#[test]
fn a_bad_configuration_is_refused_in_one_sentence_before_anything_is_made() {
    let ground = Ground::new("bad");
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 6] = [
        ("field \"process.user.uid\": invalid type", |c| {
            c["process"]["user"]["uid"] = "x".into()
        }),
        (
            "mount source \"/no/such\" for \"/data\": no such file or directory",
            |c| {
                c["mounts"].as_array_mut().expect("array").push(json!(
                {"destination": "/data", "type": "bind", "source": "/no/such", "options": ["bind"]}
            ));
            },
        ),
        ("linux.seccomp.listenerPath is not supported", |c| {
            c["linux"]["seccomp"] =
                json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s"});
        }),
        ("field \"root.path\":", |c| {
            c["root"]["path"] = "nowhere".into()
        }),
        ("the pids cgroup controller", |c| {
            c["linux"]["resources"] = json!({"unified": {"pids.none": "1"}});
        }),
        ("cgroupsPath", |c| {
            c["linux"]["cgroupsPath"] = "a.slice:b:c".into()
        }),
    ];
    for (message, change) in cases {
        ground.configure(&["true"], change);
        let output = ground.run();
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        let version_1 = text.contains("unified needs cgroup version 2");
        assert!(text.contains(message) || version_1, "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        ground.assert_no_traces();
    }
}

#[test]
fn the_log_file_carries_the_error_as_json() {
    let ground = Ground::new("log");
    ground.configure(&["nope"], |_| {});
    let (log, bundle) = (ground.dir.path().join("log.json"), ground.bundle());
    let output = ground.call(&[
        "--log",
        text(&log),
        "--log-format",
        "json",
        "run",
        "--bundle",
        text(&bundle),
        &ground.id,
    ]);
    assert_eq!(output.status.code(), Some(1));
    let line: Value =
        serde_json::from_str(&fs::read_to_string(&log).expect("log")).expect("one object");
    assert_eq!(line["level"], "error");
    assert_eq!(
        line["msg"],
        "exec: \"nope\": executable file not found in $PATH"
    );
}

#[test]
fn the_program_runs_as_the_user_with_no_groups_and_capabilities_of_the_caller() {
    let ground = Ground::new("user");
    let script = "id; grep -E 'CapEff|CapBnd|CapInh|NoNewPrivs' /proc/self/status; pwd; echo ok > /dev/stdout";
    symlink("busybox", ground.rootfs().join("bin/grep")).expect("symlink");
    ground.configure(&["sh", "-c", script], |config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["cwd"] = "/srv/made/for/it".into();
    });
    let output = ground.run();
    let lines = lines(&output);
    assert_eq!(lines[0], "uid=1000 gid=1000", "{}", errors(&output));
    assert_eq!(
        lines[1..],
        [
            "CapInh:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000421",
            "NoNewPrivs:\t1",
            "/srv/made/for/it",
            "ok",
        ]
    );
}

#[test]
fn limits_are_in_the_containers_own_control_group() {
    let ground = Ground::new("limits");
    let script = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; \
                  cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; \
                  for file in /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max; do \
                  if [ -e $file ]; then echo 1 > $file; exit; fi; done";
    ground.configure(&["sh", "-c", script], |config| {
        config["linux"]["resources"] = json!({
            "memory": {"limit": 67108864}, "pids": {"limit": 20},
        });
    });
    let output = ground.run();
    let missing = errors(&output).contains("cgroup controller is not available");
    if missing {
        eprintln!("skipped: {}", errors(&output));
        return;
    }
    assert_eq!(lines(&output), ["67108864", "20"], "{}", errors(&output));
    assert_ne!(
        output.status.code(),
        Some(0),
        "the container changed its own limit"
    );
}

#[test]
fn devices_that_are_not_allowed_cannot_be_opened() {
    let ground = Ground::new("devices");
    symlink("busybox", ground.rootfs().join("bin/mknod")).expect("symlink");
    // 1:1 is /dev/mem, 1:11 the kernel's log, 1:5 /dev/zero.
    let script = "mknod /tmp/log c 1 11; mknod /tmp/zero c 1 5; cat /tmp/log >/dev/null && echo open; \
                  : < /tmp/zero && echo zero; echo x > /dev/null && echo null";
    ground.configure(&["sh", "-c", script], |config| {
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_MKNOD", "CAP_SYSLOG"]);
        }
        config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    });
    let output = ground.run();
    if errors(&output).contains("cannot restrict the container's devices") {
        eprintln!("skipped: {}", errors(&output));
        return;
    }
    assert_eq!(lines(&output), ["zero", "null"], "{}", errors(&output));
    assert!(
        errors(&output).contains("'/tmp/log': Operation not permitted"),
        "{}",
        errors(&output)
    );
}

#[test]
fn exec_joins_the_containers_world_and_ends_with_the_programs_status() {
    let ground = Ground::new("exec");
    ground.configure(&["sleep", "1000"], |config| {
        config["linux"]["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    });
    let bundle = ground.bundle();
    let started = ground.call_detached(&["run", "-d", "-b", text(&bundle), &ground.id]);
    assert_eq!(started, 0, "{}", ground.log());
    let exec = |options: &[&str], program: &[&str]| {
        let id = [ground.id.as_str()];
        ground.call(&[&["exec"], options, &id, program].concat())
    };
    let script = "cat /proc/sys/kernel/hostname; cat /proc/1/cmdline; echo; cat /proc/self/cgroup | cat; \
                  echo $GREETING $EXTRA $HOME; id; pwd; exit 42";
    let output = exec(
        &["-e", "EXTRA=x", "--cwd", "/tmp", "-u", "7:8"],
        &["sh", "-c", script],
    );
    let lines = lines(&output);
    assert_eq!(output.status.code(), Some(42), "{}", errors(&output));
    assert_eq!(lines[..2], ["box", "sleep\u{0}1000\u{0}"]);
    let end = lines.len() - 3;
    assert_eq!(lines[end..], ["hello x /", "uid=7 gid=8", "/tmp"]);
    for group in &lines[2..end] {
        // The hybrid machines' extra hierarchy is not used.
        assert!(group.ends_with(":/") || group.starts_with("0::"), "{group}");
    }
    let missing = exec(&[], &["nope"]);
    assert_eq!(
        errors(&missing),
        "orlop-oci: exec: \"nope\": executable file not found in $PATH\n"
    );
    let quick = Instant::now();
    for _ in 0..20 {
        assert_eq!(exec(&[], &["true"]).status.code(), Some(0));
    }
    assert!(quick.elapsed() < PATIENCE);
    assert!(ground.call(&["kill", &ground.id, "KILL"]).status.success());
    ground.wait_for_status("stopped");
    assert!(errors(&exec(&[], &["true"])).contains("container not running"));
}

#[test]
fn hooks_run_in_their_places_with_the_state_on_standard_input() {
    let ground = Ground::new("hooks");
    let trace = ground.dir.path().join("trace");
    let hook = |name: &str| {
        let script = format!(
            "printf '{name} ' >> {0}; cat >> {0}; echo >> {0}",
            trace.display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    ground.configure(&["true"], |config| {
        config["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
            "poststart": hook("poststart"), "poststop": hook("poststop"),
        });
    });
    let output = ground.run();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let text = fs::read_to_string(&trace).expect("trace");
    let seen: Vec<(&str, Value)> = text
        .lines()
        .map(|line| line.split_once(' ').expect("name"))
        .map(|(name, state)| (name, serde_json::from_str(state).expect("state")))
        .collect();
    let names: Vec<&str> = seen.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        ["prestart", "createRuntime", "poststart", "poststop"]
    );
    for (name, state) in &seen {
        assert_eq!(state["id"], ground.id.as_str(), "{name}");
        assert!(state["pid"].as_i64().is_some_and(|pid| pid > 1), "{name}");
    }
}

#[test]
fn a_failed_hook_takes_the_container_back() {
    let ground = Ground::new("hookfail");
    for (name, message) in [
        ("prestart", "prestart hook failed"),
        ("createRuntime", "createRuntime hook failed"),
        ("poststart", "poststart hook failed"),
    ] {
        ground.configure(&["sleep", "100"], |config| {
            config["hooks"] = json!({name: [{"path": "/bin/false"}]});
        });
        let output = ground.run();
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(errors(&output).contains(message), "{}", errors(&output));
        ground.assert_no_traces();
    }
}

#[test]
fn preserved_descriptors_reach_the_program_and_no_others() {
    let ground = Ground::new("fds");
    ground.configure(&["sh", "-c", "cat <&3; ls /proc/self/fd | cat"], |_| {});
    let file = ground.dir.path().join("three");
    fs::write(&file, "from outside\n").expect("write");
    let script = format!(
        "exec {} --root {} run --preserve-fds 1 -b {} {} 3<{} 4</dev/zero",
        env!("CARGO_BIN_EXE_orlop-oci"),
        ground.records().display(),
        ground.bundle().display(),
        ground.id,
        file.display(),
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::null());
    let output = finish(
        shell
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh"),
    );
    assert_eq!(lines(&output)[0], "from outside", "{}", errors(&output));
    assert_eq!(
        lines(&output)[1..],
        ["0", "1", "2", "3", "4"],
        "4 is the directory itself"
    );
}

#[test]
fn a_terminals_master_arrives_on_the_console_socket() {
    let ground = Ground::new("console");
    let script = "test -t 0 && test -t 1 && echo terminal $(stat -c %t:%T /dev/console); read line; echo got $line";
    symlink("busybox", ground.rootfs().join("bin/test")).expect("symlink");
    ground.configure(&["sh", "-c", script], |config| {
        config["process"]["terminal"] = true.into()
    });
    let refused = ground.run();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        errors(&refused).contains("--console-socket"),
        "{}",
        errors(&refused)
    );

    // Engines use paths that are longer than an address can hold.
    let deep = ground.dir.path().join("d".repeat(100));
    fs::create_dir(&deep).expect("directory");
    let here = File::open(&deep).expect("directory");
    let short = format!("/proc/self/fd/{}/s", std::os::fd::AsRawFd::as_raw_fd(&here));
    let listener = std::os::unix::net::UnixListener::bind(short).expect("bind");
    let (bundle, socket) = (ground.bundle(), deep.join("s"));
    let run = [
        "run",
        "-d",
        "-b",
        text(&bundle),
        "--console-socket",
        text(&socket),
        &ground.id,
    ];
    assert_eq!(ground.call_detached(&run), 0, "{}", ground.log());
    let (connection, _) = listener.accept().expect("accept");
    let mut master = receive_descriptor(&connection);
    master.write_all(b"hello\n").expect("write");
    let mut seen = String::new();
    let mut buffer = [0; 256];
    while !seen.contains("got hello") {
        let count = master.read(&mut buffer).expect("the terminal closed early");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(seen.contains("terminal 88:0"), "{seen:?}");
}

fn receive_descriptor(connection: &std::os::unix::net::UnixStream) -> File {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 128];
    let mut parts = [std::io::IoSliceMut::new(&mut name)];
    recvmsg(
        connection,
        &mut parts,
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .expect("recvmsg");
    let mut messages = control.drain();
    match messages.next() {
        Some(RecvAncillaryMessage::ScmRights(mut fds)) => File::from(fds.next().expect("one")),
        _ => panic!("no descriptor came"),
    }
}

#[test]
fn a_created_container_holds_nothing_of_its_callers_open() {
    let ground = Ground::new("held");
    ground.configure(&["true"], |_| {});
    let bundle = ground.bundle();
    let (reader, writer) = std::io::pipe().expect("pipe");
    let script = format!(
        "exec {} --root {} create -b {} {} 7>&0 </dev/null >/dev/null 2>&1",
        env!("CARGO_BIN_EXE_orlop-oci"),
        ground.records().display(),
        bundle.display(),
        ground.id,
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(writer);
    let mut create = shell.spawn().expect("sh");
    drop(shell);
    assert_eq!(status(&mut create), 0);
    let mut reader = reader;
    // With a copy left in the container this would wait for its start.
    assert_eq!(reader.read(&mut [0]).expect("read"), 0);
    assert_eq!(ground.state()["status"], "created");
}

#[test]
fn a_root_with_hostile_links_is_never_left() {
    let ground = Ground::new("links");
    let victim = ground.dir.path().join("victim");
    fs::create_dir(&victim).expect("victim");
    for name in ["proc", "dev", "sys"] {
        let path = ground.rootfs().join(name);
        fs::remove_dir(&path).expect("remove");
        symlink(&victim, &path).expect("symlink");
        ground.configure(&["true"], |_| {});
        let output = ground.run();
        let untouched = fs::read_dir(&victim).expect("victim").count() == 0;
        assert!(untouched, "{name}: {:?}", errors(&output));
        fs::remove_file(&path).expect("remove");
        fs::create_dir(&path).expect("directory");
    }
    ground.assert_no_traces();
}

#[test]
fn a_new_user_namespace_maps_its_root_to_another_user() {
    let ground = Ground::new("userns");
    std::os::unix::fs::chown(ground.rootfs().join("tmp"), Some(100_000), Some(100_000))
        .expect("chown");
    ground.configure(
        &["sh", "-c", "id; cat /proc/self/uid_map; touch /tmp/mine"],
        |config| {
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("array");
            namespaces.push(json!({"type": "user"}));
        },
    );
    let output = ground.run();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(lines(&output)[0], "uid=0 gid=0");
    let owner = fs::metadata(ground.rootfs().join("tmp/mine"))
        .expect("file")
        .uid();
    assert_eq!(owner, 100_000);
}

/// A process in a user namespace whose root is the machine's 100000; it ends with the
/// test.
struct Users(Child);

impl Users {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--user", "cat"]).stdin(Stdio::piped());
        let users = Self(command.spawn().expect("unshare is needed"));
        let own = fs::read_link("/proc/self/ns/user").expect("link");
        let start = Instant::now();
        while fs::read_link(users.path("ns/user")).expect("link") == own {
            assert!(start.elapsed() < PATIENCE, "never left its user namespace");
            std::thread::sleep(Duration::from_millis(1));
        }
        for map in ["uid_map", "gid_map"] {
            fs::write(users.path(map), "0 100000 1000").expect("mapped");
        }
        users
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0.id()))
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_existing_user_namespace_is_joined_with_mounts_that_its_root_could_not_reach() {
    let ground = Ground::new("joined");
    let users = Users::new();
    std::os::unix::fs::chown(ground.rootfs().join("etc"), Some(100_000), Some(100_000))
        .expect("chown");
    let private = ground.dir.path().join("private");
    fs::create_dir_all(private.join("volume")).expect("mkdir");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).expect("chmod");
    fs::write(private.join("volume/file"), "within\n").expect("write");
    let script = "id; cat /tmp/file; touch /etc/mine; echo n > /dev/null; \
                  touch /tmp/new || exec sleep 100";
    let volume = json!({"destination": "/tmp", "type": "bind", "source": private.join("volume"), "options": ["rbind", "ro"]});
    ground.configure(&["sh", "-c", script], |config| {
        add_mount(config, volume);
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let namespaces = config["linux"]["namespaces"].as_array_mut().expect("array");
        namespaces.push(json!({"type": "user", "path": users.path("ns/user")}));
    });
    let bundle = ground.bundle();
    let arguments = ["run", "--detach", "--bundle", text(&bundle), &ground.id];
    assert_eq!(ground.call_detached(&arguments), 0, "{}", ground.log());
    let started = Instant::now();
    while !ground.log().contains("Read-only") {
        assert!(started.elapsed() < PATIENCE, "{}", ground.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let log = ground.log();
    assert!(log.starts_with("uid=0 gid=0\nwithin\n"), "{log}");
    let owner = fs::metadata(ground.rootfs().join("etc/mine")).expect("file");
    assert_eq!(owner.uid(), 100_000);
    let inside = ground.call(&[
        "exec",
        &ground.id,
        "sh",
        "-c",
        "id; cat /proc/self/uid_map; echo out > /dev/stdout",
    ]);
    assert_eq!(lines(&inside)[0], "uid=0 gid=0", "{}", errors(&inside));
    let map: Vec<_> = lines(&inside)[1]
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(map, ["0", "100000", "1000"]);
    assert_eq!(lines(&inside)[2], "out");
    ground.call(&["delete", "--force", &ground.id]);
    ground.assert_no_traces();
}

#[test]
fn system_calls_are_filtered_as_the_configuration_says_for_later_processes_too() {
    let ground = Ground::new("seccomp");
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 11,
             "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]},
            {"names": ["getpgid", "no_such_call"], "action": "SCMP_ACT_KILL_PROCESS"},
        ],
    });
    // With and without what loading a filter takes: it is the same for the program.
    for promises in [true, false] {
        ground.configure(&["sleep", "100"], |config| {
            config["linux"]["seccomp"] = filter.clone();
            config["process"]["noNewPrivileges"] = promises.into();
        });
        let bundle = ground.bundle();
        let arguments = ["run", "--detach", "--bundle", text(&bundle), &ground.id];
        assert_eq!(ground.call_detached(&arguments), 0, "{}", ground.log());
        let sh =
            |script: &str| ground.call(&["exec", &ground.id, "/bin/busybox", "sh", "-c", script]);
        let said = sh(
            "busybox mkdir /tmp/d 2>&1; kill -10 1 2>&1; kill -0 1 && grep -E 'Seccomp:|CapEff' /proc/1/status /proc/self/status",
        );
        let text = lines(&said).join("\n");
        assert!(text.contains("Read-only file system"), "{text}");
        assert!(text.contains("Resource temporarily unavailable"), "{text}");
        assert_eq!(text.matches("Seccomp:\t2").count(), 2, "{text}");
        let capabilities = (1 << 5) | 1 | (1 << 10);
        let wanted = format!("CapEff:\t{capabilities:016x}");
        assert_eq!(text.matches(&wanted).count(), 2, "{text}");
        ground.call(&["delete", "--force", &ground.id]);
    }
    ground.assert_no_traces();
}

#[test]
fn the_version_and_the_help_are_no_errors() {
    let ground = Ground::new("version");
    let version = ground.call(&["--version"]);
    assert!(lines(&version)[0].starts_with("orlop-oci version "));
    assert!(ground.call(&["--help"]).status.success());
    let unknown = ground.call(&["--no-such-flag"]);
    assert_eq!(unknown.status.code(), Some(1));
    std::io::stdout().flush().expect("flush");
}

/// Runs a shell script in a mount namespace of its own that tells nobody of its
/// mounts; `$RUN` there runs the container, `$VOLUME` is an empty directory.
fn in_own_mounts(ground: &Ground, script: &str) -> Output {
    let volume = ground.dir.path().join("volume");
    fs::create_dir_all(&volume).expect("volume");
    let run = format!(
        "{} --root {} run --bundle {} {}",
        env!("CARGO_BIN_EXE_orlop-oci"),
        text(&ground.records()),
        text(&ground.bundle()),
        ground.id
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-ec", script])
        .env("RUN", run)
        .env("VOLUME", volume)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    finish(command.spawn().expect("unshare is needed"))
}

fn add_mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().expect("array").push(mount);
}

#[test]
fn a_destination_that_links_to_the_host_stays_inside_the_root() {
    let ground = Ground::new("destination");
    let outside = ground.dir.path().join("outside");
    let volume = ground.dir.path().join("volume");
    fs::create_dir_all(&outside).expect("outside");
    fs::create_dir_all(&volume).expect("volume");
    fs::write(volume.join("proof"), "mounted\n").expect("proof");
    symlink(&outside, ground.rootfs().join("absolute")).expect("symlink");
    let up = Path::new("../../../../../../../..").join(outside.strip_prefix("/").expect("path"));
    symlink(up, ground.rootfs().join("relative")).expect("symlink");
    for place in ["/absolute", "/relative", "/absolute/deeper/still"] {
        ground.configure(&["cat", &format!("{place}/proof")], |config| {
            add_mount(
                config,
                json!({"destination": place, "type": "bind", "source": volume, "options": ["rbind"]}),
            );
        });
        let output = ground.run();
        assert_eq!(lines(&output), ["mounted"], "{place}: {}", errors(&output));
        assert_eq!(fs::read_dir(&outside).expect("outside").count(), 0);
    }
    assert!(
        ground
            .rootfs()
            .join(outside.strip_prefix("/").expect("path"))
            .is_dir()
    );
}

#[test]
fn a_destination_that_is_swapped_meanwhile_never_leads_outside() {
    let ground = Ground::new("race");
    let outside = ground.dir.path().join("outside");
    let shared = ground.dir.path().join("shared");
    for directory in [&outside, &shared.join("x")] {
        fs::create_dir_all(directory).expect("directory");
    }
    symlink(&outside, shared.join("link")).expect("symlink");
    ground.configure(&["true"], |config| {
        for (place, options) in [("/shared", "rbind"), ("/shared/x/deep", "bind")] {
            add_mount(
                config,
                json!({"destination": place, "type": "bind", "source": shared, "options": [options]}),
            );
        }
    });
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let (one, other) = (shared.join("x"), shared.join("link"));
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("swap");
            }
        });
        let codes: Vec<_> = (0..40).map(|_| ground.run().status.code()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(codes.iter().all(|code| matches!(code, Some(0 | 1))));
    });
    assert_eq!(fs::read_dir(&outside).expect("outside").count(), 0);
    ground.assert_no_traces();
}

#[test]
fn a_null_device_that_is_a_link_hides_nothing_and_is_refused() {
    let ground = Ground::new("null");
    let secret = ground.dir.path().join("secret");
    fs::write(&secret, "of the host").expect("secret");
    symlink(&secret, ground.rootfs().join("dev/null")).expect("symlink");
    ground.configure(&["true"], |config| {
        let mounts = config["mounts"].as_array_mut().expect("array");
        mounts.retain(|mount| {
            !mount["destination"]
                .as_str()
                .expect("path")
                .starts_with("/dev")
        });
    });
    let output = ground.run();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("\"/dev/null\""),
        "{}",
        errors(&output)
    );
    assert_eq!(fs::read_to_string(&secret).expect("secret"), "of the host");
    ground.assert_no_traces();
}

#[test]
fn later_mounts_of_the_host_arrive_through_rslave_and_not_through_rprivate() {
    // Says that it is there, then waits up to a second for a mount of the host.
    let script = "touch /data/ready; for i in 0 1 2 3 4 5 6 7 8 9; do \
                  [ -e /data/sub/late ] && echo seen && exit; sleep 0.1; done; echo unseen";
    let outer = "mount -t tmpfs volume $VOLUME; mount --make-shared $VOLUME; mkdir $VOLUME/sub; \
                 $RUN & until [ -e $VOLUME/ready ]; do sleep 0.01; done; \
                 mount -t tmpfs late $VOLUME/sub; touch $VOLUME/sub/late; wait";
    for (propagation, expected) in [("rslave", "seen"), ("rprivate", "unseen")] {
        let ground = Ground::new(propagation);
        let volume = ground.dir.path().join("volume");
        ground.configure(&["sh", "-c", script], |config| {
            add_mount(
                config,
                json!({"destination": "/data", "type": "bind", "source": volume, "options": ["rbind", propagation]}),
            );
        });
        let output = in_own_mounts(&ground, outer);
        assert_eq!(
            lines(&output),
            [expected],
            "{propagation}: {}",
            errors(&output)
        );
    }
}

#[test]
fn mounts_of_the_container_arrive_on_the_host_through_rshared() {
    let ground = Ground::new("rshared");
    let volume = ground.dir.path().join("volume");
    let script = "busybox mount -t tmpfs inner /data/sub && touch /data/sub/inner";
    ground.configure(&["sh", "-c", script], |config| {
        add_mount(
            config,
            json!({"destination": "/data", "type": "bind", "source": volume, "options": ["rbind", "rshared"]}),
        );
        config["linux"]["rootfsPropagation"] = "rshared".into();
        for set in ["bounding", "effective", "permitted"] {
            let set = &mut config["process"]["capabilities"][set];
            set.as_array_mut().expect("array").push("CAP_SYS_ADMIN".into());
        }
    });
    let outer = "mount -t tmpfs volume $VOLUME; mount --make-shared $VOLUME; mkdir $VOLUME/sub; \
                 before=$(wc -l </proc/self/mountinfo); $RUN; ls $VOLUME/sub; \
                 echo $(($(wc -l </proc/self/mountinfo) - before))";
    let output = in_own_mounts(&ground, outer);
    // That mount is there, and it is the only one.
    assert_eq!(lines(&output), ["inner", "1"], "{}", errors(&output));
}

#[test]
fn a_read_only_bind_keeps_the_restrictions_of_its_source() {
    for user_namespace in [false, true] {
        let ground = Ground::new("nosuid");
        let volume = ground.dir.path().join("volume");
        let script = "touch /data/x 2>/dev/null && echo written; \
                      while read -r _ _ _ _ place options _; do \
                      [ $place != /data ] || echo $options; done </proc/self/mountinfo";
        ground.configure(&["sh", "-c", script], |config| {
            add_mount(
                config,
                json!({"destination": "/data", "type": "bind", "source": volume, "options": ["bind", "ro"]}),
            );
            if user_namespace {
                let namespaces = config["linux"]["namespaces"].as_array_mut().expect("array");
                namespaces.push(json!({"type": "user"}));
                let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
                config["linux"]["uidMappings"] = map.clone();
                config["linux"]["gidMappings"] = map;
            }
        });
        let output = in_own_mounts(
            &ground,
            "mount -t tmpfs -o nosuid,nodev volume $VOLUME; $RUN",
        );
        assert_eq!(
            lines(&output),
            ["ro,nosuid,nodev,relatime"],
            "{}",
            errors(&output)
        );
    }
}
