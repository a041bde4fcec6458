//! What a pod's status says of containers that have ended.

use serde_json::{Value, json};

use crate::common::Machine;
use crate::support::{container, is_over, pod, status, with};

fn terminated<'a>(pod: &'a Value, container: &str) -> &'a Value {
    &status(pod, container)["state"]["terminated"]
}

#[test]
fn a_container_says_why_it_ended() {
    let machine = Machine::new();
    let to = |path: &str, script: &str| {
        with(
            container("c", script),
            &json!({"terminationMessagePath": path}),
        )
    };
    let falls_back = |name: &str, script: &str| {
        with(
            container(name, script),
            &json!({"terminationMessagePolicy": "FallbackToLogsOnError"}),
        )
    };
    let user = json!({"securityContext": {"runAsUser": 1000}});
    let spec = json!({"restartPolicy": "Never", "containers": [
        with(container("plain", "printf 'disk is full' > /dev/termination-log; exit 3"), &user),
        with(to("/tmp/why", "echo elsewhere > /tmp/why"), &json!({"name": "path"})),
        container("long", "yes 0123456789 | head -c 9000 > /dev/termination-log; printf END >> /dev/termination-log"),
        falls_back("log", "seq 100; echo last words >&2; exit 1"),
        falls_back("well", "echo fine"),
        container("quiet", "echo not a message; exit 1"),
        container("link", "rm -f /dev/termination-log; ln -sf /etc/passwd /dev/termination-log; exit 1"),
    ]});
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", is_over);
    let web = machine.pod("web");
    let message = |name: &str| {
        terminated(&web, name)["message"]
            .as_str()
            .unwrap_or_default()
    };
    assert_eq!(message("plain"), "disk is full");
    assert_eq!(terminated(&web, "plain")["exitCode"], 3);
    assert_eq!(message("path"), "elsewhere\n");
    // The messages of a pod share 12 KiB.
    assert_eq!(message("long").len(), 12 * 1024 / 7);
    let log = message("log");
    assert!(log.starts_with("22\n") || log.contains("\n22\n"), "{log}");
    assert!(!log.lines().any(|line| line == "20"), "80 lines: {log}");
    assert!(log.contains("last words\n"), "{log}");
    assert_eq!((message("well"), message("quiet")), ("", ""));
    assert_eq!(
        message("link"),
        "",
        "a mount is not unlinked, and nothing was written"
    );
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    assert!(page.contains("Message:      disk is full"), "{page}");
    machine.orlop(["delete", "pod", "web"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_container_whose_memory_ran_out_is_told_apart() {
    let machine = Machine::new();
    let limits = json!({"resources": {"limits": {"memory": "16Mi"}}});
    let greedy = container("greedy", "dd if=/dev/zero of=/dev/null bs=64M count=1");
    let spec = json!({"restartPolicy": "Never", "containers": [
        with(greedy, &limits), container("killed", "kill -9 $$ ; sleep 9")]});
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", |pod| !terminated(pod, "greedy").is_null());
    let web = machine.pod("web");
    let ended = terminated(&web, "greedy");
    assert_eq!(
        (&ended["reason"], &ended["exitCode"]),
        (&json!("OOMKilled"), &json!(137))
    );
    let row = machine.orlop(["get", "pod", "web", "--no-headers"]).ok();
    assert!(row.contains("OOMKilled"), "{row}");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}
