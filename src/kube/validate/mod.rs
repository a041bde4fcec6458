//! Does a pod make sense? The API server's checks, in its words
//! (the Kubernetes API reference, "Pod v1 core", and "Object Names and IDs").
//!
//! A few checks go further, because nothing stands behind this one that would
//! still say no: a `hostPath` must be absolute, no path may have a `..` in it,
//! a volume can't be mounted over a container's root, capabilities must exist.

mod claim;
mod config;
mod containers;
mod environment;
mod files;
mod lifecycle;
mod metadata;
pub mod names;
mod nfs;
mod persistent_volume;
mod pod_resources;
mod resources;
mod security;
mod sysctls;
mod users;
mod volume_mount;
mod volumes;

pub use claim::{claim, claim_update};
pub use config::{config_map, config_map_update, secret, secret_update};
pub use persistent_volume::{
    persistent_volume, persistent_volume_update, storage_class, storage_class_update,
};

use super::field::{FieldError, Findings};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use std::collections::HashSet;
use std::net::IpAddr;

const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const OPERATING_SYSTEMS: &[&str] = &["linux", "windows"];
/// The most name servers that a resolver looks at (resolv.conf(5)).
const NAME_SERVERS: usize = 3;
const SEARCH_DOMAINS: usize = 32;

/// Everything that is wrong with `pod`, whose defaults are filled in; nothing
/// when it is valid.
pub fn pod(pod: &Pod) -> Vec<FieldError> {
    let mut findings = Findings::default();
    metadata::check(&pod.metadata, &mut findings);
    let absent = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&absent);
    check_spec(spec, &mut findings);
    check_namespaces(spec, &mut findings);
    check_dns(spec, &mut findings);
    check_host_aliases(spec, &mut findings);
    security::check_pod(spec, &mut findings);
    pod_resources::check_pod(&pod.metadata, spec, &mut findings);
    users::check(spec, &mut findings);
    let volumes = volumes::check(spec, &mut findings);
    containers::check(spec, &volumes, &mut findings);
    findings.0
}

fn check_spec(spec: &PodSpec, findings: &mut Findings) {
    findings.one_of(
        "spec.restartPolicy",
        spec.restart_policy.as_deref(),
        RESTART_POLICIES,
    );
    if let Some(seconds) = spec.termination_grace_period_seconds
        && seconds < 0
    {
        findings.invalid_plain(
            "spec.terminationGracePeriodSeconds",
            seconds,
            "must be greater than or equal to 0",
        );
    }
    for (field, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty())
            && let Err(why) = names::label(value)
        {
            findings.invalid(format!("spec.{field}"), value, why);
        }
    }
    if let Some(os) = &spec.os {
        match os.name.as_str() {
            "" => findings.required("spec.os.name", ""),
            name => findings.one_of("spec.os.name", Some(name), OPERATING_SYSTEMS),
        }
    }
}

fn check_namespaces(spec: &PodSpec, findings: &mut Findings) {
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        findings.invalid_plain(
            "spec.shareProcessNamespace",
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
}

fn check_dns(spec: &PodSpec, findings: &mut Findings) {
    let policy = spec.dns_policy.as_deref();
    findings.one_of("spec.dnsPolicy", policy, DNS_POLICIES);
    let config = spec.dns_config.as_ref();
    let servers = config.and_then(|config| config.nameservers.as_deref());
    let servers = servers.unwrap_or_default();
    let at = "spec.dnsConfig.nameservers";
    if policy == Some("None") && servers.is_empty() {
        findings.required(
            at,
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    if servers.len() > NAME_SERVERS {
        let why = format!("must not have more than {NAME_SERVERS} nameservers");
        findings.invalid_plain(at, servers.len(), why);
    }
    for (i, server) in servers.iter().enumerate() {
        check_address(format!("{at}[{i}]"), server, findings);
    }
    let Some(config) = config else { return };
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > SEARCH_DOMAINS {
        let why = format!("must not have more than {SEARCH_DOMAINS} search paths");
        findings.invalid_plain("spec.dnsConfig.searches", searches.len(), why);
    }
    for (i, search) in searches.iter().enumerate() {
        let domain = search.strip_suffix('.').unwrap_or(search);
        if let Err(why) = names::search_domain(domain) {
            findings.invalid(format!("spec.dnsConfig.searches[{i}]"), search, why);
        }
    }
    for (i, option) in config.options.iter().flatten().enumerate() {
        let at = format!("spec.dnsConfig.options[{i}]");
        let name = option.name.as_deref().unwrap_or("");
        if name.is_empty() {
            findings.required(format!("{at}.name"), "");
        }
        let value = option.value.as_deref().unwrap_or("");
        for (field, text) in [("name", name), ("value", value)] {
            if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
                findings.invalid(format!("{at}.{field}"), text, "must not contain whitespace");
            }
        }
    }
}

fn check_host_aliases(spec: &PodSpec, findings: &mut Findings) {
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let at = format!("spec.hostAliases[{i}]");
        check_address(format!("{at}.ip"), &alias.ip, findings);
        for (i, name) in alias.hostnames.iter().flatten().enumerate() {
            if let Err(why) = names::subdomain(name) {
                findings.invalid(format!("{at}.hostnames[{i}]"), name, why);
            }
        }
    }
}

fn check_address(field: String, address: &str, findings: &mut Findings) {
    if address.parse::<IpAddr>().is_err() {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        findings.invalid(field, address, why);
    }
}

/// Names of one list: each one set, well formed and there once.
fn check_names<'n>(
    list: &str,
    names: impl Iterator<Item = &'n str>,
    findings: &mut Findings,
) -> HashSet<&'n str> {
    let mut seen = HashSet::new();
    for (i, name) in names.enumerate() {
        let field = || format!("{list}[{i}].name");
        if name.is_empty() {
            findings.required(field(), "");
        } else if let Err(why) = names::label(name) {
            findings.invalid(field(), name, why);
        } else if !seen.insert(name) {
            findings.duplicate(field(), name);
        }
    }
    seen
}

#[cfg(test)]
mod tests;
