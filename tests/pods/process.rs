//! The process of a container: what is executed, as whom, and with what rights.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{Machine, busybox_archive, path};
use crate::support::{container, group, idle, is_over, output, pod, with};

/// An archive of `docker save` with one layer, the image `custom:1`.
fn docker_archive(config: &Value) -> Vec<u8> {
    let layer = busybox_archive();
    let digits: String = Sha256::digest(&layer)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digits}")]},
    });
    let manifest = json!([
        {"Config": "config.json", "RepoTags": ["custom:1"], "Layers": ["layer.tar"]}
    ]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [
        ("config.json", config.to_string().into_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, name, content.as_slice())
            .expect("append");
    }
    archive.into_inner().expect("finish")
}

/// A machine with the image `custom:1` of this configuration.
fn machine(config: &Value) -> Machine {
    let machine = Machine::bare();
    let file = machine.path("custom.tar");
    std::fs::write(&file, docker_archive(config)).expect("write");
    machine.orlop(["image", "import", path(&file)]).ok();
    machine
}

fn custom(name: &str, fields: &Value) -> Value {
    with(json!({"name": name, "image": "custom:1"}), fields)
}

#[test]
fn command_and_args_replace_entrypoint_and_cmd_as_kubernetes_says() {
    let machine = machine(&json!({"Entrypoint": ["/bin/echo", "entrypoint"], "Cmd": ["cmd"]}));
    let cases = [
        ("neither", json!({}), "entrypoint cmd\n"),
        ("args", json!({"args": ["args"]}), "entrypoint args\n"),
        (
            "command",
            json!({"command": ["/bin/echo", "command"]}),
            "command\n",
        ),
        (
            "both",
            json!({"command": ["/bin/echo", "command"], "args": ["args"]}),
            "command args\n",
        ),
        (
            "searched",
            json!({"command": ["echo", "by PATH"]}),
            "by PATH\n",
        ),
    ];
    let containers: Vec<Value> = cases
        .iter()
        .map(|(name, fields, _)| custom(name, fields))
        .collect();
    output(&machine, &json!({"containers": containers}));
    for (name, _, printed) in cases {
        assert_eq!(machine.orlop(["logs", "web", name]).ok(), printed, "{name}");
    }
}

#[test]
fn the_images_user_directory_and_variables_hold_where_the_manifest_is_silent() {
    let image = json!({
        "Env": ["A=image", "B=image"],
        "User": "guest",
        "WorkingDir": "/srv/work",
        "Cmd": ["/bin/sh", "-c", "id -u; id -g; id -G; pwd; echo $A $B $HOME; touch x 2>&1"],
    });
    let machine = machine(&image);
    let env = json!({"env": [{"name": "B", "value": "manifest"}]});
    let other = json!({
        "workingDir": "/tmp/made",
        "securityContext": {"runAsUser": 1000, "runAsGroup": 2000},
    });
    let spec = json!({"containers": [custom("c", &env), custom("other", &other)]});
    let printed = output(&machine, &spec);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines[..5],
        ["405", "100", "100 29", "/srv/work", "image manifest /"],
        "{printed}"
    );
    let printed = machine.orlop(["logs", "web", "other"]).ok();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines[..5],
        ["1000", "2000", "2000", "/tmp/made", "image image /"],
        "{printed}"
    );
}

#[test]
fn variables_refer_to_those_before_them_and_keep_their_order() {
    let machine = Machine::new();
    let mut c = container("c", "echo \"$0|$1\"");
    c["args"] = json!(["$(B) $(C) $(NONE)", "$$(A) $(E)"]);
    c["env"] = json!([
        {"name": "ZULU", "value": "1"},
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)2"},
        {"name": "C", "value": "$(D)"},
        {"name": "D", "value": "late"},
        {"name": "E", "value": "$$(A)"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]);
    // A shell would put them in an order of its own.
    let mut env = with(c.clone(), &json!({"name": "env", "command": ["/bin/env"]}));
    env["args"] = json!([]);
    let printed = output(&machine, &json!({"containers": [c, env]}));
    assert_eq!(printed, "12 $(D) $(NONE)|$(A) $(A)\n");
    let printed = machine.orlop(["logs", "web", "env"]).ok();
    let names = [
        "HOSTNAME=web",
        "ZULU=1",
        "A=1",
        "B=12",
        "C=$(D)",
        "D=late",
        "E=$(A)",
        "NAME=web",
    ];
    let order: Vec<&str> = printed
        .lines()
        .filter(|line| names.contains(line))
        .collect();
    assert_eq!(order, names, "{printed}");
}

#[test]
fn capabilities_are_added_and_dropped_by_name() {
    let machine = Machine::new();
    let script = "grep CapEff /proc/self/status | cut -f 2";
    let context = |context: Value| json!({"securityContext": context});
    let capabilities = |lists: Value| context(json!({"capabilities": lists}));
    let spec = json!({"containers": [
        container("default", script),
        with(container("none", script), &capabilities(json!({"drop": ["ALL"]}))),
        with(container("more", script), &capabilities(json!({"add": ["NET_ADMIN"], "drop": ["CHOWN"]}))),
        with(container("one", script), &capabilities(json!({"add": ["CAP_CHOWN"], "drop": ["ALL"]}))),
        with(container("all", script), &context(json!({"privileged": true}))),
        with(container("user", script), &context(json!({"runAsUser": 1000}))),
    ]});
    output(&machine, &spec);
    let of = |name: &str| {
        let printed = machine.orlop(["logs", "web", name]).ok();
        u64::from_str_radix(printed.trim(), 16).expect("a mask")
    };
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = u64::from_str_radix(bounding.expect("CapBnd").trim(), 16).expect("a mask");
    let (chown, net_admin) = (1, 1 << 12);
    assert_eq!(of("default"), 0xa804_25fb);
    assert_eq!(of("none"), 0);
    assert_eq!(of("more"), (0xa804_25fb | net_admin) & !chown);
    assert_eq!(of("one"), chown);
    assert_eq!(of("all"), bounding);
    assert_eq!(
        of("user"),
        0,
        "a user other than root has no rights at first"
    );
}

#[test]
fn a_privileged_container_sees_the_hosts_devices_and_another_does_not() {
    let machine = Machine::new();
    let script = "ls /dev | grep -c -x -e kmsg -e mem -e loop-control; grep -c ' /sys sysfs rw' /proc/mounts; true";
    let privileged = json!({"securityContext": {"privileged": true}});
    let spec = json!({"containers": [
        container("plain", script),
        with(container("all", script), &privileged),
    ]});
    assert_eq!(output(&machine, &spec), "0\n0\n");
    let here = ["kmsg", "mem", "loop-control"]
        .map(|name| std::path::Path::new("/dev").join(name).exists());
    let count = here.into_iter().filter(|there| *there).count();
    let all = machine.orlop(["logs", "web", "all"]).ok();
    assert_eq!(all, format!("{count}\n1\n"));
}

#[test]
fn a_read_only_root_file_system_leaves_volumes_and_shared_memory_writable() {
    let machine = Machine::new();
    let script =
        "touch /file 2>&1; touch /etc/hosts 2>&1; touch /v/file /dev/shm/file && echo written";
    let fields = json!({
        "securityContext": {"readOnlyRootFilesystem": true},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
    });
    let spec = json!({
        "containers": [with(container("c", script), &fields)],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    let printed = output(&machine, &spec);
    assert_eq!(
        printed.matches("Read-only file system").count(),
        2,
        "{printed}"
    );
    assert!(printed.ends_with("written\n"), "{printed}");
}

#[test]
fn limits_are_those_of_the_containers_control_group() {
    let machine = Machine::new();
    let limits = json!({"resources": {
        "requests": {"cpu": "250m"},
        "limits": {"memory": "64Mi", "cpu": "500m"},
    }});
    let spec = json!({"containers": [with(idle("c"), &limits)]});
    machine.run_pod(&pod(&spec));
    let group = group(&machine, "c");
    let unified = orlop::sys::cgroup::Cgroups::detect()
        .expect("cgroups")
        .is_unified();
    let read = |controller: &str, file: &str| {
        let place = if unified {
            String::new()
        } else {
            format!("/{controller}")
        };
        let path = format!("/sys/fs/cgroup{place}{group}/{file}");
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    if unified {
        assert_eq!(read("", "memory.max"), "67108864\n");
        assert_eq!(read("", "cpu.max"), "50000 100000\n");
    } else {
        assert_eq!(read("memory", "memory.limit_in_bytes"), "67108864\n");
        assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000\n");
        assert_eq!(read("cpu", "cpu.shares"), "256\n");
    }
    // The container sees its own group, too.
    let file = if unified {
        "/sys/fs/cgroup/memory.max"
    } else {
        "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    };
    assert_eq!(machine.sh("web", "c", &format!("cat {file}")), "67108864\n");
}

#[test]
fn a_container_that_takes_more_memory_than_its_limit_is_killed() {
    let machine = Machine::new();
    let limits = json!({"resources": {"limits": {"memory": "16Mi"}}});
    let script = "exec tail -c 100000000 /dev/zero";
    let spec =
        json!({"restartPolicy": "Never", "containers": [with(container("c", script), &limits)]});
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", is_over);
    let web = machine.pod("web");
    let ended = &crate::support::status(&web, "c")["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"]),
        (&json!(137), &json!("OOMKilled"))
    );
    assert_eq!(crate::support::row(&machine)[1..3], ["0/1", "OOMKilled"]);
}
