//! Users, groups and privileges.

use super::sysctls;
use crate::kube::field::Findings;
use crate::kube::near::{hint, nearest};
use k8s_openapi::api::core::v1::{PodSpec, SecurityContext};

/// User and group ids that the API allows.
const IDS: std::ops::RangeInclusive<i64> = 0..=2_147_483_647;
const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const GROUP_POLICIES: &[&str] = &["Merge", "Strict"];
const CHANGE_POLICIES: &[&str] = &["Always", "OnRootMismatch"];
const PROC_MOUNTS: &[&str] = &["Default", "Unmasked"];

/// capabilities(7), without the `CAP_` that manifests leave out.
const CAPABILITIES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Checks the pod's own security context.
pub(super) fn check_pod(spec: &PodSpec, findings: &mut Findings) {
    let Some(context) = &spec.security_context else {
        return;
    };
    let at = "spec.securityContext";
    check_ids(at, context.run_as_user, context.run_as_group, findings);
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        findings.between(format!("{at}.supplementalGroups[{i}]"), *group, IDS);
    }
    if let Some(group) = context.fs_group {
        findings.between(format!("{at}.fsGroup"), group, IDS);
    }
    findings.one_of(
        format!("{at}.fsGroupChangePolicy"),
        context.fs_group_change_policy.as_deref(),
        CHANGE_POLICIES,
    );
    sysctls::check(spec, at, findings);
    findings.one_of(
        format!("{at}.supplementalGroupsPolicy"),
        context.supplemental_groups_policy.as_deref(),
        GROUP_POLICIES,
    );
    let seccomp = context.seccomp_profile.as_ref();
    let app_armor = context.app_armor_profile.as_ref();
    check_profiles(
        at,
        seccomp.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())),
        app_armor.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())),
        findings,
    );
}

/// Checks a container's security context, which stands at `at`.
pub(super) fn check_container(context: &SecurityContext, at: &str, findings: &mut Findings) {
    check_ids(at, context.run_as_user, context.run_as_group, findings);
    findings.one_of(
        format!("{at}.procMount"),
        context.proc_mount.as_deref(),
        PROC_MOUNTS,
    );
    let seccomp = context.seccomp_profile.as_ref();
    let app_armor = context.app_armor_profile.as_ref();
    check_profiles(
        at,
        seccomp.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())),
        app_armor.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())),
        findings,
    );
    let mut admin = false;
    if let Some(capabilities) = &context.capabilities {
        for (list, names) in [("add", &capabilities.add), ("drop", &capabilities.drop)] {
            for (i, name) in names.iter().flatten().enumerate() {
                let at = format!("{at}.capabilities.{list}[{i}]");
                let plain = check_capability(at, name, findings);
                admin |= list == "add" && plain == "SYS_ADMIN";
            }
        }
    }
    if context.allow_privilege_escalation == Some(false) {
        let at = format!("{at}.allowPrivilegeEscalation");
        if context.privileged == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            findings.invalid_plain(at, false, why);
        } else if admin {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            findings.invalid_plain(at, false, why);
        }
    }
}

fn check_ids(at: &str, user: Option<i64>, group: Option<i64>, findings: &mut Findings) {
    for (field, id) in [("runAsUser", user), ("runAsGroup", group)] {
        if let Some(id) = id {
            findings.between(format!("{at}.{field}"), id, IDS);
        }
    }
}

/// A profile's type and, if given, its name.
type Profile<'a> = (&'a str, Option<&'a str>);

fn check_profiles(
    at: &str,
    seccomp: Option<Profile>,
    app_armor: Option<Profile>,
    findings: &mut Findings,
) {
    for (field, what, profile) in [
        ("seccompProfile", "seccomp", seccomp),
        ("appArmorProfile", "AppArmor", app_armor),
    ] {
        let Some((kind, name)) = profile else {
            continue;
        };
        match kind {
            "" => findings.required(format!("{at}.{field}.type"), ""),
            kind => findings.one_of(format!("{at}.{field}.type"), Some(kind), PROFILES),
        }
        let at = format!("{at}.{field}.localhostProfile");
        match (kind, name) {
            ("Localhost", None | Some("")) => {
                let why = match what {
                    "seccomp" => "must be set when seccomp type is Localhost",
                    _ => "must be set when AppArmor type is Localhost",
                };
                findings.required(at, why);
            }
            ("Localhost", Some(name)) if what == "seccomp" => {
                if name.starts_with('/') {
                    findings.invalid(at, name, "must be a relative path");
                } else if name.split('/').any(|part| part == "..") {
                    findings.invalid(at, name, "must not contain '..'");
                }
            }
            ("Localhost", Some(name)) if name.trim() != name => {
                findings.invalid(at, name, "must not be padded with whitespace");
            }
            ("Localhost", Some(_)) | (_, None) => {}
            (_, Some(name)) => {
                findings.invalid(
                    at,
                    name,
                    format!("can only be set when {what} type is Localhost"),
                );
            }
        }
    }
}

/// Checks the name in any case and with or without `CAP_`, as runtimes do;
/// returns its plain form.
fn check_capability(field: String, name: &str, findings: &mut Findings) -> String {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if !CAPABILITIES.contains(&plain) {
        let hint = hint(nearest(plain, CAPABILITIES.iter().copied()));
        let why = format!("must be a capability of Linux, such as NET_ADMIN, or ALL{hint}");
        findings.invalid(field, name, why);
    }
    plain.to_owned()
}
