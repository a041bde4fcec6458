//! What deleting a pod does to the content of its emptyDirs, to everything
//! else, and to the time that it takes.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::Machine;
use common::processes::{number, wait_until};
use rustix::fs::{CWD, IFlags, Mode, OFlags, mkdirat, openat};

const SONG: &str = "the canary sings";
/// Set for a test that was started again inside a mount namespace of its own.
const AGAIN: &str = "ORLOP_TEST_STARTED_AGAIN";

/// A pod that is killed at once when it is deleted, and one that will not end
/// by itself.
fn pod(name: &str, script: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{{ name: cargo, emptyDir: {{}} }}]
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "{script}"]
    volumeMounts: [{{ name: cargo, mountPath: /cargo }}]
"#
    )
}

/// Starts the pod `p` and returns its emptyDir.
fn start(machine: &Machine) -> PathBuf {
    machine.run_pod(&pod("p", "exec sleep 30000"));
    let pod = machine.roots.pod_data(&machine.uid("p"));
    pod.join("volumes/kubernetes.io~empty-dir/cargo")
}

/// A directory outside of all volumes, with one file.
struct Canary {
    directory: PathBuf,
    before: (u32, u32, u64),
}

impl Canary {
    fn new(machine: &Machine) -> Self {
        let directory = machine.path("outside");
        fs::create_dir(&directory).expect("mkdir");
        fs::write(directory.join("canary"), SONG).expect("write");
        let before = Self::features(&directory);
        Self { directory, before }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("canary")
    }

    fn features(directory: &Path) -> (u32, u32, u64) {
        let file = fs::metadata(directory.join("canary")).expect("the canary");
        let mode = fs::metadata(directory).expect("its cage").mode();
        (mode, file.mode(), file.ino())
    }

    #[track_caller]
    fn assert_it_sings(&self) {
        assert_eq!(fs::read_to_string(self.file()).expect("read"), SONG);
        assert_eq!(Self::features(&self.directory), self.before);
        assert_eq!(common::entries(&self.directory), ["canary"]);
    }
}

/// Runs `body` in a process of its own whose mounts nobody else sees, and in
/// whose directory for temporary files flags of chattr(1) work.
fn in_private_mounts(test: &str, body: impl FnOnce()) {
    if std::env::var_os(AGAIN).is_some() {
        return body();
    }
    let ground = tempfile::tempdir().expect("tempdir");
    let place = |name: &str| common::path(&ground.path().join(name)).to_owned();
    let (image, disk) = (place("image"), place("disk"));
    let script = if flags_work(ground.path()) {
        "exec \"$@\"".to_owned()
    } else {
        File::create(&image)
            .expect("create")
            .set_len(256 << 20)
            .expect("set_len");
        fs::create_dir(&disk).expect("mkdir");
        format!(
            "mkfs.ext4 -q {image} && mount -o loop {image} {disk} && \
             TMPDIR={disk} \"$@\"; code=$?; umount {disk}; exit $code"
        )
    };
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", test, "--nocapture"])
        .env(AGAIN, "1");
    let output = command.output().expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && said.contains("1 passed");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(passed, "{}\n{said}\n{complaint}", output.status);
}

fn flags_work(directory: &Path) -> bool {
    let file = directory.join("probe");
    fs::write(&file, "").expect("write");
    set_immutable(&file, true).is_ok() && set_immutable(&file, false).is_ok()
}

fn set_immutable(path: &Path, on: bool) -> rustix::io::Result<()> {
    let file = File::open(path).expect("open");
    let mut flags = rustix::fs::ioctl_getflags(&file)?;
    flags.set(IFlags::IMMUTABLE, on);
    rustix::fs::ioctl_setflags(&file, flags)
}

fn run(program: &str, arguments: &[&Path]) {
    let status = Command::new(program)
        .args(arguments)
        .status()
        .expect("execute");
    assert!(status.success(), "{program}: {status}");
}

fn dig(top: &Path, depth: usize) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here: OwnedFd = openat(CWD, top, flags, Mode::empty()).expect("open");
    for _ in 0..depth {
        mkdirat(&here, "d", Mode::RWXU).expect("mkdir");
        here = openat(&here, "d", flags, Mode::empty()).expect("open");
    }
}

#[test]
fn hostile_content_goes_and_what_it_points_at_stays() {
    in_private_mounts("hostile_content_goes_and_what_it_points_at_stays", || {
        let machine = Machine::new();
        let canary = Canary::new(&machine);
        let cargo = start(&machine);

        symlink(&canary.directory, cargo.join("link")).expect("symlink");
        symlink("../../../../../../outside", cargo.join("relative")).expect("symlink");
        fs::hard_link(canary.file(), cargo.join("hard")).expect("link");
        fs::write(cargo.join("immutable"), "").expect("write");
        set_immutable(&cargo.join("immutable"), true).expect("chattr");
        let closed = cargo.join("closed/below");
        fs::create_dir_all(&closed).expect("mkdir");
        fs::write(closed.join("file"), "").expect("write");
        set_immutable(&closed, true).expect("chattr");
        for directory in [&closed, &cargo.join("closed")] {
            let kept = set_immutable(directory, false);
            fs::set_permissions(directory, PermissionsExt::from_mode(0o000)).expect("chmod");
            kept.expect("chattr");
        }
        set_immutable(&closed, true).expect("chattr");
        for name in [
            b"new\nline".as_slice(),
            b"\xff\xfe",
            b"-rf",
            b" ",
            b"\x1b[2J",
        ] {
            fs::write(cargo.join(OsStr::from_bytes(name)), "").expect("write");
        }
        dig(&cargo, number("ORLOP_TEST_DEPTH", 10_000) as usize);

        machine.orlop(["delete", "pod", "p"]).ok();
        machine.assert_nothing_is_left();
        canary.assert_it_sings();
        assert_eq!(fs::metadata(canary.file()).expect("canary").nlink(), 1);
    });
}

#[test]
fn a_mount_in_an_emptydir_keeps_the_pod_until_it_is_unmounted() {
    in_private_mounts(
        "a_mount_in_an_emptydir_keeps_the_pod_until_it_is_unmounted",
        || {
            let machine = Machine::new();
            let canary = Canary::new(&machine);
            let cargo = start(&machine);
            let place = cargo.join("a mount");
            fs::create_dir(&place).expect("mkdir");
            run("mount", &["--bind".as_ref(), &canary.directory, &place]);

            let error = machine.orlop(["delete", "pod", "p"]).refused();
            assert!(
                error.contains("a mount") && error.contains("unmount"),
                "{error}"
            );
            canary.assert_it_sings();
            // Its processes have ended; it is neither forgotten nor started.
            assert_eq!(machine.members(), [0; 0]);
            let error = machine.orlop(["reconcile"]).refused();
            assert!(error.contains("a mount"), "{error}");
            let row = machine.orlop(["get", "pods", "--no-headers"]).ok();
            assert!(row.contains("0/1"), "{row}");
            canary.assert_it_sings();

            run("umount", &[&place]);
            assert_eq!(machine.orlop(["reconcile"]).ok(), "pod/default/p removed\n");
            machine.assert_nothing_is_left();
            canary.assert_it_sings();
        },
    );
}

#[test]
fn a_mount_in_the_trash_is_named_by_reconcile() {
    in_private_mounts("a_mount_in_the_trash_is_named_by_reconcile", || {
        let machine = Machine::new();
        let canary = Canary::new(&machine);
        let place = machine.roots.trash().join("old/mount");
        fs::create_dir_all(&place).expect("mkdir");
        run("mount", &["--bind".as_ref(), &canary.directory, &place]);

        let error = machine.orlop(["reconcile"]).refused();
        assert!(error.contains("old/mount"), "{error}");
        canary.assert_it_sings();

        run("umount", &[&place]);
        machine.orlop(["reconcile"]).ok();
        assert!(common::entries(&machine.roots.trash()).is_empty());
        canary.assert_it_sings();
    });
}

fn fill(directory: &Path, files: u64) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
                let mut below: Option<File> = None;
                for number in 0..files / 4 {
                    if number % 5000 == 0 {
                        let name = directory.join(format!("{thread}-{number}"));
                        fs::create_dir(&name).expect("mkdir");
                        below = Some(File::open(&name).expect("open"));
                    }
                    let below = below.as_ref().expect("a directory");
                    openat(below, number.to_string(), flags, Mode::RUSR).expect("create");
                }
            });
        }
    });
}

#[test]
fn a_pod_with_very_many_files_is_deleted_as_fast_as_one_with_none() {
    let machine = Machine::new();
    let files = number("ORLOP_TEST_FILES", 200_000);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        for (count, times) in [0, files].into_iter().zip(&mut times) {
            fill(&start(&machine), count);
            let begin = Instant::now();
            machine.orlop(["delete", "pod", "p"]).ok();
            times.push(begin.elapsed());
            machine.assert_nothing_is_left();
        }
    }
    let [with_none, with_many] = times.map(|mut times| {
        times.sort();
        times[1]
    });
    println!("{with_none:?} with none, {with_many:?} with {files} files");
    let budget = with_none.mul_f64(1.2) + Duration::from_millis(100);
    assert!(
        with_many <= budget,
        "{with_many:?} with {files} files, {with_none:?} with none"
    );
}

#[test]
fn two_deletions_of_a_pod_that_does_not_want_to_end_both_return() {
    let machine = Machine::new();
    for grace in [1, 2] {
        machine.run_pod(&pod("stubborn", "trap '' TERM; while :; do sleep 1; done"));
        let grace = format!("--grace-period={grace}");
        let arguments = ["delete", "pod", "stubborn", &grace];
        std::thread::scope(|scope| {
            let one = scope.spawn(|| machine.orlop(arguments).ok());
            let other = scope.spawn(|| machine.orlop(arguments).ok());
            let said = "pod \"stubborn\" deleted from default namespace\n";
            assert_eq!(one.join().expect("join"), said);
            assert_eq!(other.join().expect("join"), said);
        });
        machine.assert_nothing_is_left();
    }
}

#[test]
fn many_deletions_of_one_pod_at_once_find_it_or_find_it_gone() {
    let machine = Machine::new();
    for _ in 0..number("ORLOP_TEST_ROUNDS", 5) {
        start(&machine);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let outcome = machine.orlop(["delete", "pod", "p"]);
                    let gone = "Error from server (NotFound): pods \"p\" not found\n";
                    assert!(
                        outcome.status.success() || outcome.stderr == gone,
                        "{outcome:?}"
                    );
                });
            }
        });
        wait_until("the pod is gone", || machine.stored("p").is_none());
        machine.assert_nothing_is_left();
    }
}
