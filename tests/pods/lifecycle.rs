//! Hooks, stop signals, deadlines, and the back-off of what keeps crashing.

use std::io::Read;
use std::time::{Duration, Instant};

use orlop::pod::control::{Client, Reply, Request};
use orlop::pod::home::Home;
use serde_json::{Value, json};

use crate::common::{LIMIT, Machine, entries};
use crate::servers;
use crate::support::{container, idle, is_over, main_process, pod, row, status, until, with};

const MANIFEST: &str = include_str!("../../specs/lifecycle.yaml");

#[test]
fn hooks_come_before_running_and_before_the_signal() {
    let machine = Machine::new();
    machine.run_pod(MANIFEST);
    let mut logs = machine
        .command(["logs", "-f", "lifecycle"])
        .spawn()
        .expect("spawn");
    let mut output = logs.stdout.take().expect("stdout");
    let start = Instant::now();
    machine.orlop(["delete", "pod", "lifecycle"]).ok();
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "the signal ended it"
    );
    let mut said = String::new();
    output.read_to_string(&mut said).expect("read");
    logs.wait().expect("wait");
    assert_eq!(said, "greeted\ndrained\nsignalled\n");
    machine.assert_nothing_is_left();
}

fn hooked(hooks: Value) -> Value {
    with(idle("c"), &json!({"lifecycle": hooks}))
}

#[test]
fn a_container_is_not_running_before_its_post_start_hook_is_over() {
    let machine = Machine::new();
    let script = "until [ -e /go ]; do sleep 0.05; done";
    let hook = json!({"postStart": {"exec": {"command": ["sh", "-c", script]}}});
    let waits = with(
        container(
            "c",
            "touch /begun; trap exit TERM; while :; do sleep 0.2; [ -e /host/go ] && touch /go; done",
        ),
        &json!({"lifecycle": hook, "volumeMounts": [{"name": "host", "mountPath": "/host"}]}),
    );
    let host = machine.path("host");
    std::fs::create_dir(&host).expect("mkdir");
    let spec = json!({
        "containers": [waits, idle("next")],
        "volumes": [{"name": "host", "hostPath": {"path": host}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    until(&machine, &["describe", "pod", "web"], |page| {
        page.contains("Started container c")
    });
    std::thread::sleep(Duration::from_millis(300));
    let now = machine.pod("web");
    for name in ["c", "next"] {
        let reason = &status(&now, name)["state"]["waiting"]["reason"];
        assert_eq!(reason, "ContainerCreating", "{name}");
    }
    std::fs::write(machine.path("host/go"), "").expect("write");
    machine.wait_for("web", |pod| status(pod, "next")["ready"] == true);
    assert_eq!(row(&machine)[1..3], ["2/2", "Running"]);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_hook_that_fails_is_told_and_a_post_start_that_fails_ends_its_container() {
    for hook in [
        json!({"exec": {"command": ["false"]}}),
        // Kubernetes takes it, and then never runs it.
        json!({"tcpSocket": {"port": 80}}),
        json!({"httpGet": {"port": 80}}),
    ] {
        let machine = Machine::new();
        let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
            "containers": [hooked(json!({"postStart": hook}))]});
        machine.run_pod(&pod(&spec));
        machine.wait_for("web", is_over);
        let page = machine.orlop(["describe", "pod", "web"]).ok();
        for event in ["FailedPostStartHook", "PostStartHook failed", "Killing"] {
            assert!(page.contains(event), "{hook}: {page}");
        }
    }
    let machine = Machine::new();
    let hook = json!({"preStop": {"exec": {"command": ["/no/such/program"]}}});
    machine.run_pod(&pod(&json!({"containers": [hooked(hook), container("slow", "trap 'sleep 1; exit' TERM; while :; do sleep 0.1; done")]})));
    machine.orlop(["delete", "pod", "web", "--wait=false"]).ok();
    until(&machine, &["describe", "pod", "web"], |page| {
        page.contains("FailedPreStopHook") && page.contains("PreStopHook failed")
    });
}

#[test]
fn a_pre_stop_hook_counts_within_the_grace_period() {
    let machine = Machine::new();
    let hook = json!({"preStop": {"sleep": {"seconds": 2}}});
    machine.run_pod(&pod(&json!({"containers": [hooked(hook)]})));
    let start = Instant::now();
    machine.orlop(["delete", "pod", "web"]).ok();
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(20),
        "{took:?}"
    );
    machine.assert_nothing_is_left();

    let hook = json!({"preStop": {"exec": {"command": ["sleep", "600"]}}});
    let stubborn = with(
        container("c", "trap '' TERM; while :; do sleep 0.1; done"),
        &json!({"lifecycle": hook}),
    );
    machine.run_pod(&pod(
        &json!({"containers": [stubborn], "terminationGracePeriodSeconds": 1}),
    ));
    let start = Instant::now();
    machine.orlop(["delete", "pod", "web"]).ok();
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(3) && took < Duration::from_secs(25),
        "its second, and two more after the signal: {took:?}"
    );
    machine.assert_nothing_is_left();
}

#[test]
fn a_hook_can_ask_a_server_of_the_pod() {
    let machine = Machine::new();
    let get =
        json!({"path": "/bye", "port": "web", "httpHeaders": [{"name": "X-Why", "value": "stop"}]});
    let ports = json!({"ports": [{"name": "web", "containerPort": 8080}]});
    let hooked = hooked(json!({"preStop": {"httpGet": get}}));
    machine.run_pod(&pod(&json!({"containers": [with(hooked, &ports)]})));
    let process = main_process(&machine, status(&machine.pod("web"), "c"));
    let server = servers::http(servers::listen(process, 8080), false);
    // What is answered does not matter to a hook.
    server.be(false);
    machine.orlop(["delete", "pod", "web"]).ok();
    let requests = server.requests.lock().expect("requests").clone();
    assert_eq!(requests.len(), 1);
    assert!(
        requests[0].starts_with("GET /bye HTTP/1.1\r\n"),
        "{requests:?}"
    );
    assert!(requests[0].contains("X-Why: stop\r\n"), "{requests:?}");
    machine.assert_nothing_is_left();
}

/// What the pod's only container says while it waits, and how often it had been
/// restarted by then: every change, as the keeper tells it, up to `last`.
fn waits(machine: &Machine, last: &str) -> Vec<(String, i32)> {
    let start = Instant::now();
    let keeper = loop {
        let uid = entries(&machine.roots.run.join("pods")).pop();
        let home = uid.map(|uid| Home::new(&machine.roots, &uid));
        let keeper = home.and_then(|home| Client::connect(&home).expect("connect"));
        if let Some(keeper) = keeper {
            break keeper;
        }
        assert!(start.elapsed() < LIMIT, "the pod has no keeper");
    };
    keeper.send(&Request::Watch, &[]).expect("send");
    let mut waits: Vec<(String, i32)> = Vec::new();
    loop {
        let told = keeper.receive_within(LIMIT).expect("receive");
        let Some((Reply::Status(status), _)) = told else {
            panic!("the keeper has ended: {waits:?}");
        };
        let container = status.container_statuses.unwrap_or_default().remove(0);
        let waiting = container.state.and_then(|state| state.waiting);
        if let Some(message) = waiting.and_then(|waiting| waiting.message)
            && waits.iter().all(|(known, _)| *known != message)
        {
            let is_last = message.contains(last);
            waits.push((message, container.restart_count));
            if is_last {
                return waits;
            }
        }
    }
}

#[test]
fn a_container_that_keeps_crashing_waits_10_20_40_seconds() {
    let mut machine = Machine::new();
    let pace = ("ORLOP_TEST_BACKOFF_PACE".into(), "0.05".into());
    machine.environment.push(pace);
    let mounts = json!({"volumeMounts": [{"name": "host", "mountPath": "/host"}]});
    let host = machine.path("host");
    std::fs::create_dir(&host).expect("mkdir");
    let script = "cut -d' ' -f1 /proc/uptime >> /host/starts; exit 1";
    let spec = json!({
        "containers": [with(container("c", script), &mounts)],
        "volumes": [{"name": "host", "hostPath": {"path": host}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    let waits = waits(&machine, "1m20s");
    let shown = row(&machine);
    assert_eq!(shown[1..4], ["0/1", "CrashLoopBackOff", "4"]);
    assert!(shown[4].starts_with('(') && shown[5] == "ago)", "{shown:?}");
    let name = format!("web_default({})", machine.uid("web"));
    let message = |delay| format!("back-off {delay} restarting failed container=c pod={name}");
    assert_eq!(
        waits,
        [
            (message("10s"), 1),
            (message("20s"), 2),
            (message("40s"), 3),
            (message("1m20s"), 4)
        ]
    );
    let web = machine.pod("web");
    let last = &status(&web, "c")["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["reason"]),
        (&json!(1), &json!("Error"))
    );
    let starts = std::fs::read_to_string(host.join("starts")).expect("read");
    let starts: Vec<f64> = starts
        .lines()
        .map(|line| line.parse().expect("a time"))
        .collect();
    // A twentieth of 0, 10, 20 and 40 seconds.
    for (pair, least) in starts.windows(2).zip([0.0, 0.5, 1.0, 2.0]) {
        assert!(pair[1] - pair[0] >= least, "{starts:?}");
    }
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_container_that_ran_long_enough_begins_again_with_the_shortest_delay() {
    let mut machine = Machine::new();
    // Ten minutes become three seconds.
    let pace = ("ORLOP_TEST_BACKOFF_PACE".into(), "0.005".into());
    machine.environment.push(pace);
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let script = "echo >> /v/starts; case $(wc -l < /v/starts) in \
                  5) sleep 3.5; exit 1;; 6) while :; do sleep 1; done;; *) exit 1;; esac";
    let spec = json!({
        "containers": [with(container("c", script), &mounts)],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    machine.wait_for("web", |pod| {
        status(pod, "c")["restartCount"] == 5 && status(pod, "c")["ready"] == true
    });
    // The second start waited for nothing, the three after it did, the sixth again
    // for nothing: the fifth had run long.
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    let mut lines = page.lines();
    let event = lines.find(|line| line.contains("BackOff"));
    assert!(event.expect("an event").contains("(x3 over "), "{page}");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn a_pod_whose_time_is_over_fails() {
    let machine = Machine::new();
    let spec = json!({"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 2, "containers": [idle("c")]});
    machine.run_pod(&pod(&spec));
    machine.wait_for("web", is_over);
    let web = machine.pod("web");
    assert_eq!(web["status"]["phase"], "Failed");
    assert_eq!(web["status"]["reason"], "DeadlineExceeded");
    assert!(!status(&web, "c")["state"]["terminated"].is_null());
    let page = machine.orlop(["describe", "pod", "web"]).ok();
    for text in [
        "Reason:       DeadlineExceeded",
        "Message:      Pod was active on the node longer than the specified deadline",
        "Stopping container c",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
    machine.orlop(["delete", "pod", "web"]).ok();
    machine.assert_nothing_is_left();
}
