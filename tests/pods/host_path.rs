//! hostPath: files and directories of the host.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

use crate::common::{Machine, path};
use crate::support::{container, idle, output, pod, row, until, with};

const APISERVER: &str = include_str!("../../specs/kube-apiserver-volumes.yaml");

fn volume(name: &str, path: &std::path::Path, type_: &str) -> Value {
    json!({"name": name, "hostPath": {"path": path, "type": type_}})
}

fn mounted(names: &[&str]) -> Value {
    let mounts = names
        .iter()
        .map(|name| json!({"name": name, "mountPath": format!("/{name}")}));
    json!({"volumeMounts": mounts.collect::<Vec<_>>()})
}

#[test]
fn three_read_only_directories_are_created_and_never_changed() {
    let machine = Machine::new();
    let host = machine.path("host");
    let manifest = APISERVER.replace("path: /etc", &format!("path: {}/etc", host.display()));
    let certificates = host.join("etc/ssl/certs");
    fs::create_dir_all(&certificates).expect("mkdir");
    fs::write(certificates.join("ca.crt"), "certificate").expect("write");
    let created = [host.join("etc/pki"), host.join("etc/kubernetes/pki")];

    machine.run_pod(&manifest);
    for directory in &created {
        let mode = fs::metadata(directory)
            .expect("created")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o755, "{directory:?}");
    }
    let name = "kube-apiserver-volumes";
    for place in ["/etc/ssl/certs", "/etc/pki", "/etc/kubernetes/pki"] {
        let script = format!("touch {place}/new 2>&1; rm -f {place}/ca.crt 2>&1");
        let said = machine
            .orlop(["exec", name, "--", "/bin/sh", "-c", &script])
            .stdout;
        assert!(said.contains("Read-only file system"), "{place}: {said}");
    }
    let text = machine.sh(name, "certificates", "cat /etc/ssl/certs/ca.crt");
    assert_eq!(text, "certificate");

    // What the host adds is seen at once.
    fs::write(created[0].join("late"), "late").expect("write");
    assert_eq!(
        machine.sh(name, "certificates", "cat /etc/pki/late"),
        "late"
    );

    machine.orlop(["delete", "pod", name, "--now"]).ok();
    machine.assert_nothing_is_left();
    let kept = fs::read_to_string(certificates.join("ca.crt")).expect("kept");
    assert_eq!(kept, "certificate");
    assert!(created[0].join("late").exists() && created[1].is_dir());
}

#[test]
fn each_type_is_checked_and_the_pod_starts_once_the_host_is_right() {
    let machine = Machine::new();
    let place = machine.path("host");
    fs::create_dir(&place).expect("mkdir");
    let at = |name: &str| place.join(name);
    // What is at each path is not what the manifest says.
    fs::write(at("directory"), "a file").expect("write");
    fs::write(at("made"), "a file").expect("write");
    fs::create_dir(at("file")).expect("mkdir");
    fs::create_dir(at("touched")).expect("mkdir");
    fs::write(at("socket"), "a file").expect("write");
    let types = [
        ("directory", "Directory", "is not a directory"),
        ("absent", "Directory", "is not a directory"),
        ("made", "DirectoryOrCreate", "is not a directory"),
        ("file", "File", "is not a file"),
        ("touched", "FileOrCreate", "is not a file"),
        ("socket", "Socket", "is not a socket file"),
        ("char", "CharDevice", "is not a character device"),
        ("block", "BlockDevice", "is not a block device"),
    ];
    let volumes: Vec<Value> = types
        .iter()
        .map(|(name, type_, _)| volume(name, &at(name), type_))
        .collect();
    let names: Vec<&str> = types.iter().map(|(name, ..)| *name).collect();
    let spec = json!({"containers": [with(idle("c"), &mounted(&names))], "volumes": volumes});
    let applied = machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    assert_eq!(applied, "pod/web created\n");

    let page = until(&machine, &["describe", "pod", "web"], |page| {
        page.matches("hostPath type check failed").count() >= types.len()
    });
    for (name, _, reason) in types {
        let message = format!(
            "MountVolume.SetUp failed for volume \"{name}\" : hostPath type check failed: {} {reason}",
            path(&at(name))
        );
        assert!(page.contains(&message), "{message}\n{page}");
    }
    assert!(page.contains("FailedMount"), "{page}");
    assert_eq!(row(&machine)[1..4], ["0/1", "ContainerCreating", "0"]);
    let logs = machine.orlop(["logs", "web"]).refused();
    assert!(
        logs.contains("is waiting to start: ContainerCreating"),
        "{logs}"
    );

    for file in ["directory", "made", "socket"] {
        fs::remove_file(at(file)).expect("remove");
    }
    for directory in ["file", "touched"] {
        fs::remove_dir(at(directory)).expect("remove");
    }
    for directory in ["directory", "absent"] {
        fs::create_dir(at(directory)).expect("mkdir");
    }
    fs::write(at("file"), "content").expect("write");
    let _listener = UnixListener::bind(at("socket")).expect("bind");
    let device = |name: &str, kind, major, minor| {
        mknodat(CWD, at(name), kind, Mode::RUSR, makedev(major, minor)).expect("mknod");
    };
    device("char", FileType::CharacterDevice, 1, 3);
    device("block", FileType::BlockDevice, 7, 200);

    machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
    let script = "test -d /directory && test -d /absent && test -d /made && test -f /touched \
                  && test -S /socket && test -c /char && test -b /block && cat /file";
    assert_eq!(machine.sh("web", "c", script), "content");
    let mode = fs::metadata(at("touched"))
        .expect("made")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o644);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
    assert!(at("made").is_dir() && at("touched").is_file());
}

#[test]
fn a_single_file_can_be_a_volume() {
    let machine = Machine::new();
    let file = machine.path("message");
    fs::write(&file, "from the host\n").expect("write");
    let mount = json!({"volumeMounts": [{"name": "m", "mountPath": "/etc/deep/down/message"}]});
    let script = "cat /etc/deep/down/message; echo from the pod > /etc/deep/down/message";
    let spec = json!({
        "containers": [with(container("c", script), &mount)],
        "volumes": [volume("m", &file, "File")],
    });
    assert_eq!(output(&machine, &spec), "from the host\n");
    assert_eq!(fs::read_to_string(&file).expect("read"), "from the pod\n");
}

#[test]
fn a_path_that_is_a_symbolic_link_is_followed_on_the_host() {
    let machine = Machine::new();
    let (real, link) = (machine.path("real"), machine.path("link"));
    fs::create_dir(&real).expect("mkdir");
    fs::write(real.join("file"), "behind the link").expect("write");
    symlink(&real, &link).expect("symlink");
    let spec = json!({
        "containers": [with(container("c", "cat /v/file"), &mounted(&["v"]))],
        "volumes": [volume("v", &link, "Directory")],
    });
    assert_eq!(output(&machine, &spec), "behind the link");
}

#[test]
fn a_path_without_a_type_is_created_as_a_directory() {
    let machine = Machine::new();
    let missing = machine.path("not/there");
    let spec = json!({
        "containers": [with(container("c", "touch /v/file"), &mounted(&["v"]))],
        "volumes": [{"name": "v", "hostPath": {"path": missing}}],
    });
    output(&machine, &spec);
    machine.orlop(["delete", "pod", "web"]).ok();
    assert!(missing.join("file").is_file());
    machine.assert_nothing_is_left();
}
