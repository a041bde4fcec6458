//! The container interface as a pod's keeper uses it: a throwaway worker creates
//! the container, and the worker's parent gets the process.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use orlop::oci::OciError;
use orlop::oci::container::{self, Create, Exec};
use orlop::oci::state::Status;
use orlop::sys::pidfd;

/// Runs `work` in a forked process and returns what it has to say.
///
/// The fork has one thread, whatever the test runner has.
fn in_a_process(work: impl FnOnce() -> String) -> String {
    let (mut ours, mut theirs) = UnixStream::pair().expect("socket pair");
    // SAFETY: the child calls only this test's code and ends without running
    // anything of the parent's.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            drop(ours);
            let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let said = said.unwrap_or_else(|_| "panicked".into());
            let written = theirs.write_all(said.as_bytes());
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(i32::from(written.is_err())) }
        }
        child => {
            drop(theirs);
            let mut said = String::new();
            ours.set_read_timeout(Some(Duration::from_secs(30)))
                .expect("timeout");
            ours.read_to_string(&mut said).expect("the process hangs");
            // SAFETY: the status is not asked for.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            said
        }
    }
}

fn bundle(directory: &Path, args: &[&str]) -> Spec {
    let root = directory.join("rootfs");
    for name in ["bin", "proc", "dev", "tmp"] {
        fs::create_dir_all(root.join(name)).expect("rootfs");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is needed");
    for tool in ["sh", "sleep", "true"] {
        // It is there already when a test changes its mind about the program.
        let _ = symlink("busybox", root.join("bin").join(tool));
    }
    let kinds = ["pid", "ipc", "uts", "mount"];
    serde_json::from_value(serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/",
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": kinds.map(|kind| serde_json::json!({"type": kind}))},
    }))
    .expect("spec")
}

/// A container's directories and name; it is deleted with them.
struct Ground {
    dir: tempfile::TempDir,
    id: String,
}

impl Ground {
    fn new(name: &str) -> Self {
        Self {
            dir: tempfile::tempdir().expect("tempdir"),
            id: format!("library-{name}-{}", std::process::id()),
        }
    }

    fn records(&self) -> std::path::PathBuf {
        self.dir.path().join("records")
    }

    fn create(&self, spec: &Spec) -> Result<container::Created, OciError> {
        container::create(Create {
            id: &self.id,
            bundle: self.dir.path(),
            spec,
            state_root: &self.records(),
            stdin: None,
            stdout: None,
            stderr: None,
            console_socket: None,
            as_sibling: true,
        })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = container::delete(&self.records(), &self.id, true);
    }
}

#[test]
fn a_sibling_belongs_to_the_workers_parent_who_reaps_it() {
    let ground = Ground::new("sibling");
    let spec = bundle(ground.dir.path(), &["sh", "-c", "exit 23"]);
    let said = in_a_process(|| {
        let pid = in_a_process(|| match ground.create(&spec) {
            Ok(created) => created.pid.to_string(),
            Err(error) => error.to_string(),
        });
        let Ok(pid) = pid.parse() else { return pid };
        // The worker is gone; the container waits.
        let process = pidfd::open(pid).expect("pidfd");
        let records = ground.records();
        assert_eq!(
            container::state(&records, &ground.id).expect("state").1,
            Status::Created
        );
        container::start(&records, &ground.id).expect("start");
        let code = pidfd::wait(&process)
            .expect("not a child of this process")
            .code();
        assert_eq!(
            container::state(&records, &ground.id).expect("state").1,
            Status::Stopped
        );
        container::delete(&records, &ground.id, false).expect("delete");
        format!("{code}")
    });
    assert_eq!(said, "23");
    assert_eq!(fs::read_dir(ground.records()).expect("records").count(), 0);
}

#[test]
fn the_pipe_tells_when_the_program_has_been_executed_and_not_before() {
    let ground = Ground::new("pipe");
    let spec = bundle(ground.dir.path(), &["sleep", "100"]);
    let said = in_a_process(|| {
        let created = ground.create(&spec).expect("create");
        let mut pipe = fs::File::from(created.exec_failure);
        let mut ready = libc::pollfd {
            fd: pipe.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid record is passed.
        let early = unsafe { libc::poll(&raw mut ready, 1, 50) };
        assert_eq!(early, 0, "the pipe ended before the start");
        container::start(&ground.records(), &ground.id).expect("start");
        let mut reason = String::new();
        pipe.read_to_string(&mut reason).expect("read");
        assert_eq!(reason, "");
        let program = fs::read(format!("/proc/{}/cmdline", created.pid)).expect("cmdline");
        String::from_utf8_lossy(&program).replace('\0', " ")
    });
    assert_eq!(said, "sleep 100 ");
}

#[test]
fn a_sibling_that_fails_is_named_for_its_parent_to_reap() {
    let ground = Ground::new("failed");
    let spec = bundle(ground.dir.path(), &["/no/such"]);
    let said = in_a_process(|| {
        let pid = in_a_process(|| match ground.create(&spec) {
            Err(OciError::Init {
                reason,
                sibling: Some(pid),
            }) => format!("{pid} {reason}"),
            other => format!("{other:?}"),
        });
        let Some((pid, reason)) = pid.split_once(' ') else {
            return pid;
        };
        let process = pidfd::open(pid.parse().expect("pid")).expect("pidfd");
        pidfd::wait(&process).expect("not a child of this process");
        reason.to_owned()
    });
    assert_eq!(said, "exec: \"/no/such\": no such file or directory");
    assert_eq!(fs::read_dir(ground.records()).expect("records").count(), 0);
}

#[test]
fn processes_join_a_container_as_siblings_too() {
    let ground = Ground::new("exec");
    let spec = bundle(ground.dir.path(), &["sleep", "100"]);
    let mut process = spec.process().clone().expect("process");
    process.set_args(Some(vec![
        "sh".into(),
        "-c".into(),
        "exit $(($$ + 40))".into(),
    ]));
    let said = in_a_process(|| {
        let started = in_a_process(|| {
            ground.create(&spec).expect("create");
            container::start(&ground.records(), &ground.id).expect("start");
            String::new()
        });
        assert_eq!(started, "");
        let pid = in_a_process(|| {
            let exec = Exec {
                id: &ground.id,
                state_root: &ground.records(),
                process: &process,
                stdin: None,
                stdout: None,
                stderr: None,
                console_socket: None,
                as_sibling: true,
            };
            container::exec(exec).expect("exec").pid.to_string()
        });
        let process = pidfd::open(pid.parse().expect("pid")).expect("pidfd");
        pidfd::wait(&process)
            .expect("not a child of this process")
            .code()
            .to_string()
    });
    assert_eq!(said, "42", "it is process 2 of the container");
}

#[test]
fn ten_containers_are_created_by_one_worker_one_after_the_other() {
    let ground = Ground::new("many");
    let spec = bundle(ground.dir.path(), &["true"]);
    let said = in_a_process(|| {
        let started = Instant::now();
        for _ in 0..10 {
            let created = container::create(Create {
                id: &ground.id,
                bundle: ground.dir.path(),
                spec: &spec,
                state_root: &ground.records(),
                stdin: None,
                stdout: None,
                stderr: None,
                console_socket: None,
                as_sibling: false,
            })
            .expect("create");
            container::start(&ground.records(), &ground.id).expect("start");
            assert_eq!(pidfd::wait(&created.pidfd).expect("wait").code(), 0);
            container::delete(&ground.records(), &ground.id, false).expect("delete");
        }
        assert!(started.elapsed() < Duration::from_secs(20));
        let open = fs::read_dir("/proc/self/fd").expect("fds").count();
        format!("{}", open < 30)
    });
    assert_eq!(said, "true", "descriptors leak");
}
