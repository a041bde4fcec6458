//! The `Init Containers` and `Containers` sections of a page.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerState, ContainerStatus, EnvVar, EnvVarSource, Pod, PodSpec,
    PodStatus, Probe, ResourceFieldSelector, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Page, seccomp};
use crate::cli::print::printable;
use crate::kube::quantity::Quantity;

/// Both sections; that of the init containers only when there are some.
pub(super) fn all(page: &mut Page, pod: &Pod, spec: &PodSpec, status: &PodStatus) {
    if let Some(resources) = &spec.resources {
        page.line(0, "Resources:");
        both(page, 1, resources);
    }
    let init = spec.init_containers.as_deref().unwrap_or_default();
    if !init.is_empty() {
        page.line(0, "Init Containers:");
        for container in init {
            one(
                page,
                pod,
                container,
                status.init_container_statuses.as_deref(),
            );
        }
    }
    page.line(0, "Containers:");
    for container in &spec.containers {
        one(page, pod, container, status.container_statuses.as_deref());
    }
}

fn one(page: &mut Page, pod: &Pod, container: &Container, statuses: Option<&[ContainerStatus]>) {
    let mut statuses = statuses.into_iter().flatten();
    let status = statuses.find(|status| status.name == container.name);
    page.line(1, printable(&container.name) + ":");
    if let Some(status) = status {
        page.entry(
            2,
            "Container ID",
            status.container_id.as_deref().unwrap_or_default(),
        );
    }
    page.entry(2, "Image", container.image.as_deref().unwrap_or_default());
    if let Some(status) = status {
        page.entry(2, "Image ID", &status.image_id);
    }
    let numbers = container.ports.as_deref().unwrap_or_default();
    ports(page, "Port", numbers, |port| port.container_port);
    ports(page, "Host Port", numbers, |port| {
        port.host_port.unwrap_or(0)
    });
    let context = container.security_context.as_ref();
    if let Some(profile) = context.and_then(|context| context.seccomp_profile.as_ref()) {
        seccomp(page, 2, profile);
    }
    words(page, "Command", container.command.as_deref());
    words(page, "Args", container.args.as_deref());
    if let Some(status) = status {
        states(page, status);
    }
    if let Some(resources) = &container.resources {
        both(page, 2, resources);
    }
    for (key, probe) in [
        ("Liveness", &container.liveness_probe),
        ("Readiness", &container.readiness_probe),
        ("Startup", &container.startup_probe),
    ] {
        if let Some(probe) = probe {
            page.entry(2, key, probe_text(probe));
        }
    }
    environment(page, pod, container);
    mounts(page, container);
}

fn ports(page: &mut Page, key: &str, ports: &[ContainerPort], number: fn(&ContainerPort) -> i32) {
    let texts: Vec<String> = ports
        .iter()
        .map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            match port.name.as_deref() {
                None | Some("") => format!("{}/{protocol}", number(port)),
                Some(name) => format!("{}/{protocol} ({name})", number(port)),
            }
        })
        .collect();
    match texts.len() {
        0 => page.entry(2, key, "<none>"),
        1 => page.entry(2, key, &texts[0]),
        _ => page.entry(2, &format!("{key}s"), texts.join(", ")),
    }
}

fn words(page: &mut Page, key: &str, words: Option<&[String]>) {
    let words = words.unwrap_or_default();
    if !words.is_empty() {
        page.line(2, format!("{key}:"));
    }
    for line in words.iter().flat_map(|word| word.split('\n')) {
        page.line(3, printable(line));
    }
}

fn states(page: &mut Page, status: &ContainerStatus) {
    let nothing = ContainerState::default();
    state(page, "State", status.state.as_ref().unwrap_or(&nothing));
    if let Some(last) = status
        .last_state
        .as_ref()
        .filter(|last| last.terminated.is_some())
    {
        state(page, "Last State", last);
    }
    page.entry(2, "Ready", if status.ready { "True" } else { "False" });
    page.entry(2, "Restart Count", status.restart_count.to_string());
}

fn state(page: &mut Page, key: &str, state: &ContainerState) {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(running) = &state.running {
        page.entry(2, key, "Running");
        if let Some(started) = &running.started_at {
            page.date(3, "Started", started.0);
        }
    } else if let Some(end) = &state.terminated {
        page.entry(2, key, "Terminated");
        if let Some(reason) = filled(&end.reason) {
            page.entry(3, "Reason", reason);
        }
        if let Some(message) = filled(&end.message) {
            page.entry(3, "Message", message);
        }
        page.entry(3, "Exit Code", end.exit_code.to_string());
        if let Some(signal) = end.signal.filter(|signal| *signal > 0) {
            page.entry(3, "Signal", signal.to_string());
        }
        for (key, time) in [("Started", &end.started_at), ("Finished", &end.finished_at)] {
            if let Some(time) = time {
                page.date(3, key, time.0);
            }
        }
    } else {
        page.entry(2, key, "Waiting");
        if let Some(reason) = state
            .waiting
            .as_ref()
            .and_then(|waiting| filled(&waiting.reason))
        {
            page.entry(3, "Reason", reason);
        }
    }
}

fn both(page: &mut Page, level: usize, resources: &ResourceRequirements) {
    amounts(page, level, "Limits", resources.limits.as_ref());
    amounts(page, level, "Requests", resources.requests.as_ref());
}

fn amounts(page: &mut Page, level: usize, key: &str, amounts: Option<&BTreeMap<String, Text>>) {
    let Some(amounts) = amounts.filter(|amounts| !amounts.is_empty()) else {
        return;
    };
    page.line(level, format!("{key}:"));
    for (name, amount) in amounts {
        page.entry(level + 1, &printable(name), &amount.0);
    }
}

fn probe_text(probe: &Probe) -> String {
    let port = |port: &IntOrString| match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    let action = if let Some(exec) = &probe.exec {
        format!(
            "exec [{}]",
            exec.command.as_deref().unwrap_or_default().join(" ")
        )
    } else if let Some(get) = &probe.http_get {
        format!(
            "http-get {}://{}:{}{}",
            get.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase(),
            get.host.as_deref().unwrap_or_default(),
            port(&get.port),
            get.path.as_deref().unwrap_or_default()
        )
    } else if let Some(tcp) = &probe.tcp_socket {
        format!(
            "tcp-socket {}:{}",
            tcp.host.as_deref().unwrap_or_default(),
            port(&tcp.port)
        )
    } else if let Some(grpc) = &probe.grpc {
        format!(
            "grpc <pod>:{} {}",
            grpc.port,
            grpc.service.as_deref().unwrap_or_default()
        )
    } else {
        "unknown".to_owned()
    };
    // Kubernetes' defaults, for a manifest that is shown before they were filled in.
    format!(
        "{action} delay={}s timeout={}s period={}s successThreshold={} failureThreshold={}",
        probe.initial_delay_seconds.unwrap_or(0),
        probe.timeout_seconds.unwrap_or(1),
        probe.period_seconds.unwrap_or(10),
        probe.success_threshold.unwrap_or(1),
        probe.failure_threshold.unwrap_or(3),
    )
}

fn environment(page: &mut Page, pod: &Pod, container: &Container) {
    let sources = container.env_from.as_deref().unwrap_or_default();
    if !sources.is_empty() {
        page.line(2, "Environment Variables from:");
    }
    for source in sources {
        let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
            (Some(map), _) => ("ConfigMap", map.name.as_str(), map.optional),
            (None, Some(secret)) => ("Secret", secret.name.as_str(), secret.optional),
            (None, None) => ("", "", None),
        };
        let with = match source.prefix.as_deref() {
            None | Some("") => String::new(),
            Some(prefix) => format!(" with prefix '{}'", printable(prefix)),
        };
        let optional = optional.unwrap_or(false);
        page.line(
            3,
            format!("{}\t{kind}{with}\tOptional: {optional}", printable(name)),
        );
    }
    let variables = container.env.as_deref().unwrap_or_default();
    if variables.is_empty() {
        page.entry(2, "Environment", "<none>");
        return;
    }
    page.line(2, "Environment:");
    for variable in variables {
        variable_lines(page, pod, container, variable);
    }
}

fn variable_lines(page: &mut Page, pod: &Pod, container: &Container, variable: &EnvVar) {
    let name = printable(&variable.name);
    let Some(source) = &variable.value_from else {
        let value = variable.value.as_deref().unwrap_or_default();
        page.entry(3, &name, value);
        return;
    };
    page.line(
        3,
        format!("{name}:\t{}", source_text(pod, container, source)),
    );
}

/// Where a variable's value comes from, after the value where it is known here.
fn source_text(pod: &Pod, container: &Container, source: &EnvVarSource) -> String {
    if let Some(field) = &source.field_ref {
        let value = pod_field(pod, &field.field_path).unwrap_or_default();
        let version = field.api_version.as_deref().unwrap_or("v1");
        let path = printable(&field.field_path);
        return format!("{} ({version}:{path})", printable(&value));
    }
    if let Some(field) = &source.resource_field_ref {
        return format!(
            "{} ({})",
            resource_field(container, field),
            printable(&field.resource)
        );
    }
    let (of, key, name, optional) = match (&source.secret_key_ref, &source.config_map_key_ref) {
        (Some(secret), _) => ("in secret", &secret.key, &secret.name, secret.optional),
        (None, Some(map)) => ("of config map", &map.key, &map.name, map.optional),
        (None, None) => return "<unknown>".to_owned(),
    };
    let optional = optional.unwrap_or(false);
    let (key, name) = (printable(key), printable(name));
    format!("<set to the key '{key}' {of} '{name}'>\tOptional: {optional}")
}

fn pod_field(pod: &Pod, path: &str) -> Option<String> {
    let metadata = &pod.metadata;
    match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        _ => None,
    }
}

/// A resource of the container in units of the divisor, rounded up.
fn resource_field(container: &Container, field: &ResourceFieldSelector) -> String {
    let (kind, resource) = field.resource.split_once('.').unwrap_or_default();
    let amounts = container
        .resources
        .as_ref()
        .and_then(|resources| match kind {
            "limits" => resources.limits.as_ref(),
            _ => resources.requests.as_ref(),
        });
    let amount = amounts.and_then(|amounts| amounts.get(resource));
    let millis = |text: &str| {
        text.parse::<Quantity>()
            .map_or(0, |amount| amount.to_millis())
    };
    let divisor = field
        .divisor
        .as_ref()
        .map_or(0, |divisor| millis(&divisor.0));
    let divisor = if divisor == 0 { 1000 } else { divisor };
    match amount
        .map_or(0, |amount| millis(&amount.0))
        .div_ceil(divisor)
    {
        0 if kind == "limits" => "node allocatable".to_owned(),
        units => units.to_string(),
    }
}

fn mounts(page: &mut Page, container: &Container) {
    let mut mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
    if mounts.is_empty() {
        page.entry(2, "Mounts", "<none>");
        return;
    }
    page.line(2, "Mounts:");
    mounts.sort_by_key(|mount| &mount.mount_path);
    for mount in mounts {
        let mode = if mount.read_only == Some(true) {
            "ro"
        } else {
            "rw"
        };
        let part = mount.sub_path.as_deref().filter(|path| !path.is_empty());
        let part = part
            .map(|path| format!(",path={path:?}"))
            .unwrap_or_default();
        let (path, name) = (printable(&mount.mount_path), printable(&mount.name));
        page.line(3, format!("{path} from {name} ({mode}{part})"));
    }
}
