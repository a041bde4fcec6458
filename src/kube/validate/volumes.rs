//! A pod's volumes, and the paths at which containers see them.

use super::{check_names, claim, files, nfs, volume_mount};
use crate::kube::field::Findings;
use crate::kube::huge_pages;
use crate::kube::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, HostPathVolumeSource, PodSpec, Volume,
};
use std::collections::HashSet;

const MEDIUMS: &[&str] = &["", "HugePages", "HugePages-1Gi", "HugePages-2Mi", "Memory"];
const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
/// The most bytes of a path, with the NUL behind it (path_resolution(7)).
const PATH_MAX: usize = 4096;

/// Checks the volumes and returns the names that mounts may use.
pub(super) fn check<'s>(spec: &'s PodSpec, findings: &mut Findings) -> HashSet<&'s str> {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    for (i, volume) in volumes.iter().enumerate() {
        let at = format!("spec.volumes[{i}]");
        check_source(volume, &at, findings);
        files::check(volume, spec, &at, findings);
    }
    let names = volumes.iter().map(|volume| volume.name.as_str());
    check_names("spec.volumes", names, findings)
}

fn check_source(volume: &Volume, at: &str, findings: &mut Findings) {
    if let Some(source) = &volume.empty_dir {
        check_empty_dir(source, &format!("{at}.emptyDir"), findings);
    }
    if let Some(source) = &volume.host_path {
        let at = format!("{at}.hostPath");
        if volume.empty_dir.is_none() {
            check_host_path(source, &at, findings);
        }
    }
    if let Some(source) = &volume.persistent_volume_claim
        && source.claim_name.is_empty()
    {
        findings.required(format!("{at}.persistentVolumeClaim.claimName"), "");
    }
    if let Some(source) = &volume.ephemeral {
        claim::check_ephemeral(source, &format!("{at}.ephemeral"), findings);
    }
    if let Some(source) = &volume.nfs {
        nfs::check(source, &format!("{at}.nfs"), findings);
    }
    let sources = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("secret", volume.secret.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("projected", volume.projected.is_some()),
        ("image", volume.image.is_some()),
        (
            "persistentVolumeClaim",
            volume.persistent_volume_claim.is_some(),
        ),
        ("ephemeral", volume.ephemeral.is_some()),
        ("nfs", volume.nfs.is_some()),
    ];
    for (kind, _) in sources.iter().filter(|(_, is_set)| *is_set).skip(1) {
        findings.forbidden(
            format!("{at}.{kind}"),
            "may not specify more than 1 volume type",
        );
    }
}

fn check_empty_dir(source: &EmptyDirVolumeSource, at: &str, findings: &mut Findings) {
    let medium = source.medium.as_deref();
    if !medium.is_some_and(huge_pages::is_medium) {
        findings.one_of(format!("{at}.medium"), medium, MEDIUMS);
    }
    let Some(limit) = &source.size_limit else {
        return;
    };
    let field = format!("{at}.sizeLimit");
    match limit.0.parse::<Quantity>() {
        Err(error) => findings.invalid(field, &limit.0, error.to_string()),
        Ok(limit) if limit.is_negative() => findings.invalid(
            field,
            &limit.to_string(),
            "must be greater than or equal to 0",
        ),
        Ok(_) => {}
    }
}

pub(super) fn check_host_path(source: &HostPathVolumeSource, at: &str, findings: &mut Findings) {
    let (field, path) = (format!("{at}.path"), source.path.as_str());
    if path.is_empty() {
        findings.required(field, "");
    } else if has_backsteps(path) {
        findings.invalid(field, path, "must not contain '..'");
    } else if !path.starts_with('/') {
        findings.invalid(field, path, "must be an absolute path");
    } else if path.len() >= PATH_MAX {
        findings.too_long(field, PATH_MAX - 1);
    }
    findings.one_of(
        format!("{at}.type"),
        source.type_.as_deref(),
        HOST_PATH_TYPES,
    );
}

/// Checks the volume mounts of the container at `at` against the pod's
/// `volumes`.
pub(super) fn check_mounts(
    container: &Container,
    at: &str,
    volumes: &HashSet<&str>,
    findings: &mut Findings,
) {
    let mut paths = HashSet::new();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = format!("{at}.volumeMounts[{i}]");
        if mount.name.is_empty() {
            findings.required(format!("{at}.name"), "");
        } else if !volumes.contains(mount.name.as_str()) {
            findings.not_found(format!("{at}.name"), &mount.name);
        }
        let (field, path) = (format!("{at}.mountPath"), mount.mount_path.as_str());
        let steps: Vec<&str> = steps(path).collect();
        if path.is_empty() {
            findings.required(field, "");
        } else if path.contains(':') {
            findings.invalid(field, path, "must not contain ':'");
        } else if has_backsteps(path) {
            findings.invalid(field, path, "must not contain '..'");
        } else if steps.is_empty() {
            let why = "a volume cannot take the place of the container's root directory";
            findings.invalid(field, path, why);
        } else if path.len() >= PATH_MAX {
            findings.too_long(field, PATH_MAX - 1);
        } else if !paths.insert(steps) {
            findings.invalid(field, path, "must be unique");
        }
        volume_mount::check(container, mount, &at, findings);
    }
}

/// The names on a path's way: `/a//b/.` and `a/b` have the same.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|step| !matches!(*step, "" | "."))
}

pub(super) fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|step| step == "..")
}
