//! ConfigMaps: on the command line, and as files that change all at once.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::ConfigMap;
use orlop::storage::store::{Durability, Store};
use orlop::sys::pidfd;
use serde_json::{Value, json};

use crate::common::{Machine, entries};
use crate::support::{idle, pod, row, until, with};

const SPEC: &str = include_str!("../../specs/configmap.yaml");

fn map(name: &str, data: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
        .to_string()
}

fn mounted(source: &Value) -> Value {
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    json!({"containers": [with(idle("c"), &mount)], "volumes": [{"name": "v", "configMap": source}]})
}

#[track_caller]
fn apply(machine: &Machine, manifest: &str) -> String {
    machine.orlop_with(["apply", "-f", "-"], manifest).ok()
}

/// The directory of the volume `v` on the host.
fn on_disk(machine: &Machine) -> PathBuf {
    let volumes = machine.roots.pod_data(&machine.uid("web")).join("volumes");
    volumes.join("kubernetes.io~configmap/v")
}

#[test]
fn the_shipped_manifest_shows_files_and_variables_that_follow_the_map() {
    let machine = Machine::new();
    let said = machine.run_pod(SPEC);
    assert_eq!(said, "configmap/game created\npod/configmap created\n");
    let sh = |script: &str| machine.sh("configmap", "demo", script);
    assert_eq!(
        sh("ls /config; cat /config/lives; echo; cat /some/etc/game.conf; echo $LIVES, $MESSAGE"),
        "game.properties\nlives\nui.properties\n3\nenemies=aliens\nlives=3\n3, 3 lives left\n"
    );
    let modes = "stat -c %a /config/..data/lives /some/..data/etc/game.conf /some/..data/ui.conf";
    assert_eq!(sh(modes), "644\n440\n400\n");
    assert_eq!(
        sh("(readlink /config/lives; readlink /config/..data) | sed 's/[0-9]/9/g'"),
        "..data/lives\n..9999_99_99_99_99_99.999999999\n"
    );
    let refused =
        sh("touch /config/new 2>&1; rm -f /some/ui.conf 2>&1; echo > /config/lives; true");
    assert!(refused.contains("Read-only file system"), "{refused}");

    let changed = SPEC
        .replace("lives: \"3\"", "lives: \"4\"")
        .replace("lives=3", "lives=4");
    assert_eq!(
        apply(&machine, &changed),
        "configmap/game configured\npod/configmap unchanged\n"
    );
    let read = [
        "exec",
        "configmap",
        "--",
        "/bin/sh",
        "-c",
        "cat /config/lives /some/etc/game.conf; echo $LIVES",
    ];
    let now = until(&machine, &read, |text| text.starts_with('4'));
    assert_eq!(now, "4enemies=aliens\nlives=4\n3\n", "variables stay");
    assert_eq!(
        apply(&machine, &changed),
        "configmap/game unchanged\npod/configmap unchanged\n"
    );

    let deleted = machine
        .orlop_with(["delete", "--now", "-f", "-"], SPEC)
        .ok();
    assert_eq!(
        deleted.lines().collect::<std::collections::BTreeSet<_>>(),
        [
            "configmap \"game\" deleted from default namespace",
            "pod \"configmap\" deleted from default namespace"
        ]
        .into()
    );
    machine.assert_nothing_is_left();
}

#[test]
fn commands_show_change_and_forget_maps_as_kubectl_does() {
    let machine = Machine::new();
    let two = json!({"colour": "blue", "size": "1"});
    assert_eq!(
        apply(&machine, &map("settings", &two)),
        "configmap/settings created\n"
    );
    assert_eq!(
        apply(&machine, &map("settings", &two)),
        "configmap/settings unchanged\n"
    );
    let three = json!({"colour": "red", "size": "1", "more": "x"});
    assert_eq!(
        apply(&machine, &map("settings", &three)),
        "configmap/settings configured\n"
    );
    apply(&machine, &pod(&json!({"containers": [idle("c")]})));

    let get = |words: &[&str]| machine.orlop([&["get"], words].concat()).ok();
    let table = get(&["cm"]);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["NAME", "DATA", "AGE"]);
    assert_eq!(rows[1][..2], ["settings", "3"]);
    assert_eq!(get(&["configmaps", "-o", "name"]), "configmap/settings\n");
    let both = get(&["pods,cm"]);
    assert!(
        both.contains("\npod/web ") && both.contains("\n\nNAME "),
        "{both}"
    );
    assert!(both.contains("\nconfigmap/settings "), "{both}");
    let named = get(&["cm/settings", "pod/web", "-o", "name"]);
    assert_eq!(named, "configmap/settings\npod/web\n");
    let object: Value =
        serde_json::from_str(&get(&["cm", "settings", "-o", "json"])).expect("JSON");
    assert_eq!(object["kind"], "ConfigMap");
    assert_eq!(object["data"], three);
    assert!(object["metadata"]["uid"].is_string());
    assert!(
        get(&["cm/settings", "-o", "yaml"]).starts_with("apiVersion: v1\ndata:\n  colour: red\n")
    );
    let all = get(&["all"]);
    assert!(
        all.contains("pod/web") && !all.contains("settings"),
        "{all}"
    );

    let page = machine.orlop(["describe", "cm", "settings"]).ok();
    assert!(
        page.contains("\nData\n====\ncolour:\n----\nred\n\nmore:\n----\nx\n"),
        "{page}"
    );
    let missing = machine.orlop(["get", "cm", "gone"]).refused();
    assert_eq!(
        missing,
        "Error from server (NotFound): configmaps \"gone\" not found\n"
    );
    let pods_only = machine.orlop(["logs", "cm/settings"]).refused();
    assert!(pods_only.contains("pods only"), "{pods_only}");

    let deleted = machine.orlop(["delete", "cm", "settings"]).ok();
    assert_eq!(
        deleted,
        "configmap \"settings\" deleted from default namespace\n"
    );
    machine.orlop(["delete", "cm", "settings"]).refused();
    machine
        .orlop(["delete", "cm", "settings", "--ignore-not-found"])
        .ok();
    assert!(
        machine.orlop(["get", "pod", "web"]).ok().contains("web"),
        "the pod stays"
    );
}

#[test]
fn a_manifest_with_a_change_that_is_refused_changes_nothing_at_all() {
    let machine = Machine::bare();
    let frozen =
        map("frozen", &json!({"a": "1"})).replace("\"data\"", "\"immutable\":true,\"data\"");
    apply(&machine, &frozen);
    let both = format!(
        "{}\n---\n{}",
        map("other", &json!({})),
        frozen.replace("\"1\"", "\"2\"")
    );
    let refused = machine.orlop_with(["apply", "-f", "-"], &both).refused();
    assert_eq!(
        refused,
        "The ConfigMap \"frozen\" is invalid: data: Forbidden: field is immutable when `immutable` is set\n"
    );
    machine.orlop(["get", "cm", "other"]).refused();
    let bad = map("bad", &json!({"../../etc/passwd": "x"}));
    let both = format!("{}\n---\n{bad}", map("other", &json!({})));
    let refused = machine.orlop_with(["apply", "-f", "-"], &both).refused();
    assert!(
        refused.contains("document 2") && refused.contains("data[../../etc/passwd]"),
        "{refused}"
    );
    machine.orlop(["get", "cm", "other"]).refused();
}

#[test]
fn a_pod_waits_for_its_map_and_starts_when_it_is_applied() {
    let machine = Machine::new();
    let items = json!([{"key": "colour", "path": "colour"}]);
    let spec = mounted(&json!({"name": "late", "items": items}));
    apply(&machine, &pod(&spec));
    let waits = |reason: &str| {
        let message = format!("MountVolume.SetUp failed for volume \"v\" : {reason}");
        until(&machine, &["describe", "pod", "web"], |page| {
            page.contains(&message)
        })
    };
    waits("configmap \"late\" not found");
    assert_eq!(row(&machine)[1..4], ["0/1", "ContainerCreating", "0"]);
    apply(&machine, &map("late", &json!({"size": "1"})));
    waits("configmap references non-existent config key: colour");
    apply(&machine, &map("late", &json!({"colour": "blue"})));
    machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
    assert_eq!(machine.sh("web", "c", "cat /v/colour"), "blue");

    // Gone while the pod runs: the files stay, and the next start has them.
    machine.orlop(["delete", "cm", "late"]).ok();
    waits("configmap \"late\" not found");
    assert_eq!(machine.sh("web", "c", "cat /v/colour"), "blue");
}

#[test]
fn what_is_optional_may_come_later() {
    let machine = Machine::new();
    machine.run_pod(&pod(&mounted(&json!({"name": "maybe", "optional": true}))));
    assert_eq!(machine.sh("web", "c", "ls /v"), "");
    apply(&machine, &map("maybe", &json!({"colour": "blue"})));
    let list = ["exec", "web", "--", "/bin/ls", "/v"];
    until(&machine, &list, |text| text == "colour\n");
    machine.orlop(["delete", "cm", "maybe"]).ok();
    until(&machine, &list, str::is_empty);
}

#[test]
fn an_update_switches_all_keys_at_once_while_readers_loop() {
    let machine = Machine::new();
    let version = |number: usize| {
        let text = format!("{number}\n");
        map("settings", &json!({"a": text, "b": text, "c": text}))
    };
    apply(&machine, &version(0));
    machine.run_pod(&pod(&mounted(&json!({"name": "settings"}))));
    let place = on_disk(&machine);
    // In the container: whoever went into the directory of one version sees that
    // version, or nothing once it is gone; never another.
    let script = "n=0; m=0; while ! [ -e /tmp/over ]; do cd -P /v/..data 2>/dev/null || continue; \
                  read a < a && read b < b && read c < c || continue; n=$((n+1)); \
                  [ $a$b = $b$c ] || m=$((m+1)); done 2>/dev/null; echo $n $m";
    let over = AtomicBool::new(false);
    let (inside, outside) = std::thread::scope(|scope| {
        let inside = scope.spawn(|| machine.sh("web", "c", script));
        let outside = scope.spawn(|| {
            let mut whole = 0;
            while !over.load(Ordering::Relaxed) {
                let Ok(data) = fs::read_link(place.join("..data")) else {
                    panic!("there is always a present version");
                };
                let read = |name: &str| fs::read_to_string(place.join(&data).join(name));
                if let (Ok(a), Ok(b), Ok(c)) = (read("a"), read("b"), read("c")) {
                    assert!(a == b && b == c, "a mixed set: {a} {b} {c}");
                    whole += 1;
                }
            }
            whole
        });
        for number in 1..=25 {
            apply(&machine, &version(number));
        }
        let read = ["exec", "web", "--", "/bin/cat", "/v/c"];
        until(&machine, &read, |text| text == "25\n");
        over.store(true, Ordering::Relaxed);
        machine.sh("web", "c", "touch /tmp/over");
        (
            inside.join().expect("inside"),
            outside.join().expect("outside"),
        )
    });
    let counts: Vec<u32> = inside
        .split_whitespace()
        .map(|n| n.parse().expect("a count"))
        .collect();
    assert!(
        counts[0] > 100 && counts[1] == 0,
        "whole and mixed in the pod: {inside}"
    );
    assert!(outside > 1000, "whole reads on the host: {outside}");
    // Nothing of all the versions is left but the last.
    let mut names = entries(&place);
    names.sort();
    assert_eq!(names.len(), 5, "{names:?}");
}

#[test]
fn a_keeper_killed_in_the_middle_of_updates_is_made_good() {
    let machine = Machine::new();
    let long = "x".repeat(100_000);
    let version = |number: usize| {
        let text = number.to_string();
        map(
            "settings",
            &json!({"a": text, format!("only-{number}"): long, "b": text}),
        )
    };
    apply(&machine, &version(0));
    machine.run_pod(&pod(&mounted(&json!({"name": "settings"}))));
    let place = on_disk(&machine);
    for number in 1..=5 {
        apply(&machine, &version(number));
        std::thread::sleep(std::time::Duration::from_micros(300 * number as u64));
        for pid in machine.keepers() {
            if let Ok(process) = pidfd::open(pid) {
                let _ = pidfd::send_signal(&process, 9);
            }
        }
        // The next command starts another keeper.
        machine.wait_for("web", |pod| {
            pod["status"]["phase"] == "Running"
                && pod["status"]["containerStatuses"][0]["ready"] == true
        });
    }
    let read = |name: &str| fs::read_to_string(place.join(name)).unwrap_or_default();
    machine.wait_for("web", |_| {
        read("a") == "5" && read("b") == "5" && entries(&place).len() == 5
    });
    let names = || {
        let mut names = entries(&place);
        names.sort();
        names
    };
    let all = names();
    assert_eq!(all.len(), 5, "{all:?}");
    assert_eq!(all[2..], ["a", "b", "only-5"], "{all:?}");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn an_apply_that_was_killed_before_it_told_the_pods_is_made_good() {
    let machine = Machine::new();
    apply(&machine, &map("settings", &json!({"colour": "blue"})));
    machine.run_pod(&pod(&mounted(&json!({"name": "settings"}))));
    let file = on_disk(&machine).join("colour");
    // All that such an apply has done: the change is stored, nobody knows of it.
    let store = Store::open(&machine.roots, Durability::Full).expect("the store");
    let changed = map("settings", &json!({"colour": "red"}));
    let changed = changed.replace("\"name\":", "\"namespace\":\"default\",\"name\":");
    let changed: ConfigMap = serde_json::from_str(&changed).expect("a map");
    store.apply(vec![changed.into()]).expect("stored");
    assert_eq!(store.untold().expect("untold").len(), 1);
    assert_eq!(fs::read_to_string(&file).expect("read"), "blue");
    machine.wait_for("web", |_| fs::read_to_string(&file).expect("read") == "red");
    assert!(store.untold().expect("untold").is_empty());
}

#[test]
fn a_volume_can_be_mounted_inside_one_that_nobody_may_write() {
    let machine = Machine::new();
    apply(&machine, &map("settings", &json!({"colour": "blue"})));
    let mut spec = mounted(&json!({"name": "settings"}));
    spec["volumes"]
        .as_array_mut()
        .expect("volumes")
        .push(json!({"name": "cache", "emptyDir": {}}));
    let mounts = spec["containers"][0]["volumeMounts"]
        .as_array_mut()
        .expect("mounts");
    mounts.push(json!({"name": "cache", "mountPath": "/v/deep/cache"}));
    machine.run_pod(&pod(&spec));
    machine.sh("web", "c", "echo x > /v/deep/cache/file; cat /v/colour");
    apply(&machine, &map("settings", &json!({"colour": "red"})));
    let read = [
        "exec",
        "web",
        "--",
        "/bin/cat",
        "/v/colour",
        "/v/deep/cache/file",
    ];
    until(&machine, &read, |text| text == "redx\n");
}

#[test]
fn the_files_of_a_map_are_roots_and_go_with_the_pod() {
    let machine = Machine::new();
    apply(&machine, &map("settings", &json!({"colour": "blue"})));
    machine.run_pod(&pod(&mounted(
        &json!({"name": "settings", "defaultMode": 0o604}),
    )));
    let file = on_disk(&machine).join("colour");
    let metadata = fs::metadata(&file).expect("a file");
    assert_eq!(
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777),
        (0, 0, 0o604)
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
    assert!(
        machine
            .orlop(["get", "cm", "settings"])
            .ok()
            .contains("settings"),
        "the map stays"
    );
}
