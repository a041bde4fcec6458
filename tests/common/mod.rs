//! A machine of its own for a test: own roots, own control groups, a busybox
//! image, and the real programs. Whatever a test leaves running ends with it.

#![allow(dead_code, reason = "every test file uses a part of this")]

pub mod http;
pub mod nfs_server;
pub mod processes;
pub mod registry;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use orlop::pod::home;
use orlop::storage::roots::Roots;
use orlop::sys::cgroup::Cgroups;
use orlop::sys::pidfd;

/// No command of a test takes longer, user-mode Linux included.
pub const LIMIT: Duration = Duration::from_secs(120);

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Standard output of a command that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "the command failed: {self:#?}");
        self.stdout
    }

    /// Standard error of a command that must have failed with code 1.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_eq!(
            self.status.code(),
            Some(1),
            "the command was not refused: {self:#?}"
        );
        self.stderr
    }
}

/// One orlop, apart from all others on the machine.
pub struct Machine {
    pub directory: tempfile::TempDir,
    pub roots: Roots,
    /// Further variables for orlop's environment.
    pub environment: Vec<(String, String)>,
}

impl Machine {
    /// A machine without images.
    pub fn bare() -> Self {
        Self::bare_in(&std::env::temp_dir())
    }

    /// A machine without images whose roots are in a new directory in `parent`.
    pub fn bare_in(parent: &Path) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("orlop-test.")
            .tempdir_in(parent)
            .expect("tempdir");
        let (data, run) = (directory.path().join("data"), directory.path().join("run"));
        let roots = Roots::new(Some(&data), Some(&run), None).expect("roots");
        Self {
            directory,
            roots,
            environment: Vec::new(),
        }
    }

    /// A machine with the image `busybox:latest`.
    pub fn new() -> Self {
        Self::bare().with_busybox()
    }

    /// The machine with the image `busybox:latest`.
    pub fn with_busybox(self) -> Self {
        let machine = self;
        let archive = machine.directory.path().join("busybox.tar");
        fs::write(&archive, busybox_archive()).expect("write the archive");
        machine
            .orlop([
                "image",
                "import",
                path(&archive),
                "busybox:latest",
                "--cmd",
                "sh",
            ])
            .ok();
        machine
    }

    /// A path in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `orlop` with these arguments, not started yet.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orlop"));
        command
            .args(arguments)
            .env("ORLOP_ROOT", &self.roots.data)
            .env("ORLOP_RUN", &self.roots.run)
            .env("ORLOP_LOG_ROOT", &self.roots.logs)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("ORLOP_HOSTS_DIR", self.path("hosts"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `orlop` with these arguments to its end.
    #[track_caller]
    pub fn orlop<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        finish(self.command(arguments))
    }

    /// Runs `orlop` with `input` on its standard input.
    #[track_caller]
    pub fn orlop_with<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Outcome {
        let mut command = self.command(arguments);
        let (read, mut write) = std::io::pipe().expect("pipe");
        command.stdin(read);
        let child = command.spawn().expect("spawn");
        drop(command);
        write.write_all(input.as_bytes()).expect("write");
        drop(write);
        collect(child)
    }

    /// Applies a manifest and waits until its pods run.
    #[track_caller]
    pub fn run_pod(&self, manifest: &str) -> String {
        self.orlop_with(["apply", "--wait", "--timeout", "100", "-f", "-"], manifest)
            .ok()
    }

    /// Runs a shell command in a container and returns what it prints.
    #[track_caller]
    pub fn sh(&self, pod: &str, container: &str, script: &str) -> String {
        self.orlop(["exec", pod, "-c", container, "--", "/bin/sh", "-c", script])
            .ok()
    }

    /// A pod as the store has it.
    #[track_caller]
    pub fn pod(&self, name: &str) -> serde_json::Value {
        let text = self.orlop(["get", "pod", name, "-o", "json"]).ok();
        serde_json::from_str(&text).expect("JSON")
    }

    /// The uid of a pod.
    #[track_caller]
    pub fn uid(&self, name: &str) -> String {
        self.pod(name)["metadata"]["uid"]
            .as_str()
            .expect("uid")
            .to_owned()
    }

    /// Waits until `condition` holds for a pod and returns it as it was then; fails with
    /// its last state.
    #[track_caller]
    pub fn wait_for(
        &self,
        name: &str,
        condition: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let start = Instant::now();
        loop {
            let pod = self.pod(name);
            if condition(&pod) {
                return pod;
            }
            assert!(
                start.elapsed() < LIMIT,
                "the pod did not come to the state: {pod:#}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Process ids of the keepers and launchers of this machine.
    pub fn keepers(&self) -> Vec<i32> {
        let mark = path(&self.roots.run).as_bytes().to_vec();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let Ok(line) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let mut words = line.split(|byte| *byte == 0);
            let shim = words
                .next()
                .is_some_and(|word| word.ends_with(b"containerd-shim-orlop-v2"));
            if shim && words.any(|word| word == mark) {
                found.push(pid);
            }
        }
        found
    }

    /// The control group above this machine's pods.
    pub fn cgroup(&self) -> String {
        home::cgroup_parent(&self.roots)
    }

    /// Fails when anything of any pod is left.
    #[track_caller]
    pub fn assert_nothing_is_left(&self) {
        let start = Instant::now();
        while !self.keepers().is_empty() || !entries(&self.roots.trash()).is_empty() {
            assert!(
                start.elapsed() < LIMIT,
                "keepers {:?} go on",
                self.keepers()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        let groups = Cgroups::detect().expect("cgroups");
        assert!(
            !groups.exists(&self.cgroup()),
            "the control group {} is left",
            self.cgroup()
        );
        for directory in [
            self.roots.pods(),
            self.roots.run.join("pods"),
            self.roots.run.join("locks"),
            self.roots.trash(),
        ] {
            assert_eq!(entries(&directory), [""; 0], "left in {directory:?}");
        }
        let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mark = path(self.directory.path());
        assert!(!text.contains(mark), "a mount is left: {text}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for pid in self.keepers() {
            if let Ok(process) = pidfd::open(pid) {
                let _ = pidfd::send_signal(&process, 9);
            }
        }
        if let Ok(groups) = Cgroups::detect() {
            let deadline = Instant::now() + Duration::from_secs(30);
            let _ = groups.kill(&self.cgroup(), None, deadline);
            let _ = groups.remove(&self.cgroup(), deadline);
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.roots.run.join("keepers.log"));
            eprintln!("what keepers said: {}", log.unwrap_or_default());
        }
    }
}

/// The names in a directory; none when it is not there.
pub fn entries(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A path as text.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Runs a command to its end, or fails after [`LIMIT`].
#[track_caller]
pub fn finish(mut command: Command) -> Outcome {
    collect(command.spawn().expect("spawn"))
}

#[track_caller]
fn collect(mut child: Child) -> Outcome {
    let mut stdout = child.stdout.take().expect("stdout");
    let mut stderr = child.stderr.take().expect("stderr");
    let process = pidfd::open(child.id().cast_signed()).expect("pidfd");
    let (done, over) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if over.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = pidfd::send_signal(&process, 9);
        }
    });
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes)
    });
    let mut bytes = Vec::new();
    stdout.read_to_end(&mut bytes).expect("read stdout");
    let stderr = reader.join().expect("reader").expect("read stderr");
    let status = child.wait().expect("wait");
    drop(done);
    guard.join().expect("guard");
    Outcome {
        status,
        stdout: String::from_utf8_lossy(&bytes).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Says why a test cannot run on this kernel; where nothing may be skipped, the
/// test fails.
#[track_caller]
pub fn skip(reason: &str) {
    let required = std::env::var_os("ORLOP_TEST_NO_SKIP").is_some();
    assert!(!required, "must not be skipped here: {reason}");
    eprintln!("skipped: {reason}");
}

/// A root file system of Debian's static busybox, as a tar archive.
pub fn busybox_archive() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("/bin/busybox: install busybox-static");
    let applets = Command::new("/bin/busybox")
        .arg("--list")
        .output()
        .expect("busybox --list");
    let mut archive = tar::Builder::new(Vec::new());
    for (name, mode) in [
        ("bin", 0o755),
        ("etc", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
    ] {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        archive
            .append_data(&mut header, name, &[][..])
            .expect("append");
    }
    let mut file = |name: &str, mode, content: &[u8]| {
        let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
        archive
            .append_data(&mut header, name, content)
            .expect("append");
    };
    file("bin/busybox", 0o755, &busybox);
    file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nguest:x:405:100::/:/bin/sh\n",
    );
    file(
        "etc/group",
        0o644,
        b"root:x:0:\nusers:x:100:guest\naudio:x:29:guest\n",
    );
    for applet in String::from_utf8_lossy(&applets.stdout).lines() {
        if applet != "busybox" {
            let mut header = header(tar::EntryType::Symlink, 0o777, 0);
            let name = format!("bin/{applet}");
            archive
                .append_link(&mut header, name, "busybox")
                .expect("append");
        }
    }
    archive.into_inner().expect("finish")
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
