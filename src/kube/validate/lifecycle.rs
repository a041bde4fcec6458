//! What belongs to the life of containers: init containers, probes, hooks and
//! deadlines.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe,
    SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{check_names, names};
use crate::kube::field::Findings;

const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const SCHEMES: &[&str] = &["HTTP", "HTTPS"];
const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const NOT_FOR_INIT: &str = "may not be set for init containers without restartPolicy=Always";
const HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
                      'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
const STOP_SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMIN",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// Checks what is said of the pod's life as a whole.
pub(super) fn check_pod(spec: &PodSpec, findings: &mut Findings) {
    if let Some(seconds) = spec.active_deadline_seconds {
        findings.between(
            "spec.activeDeadlineSeconds",
            seconds,
            1..=i64::from(i32::MAX),
        );
    }
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let list = "spec.initContainers";
    check_names(list, init.iter().map(|c| c.name.as_str()), findings);
    let proper: HashSet<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    for (i, container) in init.iter().enumerate() {
        if proper.contains(container.name.as_str()) && !container.name.is_empty() {
            findings.duplicate(format!("{list}[{i}].name"), &container.name);
        }
    }
}

/// Checks the probes and hooks of the container at the path `at`.
pub(super) fn check(spec: &PodSpec, container: &Container, at: &str, findings: &mut Findings) {
    let policy = container.restart_policy.as_deref();
    findings.one_of(format!("{at}.restartPolicy"), policy, RESTART_POLICIES);
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    if at.starts_with("spec.initContainers") && policy != Some("Always") {
        let lifecycle = ("lifecycle", container.lifecycle.is_some());
        let set = probes.map(|(name, probe)| (name, probe.is_some()));
        for (name, _) in set.into_iter().chain([lifecycle]).filter(|(_, set)| *set) {
            findings.forbidden(format!("{at}.{name}"), NOT_FOR_INIT);
        }
        return;
    }
    for (name, probe) in probes {
        if let Some(probe) = probe {
            check_probe(probe, name, &format!("{at}.{name}"), findings);
        }
    }
    if let Some(lifecycle) = &container.lifecycle {
        check_lifecycle(spec, lifecycle, &format!("{at}.lifecycle"), findings);
    }
}

fn check_probe(probe: &Probe, name: &str, at: &str, findings: &mut Findings) {
    let actions = Actions {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    actions.check(at, findings);
    for (field, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if let Some(number) = number.filter(|number| *number < 0) {
            findings.invalid_plain(format!("{at}.{field}"), number, NOT_NEGATIVE);
        }
    }
    if let Some(seconds) = probe.termination_grace_period_seconds {
        let field = format!("{at}.terminationGracePeriodSeconds");
        if name == "readinessProbe" {
            findings.invalid_plain(field, seconds, "must not be set for readinessProbes");
        } else if seconds <= 0 {
            findings.invalid_plain(field, seconds, "must be greater than 0");
        }
    }
    if let Some(number) = probe.success_threshold
        && name != "readinessProbe"
        && number != 1
    {
        findings.invalid_plain(format!("{at}.successThreshold"), number, "must be 1");
    }
}

fn check_lifecycle(spec: &PodSpec, lifecycle: &Lifecycle, at: &str, findings: &mut Findings) {
    for (name, hook) in [
        ("postStart", &lifecycle.post_start),
        ("preStop", &lifecycle.pre_stop),
    ] {
        if let Some(hook) = hook {
            check_hook(spec, hook, &format!("{at}.{name}"), findings);
        }
    }
    if let Some(signal) = lifecycle.stop_signal.as_deref() {
        let field = format!("{at}.stopSignal");
        let system = spec.os.as_ref().map_or("", |os| os.name.as_str());
        let offset = |name: &str, sign| {
            signal
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(sign))
        };
        let real_time = offset("SIGRTMIN", '+').or_else(|| offset("SIGRTMAX", '-'));
        if system.is_empty() {
            let why = "may not be set for containers with empty `spec.os.name`";
            findings.forbidden(field, why);
        } else if !real_time.is_some_and(|n| n.parse().is_ok_and(|n: u8| (1..=15).contains(&n))) {
            findings.one_of(field, Some(signal), STOP_SIGNALS);
        }
    }
}

fn check_hook(spec: &PodSpec, hook: &LifecycleHandler, at: &str, findings: &mut Findings) {
    let actions = Actions {
        exec: hook.exec.as_ref(),
        http_get: hook.http_get.as_ref(),
        tcp_socket: hook.tcp_socket.as_ref(),
        grpc: None,
        sleep: hook.sleep.as_ref(),
    };
    actions.check(at, findings);
    if let Some(sleep) = &hook.sleep {
        let grace = spec.termination_grace_period_seconds.unwrap_or(30);
        if !(0..=grace).contains(&sleep.seconds) {
            let why = format!(
                "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            );
            findings.invalid_plain(format!("{at}.sleep"), sleep.seconds, why);
        }
    }
}

/// What a probe or a hook does: one of these.
struct Actions<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl Actions<'_> {
    fn check(&self, at: &str, findings: &mut Findings) {
        let set = [
            ("exec", self.exec.is_some()),
            ("httpGet", self.http_get.is_some()),
            ("tcpSocket", self.tcp_socket.is_some()),
            ("grpc", self.grpc.is_some()),
            ("sleep", self.sleep.is_some()),
        ];
        let mut set = set.into_iter().filter(|(_, set)| *set);
        if set.next().is_none() {
            findings.required(at, "must specify a handler type");
        }
        for (name, _) in set {
            let why = "may not specify more than 1 handler type";
            findings.forbidden(format!("{at}.{name}"), why);
        }
        if let Some(exec) = self.exec
            && exec.command.as_deref().unwrap_or_default().is_empty()
        {
            findings.required(format!("{at}.exec.command"), "");
        }
        if let Some(get) = self.http_get {
            check_http_get(get, &format!("{at}.httpGet"), findings);
        }
        if let Some(tcp) = self.tcp_socket {
            check_port(&tcp.port, format!("{at}.tcpSocket.port"), findings);
        }
        if let Some(grpc) = self.grpc {
            let number = IntOrString::Int(grpc.port);
            check_port(&number, format!("{at}.grpc.port"), findings);
        }
    }
}

fn check_http_get(get: &HTTPGetAction, at: &str, findings: &mut Findings) {
    check_port(&get.port, format!("{at}.port"), findings);
    let scheme = get.scheme.as_deref();
    findings.one_of(format!("{at}.scheme"), scheme, SCHEMES);
    for (i, header) in get.http_headers.iter().flatten().enumerate() {
        let name = header.name.as_str();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(fits) {
            findings.invalid(format!("{at}.httpHeaders[{i}].name"), name, HEADER);
        }
        if header.value.contains(['\r', '\n']) {
            let why = "must not contain line breaks";
            findings.invalid(format!("{at}.httpHeaders[{i}].value"), &header.value, why);
        }
    }
    for (name, text) in [("path", &get.path), ("host", &get.host)] {
        let text = text.as_deref().unwrap_or_default();
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            findings.invalid(format!("{at}.{name}"), text, "must not contain whitespace");
        }
    }
}

fn check_port(port: &IntOrString, field: String, findings: &mut Findings) {
    match port {
        IntOrString::Int(number) => findings.between(field, (*number).into(), 1..=65535),
        IntOrString::String(name) => {
            if let Err(why) = names::service(name) {
                findings.invalid(field, name, why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pod;
    use crate::kube::defaults;
    use serde_json::{Value, json};

    fn findings(spec: Value) -> Vec<String> {
        let given = json!({"metadata": {"name": "p"}, "spec": spec});
        let mut object = serde_json::from_value(given).expect("a pod");
        defaults::pod(&mut object);
        pod(&object).iter().map(ToString::to_string).collect()
    }

    fn in_container(fields: Value) -> Vec<String> {
        let mut container =
            json!({"name": "a", "image": "b", "ports": [{"name": "http", "containerPort": 80}]});
        let all = container.as_object_mut().expect("a mapping");
        all.extend(fields.as_object().expect("a mapping").clone());
        findings(json!({"containers": [container]}))
    }

    const OK: [&str; 0] = [];

    #[test]
    fn probes_have_one_action_and_sensible_numbers() {
        let get = json!({"httpGet": {"port": "http"}});
        assert_eq!(in_container(json!({"readinessProbe": get})), OK);
        for (probe, want) in [
            (
                json!({}),
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            ),
            (
                json!({"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}),
                "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            ),
            (
                json!({"exec": {}}),
                "spec.containers[0].livenessProbe.exec.command: Required value",
            ),
            (
                json!({"httpGet": {"port": 0}}),
                "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"httpGet": {"port": 1, "scheme": "FTP"}}),
                "spec.containers[0].livenessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \
                 \"HTTP\", \"HTTPS\"",
            ),
            (
                json!({"tcpSocket": {"port": 1}, "successThreshold": 2}),
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ),
            (
                json!({"tcpSocket": {"port": 1}, "periodSeconds": -1}),
                "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                json!({"grpc": {"port": 1}, "terminationGracePeriodSeconds": 0}),
                "spec.containers[0].livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
            ),
        ] {
            assert_eq!(in_container(json!({"livenessProbe": probe})), [want]);
        }
        let graceful = json!({"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 5});
        assert_eq!(
            in_container(json!({"readinessProbe": graceful})),
            [
                "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for \
              readinessProbes"
            ]
        );
    }

    #[test]
    fn hooks_and_stop_signals_follow_the_rules() {
        let hook = |hook: Value| in_container(json!({"lifecycle": {"preStop": hook}}));
        assert_eq!(hook(json!({"sleep": {"seconds": 30}})), OK);
        assert_eq!(
            hook(json!({"sleep": {"seconds": 31}})),
            [
                "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than \
              terminationGracePeriodSeconds (30)"
            ]
        );
        assert_eq!(
            hook(json!({})),
            ["spec.containers[0].lifecycle.preStop: Required value: must specify a handler type"]
        );
        let signal = |os: Value, signal: &str| {
            findings(json!({"os": os, "containers": [
                {"name": "a", "image": "b", "lifecycle": {"stopSignal": signal}}]}))
        };
        let linux = json!({"name": "linux"});
        assert_eq!(signal(linux.clone(), "SIGUSR1"), OK);
        assert_eq!(signal(linux.clone(), "SIGRTMIN+3"), OK);
        assert_eq!(
            signal(Value::Null, "SIGUSR1"),
            [
                "spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`"
            ]
        );
        assert!(signal(linux, "USR1")[0].contains("Unsupported value: \"USR1\""));
    }

    #[test]
    fn init_containers_are_checked_like_the_others() {
        let init = |fields: Value| {
            let mut container = json!({"name": "i", "image": "b"});
            let all = container.as_object_mut().expect("a mapping");
            all.extend(fields.as_object().expect("a mapping").clone());
            findings(
                json!({"initContainers": [container], "containers": [{"name": "a", "image": "b"}]}),
            )
        };
        let probe = json!({"tcpSocket": {"port": 1}});
        assert_eq!(
            init(json!({"restartPolicy": "Always", "startupProbe": probe})),
            OK
        );
        assert_eq!(
            init(json!({"startupProbe": probe})),
            [
                "spec.initContainers[0].startupProbe: Forbidden: may not be set for init containers without \
              restartPolicy=Always"
            ]
        );
        assert_eq!(
            init(json!({"name": "a"})),
            ["spec.initContainers[0].name: Duplicate value: \"a\""]
        );
        assert_eq!(
            init(json!({"restartPolicy": "Sometimes"})),
            [
                "spec.initContainers[0].restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
              \"Never\", \"OnFailure\""
            ]
        );
        assert_eq!(
            init(json!({"image": ""})),
            ["spec.initContainers[0].image: Required value"]
        );
        let deadline =
            json!({"activeDeadlineSeconds": 0, "containers": [{"name": "a", "image": "b"}]});
        assert_eq!(
            findings(deadline),
            [
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"
            ]
        );
    }
}
