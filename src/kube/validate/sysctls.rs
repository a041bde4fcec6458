//! Kernel parameters of a pod
//! (<https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/>).
//!
//! Those that belong to a namespace are allowed: they are the pod's own. Others would
//! change the machine, and whoever wants that has sysctl(8).

use k8s_openapi::api::core::v1::PodSpec;

use crate::kube::field::Findings;

const LONGEST: usize = 253;

/// Parameters of IPC namespaces, then of network namespaces; a dot or a star at the
/// end stands for whatever follows.
const IPC: &[&str] = &["kernel.sem", "kernel.shm*", "kernel.msg*", "fs.mqueue.*"];
const NETWORK: &[&str] = &["net.*"];

pub(super) fn check(spec: &PodSpec, at: &str, findings: &mut Findings) {
    let context = spec.security_context.as_ref();
    let all = context.and_then(|context| context.sysctls.as_deref());
    let all = all.unwrap_or_default();
    for (i, sysctl) in all.iter().enumerate() {
        let name = format!("{at}.sysctls[{i}].name");
        let plain = plain(&sysctl.name);
        let is = |known: &&str| match known.strip_suffix('*') {
            Some(start) => plain.starts_with(start),
            None => plain == **known,
        };
        let (ipc, network) = (IPC.iter().any(&is), NETWORK.iter().any(is));
        if sysctl.name.is_empty() {
            findings.required(name, "");
        } else if !is_name(&sysctl.name) {
            let why = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            findings.invalid(name, &sysctl.name, why);
        } else if all[..i]
            .iter()
            .any(|other| self::plain(&other.name) == plain)
        {
            findings.duplicate(name, &sysctl.name);
        } else if network && spec.host_network == Some(true) {
            findings.invalid(
                name,
                &sysctl.name,
                "may not be allowed with hostNetwork enabled",
            );
        } else if ipc && spec.host_ipc == Some(true) {
            findings.invalid(
                name,
                &sysctl.name,
                "may not be allowed with hostIPC enabled",
            );
        } else if !ipc && !network {
            let why = "forbidden sysctl: it is the machine's and no pod's own; those of pods are kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.*";
            findings.invalid(name, &sysctl.name, why);
        }
    }
}

/// The name with dots between its parts. Where the first separator is a slash, slashes
/// separate, and dots belong to names (of network devices).
fn plain(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(plain)
            && part.ends_with(plain)
            && part.chars().all(|c| plain(c) || matches!(c, '-' | '_'))
    };
    name.len() <= LONGEST && name.split(['.', '/']).all(is_part)
}
