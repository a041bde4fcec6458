//! Pods with NFS volumes on a server that is well.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::io::Errno;
use serde_json::json;

use crate::common::nfs_server::{NfsServer, SERVER};
use crate::common::{LIMIT, Machine, finish, path};
use crate::support::{IDLE, apply, described, host_mounts, nfs_mounts, on_server, plain, pod, row};

const MANIFEST: &str = include_str!("../../specs/nfs-volume.yaml");

#[test]
fn what_a_pod_writes_is_on_the_server_and_stays_there() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    let before = host_mounts();
    machine.run_pod(&MANIFEST.replace("nfs.example.com", SERVER));
    assert_eq!(row(&machine, "nfs-volume")[1..4], ["1/1", "Running", "0"]);

    machine
        .orlop(["exec", "nfs-volume", "touch", "/mydata/hello"])
        .ok();
    let file = fs::metadata(server.path("nfsdata/hello")).expect("on the server");
    assert_eq!(
        (file.uid(), file.gid(), file.mode() & 0o7777),
        (0, 0, 0o644)
    );
    fs::write(server.path("nfsdata/from-the-server"), "seen\n").expect("write");
    assert_eq!(
        machine.sh("nfs-volume", "app", "cat /mydata/from-the-server"),
        "seen\n"
    );

    // It is in the pod's table of mounts, and in no other.
    let table = machine.sh("nfs-volume", "app", "grep /mydata /proc/self/mountinfo");
    assert!(
        table.contains(&format!("nfs4 {SERVER}:/nfsdata rw")),
        "{table}"
    );
    assert_eq!(host_mounts(), before);
    let uid = machine.uid("nfs-volume");
    let directory = machine
        .roots
        .pods()
        .join(&uid)
        .join("volumes/kubernetes.io~nfs/data");
    assert_eq!(
        fs::metadata(directory).expect("a directory").mode() & 0o777,
        0o750
    );

    let page = machine.orlop(["describe", "pod", "nfs-volume"]).ok();
    for wanted in [
        "NFS (an NFS mount that lasts the lifetime of a pod)",
        &format!("Server:      {SERVER}"),
        "Path:        /nfsdata",
        "ReadOnly:    false",
    ] {
        assert!(page.contains(wanted), "no {wanted:?} in: {page}");
    }
    assert!(!page.contains("Warning"), "{page}");
    let df = machine.orlop(["df", "-o", "json"]).ok();
    let df: serde_json::Value = serde_json::from_str(&df).expect("JSON");
    assert_eq!(df["items"][0]["source"], format!("{SERVER}:/nfsdata"));
    assert!(df["items"][0]["capacityBytes"].as_u64() > Some(0), "{df}");

    machine.orlop(["delete", "pod", "nfs-volume"]).ok();
    machine.assert_nothing_is_left();
    assert!(server.path("nfsdata/hello").exists());
    assert_eq!(nfs_mounts(), [""; 0]);
}

#[test]
fn a_volume_can_be_read_only_shared_and_had_in_parts() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    fs::write(server.path("nfsdata/file"), "content\n").expect("write");
    let mut manifest = pod("web", "/nfsdata", IDLE);
    manifest["spec"]["volumes"][0]["nfs"]["readOnly"] = json!(true);
    manifest["spec"]["volumes"]
        .as_array_mut()
        .expect("volumes")
        .push(json!({"name": "more", "nfs": {"server": "fd99::1", "path": "/nfsdata"}}));
    manifest["spec"]["containers"][0]["volumeMounts"]
        .as_array_mut()
        .expect("mounts")
        .push(json!({"name": "more", "mountPath": "/more", "subPath": "made/here"}));
    machine.run_pod(&manifest.to_string());
    let said = machine.sh(
        "web",
        "c",
        "cat /data/file; touch /data/no 2>&1; echo part > /more/file",
    );
    assert!(
        said.contains("content\n") && said.contains("Read-only file system"),
        "{said}"
    );
    let part = fs::read_to_string(server.path("nfsdata/made/here/file")).expect("read");
    assert_eq!(part, "part\n");

    // A second pod shares the directory with the first.
    machine.run_pod(&pod("other", "/nfsdata", IDLE).to_string());
    machine.sh("other", "c", "echo changed > /data/file");
    assert_eq!(machine.sh("web", "c", "cat /data/file"), "changed\n");
    machine
        .orlop(["delete", "pod", "web", "other", "--now"])
        .ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_missing_directory_is_waited_for_and_the_pod_starts_once_it_is_there() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    apply(&machine, &pod("mypod1", "/nfsdata/pv1", IDLE));
    let message = format!(
        "MountVolume.SetUp failed for volume \"data\" : mount failed: mount.nfs: mounting {SERVER}:/nfsdata/pv1 \
         failed, reason given by server: No such file or directory"
    );
    described(&machine, "mypod1", &message);
    assert_eq!(
        row(&machine, "mypod1")[1..4],
        ["0/1", "ContainerCreating", "0"]
    );
    // It keeps no other pod waiting, and is deleted without being waited for.
    apply(&machine, &pod("mypod2", "/nfsdata/pv2", IDLE));
    machine.run_pod(&plain("plain").to_string());
    described(&machine, "mypod2", "reason given by server");
    machine.orlop(["delete", "pod", "mypod2", "plain"]).ok();

    fs::create_dir(server.path("nfsdata/pv1")).expect("mkdir");
    machine.wait_for("mypod1", |pod| pod["status"]["phase"] == "Running");
    assert_eq!(row(&machine, "mypod1")[1..4], ["1/1", "Running", "0"]);
    machine.sh("mypod1", "c", "echo kept > /data/file");
    machine.orlop(["delete", "pod", "mypod1"]).ok();
    machine.assert_nothing_is_left();

    // Another pod finds what the first one left.
    let mut reader = pod("reader", "/nfsdata/pv1", "cat /data/file");
    reader["spec"]["restartPolicy"] = json!("Never");
    machine.run_pod(&reader.to_string());
    machine.wait_for("reader", |pod| pod["status"]["phase"] == "Succeeded");
    assert_eq!(machine.orlop(["logs", "reader"]).ok(), "kept\n");
}

fn logs(machine: &Machine) -> String {
    machine.orlop(["logs", "mysql"]).ok()
}

#[test]
fn a_server_that_squashes_root_is_named_before_the_container_complains() {
    let Some(_server) = NfsServer::start() else {
        return;
    };
    let mut machine = Machine::new();
    let pace = ("ORLOP_TEST_BACKOFF_PACE".to_owned(), "0.05".to_owned());
    machine.environment.push(pace);
    apply(&machine, &pod("mysql", "/squash", "chown 999:999 /data/"));
    machine.wait_for("mysql", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    let last = &machine.pod("mysql")["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["reason"], "Error", "{last}");
    // A start that has only begun has nothing to tell yet.
    let start = Instant::now();
    while !logs(&machine).contains("/data/: Operation not permitted") {
        assert!(start.elapsed() < LIMIT, "{}", logs(&machine));
    }
    let page = machine.orlop(["describe", "pod", "mysql"]).ok();
    let message =
        format!("volume \"data\": the server of {SERVER}:/squash squashes root (root_squash)");
    assert!(
        page.contains("RootSquashed") && page.contains(&message),
        "{page}"
    );
    machine.orlop(["delete", "pod", "mysql"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_servers_name_is_looked_up_as_the_machine_does() {
    let Some(_server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    let hosts = machine.path("hosts-file");
    fs::write(
        &hosts,
        format!("127.0.0.1 localhost\n{SERVER} storage.example\n"),
    )
    .expect("write");
    let manifest = machine.path("pod.json");
    let pod = on_server("web", "storage.example", "/nfsdata", IDLE);
    fs::write(&manifest, pod.to_string()).expect("write");
    // A machine with another table of hosts.
    let orlop = machine.command(["apply", "--wait", "--timeout", "100", "-f", path(&manifest)]);
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
    command
        .args(["--mount", "sh", "-c", script, "sh", path(&hosts)])
        .arg(orlop.get_program())
        .args(orlop.get_args())
        .envs(
            orlop
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    finish(command).ok();
    let table = machine.sh("web", "c", "grep /data /proc/self/mountinfo");
    assert!(table.contains("nfs4 storage.example:/nfsdata"), "{table}");

    let unknown = on_server("lost", "no.such.host.invalid", "/nfsdata", IDLE);
    apply(&machine, &unknown);
    described(
        &machine,
        "lost",
        "mount.nfs: Failed to resolve server no.such.host.invalid: ",
    );
    machine
        .orlop(["delete", "pod", "web", "lost", "--now"])
        .ok();
    machine.assert_nothing_is_left();
}

#[test]
fn the_hosts_table_of_mounts_does_not_know_of_ten_pods_nor_of_their_violent_end() {
    let Some(server) = NfsServer::start() else {
        return;
    };
    let machine = Machine::new();
    let before = host_mounts();
    let pods: Vec<String> = (0..10).map(|number| format!("web-{number}")).collect();
    let manifests: Vec<String> = pods
        .iter()
        .map(|name| {
            let script = format!("echo {name} > /data/{name}; {IDLE}");
            pod(name, "/nfsdata", &script).to_string()
        })
        .collect();
    machine.run_pod(&manifests.join("\n---\n"));
    assert_eq!(host_mounts(), before);
    for name in &pods {
        let text = fs::read_to_string(server.path("nfsdata").join(name)).expect("written");
        assert_eq!(text, format!("{name}\n"));
    }
    // Keepers and launchers die; containers are left until somebody looks.
    let victims = machine.keepers();
    assert!(victims.len() >= 20, "{victims:?}");
    for pid in victims {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        let killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        assert!(matches!(killed, Ok(()) | Err(Errno::SRCH)), "{killed:?}");
    }
    let mut delete = vec!["delete", "pod", "--now"];
    delete.extend(pods.iter().map(String::as_str));
    machine.orlop(delete).ok();
    machine.assert_nothing_is_left();
    let start = Instant::now();
    while !nfs_mounts().is_empty() {
        assert!(start.elapsed() < LIMIT, "{:?}", nfs_mounts());
    }
    assert_eq!(host_mounts(), before);
}
