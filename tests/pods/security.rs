//! Users, groups, files that belong to them, and kernel parameters.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::Machine;
use crate::support::{container, idle, kill, pod, status, with};

const SPEC: &str = include_str!("../../specs/security-context.yaml");

#[test]
fn a_security_context_makes_processes_what_it_says() {
    let machine = Machine::new();
    machine.run_pod(SPEC);
    let app = |script: &str| machine.sh("security-context", "app", script);
    assert_eq!(app("id -u; id -g; id -G"), "1000\n3000\n3000 2000 4000\n");
    let status = app("grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/1/status");
    assert_eq!(
        status,
        "CapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    );
    assert_eq!(
        app("cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start"),
        "1\n80\n"
    );
    let own = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").expect("read");
    assert_eq!(own, "1024\n", "the machine's own is as it was");

    // The volume belongs to the group, and what is made in it inherits that.
    assert_eq!(
        app("stat -c '%a %g' /data /data/greeting"),
        "2777 2000\n644 2000\n"
    );
    assert_eq!(
        app("stat -Lc '%a %u %g' /about/name; cat /about/name"),
        "440 0 2000\nsecurity-context"
    );
    let helper = |script: &str| machine.sh("security-context", "helper", script);
    assert_eq!(
        helper("id -u; cat /data/greeting; grep Seccomp: /proc/1/status"),
        "1001\nhello\nSeccomp:\t0\n"
    );
    machine
        .orlop(["delete", "pod", "security-context", "--now"])
        .ok();
    machine.assert_nothing_is_left();
}

#[test]
fn every_kind_of_volume_that_is_the_pods_own_gets_the_group_and_a_host_path_does_not() {
    let machine = Machine::new();
    let host = machine.path("host");
    fs::create_dir(&host).expect("mkdir");
    fs::write(host.join("file"), "").expect("write");
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"deep": "x"}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "x"}});
    for object in [config, secret] {
        let file = machine.path("object.json");
        fs::write(&file, object.to_string()).expect("write");
        machine
            .orlop(["apply".as_ref(), "-f".as_ref(), file.as_os_str()])
            .ok();
    }
    let kinds = [
        ("disk", json!({"emptyDir": {}})),
        ("memory", json!({"emptyDir": {"medium": "Memory"}})),
        (
            "config",
            json!({"configMap": {"name": "c", "defaultMode": 0o400, "items": [{"key": "deep", "path": "a/b"}]}}),
        ),
        (
            "secret",
            json!({"secret": {"secretName": "s", "defaultMode": 0o400}}),
        ),
        (
            "all",
            json!({"projected": {"defaultMode": 0o400, "sources": [{"secret": {"name": "s"}}]}}),
        ),
        ("host", json!({"hostPath": {"path": host}})),
    ];
    let volumes: Vec<Value> = kinds
        .iter()
        .map(|(name, kind)| with(kind.clone(), &json!({"name": name})))
        .collect();
    let mounts: Vec<Value> = kinds
        .iter()
        .map(|(name, _)| json!({"name": name, "mountPath": format!("/v/{name}")}))
        .collect();
    let spec = json!({
        "securityContext": {"fsGroup": 4242, "runAsUser": 7},
        "containers": [with(idle("c"), &json!({"volumeMounts": mounts}))], "volumes": volumes,
    });
    machine.run_pod(&pod(&spec));
    for (path, want) in [
        ("/v/disk", "2777 4242"),
        ("/v/memory", "2777 4242"),
        ("/v/config", "2755 4242"),
        ("/v/config/a/", "2755 4242"),
        ("/v/config/a/b", "440 4242"),
        ("/v/secret/key", "440 4242"),
        ("/v/all/key", "440 4242"),
        ("/v/host", "755 0"),
        ("/v/host/file", "644 0"),
    ] {
        let seen = machine.sh("web", "c", &format!("stat -Lc '%a %g' {path}"));
        assert_eq!(seen.trim_end(), want, "{path}");
    }
    assert_eq!(
        machine.sh(
            "web",
            "c",
            "cat /v/secret/key /v/config/a/b; touch /v/disk/new"
        ),
        "xx"
    );
    kill(&machine, "c");
    machine.wait_for("web", |pod| {
        status(pod, "c")["ready"] == true && status(pod, "c")["restartCount"] == 1
    });
    assert_eq!(machine.sh("web", "c", "stat -c %g /v/disk/new"), "4242\n");
}

#[test]
fn strict_groups_leave_out_those_of_the_image() {
    let machine = Machine::new();
    let spec = json!({
        "securityContext": {"supplementalGroupsPolicy": "Strict", "supplementalGroups": [5], "runAsUser": 0},
        "containers": [idle("masked")],
    });
    machine.run_pod(&pod(&spec));
    assert_eq!(machine.sh("web", "masked", "id -G"), "0 5\n");
}

#[test]
fn a_container_that_must_not_be_root_and_would_be_says_so_in_kubelets_words() {
    let machine = Machine::new();
    let spec =
        json!({"securityContext": {"runAsNonRoot": true}, "containers": [container("c", "true")]});
    let file = machine.path("pod.yaml");
    fs::write(&file, pod(&spec)).expect("write");
    machine
        .orlop(["apply".as_ref(), "-f".as_ref(), file.as_os_str()])
        .ok();
    machine.wait_for("web", |pod| {
        status(pod, "c")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    let pod = machine.pod("web");
    let message = status(&pod, "c")["state"]["waiting"]["message"].as_str();
    let want = "container has runAsNonRoot and image will run as root (pod: \"web_default(";
    assert!(
        message.is_some_and(|message| message.starts_with(want)),
        "{message:?}"
    );
}

#[test]
fn parameters_that_are_not_a_pods_own_are_refused() {
    let machine = Machine::new();
    let sysctl = |name: &str| json!([{"name": name, "value": "1"}]);
    for (fields, why) in [
        (
            json!({"securityContext": {"sysctls": sysctl("vm.swappiness")}}),
            "spec.securityContext.sysctls[0].name: Invalid value: \"vm.swappiness\": forbidden sysctl",
        ),
        (
            json!({"securityContext": {"sysctls": sysctl("net/../vm/x")}}),
            "must have at most 253 characters",
        ),
        (
            json!({"hostNetwork": true, "securityContext": {"sysctls": sysctl("net.core.somaxconn")}}),
            "may not be allowed with hostNetwork enabled",
        ),
        (
            json!({"hostIPC": true, "securityContext": {"sysctls": sysctl("kernel.sem")}}),
            "may not be allowed with hostIPC enabled",
        ),
        (
            json!({"securityContext": {"fsGroup": -1}}),
            "spec.securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            json!({"securityContext": {"fsGroupChangePolicy": "Never"}}),
            "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"Never\"",
        ),
    ] {
        let spec = with(json!({"containers": [idle("c")]}), &fields);
        let file = machine.path("pod.yaml");
        fs::write(&file, pod(&spec)).expect("write");
        let said = machine
            .orlop(["apply".as_ref(), "-f".as_ref(), file.as_os_str()])
            .refused();
        assert!(said.contains(why), "{said}");
    }
}

/// Whether the kernel has AppArmor, and it is on.
fn has_app_armor() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|enabled| enabled.starts_with('Y'))
}

/// A profile that forbids one file, loaded as an administrator does it.
const NO_SECRETS: &str = "profile orlop-test-no-secrets flags=(attach_disconnected) { file, capability, \
                          network, signal, deny /secret r, }";

#[test]
fn app_armor_confines_where_the_kernel_has_it_and_is_refused_elsewhere() {
    let machine = Machine::new();
    let armed = |profile: Value| json!({"securityContext": {"appArmorProfile": profile}});
    let local = |name: &str| armed(json!({"type": "Localhost", "localhostProfile": name}));
    let spec = json!({"containers": [
        idle("plain"), with(idle("default"), &armed(json!({"type": "RuntimeDefault"}))),
        with(idle("own"), &local("orlop-test-no-secrets")), with(idle("none"), &local("orlop-test-no-such")),
    ]});
    let file = machine.path("pod.yaml");
    fs::write(&file, pod(&spec)).expect("write");
    let apply = ["apply".as_ref(), "-f".as_ref(), file.as_os_str()];
    let said = |pod: &Value, container: &str| {
        let message = &status(pod, container)["state"]["waiting"]["message"];
        message.as_str().unwrap_or_default().to_owned()
    };
    if !has_app_armor() {
        machine.orlop(apply).ok();
        machine.wait_for("web", |pod| {
            let refused = ["default", "own", "none"].iter();
            status(pod, "plain")["ready"] == true
                && refused.clone().all(|name| !said(pod, name).is_empty())
        });
        let why = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        let pod = machine.pod("web");
        for name in ["default", "own", "none"] {
            assert_eq!(said(&pod, name), why);
        }
        return;
    }
    let mut parser = Command::new("apparmor_parser");
    parser
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped());
    let mut parser = parser.spawn().expect("apparmor_parser: install apparmor");
    let mut stdin = parser.stdin.take().expect("a pipe");
    stdin.write_all(NO_SECRETS.as_bytes()).expect("write");
    drop(stdin);
    assert!(parser.wait().expect("waited").success());

    machine.orlop(apply).ok();
    machine.wait_for("web", |pod| {
        let ready = ["plain", "default", "own"].iter();
        ready.clone().all(|name| status(pod, name)["ready"] == true)
            && !said(pod, "none").is_empty()
    });
    let why = "AppArmor profile \"orlop-test-no-such\" is not loaded";
    assert!(said(&machine.pod("web"), "none").contains(why));
    let script = "cat /proc/1/attr/current; cat /proc/self/attr/current; echo x > /secret; cat /secret 2>&1; \
                  kill -0 1 && ls / > /dev/null && echo fine";
    for (name, profile, seen) in [
        ("plain", "unconfined", "x\n"),
        ("default", "orlop-default (enforce)", "x\n"),
        (
            "own",
            "orlop-test-no-secrets (enforce)",
            "cat: can't open '/secret': Permission denied\n",
        ),
    ] {
        let want = format!("{profile}\n{profile}\n{seen}fine\n");
        assert_eq!(machine.sh("web", name, script), want, "{name}");
    }
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn se_linux_options_mean_nothing_on_a_machine_without_se_linux() {
    if fs::exists("/sys/fs/selinux/enforce").unwrap_or(true) {
        return crate::common::skip("this kernel has SELinux");
    }
    let machine = Machine::new();
    let labelled = json!({"securityContext": {"seLinuxOptions": {"level": "s0:c1"}}, "containers": [idle("c")]});
    machine.run_pod(&pod(&labelled));
}
