//! An emptyDir's `sizeLimit`, on disk and in memory: what does not fit is refused,
//! what fits survives, and nothing stays behind.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use orlop::sys::cgroup::Cgroups;
use orlop::sys::{mount, pidfd, project_quota};
use rustix::mount::MountAttrFlags;
use serde_json::json;

use crate::common::{LIMIT, Machine, entries, path};
use crate::propagation::{import, on_a_host_of_its_own};
use crate::support::{idle, kill, pod, status, until, with};

const SPEC: &str = include_str!("../../specs/size-limit.yaml");

/// The loop devices of the machine whose file is below `directory`, which may have
/// been deleted.
fn loop_devices(directory: &Path) -> Vec<String> {
    let devices = fs::read_dir("/sys/block").expect("/sys/block").flatten();
    let files = devices
        .filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files
        .filter(|file| file.contains(path(directory)))
        .collect()
}

/// Devices free themselves when the last user of a mount has gone, a moment later.
#[track_caller]
fn assert_no_loop_device(machine: &Machine) {
    let start = Instant::now();
    let left = || loop_devices(machine.directory.path());
    while !left().is_empty() {
        assert!(start.elapsed() < LIMIT, "loop devices stay: {:?}", left());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill_process(pid: i32) {
    // A launcher ends with its keeper.
    if let Ok(process) = pidfd::open(pid) {
        let _ = pidfd::send_signal(&process, 9);
    }
}

#[test]
fn a_volume_of_16_mebibytes_refuses_the_17th_on_disk_and_in_memory() {
    let machine = Machine::new();
    machine.run_pod(SPEC);
    let name = "size-limit";
    for place in ["/disk", "/memory"] {
        let fill = format!(
            "ls -A {place}; stat -c %a {place}; \
             dd if=/dev/zero of={place}/file bs=65536 count=272 2>&1; stat -c %s {place}/file; \
             echo more > {place}/other 2>&1 || echo refused"
        );
        let said = machine.sh(name, "shell", &fill);
        assert!(
            said.starts_with("777\n"),
            "it begins empty, for everybody: {said}"
        );
        assert!(said.contains("No space left on device"), "{place}: {said}");
        let size = said
            .lines()
            .find_map(|line| line.parse::<u64>().ok().filter(|size| *size > 777));
        let size = size.expect("a size");
        let limit = 16 << 20;
        assert!(
            (limit - (limit >> 6)..limit + (1 << 20)).contains(&size),
            "{place}: {size}"
        );
        // What is deleted is there again.
        let again = format!("rm -f {place}/*; dd if=/dev/zero of={place}/file bs=1M count=15 2>&1");
        assert!(
            !machine.sh(name, "shell", &again).contains("No space"),
            "{place}"
        );
        // Nor do many small files get further than large ones.
        let many = format!(
            "rm -f {place}/*; i=0; while [ $i -lt 2000 ]; do echo $i > {place}/$i || break; i=$((i+1)); done; echo $i"
        );
        if place == "/disk" {
            assert_eq!(machine.sh(name, "shell", &many), "2000\n");
        }
    }
    let describe = machine.orlop(["describe", "pod", name]).ok();
    assert!(describe.contains("16Mi (tmpfs size)"), "{describe}");
    machine.orlop(["delete", "pod", name, "--now"]).ok();
    machine.assert_nothing_is_left();
    assert_no_loop_device(&machine);
}

#[test]
fn the_content_of_a_limited_volume_survives_whoever_is_killed() {
    let machine = Machine::new();
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({
        "containers": [with(idle("a"), &mounts), with(idle("b"), &mounts)],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "8Mi"}}],
    });
    machine.run_pod(&pod(&spec));
    machine.sh(
        "web",
        "a",
        "echo kept > /v/file; chmod 600 /v/file; mkdir /v/lost+found",
    );
    let read = || machine.sh("web", "b", "cat /v/file; stat -c %a /v/file; ls /v");
    let wanted = "kept\n600\nfile\nlost+found\n";
    assert_eq!(read(), wanted);
    let uid = machine.uid("web");

    kill(&machine, "b");
    machine.wait_for("web", |pod| {
        status(pod, "b")["restartCount"] == 1 && status(pod, "b")["ready"] == true
    });
    assert_eq!(read(), wanted);

    // Everything that keeps the pod: keeper and launcher, several times.
    for round in 0..3 {
        for pid in machine.keepers() {
            kill_process(pid);
            if round == 0 {
                break;
            }
        }
        machine.orlop(["reconcile"]).ok();
        machine.wait_for("web", |pod| {
            let all = ["a", "b"].map(|name| status(pod, name)["ready"] == true);
            all == [true, true] && !machine.keepers().is_empty()
        });
        let start = Instant::now();
        loop {
            let said = machine.orlop(["exec", "web", "-c", "b", "--", "cat", "/v/file"]);
            if said.status.success() && said.stdout == "kept\n" {
                break;
            }
            assert!(start.elapsed() < LIMIT, "{said:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let devices = loop_devices(&machine.roots.pod_data(&uid));
        assert!(devices.len() <= 1, "one device for one image: {devices:?}");
    }
    assert_eq!(machine.uid("web"), uid);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
    assert_no_loop_device(&machine);
}

/// Seconds since 1970 when a file system was checked last.
fn last_check(image: &Path) -> u32 {
    let bytes = fs::read(image).expect("read");
    u32::from_le_bytes(
        bytes[1024 + 0x40..1024 + 0x44]
            .try_into()
            .expect("four bytes"),
    )
}

#[test]
fn a_volume_that_was_in_use_when_the_machine_stopped_is_checked_first() {
    let machine = Machine::new();
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({
        "containers": [with(idle("a"), &mounts)],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
    });
    machine.run_pod(&pod(&spec));
    machine.sh("web", "a", "echo kept > /v/file; sync");
    // What a disk has of a file system in use.
    let pod = machine.roots.pod_data(&machine.uid("web"));
    let image = pod.join("plugins/kubernetes.io~empty-dir/v");
    let copy = machine.path("copy");
    fs::copy(&image, &copy).expect("copy");
    let before = last_check(&copy);
    while !machine.keepers().is_empty() {
        machine.keepers().into_iter().for_each(kill_process);
        std::thread::sleep(Duration::from_millis(10));
    }
    let deadline = Instant::now() + Duration::from_millis(1100);
    // Its containers go on without a keeper, and with them its mounts.
    let groups = Cgroups::detect().expect("cgroups");
    groups
        .kill(&machine.cgroup(), None, Instant::now() + LIMIT)
        .expect("kill");
    assert_no_loop_device(&machine);
    fs::copy(&copy, &image).expect("put back");
    // The time of a check is told in whole seconds.
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));

    machine.orlop(["reconcile"]).ok();
    machine.wait_for("web", |pod| {
        status(pod, "a")["restartCount"] == 1 && status(pod, "a")["ready"] == true
    });
    assert_eq!(machine.sh("web", "a", "cat /v/file; ls /v"), "kept\nfile\n");
    assert!(last_check(&image) > before, "it was checked");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn nothing_stays_of_a_limited_volume_whenever_its_pod_is_killed_or_forced_away() {
    let machine = Machine::new();
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({
        "containers": [with(idle("a"), &mounts)],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "8Mi"}}],
    });
    for delay in [0, 1, 2, 4, 6, 8, 10, 15, 20, 30] {
        machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
        std::thread::sleep(Duration::from_millis(delay));
        for pid in machine.keepers() {
            kill_process(pid);
        }
        machine.orlop(["delete", "pod", "web", "--force"]).ok();
        assert_no_loop_device(&machine);
        assert_eq!(entries(&machine.roots.pods()), [""; 0], "after {delay} ms");
    }
    machine.run_pod(&pod(&spec));
    machine.orlop(["delete", "pod", "web", "--force"]).ok();
    machine.assert_nothing_is_left();
    assert_no_loop_device(&machine);
}

#[test]
fn a_machine_that_cannot_limit_says_what_it_lacks() {
    on_a_host_of_its_own(|| {
        let machine = Machine::new();
        // Without the programs that make file systems.
        for place in ["/usr/sbin", "/sbin"] {
            let tree = mount::tmpfs(&[], MountAttrFlags::empty()).expect("tmpfs");
            let place = fs::File::open(place).expect("open");
            mount::attach(tree.as_fd(), place.as_fd()).expect("cover");
        }
        let doctor = machine.orlop(["doctor"]).stdout;
        let lacks = "mke2fs (install e2fsprogs), e2fsck (install e2fsprogs): pods with a sizeLimit on disk do not start";
        assert!(doctor.contains(lacks), "{doctor}");
        let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        let spec = json!({
            "containers": [with(idle("c"), &mounts)],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}],
        });
        machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
        until(&machine, &["describe", "pod", "web"], |page| {
            page.contains(
                "MountVolume.SetUp failed for volume \"v\" : a sizeLimit on this file system needs mke2fs, \
                 which is not installed: install e2fsprogs",
            )
        });
        machine.orlop(["delete", "pod", "web", "--now"]).ok();
        machine.assert_nothing_is_left();
    });
}

#[test]
fn where_the_file_system_has_project_quotas_they_are_the_limit() {
    on_a_host_of_its_own(|| {
        let machine = Machine::bare();
        let (image, data) = (machine.path("image"), machine.roots.data.clone());
        let file = fs::File::create_new(&image).expect("create");
        file.set_len(128 << 20).expect("a size");
        let run = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            command
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            crate::common::finish(command)
        };
        let features = "quota,project,^has_journal";
        let format = [
            "-q",
            "-t",
            "ext4",
            "-O",
            features,
            "-E",
            "quotatype=prjquota",
            path(&image),
        ];
        run("/usr/sbin/mke2fs", &format).ok();
        fs::create_dir_all(&data).expect("mkdir");
        let mounted = run("mount", &["-o", "loop,prjquota", path(&image), path(&data)]);
        if !mounted.status.success() {
            return crate::common::skip("this kernel has no project quotas on ext4");
        }
        import(&machine);

        let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        let spec = json!({
            "containers": [with(idle("c"), &mounts)],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "8Mi"}}],
        });
        machine.run_pod(&pod(&spec));
        let describe = machine.orlop(["describe", "pod", "web"]).ok();
        assert!(describe.contains("8Mi (project quota)"), "{describe}");
        let fill = "dd if=/dev/zero of=/v/file bs=65536 count=144 2>&1; stat -c %s /v/file";
        let said = machine.sh("web", "c", fill);
        assert!(
            said.contains("Disk quota exceeded") || said.contains("No space left"),
            "{said}"
        );
        let size: u64 = said
            .lines()
            .last()
            .and_then(|line| line.parse().ok())
            .expect("a size");
        assert!(((8 << 20) - (64 << 10)..=8 << 20).contains(&size), "{said}");
        let df = machine.orlop(["df", "-o", "json"]).ok();
        let df: serde_json::Value = serde_json::from_str(&df).expect("JSON");
        assert_eq!(df["items"][0]["capacityBytes"], 8 << 20, "{df:#}");

        // The content is on the host as ever, and the number is given back.
        let volumes = machine.roots.pod_data(&machine.uid("web")).join("volumes");
        let directory = volumes.join("kubernetes.io~empty-dir/v");
        assert_eq!(entries(&directory), ["file"]);
        let open = fs::File::open(&directory).expect("open");
        let project = project_quota::project(open.as_fd()).expect("a project");
        drop(open);
        let top = fs::File::open(&data).expect("open");
        assert!(!project_quota::is_unused(top.as_fd(), project).expect("quotas"));
        machine.orlop(["delete", "pod", "web", "--now"]).ok();
        machine.assert_nothing_is_left();
        let start = Instant::now();
        while !project_quota::is_unused(top.as_fd(), project).expect("quotas") {
            assert!(
                start.elapsed() < LIMIT,
                "the project {project} is still limited"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(top);
        let _ = rustix::mount::unmount(&data, rustix::mount::UnmountFlags::DETACH);
    });
}
