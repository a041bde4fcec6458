//! `subPath` and `subPathExpr`: parts of volumes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use crate::common::{Machine, entries};
use crate::support::{container, idle, kill, pod, status, until, with};

const SPEC: &str = include_str!("../../specs/subpath.yaml");

fn part(volume: &str, mount_path: &str, sub_path: &str) -> Value {
    json!({"name": volume, "mountPath": mount_path, "subPath": sub_path})
}

/// The state of a container that could not be made, if it is in one.
fn config_error(pod: &Value, container: &str) -> Option<String> {
    let status = status(pod, container);
    let states = [
        &status["state"]["waiting"],
        &status["state"]["terminated"],
        &status["lastState"]["terminated"],
    ];
    let state = states
        .into_iter()
        .find(|state| state["reason"] == "CreateContainerConfigError")?;
    Some(state["message"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn each_container_gets_its_part_of_a_volume() {
    let machine = Machine::new();
    machine.run_pod(SPEC);
    let found = machine.sh("subpath", "backup", "cd /backup && find . | sort");
    assert_eq!(
        found,
        ".\n./database\n./database/table\n./logs\n./logs/subpath\n./logs/subpath/access.log\n"
    );
    assert_eq!(
        machine.sh("subpath", "database", "ls /var/lib/data"),
        "table\n"
    );
    // Parts are mounts of their own, which nobody can climb out of.
    assert_eq!(
        machine.sh("subpath", "database", "ls /var/lib/data/.."),
        "data\n"
    );

    let volumes = machine
        .roots
        .pod_data(&machine.uid("subpath"))
        .join("volumes");
    let made = volumes.join("kubernetes.io~empty-dir/site/logs");
    let mode = fs::metadata(made).expect("made").permissions().mode();
    assert_eq!(mode & 0o7777, 0o777, "as the volume's root has it");
    machine.orlop(["delete", "pod", "subpath", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_part_may_be_a_file_and_stays_through_restarts() {
    let machine = Machine::new();
    let host = machine.path("host");
    fs::create_dir(&host).expect("mkdir");
    fs::write(host.join("app.conf"), "first\n").expect("write");
    symlink("app.conf", host.join("current")).expect("symlink");
    // The mount points are missing in a root that the container finds read-only.
    let context = json!({"readOnlyRootFilesystem": true});
    let mounts = json!({"securityContext": context, "volumeMounts": [
        part("h", "/etc/app/app.conf", "current"),
        {"name": "h", "mountPath": "/etc/app/read.conf", "subPath": "app.conf", "readOnly": true},
        part("e", "/data", "a/b"),
    ]});
    let spec = json!({
        "containers": [with(idle("c"), &mounts)],
        "volumes": [{"name": "h", "hostPath": {"path": host}}, {"name": "e", "emptyDir": {}}],
    });
    machine.run_pod(&pod(&spec));
    let read = "cat /etc/app/app.conf /etc/app/read.conf; touch /etc/app/read.conf 2>&1; ls /data";
    let said = machine.sh("web", "c", &format!("{read}; true"));
    assert!(said.starts_with("first\nfirst\n"), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    machine.sh(
        "web",
        "c",
        "echo second > /etc/app/app.conf; touch /data/kept",
    );
    assert_eq!(
        fs::read_to_string(host.join("app.conf")).expect("read"),
        "second\n"
    );

    kill(&machine, "c");
    machine.wait_for("web", |pod| {
        status(pod, "c")["restartCount"] == 1 && status(pod, "c")["ready"] == true
    });
    assert_eq!(
        machine.sh("web", "c", "cat /etc/app/app.conf; ls /data"),
        "second\nkept\n"
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
    assert!(host.join("app.conf").is_file());
}

#[test]
fn what_cannot_be_a_part_is_said_in_kubelets_words() {
    let machine = Machine::new();
    let (host, canary) = (machine.path("host"), machine.path("canary"));
    fs::create_dir(&host).expect("mkdir");
    fs::create_dir(&canary).expect("mkdir");
    symlink(&canary, host.join("absolute")).expect("symlink");
    symlink("../canary", host.join("up")).expect("symlink");
    symlink("nothing", host.join("dangling")).expect("symlink");
    fs::write(host.join("file"), "").expect("write");
    let expression = |text: &str| json!({"name": "h", "mountPath": "/v", "subPathExpr": text});
    let outside = "leads out of the volume through a symbolic link";
    let prepare = |name: &str, path: &str, why: &str| {
        format!(
            "failed to prepare subPath for volumeMount \"h\" of container \"{name}\": \"{path}\" {why}"
        )
    };
    let cases = [
        (
            "absolute",
            part("h", "/v", "absolute"),
            prepare("absolute", "absolute", outside),
        ),
        (
            "deeper",
            part("h", "/v", "up/new"),
            prepare("deeper", "up/new", outside),
        ),
        (
            "dangling",
            part("h", "/v", "dangling"),
            "failed to create subPath directory for volumeMount \"h\" of container \"dangling\": \
             \"dangling\" goes through a symbolic link to what is not there"
                .to_owned(),
        ),
        (
            "file",
            part("h", "/v", "file/below"),
            prepare(
                "file",
                "file/below",
                "goes through a file as if it were a directory",
            ),
        ),
        (
            "unset",
            expression("$(B)/$(A)"),
            "missing value for A, B".to_owned(),
        ),
        (
            "rooted",
            expression("$(ROOT)/etc"),
            "error SubPath `/x/etc` must not be an absolute path".to_owned(),
        ),
        (
            "climbs",
            expression("$(UP)/etc"),
            "unable to provision SubPath `../etc`: must not contain '..'".to_owned(),
        ),
    ];
    let env = json!([{"name": "ROOT", "value": "/x"}, {"name": "UP", "value": ".."}]);
    let containers: Vec<Value> = cases
        .iter()
        .map(|(name, mount, _)| with(idle(name), &json!({"volumeMounts": [mount], "env": env})))
        .collect();
    let volume = json!({"name": "h", "hostPath": {"path": host}});
    let spec = json!({"containers": containers, "volumes": [volume], "restartPolicy": "Never"});
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    for (name, _, wanted) in &cases {
        machine.wait_for("web", |pod| config_error(pod, name).is_some());
        let said = config_error(&machine.pod("web"), name);
        assert_eq!(said.as_deref(), Some(wanted.as_str()), "{name}");
    }
    until(&machine, &["describe", "pod", "web"], |page| {
        cases.iter().all(|(_, _, wanted)| page.contains(wanted))
    });
    assert_eq!(entries(&canary), [""; 0]);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

/// Ends the racer, also when the test fails.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Real starts, while a racer swaps the part with a link to the host.
#[test]
fn a_link_that_comes_between_two_starts_never_leads_to_the_host() {
    const CONTAINERS: usize = 25;
    // Fewer on a slow kernel.
    let starts = std::env::var("ORLOP_TEST_RUNS").ok();
    let starts: usize = starts.map_or(100, |runs| runs.parse().expect("a number"));
    let pods = starts.div_ceil(CONTAINERS);
    let machine = Machine::new();
    let (volume, host) = (machine.path("volume"), machine.path("host"));
    fs::create_dir_all(volume.join("swap")).expect("mkdir");
    fs::create_dir(&host).expect("mkdir");
    fs::write(volume.join("swap/canary"), "mine").expect("write");
    fs::write(host.join("canary"), "the host's").expect("write");
    symlink(&host, volume.join("link")).expect("symlink");
    let names: Vec<String> = (0..CONTAINERS).map(|index| format!("c{index}")).collect();
    let containers: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let mounts = match index % 2 {
                0 => part("v", "/v", "swap"),
                _ => part("v", "/v/canary", "swap/canary"),
            };
            let script = "cat /v/canary; touch /v/canary";
            with(container(name, script), &json!({"volumeMounts": [mounts]}))
        })
        .collect();
    let source = json!({"name": "v", "hostPath": {"path": volume}});
    let spec = json!({"containers": containers, "volumes": [source], "restartPolicy": "Never"});

    let over = AtomicBool::new(false);
    let before = fs::metadata(host.join("canary"))
        .expect("canary")
        .modified()
        .expect("time");
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let _end = AtEnd(&over);
        scope.spawn(|| {
            let (swap, link) = (volume.join("swap"), volume.join("link"));
            while !over.load(Ordering::Relaxed) {
                let flags = RenameFlags::EXCHANGE;
                renameat_with(CWD, &swap, CWD, &link, flags).expect("swap");
                // Turns of a length that starts fall into, and also between.
                std::thread::sleep(std::time::Duration::from_micros(700));
            }
        });
        for _ in 0..pods {
            machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
            let settled = |pod: &Value, name: &str| {
                config_error(pod, name).is_some()
                    || !status(pod, name)["state"]["terminated"].is_null()
            };
            // Those that were refused are tried again: what counts is this one moment.
            let now = machine.wait_for("web", |pod| names.iter().all(|name| settled(pod, name)));
            for name in &names {
                if config_error(&now, name).is_some() {
                    refused += 1;
                    continue;
                }
                let said = machine.orlop(["logs", "web", "-c", name]).ok();
                assert!(said.starts_with("mine"), "{said} {}", status(&now, name));
                inside += 1;
            }
            machine.orlop(["delete", "pod", "web", "--now"]).ok();
        }
    });
    assert!(
        inside > 0 && refused > 0,
        "{inside} inside, {refused} refused: no race"
    );
    let after = fs::metadata(host.join("canary"))
        .expect("canary")
        .modified()
        .expect("time");
    assert_eq!(before, after, "nobody touched what is the host's");
    machine.assert_nothing_is_left();
}
