//! Startup, liveness and readiness probes, by every action that they can take.

use std::time::Instant;

use serde_json::{Value, json};

use crate::common::{LIMIT, Machine};
use crate::servers;
use crate::support::{container, idle, is_over, main_process, pod, row, status, until, with};

const MANIFEST: &str = include_str!("../../specs/probes.yaml");

/// Waits until the page of the pod `web` contains a text.
#[track_caller]
fn page_with(machine: &Machine, text: &str) -> String {
    until(machine, &["describe", "pod", "web"], |page| {
        page.contains(text)
    })
}

#[track_caller]
fn wait_ready(machine: &Machine, ready: bool) {
    machine.wait_for("web", |pod| status(pod, "c")["ready"] == ready);
}

#[test]
fn a_pod_with_all_three_probes_starts_is_taken_out_and_is_restarted() {
    let machine = Machine::new();
    let start = Instant::now();
    machine.run_pod(MANIFEST);
    assert!(
        start.elapsed().as_secs() >= 1,
        "the server takes a second to come up"
    );
    let now = machine.pod("probes");
    let web = status(&now, "web");
    assert_eq!(
        (&web["started"], &web["ready"]),
        (&json!(true), &json!(true))
    );
    let page = machine.orlop(["describe", "pod", "probes"]).ok();
    for line in [
        "http-get http://:http/healthz delay=0s timeout=5s period=1s successThreshold=1 failureThreshold=2",
        "exec [test ! -e /tmp/busy] delay=0s",
        "tcp-socket :http delay=0s",
        "Startup probe failed: dial tcp 127.0.0.1:8080: connect: connection refused",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }

    machine.sh("probes", "web", "touch /tmp/busy");
    machine.wait_for("probes", |pod| status(pod, "web")["ready"] == false);
    let row = || {
        let row = machine.orlop(["get", "pod", "probes", "--no-headers"]).ok();
        row.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        row()[1..4],
        ["0/1", "Running", "0"],
        "it is not restarted for that"
    );
    machine.sh("probes", "web", "rm /tmp/busy");
    machine.wait_for("probes", |pod| status(pod, "web")["ready"] == true);

    machine.sh("probes", "web", "rm /pages/healthz");
    machine.wait_for("probes", |pod| {
        status(pod, "web")["restartCount"] == 1 && status(pod, "web")["ready"] == true
    });
    let page = machine.orlop(["describe", "pod", "probes"]).ok();
    for event in [
        "Liveness probe failed: HTTP probe failed with statuscode: 404",
        "Container web failed liveness probe, will be restarted",
    ] {
        assert!(page.contains(event), "{event}\n{page}");
    }
    machine.orlop(["delete", "pod", "probes", "--now"]).ok();
    machine.assert_nothing_is_left();
}

/// A pod whose readiness is asked for in this way, once a second.
fn ready_by(action: &Value) -> String {
    let mut probe = action.clone();
    probe["periodSeconds"] = json!(1);
    probe["failureThreshold"] = json!(1);
    let ports = json!([{"name": "web", "containerPort": 8443}]);
    let fields = json!({"readinessProbe": probe, "ports": ports});
    pod(&json!({"containers": [with(idle("c"), &fields)]}))
}

fn start(machine: &Machine, manifest: &str) -> i32 {
    machine.orlop_with(["apply", "-f", "-"], manifest).ok();
    machine.wait_for("web", |pod| !status(pod, "c")["state"]["running"].is_null());
    main_process(machine, status(&machine.pod("web"), "c"))
}

#[test]
fn an_http_probe_asks_inside_the_pod_with_the_manifests_headers() {
    let machine = Machine::new();
    let headers =
        json!([{"name": "Host", "value": "web.example"}, {"name": "X-Token", "value": "a b"}]);
    let get = json!({"httpGet": {"port": 8080, "path": "/around", "httpHeaders": headers}});
    let process = start(&machine, &ready_by(&get));
    page_with(
        &machine,
        "Readiness probe failed: Get \"http://127.0.0.1:8080/around\": dial tcp 127.0.0.1:8080: connect: connection refused",
    );
    assert_eq!(row(&machine)[1..3], ["0/1", "Running"]);
    let server = servers::http(servers::listen(process, 8080), false);
    wait_ready(&machine, true);
    let requests = server.requests.lock().expect("requests").clone();
    assert!(
        requests[0].starts_with("GET /around HTTP/1.1\r\n"),
        "{requests:?}"
    );
    assert!(
        requests[1].starts_with("GET /there HTTP/1.1\r\n"),
        "{requests:?}"
    );
    for line in [
        "Host: web.example\r\n",
        "X-Token: a b\r\n",
        "User-Agent: kube-probe/",
    ] {
        assert!(requests[0].contains(line), "{line} in {requests:?}");
    }
    server.be(false);
    wait_ready(&machine, false);
    page_with(
        &machine,
        "Readiness probe failed: HTTP probe failed with statuscode: 503",
    );
}

#[test]
fn an_https_probe_asks_whoever_is_there() {
    let machine = Machine::new();
    let get = json!({"httpGet": {"port": "web", "scheme": "HTTPS", "path": "/away"}});
    let process = start(&machine, &ready_by(&get));
    let server = servers::http(servers::listen(process, 8443), true);
    wait_ready(&machine, true);
    page_with(
        &machine,
        "Readiness probe warning: Probe terminated redirects",
    );
    assert!(!server.requests.lock().expect("requests").is_empty());
}

#[test]
fn a_probe_that_takes_too_long_has_failed() {
    let machine = Machine::new();
    let get = json!({"httpGet": {"port": 8080, "path": "/silent"}});
    let process = start(&machine, &ready_by(&get));
    let _server = servers::http(servers::listen(process, 8080), false);
    page_with(
        &machine,
        "Get \"http://127.0.0.1:8080/silent\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
    );
    let others = Machine::new();
    let slow = json!({"exec": {"command": ["sleep", "77"]}});
    start(&others, &ready_by(&slow));
    page_with(
        &others,
        "Readiness probe failed: command timed out: \"sleep 77\" timed out after 1s",
    );
    let processes = || others.sh("web", "c", "ps | grep '[s]leep 77' | wc -l");
    let start = Instant::now();
    // One may be at work right now; those before it were killed.
    while processes().trim().parse::<u32>().expect("a number") > 1 {
        assert!(start.elapsed() < LIMIT, "timed out commands go on");
    }
}

#[test]
fn a_grpc_probe_speaks_the_health_protocol() {
    let machine = Machine::new();
    let probe = json!({"grpc": {"port": 9000, "service": "app"}});
    let process = start(&machine, &ready_by(&probe));
    page_with(
        &machine,
        "timeout: failed to connect service \"127.0.0.1:9000\" within 1s: context deadline exceeded",
    );
    let server = servers::grpc(servers::listen(process, 9000));
    wait_ready(&machine, true);
    server.be(false);
    wait_ready(&machine, false);
    page_with(
        &machine,
        "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")",
    );
    server.be(true);
    wait_ready(&machine, true);

    let others = Machine::new();
    let unknown = json!({"grpc": {"port": 9000, "service": "nobody"}});
    let process = start(&others, &ready_by(&unknown));
    let _server = servers::grpc(servers::listen(process, 9000));
    page_with(
        &others,
        "error: health rpc probe failed: rpc error: code = 5 desc =",
    );
}

#[test]
fn a_startup_probe_holds_the_others_back_and_may_end_the_container() {
    let machine = Machine::new();
    let probes = json!({
        "startupProbe": {"exec": {"command": ["test", "-e", "/up"]}, "periodSeconds": 1, "failureThreshold": 2,
            "terminationGracePeriodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["sh", "-c", "exit 1"]}, "periodSeconds": 1},
    });
    // It ignores SIGTERM, so that the probe's own grace period counts.
    let stubborn = container("c", "trap '' TERM; while :; do sleep 0.1; done");
    let spec =
        json!({"containers": [with(stubborn, &probes)], "terminationGracePeriodSeconds": 600});
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    machine.wait_for("web", |pod| status(pod, "c")["restartCount"] == 1);
    let page = page_with(
        &machine,
        "Container c failed startup probe, will be restarted",
    );
    assert!(!page.contains("Liveness probe failed"), "{page}");
    let web = machine.pod("web");
    let last = &status(&web, "c")["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 137);
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}

#[test]
fn what_failed_its_liveness_probe_comes_back_unless_it_never_does() {
    let probe = json!({"livenessProbe": {
        "exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}});
    let spec = |policy: &str| {
        // It ends with code 0 when it is asked to.
        let container = container("c", "trap 'exit 0' TERM; while :; do sleep 0.1; done");
        json!({
            "restartPolicy": policy, "terminationGracePeriodSeconds": 2,
            "containers": [with(container, &probe)],
        })
    };
    let machine = Machine::new();
    machine.run_pod(&pod(&spec("OnFailure")));
    machine.wait_for("web", |pod| status(pod, "c")["restartCount"] == 1);
    page_with(
        &machine,
        "Container c failed liveness probe, will be restarted",
    );
    let others = Machine::new();
    others.run_pod(&pod(&spec("Never")));
    others.wait_for("web", is_over);
    let page = page_with(&others, "Container c failed liveness probe");
    assert!(!page.contains("will be restarted"), "{page}");
    assert_eq!(status(&others.pod("web"), "c")["restartCount"], 0);
}

#[test]
fn what_a_probe_cannot_do_is_told() {
    let machine = Machine::new();
    let missing = json!({"exec": {"command": ["/no/such/program"]}});
    start(&machine, &ready_by(&missing));
    page_with(
        &machine,
        "Readiness probe errored and resulted in unknown state: ",
    );
    let others = Machine::new();
    let nameless = json!({"tcpSocket": {"port": "nowhere"}});
    start(&others, &ready_by(&nameless));
    page_with(&others, "container c has no port named \"nowhere\"");
}

#[test]
fn a_command_that_waits_for_a_pod_waits_until_it_is_ready() {
    let machine = Machine::new();
    let probe = json!({"readinessProbe": {
        "exec": {"command": ["test", "-e", "/ready"]}, "periodSeconds": 1, "successThreshold": 2}});
    let slow = container(
        "c",
        "sleep 1; touch /ready; trap exit TERM; while :; do sleep 1; done",
    );
    let late = json!({"readinessProbe": {"exec": {"command": ["true"]}, "initialDelaySeconds": 3}});
    let spec = json!({"containers": [with(slow, &probe), with(idle("d"), &late)]});
    let start = Instant::now();
    machine.orlop_with(["apply", "-f", "-"], &pod(&spec)).ok();
    machine.wait_for("web", |pod| status(pod, "c")["ready"] == true);
    assert!(start.elapsed().as_secs() >= 2, "two checks in a row");
    machine.run_pod(&pod(&spec));
    assert!(start.elapsed().as_secs() >= 3, "the first check is late");
    assert_eq!(row(&machine)[1..3], ["2/2", "Running"]);
    let never = machine.orlop_with(
        ["apply", "--wait", "--timeout", "2", "-f", "-"],
        &ready_by(&json!({"exec": {"command": ["false"]}})).replace("\"web\"", "\"never\""),
    );
    let said = never.refused();
    assert!(
        said.contains("timed out waiting for pod \"never\""),
        "{said}"
    );
    assert!(said.contains("0/1 ready"), "{said}");
}
