//! `orlop tree` and `orlop df`: what is mounted where, and what it takes.

use std::fs;

use serde_json::{Value, json};

use crate::common::Machine;
use crate::support::{idle, pod, with};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn tree_and_df_tell_of_every_volume_what_it_is_and_what_it_takes() {
    let machine = Machine::new();
    let host = machine.path("host");
    fs::create_dir(&host).expect("mkdir");
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let writer = json!({"volumeMounts": [
        mount("plain", "/plain"), mount("limited", "/limited"), mount("memory", "/memory"),
    ]});
    let reader = json!({"volumeMounts": [
        {"name": "plain", "mountPath": "/part", "subPath": "a/b", "readOnly": true},
        mount("host", "/host"),
    ]});
    let spec = json!({
        "containers": [with(idle("writer"), &writer), with(idle("reader"), &reader)],
        "volumes": [
            {"name": "plain", "emptyDir": {}},
            {"name": "limited", "emptyDir": {"sizeLimit": "8Mi"}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
            {"name": "host", "hostPath": {"path": host}},
        ],
    });
    machine.run_pod(&pod(&spec));
    let fill = "for v in plain limited memory; do \
                dd if=/dev/zero of=/$v/file bs=1M count=2 2>/dev/null; done; sync; \
                ln /plain/file /plain/again; ln -s / /plain/root";
    machine.sh("web", "writer", fill);

    let df = parsed(&machine.orlop(["df", "-o", "json"]).ok());
    let items = df["items"].as_array().expect("items");
    let of = |name: &str| {
        items
            .iter()
            .find(|item| item["volume"] == name)
            .expect("a volume")
    };
    for name in ["plain", "limited", "memory"] {
        let used = of(name)["usedBytes"].as_u64().expect("a number");
        assert!(
            (2 << 20..(2 << 20) + (256 << 10)).contains(&used),
            "{name}: {used}"
        );
        assert!(of(name)["inodesUsed"].as_u64() > Some(1), "{name}: {df:#}");
        assert_eq!(of(name)["namespace"], "default");
    }
    assert_eq!(of("limited")["limitBytes"], 8 << 20);
    let left = of("limited")["availableBytes"].as_u64().expect("a number");
    assert!(
        ((6 << 20) - (256 << 10)..=6 << 20).contains(&left),
        "{left}"
    );
    assert_eq!(of("memory")["capacityBytes"], 4 << 20);
    assert_eq!(of("memory")["enforcement"], "tmpfs size");
    assert_eq!(of("plain")["limitBytes"], Value::Null);
    assert_eq!(of("host")["source"], json!(host));

    let table = machine.orlop(["df", "web"]).ok();
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "POD",
            "VOLUME",
            "TYPE",
            "LIMIT",
            "SIZE",
            "USED",
            "AVAILABLE",
            "USE%",
            "INODES",
            "ENFORCED",
            "BY"
        ]
    );
    assert_eq!(lines.len(), 5, "{table}");
    assert_eq!(
        lines[3][..7],
        ["web", "memory", "emptyDir", "4Mi", "4Mi", "2Mi", "2Mi"],
        "{table}"
    );
    assert_eq!(lines[1][3], "-", "{table}");

    let drawn = |locale: &str| {
        let mut command = machine.command(["tree", "pod/web"]);
        command.env("LC_ALL", locale);
        crate::common::finish(command).ok()
    };
    let tree = drawn("C.UTF-8");
    let begins: Vec<&str> = tree
        .lines()
        .map(|line| line.split("  ").next().expect("words"))
        .collect();
    assert_eq!(begins[0], "pod/web in default (Running)");
    assert_eq!(begins[1], "├── container writer");
    assert!(
        tree.lines()
            .nth(2)
            .expect("a line")
            .starts_with("│   ├── /plain "),
        "{tree}"
    );
    assert!(
        tree.lines()
            .nth(4)
            .expect("a line")
            .starts_with("│   └── /memory "),
        "{tree}"
    );
    assert_eq!(begins[5], "└── container reader");
    let part = tree.lines().nth(6).expect("a line");
    assert!(
        part.starts_with("    ├── /part (ro)  ←  plain/a/b "),
        "{tree}"
    );
    let host_line = tree.lines().nth(7).expect("a line");
    assert!(
        host_line.ends_with(&format!("hostPath  {}", host.display())),
        "{tree}"
    );
    assert!(
        tree.contains("2Mi of 4Mi  emptyDir (tmpfs size)  tmpfs"),
        "{tree}"
    );
    assert!(drawn("C").is_ascii());
    let tree = parsed(&machine.orlop(["tree", "-A", "-o", "json"]).ok());
    let reader = &tree["items"][0]["containers"][1];
    assert_eq!(reader["name"], "reader");
    assert_eq!(reader["mounts"][0]["subPath"], "a/b");
    assert_eq!(reader["mounts"][0]["type"], "emptyDir");

    let missing = machine.orlop(["df", "nobody"]).refused();
    assert_eq!(
        missing,
        "Error from server (NotFound): pods \"nobody\" not found\n"
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    let nothing = machine.orlop(["tree"]);
    assert_eq!(nothing.stderr, "No resources found in default namespace.\n");
    machine.assert_nothing_is_left();
}

#[test]
fn what_a_pod_keeps_in_memory_is_unknown_once_it_is_over() {
    let machine = Machine::new();
    let mounts = json!({"volumeMounts": [
        {"name": "plain", "mountPath": "/plain"}, {"name": "memory", "mountPath": "/memory"},
    ]});
    let container = crate::support::container("c", "echo text > /plain/file");
    let spec = json!({
        "restartPolicy": "Never",
        "containers": [with(container, &mounts)],
        "volumes": [
            {"name": "plain", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
    });
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", crate::support::is_over);
    crate::support::until(&machine, &["df", "-o", "json"], |text| {
        let df = parsed(text);
        let item = |index: usize| &df["items"][index];
        item(0)["inodesUsed"] == 2 && item(1)["usedBytes"].is_null()
    });
}
