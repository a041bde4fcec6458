//! A pod's containers: image, environment, ports, and what stands elsewhere.

use super::{check_names, environment, lifecycle, names, resources, security, volumes};
use crate::kube::field::Findings;
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};
use std::collections::HashSet;
use std::net::IpAddr;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["FallbackToLogsOnError", "File"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const PORTS: std::ops::RangeInclusive<i64> = 1..=65535;

/// Checks the containers; `volumes` are the names that mounts may use.
pub(super) fn check(spec: &PodSpec, volumes: &HashSet<&str>, findings: &mut Findings) {
    if spec.containers.is_empty() {
        findings.required("spec.containers", "");
    }
    let names = spec.containers.iter().map(|c| c.name.as_str());
    check_names("spec.containers", names, findings);
    lifecycle::check_pod(spec, findings);
    let host_network = spec.host_network.unwrap_or(false);
    let mut host_ports = HashSet::new();
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(i, container)| (format!("spec.initContainers[{i}]"), container));
    let proper = spec.containers.iter().enumerate();
    let proper = proper.map(|(i, container)| (format!("spec.containers[{i}]"), container));
    for (at, container) in init.chain(proper) {
        lifecycle::check(spec, container, &at, findings);
        check_image(container, &at, findings);
        environment::check(container, &at, findings);
        // An init container has ended when others use the port again.
        let mut own = HashSet::new();
        let taken = match at.starts_with("spec.initContainers") {
            true => &mut own,
            false => &mut host_ports,
        };
        check_ports(container, &at, host_network, taken, findings);
        if let Some(resources) = &container.resources {
            resources::check(resources, &format!("{at}.resources"), findings);
        }
        if let Some(context) = &container.security_context {
            security::check_container(context, &format!("{at}.securityContext"), findings);
        }
        volumes::check_mounts(container, &at, volumes, findings);
        findings.one_of(
            format!("{at}.terminationMessagePolicy"),
            container.termination_message_policy.as_deref(),
            MESSAGE_POLICIES,
        );
    }
}

fn check_image(container: &Container, at: &str, findings: &mut Findings) {
    let field = format!("{at}.image");
    match container.image.as_deref().unwrap_or("") {
        "" => findings.required(field, ""),
        image if image.trim() != image => {
            findings.invalid(field, image, "must not have leading or trailing whitespace");
        }
        _ => {}
    }
    findings.one_of(
        format!("{at}.imagePullPolicy"),
        container.image_pull_policy.as_deref(),
        PULL_POLICIES,
    );
}

type HostPort<'p> = (i32, &'p str, &'p str);

fn check_ports<'p>(
    container: &'p Container,
    at: &str,
    host_network: bool,
    host_ports: &mut HashSet<HostPort<'p>>,
    findings: &mut Findings,
) {
    let mut names = HashSet::new();
    for (i, port) in container.ports.iter().flatten().enumerate() {
        let at = format!("{at}.ports[{i}]");
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let field = format!("{at}.name");
            if let Err(why) = names::service(name) {
                findings.invalid(field, name, why);
            } else if !names.insert(name) {
                findings.duplicate(field, name);
            }
        }
        match port.container_port {
            0 => findings.required(format!("{at}.containerPort"), ""),
            number => findings.between(format!("{at}.containerPort"), number.into(), PORTS),
        }
        findings.one_of(
            format!("{at}.protocol"),
            port.protocol.as_deref(),
            PROTOCOLS,
        );
        check_host_port(port, &at, host_network, host_ports, findings);
    }
}

fn check_host_port<'p>(
    port: &'p ContainerPort,
    at: &str,
    host_network: bool,
    taken: &mut HashSet<HostPort<'p>>,
    findings: &mut Findings,
) {
    let address = port.host_ip.as_deref().unwrap_or("");
    if !address.is_empty() && address.parse::<IpAddr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        findings.invalid(format!("{at}.hostIP"), address, why);
    }
    let number = port.host_port.unwrap_or(0);
    if number == 0 {
        return;
    }
    let field = format!("{at}.hostPort");
    findings.between(field.clone(), number.into(), PORTS);
    if host_network && number != port.container_port {
        let why = "must match `containerPort` when `hostNetwork` is true";
        findings.invalid_plain(field.clone(), number, why);
    }
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    if !taken.insert((number, protocol, address)) {
        findings.duplicate(field, &format!("{address}/{number}/{protocol}"));
    }
}
