//! Filters for system calls.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::common::Machine;
use crate::support::{container, idle, pod, status, with};

const SPEC: &str = include_str!("../../specs/seccomp.yaml");

/// The profile that the specification describes.
const NO_CHMOD: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    {"names": ["chmod", "fchmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]}"#;

/// The state of filters of a shell: none is 0, a filter is 2 (proc_pid_status(5)).
const MODE: &str = "sed -n 's/^Seccomp:.//p' /proc/self/status";

fn profile(kind: &str) -> Value {
    json!({"securityContext": {"seccompProfile": {"type": kind}}})
}

fn own(machine: &Machine, name: &str, text: &str) {
    let directory = machine.roots.seccomp();
    fs::create_dir_all(&directory).expect("mkdir");
    fs::write(directory.join(name), text).expect("write");
}

#[test]
fn a_profile_of_the_machine_forbids_what_it_names_in_every_process() {
    let machine = Machine::new();
    own(&machine, "no-chmod.json", NO_CHMOD);
    machine.run_pod(SPEC);
    // Processes that come later have it, too.
    assert_eq!(machine.sh("seccomp", "app", MODE), "2\n");
    let script =
        "touch /tmp/f; chmod 600 /tmp/f 2>&1; grep Seccomp: /proc/1/status; stat -c %a /tmp/f";
    let said = machine.sh("seccomp", "app", script);
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(said.contains("Seccomp:\t2"), "{said}");
    assert!(said.ends_with("644\n"), "{said}");
    // What it took to load the filter is gone: capabilities are the default ones.
    let sets = machine.sh(
        "seccomp",
        "app",
        "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status /proc/1/status",
    );
    let sets: Vec<_> = sets.lines().map(|line| line.rsplit('\t').next()).collect();
    assert_eq!(sets, [Some("00000000a80425fb"); 6]);
    machine.orlop(["delete", "pod", "seccomp", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn the_default_profile_lets_programs_work_and_keeps_namespaces_from_them() {
    let machine = Machine::new();
    let admin = json!({"securityContext": {
        "seccompProfile": {"type": "RuntimeDefault"}, "capabilities": {"add": ["SYS_ADMIN"]},
    }});
    let spec = json!({
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            idle("pod"), with(idle("free"), &profile("Unconfined")), with(idle("admin"), &admin),
            with(idle("privileged"), &json!({"securityContext": {"privileged": true}})),
            with(idle("user"), &json!({"securityContext": {"runAsUser": 7, "allowPrivilegeEscalation": false}})),
        ],
    });
    machine.run_pod(&pod(&spec));
    let escape = "unshare -U true 2>&1; echo $?";
    for (container, mode, escapes) in [
        ("pod", "2\n", false),
        ("user", "2\n", false),
        ("free", "0\n", true),
        ("admin", "2\n", true),
        ("privileged", "0\n", true),
    ] {
        assert_eq!(machine.sh("web", container, MODE), mode, "{container}");
        let said = machine.sh("web", container, escape);
        assert_eq!(said == "0\n", escapes, "{container}: {said}");
        let permitted = said.contains("Operation not permitted");
        assert!(escapes || permitted, "{container}: {said}");
        let work =
            "echo a | sort | grep -c a; ls / > /dev/null && sh -c 'sleep 0' & wait && echo fine";
        assert_eq!(
            machine.sh("web", container, work),
            "1\nfine\n",
            "{container}"
        );
    }
}

#[test]
fn a_profile_that_is_none_keeps_the_container_waiting_and_says_why() {
    let machine = Machine::new();
    own(
        &machine,
        "bad.json",
        r#"{"defaultAction": "SCMP_ACT_SING"}"#,
    );
    own(
        &machine,
        "notify.json",
        r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
    );
    symlink("/etc/passwd", machine.roots.seccomp().join("out.json")).expect("symlink");
    let local = |name: &str, file: &str| {
        let profile = json!({"type": "Localhost", "localhostProfile": file});
        with(
            container(name, "true"),
            &json!({"securityContext": {"seccompProfile": profile}}),
        )
    };
    let spec = json!({"restartPolicy": "Never", "containers": [
        local("bad", "bad.json"), local("notify", "notify.json"), local("out", "out.json"), local("none", "a/b.json"),
    ]});
    fs::write(machine.path("pod.yaml"), pod(&spec)).expect("write");
    let file = machine.path("pod.yaml");
    machine
        .orlop(["apply".as_ref(), "-f".as_ref(), file.as_os_str()])
        .ok();
    for (name, why) in [
        ("bad", "field \"defaultAction\": unknown variant"),
        ("notify", "SCMP_ACT_NOTIFY is not supported"),
        ("out", "seccomp/out.json\": "),
        ("none", "seccomp/a/b.json\": No such file or directory"),
    ] {
        let said = |pod: &Value| {
            let state = &status(pod, name)["state"];
            let states = [&state["waiting"], &state["terminated"]];
            let mut messages = states.iter().filter_map(|state| state["message"].as_str());
            messages.next().map(str::to_owned)
        };
        machine.wait_for("web", |pod| said(pod).is_some());
        let message = said(&machine.pod("web")).unwrap_or_default();
        assert!(message.contains(why), "{name}: {message}");
    }
}

#[test]
fn a_profile_without_a_name_or_with_a_climbing_one_is_refused() {
    let machine = Machine::new();
    for (profile, why) in [
        (
            json!({"type": "Localhost"}),
            "localhostProfile: Required value: must be set when seccomp type is Localhost",
        ),
        (
            json!({"type": "Localhost", "localhostProfile": "../p.json"}),
            "localhostProfile: Invalid value: \"../p.json\": must not contain '..'",
        ),
        (
            json!({"type": "RuntimeDefault", "localhostProfile": "p.json"}),
            "localhostProfile: Invalid value: \"p.json\": can only be set when seccomp type is Localhost",
        ),
    ] {
        let spec =
            json!({"securityContext": {"seccompProfile": profile}, "containers": [idle("c")]});
        let file = machine.path("pod.yaml");
        fs::write(&file, pod(&spec)).expect("write");
        let said = machine
            .orlop(["apply".as_ref(), "-f".as_ref(), file.as_os_str()])
            .refused();
        assert!(said.contains(why), "{said}");
    }
}
