//! Init containers: one after the other, each to its end, before the others.

use serde_json::{Value, json};

use crate::common::{Machine, path};
use crate::support::{container, idle, is_over, pod, row, until, with};

const MANIFEST: &str = include_str!("../../specs/init-containers.yaml");

/// The status of an init container in the JSON of a pod.
pub fn init_status<'a>(pod: &'a Value, container: &str) -> &'a Value {
    let statuses = pod["status"]["initContainerStatuses"].as_array();
    let mut statuses = statuses.into_iter().flatten();
    statuses
        .find(|status| status["name"] == container)
        .unwrap_or(&Value::Null)
}

/// `Type=Status` or `Type=Status Reason` of a pod's conditions.
pub fn conditions(pod: &Value) -> Vec<String> {
    let all = pod["status"]["conditions"].as_array().expect("conditions");
    let line = |condition: &Value| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let line = format!("{}={} {}", text("type"), text("status"), text("reason"));
        line.trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

/// A machine whose keepers wait a twentieth of the usual times.
fn hasty() -> Machine {
    let mut machine = Machine::new();
    let pace = ("ORLOP_TEST_BACKOFF_PACE".into(), "0.05".into());
    machine.environment.push(pace);
    machine
}

#[test]
fn init_containers_prepare_what_the_others_use() {
    let machine = Machine::new();
    let said = machine.run_pod(MANIFEST);
    assert_eq!(said, "pod/init-containers created\n");
    let page = machine.sh(
        "init-containers",
        "web",
        "wget -qO- http://127.0.0.1:8080/index.html; cd /; sha256sum -c <(sed s:/work:/pages: /pages/index.html.sha256) \
         || sed s:/work:/pages: /pages/index.html.sha256 | sha256sum -c",
    );
    assert!(page.contains("made by an init container"), "{page}");
    assert!(page.contains("/pages/index.html: OK"), "{page}");
    let row = machine
        .orlop(["get", "pod", "init-containers", "--no-headers"])
        .ok();
    let row: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(
        row[1..4],
        ["1/1", "Running", "0"],
        "init containers do not count"
    );

    let now = machine.pod("init-containers");
    let ended = &init_status(&now, "make-page")["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"]),
        (&json!(0), &json!("Completed"))
    );
    assert_eq!(init_status(&now, "sign-page")["ready"], true);
    let finished = ended["finishedAt"].as_str().expect("a time");
    let next = &init_status(&now, "sign-page")["state"]["terminated"];
    assert!(finished <= next["startedAt"].as_str().expect("a time"));
    assert_eq!(
        conditions(&now),
        [
            "PodReadyToStartContainers=True",
            "Initialized=True",
            "Ready=True",
            "ContainersReady=True",
            "PodScheduled=True",
        ]
    );
    let page = machine.orlop(["describe", "pod", "init-containers"]).ok();
    let init = page.find("Init Containers:").expect("a section");
    assert!(init < page.find("\nContainers:").expect("a section"));
    assert!(page.contains("Started container make-page"), "{page}");
    machine
        .orlop(["delete", "pod", "init-containers", "--now"])
        .ok();
    machine.assert_nothing_is_left();
}

#[test]
fn the_status_tells_how_far_initialization_is() {
    let machine = Machine::new();
    let host = machine.path("host");
    std::fs::create_dir(&host).expect("mkdir");
    let mounts = json!({"volumeMounts": [{"name": "host", "mountPath": "/host"}]});
    let waits = |name: &str| {
        let script = format!("echo {name} waits; until [ -e /host/{name} ]; do sleep 0.05; done");
        with(container(name, &script), &mounts)
    };
    let spec = json!({
        "initContainers": [waits("one"), waits("two")],
        "containers": [idle("app")],
        "volumes": [{"name": "host", "hostPath": {"path": host}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    let running = |name: &'static str| {
        move |pod: &Value| !init_status(pod, name)["state"]["running"].is_null()
    };
    machine.wait_for("web", running("one"));
    assert_eq!(row(&machine)[1..4], ["0/1", "Init:0/2", "0"]);
    let now = machine.pod("web");
    assert_eq!(now["status"]["phase"], "Pending");
    assert_eq!(
        conditions(&now)[..4],
        [
            "PodReadyToStartContainers=True",
            "Initialized=False ContainersNotInitialized",
            "Ready=False ContainersNotReady",
            "ContainersReady=False ContainersNotReady",
        ]
    );
    for (statuses, name) in [
        ("initContainerStatuses", "two"),
        ("containerStatuses", "app"),
    ] {
        let all = now["status"][statuses].as_array().expect("statuses");
        let status = all.iter().find(|status| status["name"] == name);
        let reason = &status.expect("a status")["state"]["waiting"]["reason"];
        assert_eq!(reason, "PodInitializing", "{name}");
    }
    until(&machine, &["logs", "web", "-c", "one"], |log| {
        log == "one waits\n"
    });
    machine.sh("web", "one", "touch /host/one");
    machine.wait_for("web", running("two"));
    assert_eq!(row(&machine)[1..4], ["0/1", "Init:1/2", "0"]);
    std::fs::write(machine.path("host/two"), "").expect("write");
    machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
    assert_eq!(row(&machine)[1..4], ["1/1", "Running", "0"]);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn an_init_container_that_fails_for_good_fails_its_pod() {
    let machine = Machine::new();
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [container("good", "exit 0"), container("bad", "exit 3"), idle("next")],
        "containers": [idle("app")],
    });
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", is_over);
    assert_eq!(row(&machine)[1..4], ["0/1", "Init:Error", "0"]);
    let web = machine.pod("web");
    assert_eq!(web["status"]["phase"], "Failed");
    assert_eq!(
        init_status(&web, "bad")["state"]["terminated"]["exitCode"],
        3
    );
    let untouched = |status: &Value| status["state"]["waiting"]["reason"] == "PodInitializing";
    assert!(untouched(init_status(&web, "next")), "{web:#}");
    assert!(untouched(&web["status"]["containerStatuses"][0]), "{web:#}");
    assert_eq!(
        conditions(&web)[..3],
        [
            "PodReadyToStartContainers=False",
            "Initialized=False ContainersNotInitialized",
            "Ready=False PodFailed",
        ]
    );
    machine.orlop(["delete", "pod", "web"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn an_init_container_that_fails_is_tried_again_with_back_off() {
    let machine = hasty();
    let host = machine.path("host");
    std::fs::create_dir(&host).expect("mkdir");
    let mounts = json!({"volumeMounts": [{"name": "host", "mountPath": "/host"}]});
    let spec = json!({
        "initContainers": [with(container("init", "test -e /host/go"), &mounts)],
        "containers": [idle("app")],
        "volumes": [{"name": "host", "hostPath": {"path": host}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    machine.wait_for("web", |pod| {
        init_status(pod, "init")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            && init_status(pod, "init")["restartCount"] == 3
    });
    let shown = row(&machine);
    assert_eq!(shown[1..3], ["0/1", "Init:CrashLoopBackOff"]);
    assert_eq!(shown[3..6], ["3", shown[4].as_str(), "ago)"], "{shown:?}");
    assert_eq!(machine.pod("web")["status"]["phase"], "Pending");
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    assert!(
        page.contains("Back-off restarting failed container init in pod web_default("),
        "{page}"
    );
    std::fs::write(machine.path("host/go"), "").expect("write");
    machine.wait_for("web", |pod| pod["status"]["phase"] == "Running");
    assert_eq!(
        row(&machine)[1..4],
        ["1/1", "Running", "0"],
        "restarts of init containers do not count any more"
    );
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn init_containers_run_again_when_the_pods_mounts_are_new() {
    let machine = Machine::new();
    let mounts = json!({"volumeMounts": [{"name": "memory", "mountPath": "/memory"}]});
    let spec = json!({
        "initContainers": [with(container("init", "echo prepared > /memory/file"), &mounts)],
        "containers": [with(idle("app"), &mounts)],
        "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}],
    });
    machine.run_pod(&pod(&spec));
    assert_eq!(machine.sh("web", "app", "cat /memory/file"), "prepared\n");
    for keeper in machine.keepers() {
        if let Ok(process) = orlop::sys::pidfd::open(keeper) {
            let _ = orlop::sys::pidfd::send_signal(&process, 9);
        }
    }
    machine.wait_for("web", |pod| {
        crate::support::status(pod, "app")["restartCount"] == 1
            && crate::support::status(pod, "app")["ready"] == true
    });
    assert_eq!(machine.sh("web", "app", "cat /memory/file"), "prepared\n");
    assert_eq!(init_status(&machine.pod("web"), "init")["restartCount"], 1);
    let file = machine.path("again.json");
    std::fs::write(&file, pod(&spec)).expect("write");
    machine.orlop(["delete", "-f", path(&file), "--now"]).ok();
    machine.assert_nothing_is_left();
}
