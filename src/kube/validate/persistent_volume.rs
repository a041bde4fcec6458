//! PersistentVolumes and StorageClasses
//! (the Kubernetes API reference, "PersistentVolume v1 core" and "StorageClass v1
//! storage.k8s.io").

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;

use super::claim::{check_class, check_modes, check_size, check_volume_mode};
use super::volumes::{check_host_path, has_backsteps};
use super::{metadata, names};
use crate::kube::field::{FieldError, Findings};

const POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
const CLASS_POLICIES: &[&str] = &["Delete", "Retain"];
const BINDING_MODES: &[&str] = &["Immediate", "WaitForFirstConsumer"];
/// The most parameters of a class, and the most bytes of them all.
const PARAMETERS: (usize, usize) = (512, 256 << 10);

/// Everything that is wrong with a PersistentVolume, whose defaults are filled in.
pub fn persistent_volume(volume: &PersistentVolume) -> Vec<FieldError> {
    let mut findings = Findings::default();
    metadata::check(&volume.metadata, &mut findings);
    let absent = PersistentVolumeSpec::default();
    let spec = volume.spec.as_ref().unwrap_or(&absent);
    check_modes(
        spec.access_modes.as_deref(),
        "spec.accessModes",
        "",
        &mut findings,
    );
    check_capacity(spec.capacity.as_ref(), &mut findings);
    findings.one_of(
        "spec.persistentVolumeReclaimPolicy",
        spec.persistent_volume_reclaim_policy.as_deref(),
        POLICIES,
    );
    check_source(spec, &mut findings);
    check_class(
        spec.storage_class_name.as_deref(),
        "spec.storageClassName",
        &mut findings,
    );
    check_volume_mode(
        spec.volume_mode.as_deref(),
        "spec.volumeMode",
        &mut findings,
    );
    findings.0
}

fn check_capacity(capacity: Option<&BTreeMap<String, Written>>, findings: &mut Findings) {
    let Some(capacity) = capacity.filter(|capacity| !capacity.is_empty()) else {
        findings.required("spec.capacity", "");
        return;
    };
    for (name, size) in capacity {
        if name == "storage" {
            check_size(&size.0, "spec.capacity[storage]", findings);
        } else {
            findings.one_of("spec.capacity", Some(name), &["storage"]);
        }
    }
    if !capacity.contains_key("storage") {
        findings.required("spec.capacity[storage]", "");
    }
}

fn check_source(spec: &PersistentVolumeSpec, findings: &mut Findings) {
    let sources = [
        ("hostPath", spec.host_path.is_some()),
        ("nfs", spec.nfs.is_some()),
        ("local", spec.local.is_some()),
    ];
    let mut set = sources.iter().filter(|(_, is_set)| *is_set);
    if set.next().is_none() {
        findings.required("spec", "must specify a volume type");
    }
    for (kind, _) in set {
        findings.forbidden(
            format!("spec.{kind}"),
            "may not specify more than 1 volume type",
        );
    }
    if let Some(source) = &spec.host_path {
        check_host_path(source, "spec.hostPath", findings);
        let is_root = source.path.split('/').all(|step| matches!(step, "" | "."));
        if is_root && spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
            findings.forbidden(
                "spec.persistentVolumeReclaimPolicy",
                "may not be 'recycle' for a hostPath mount of '/'",
            );
        }
    }
    if let Some(source) = &spec.nfs {
        if source.server.is_empty() {
            findings.required("spec.nfs.server", "");
        }
        match source.path.as_str() {
            "" => findings.required("spec.nfs.path", ""),
            path if !path.starts_with('/') => {
                findings.invalid("spec.nfs.path", path, "must be an absolute path");
            }
            _ => {}
        }
    }
    if let Some(source) = &spec.local {
        match source.path.as_str() {
            "" => findings.required("spec.local.path", ""),
            path if has_backsteps(path) => {
                findings.invalid("spec.local.path", path, "must not contain '..'");
            }
            path if !path.starts_with('/') => {
                findings.invalid("spec.local.path", path, "must be an absolute path");
            }
            _ => {}
        }
        let affinity = spec.node_affinity.as_ref();
        if affinity.is_none_or(|affinity| affinity.required.is_none()) {
            findings.required("spec.nodeAffinity", "Local volume requires node affinity");
        }
    }
}

/// What keeps the PersistentVolume `old` from becoming `new`.
pub fn persistent_volume_update(old: &PersistentVolume, new: &PersistentVolume) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let absent = PersistentVolumeSpec::default();
    let (old, is) = (
        old.spec.as_ref().unwrap_or(&absent),
        new.spec.as_ref().unwrap_or(&absent),
    );
    if (&old.host_path, &old.nfs, &old.local) != (&is.host_path, &is.nfs, &is.local) {
        findings.forbidden(
            "spec.persistentvolumesource",
            "spec.persistentvolumesource is immutable after creation",
        );
    }
    if old.volume_mode != is.volume_mode {
        let mode = is.volume_mode.as_deref().unwrap_or_default();
        findings.invalid("spec.volumeMode", mode, "field is immutable");
    }
    if old.node_affinity.is_some() && old.node_affinity != is.node_affinity {
        findings.forbidden(
            "spec.nodeAffinity",
            "field is immutable, except for updating from beta label to GA",
        );
    }
    findings.0.extend(persistent_volume(new));
    findings.0
}

/// Everything that is wrong with a StorageClass, whose defaults are filled in.
pub fn storage_class(class: &StorageClass) -> Vec<FieldError> {
    let mut findings = Findings::default();
    metadata::check(&class.metadata, &mut findings);
    if class.provisioner.is_empty() {
        findings.required("provisioner", "");
    } else if let Err(why) = names::qualified(&class.provisioner.to_lowercase()) {
        findings.invalid("provisioner", &class.provisioner, why);
    }
    let parameters = class.parameters.iter().flatten();
    let size: usize = parameters
        .map(|(key, value)| {
            if key.is_empty() {
                findings.invalid("parameters", key, "field can not be empty.");
            }
            key.len() + value.len()
        })
        .sum();
    let (most, largest) = PARAMETERS;
    if class
        .parameters
        .as_ref()
        .is_some_and(|all| all.len() > most)
    {
        let why = format!("must have at most {most} entries");
        findings.invalid_plain("parameters", "Provisioner Parameters", why);
    }
    if size > largest {
        findings.too_long("parameters", largest);
    }
    findings.one_of(
        "reclaimPolicy",
        class.reclaim_policy.as_deref(),
        CLASS_POLICIES,
    );
    findings.one_of(
        "volumeBindingMode",
        class.volume_binding_mode.as_deref(),
        BINDING_MODES,
    );
    findings.0
}

/// What keeps the StorageClass `old` from becoming `new`.
pub fn storage_class_update(old: &StorageClass, new: &StorageClass) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let empty = BTreeMap::new();
    let parameters = |class: &StorageClass| class.parameters.clone().unwrap_or(empty.clone());
    if parameters(old) != parameters(new) {
        findings.forbidden("parameters", "updates to parameters are forbidden.");
    }
    if old.provisioner != new.provisioner {
        findings.forbidden("provisioner", "updates to provisioner are forbidden.");
    }
    if old.reclaim_policy != new.reclaim_policy {
        findings.forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden.");
    }
    if old.volume_binding_mode != new.volume_binding_mode {
        let mode = new.volume_binding_mode.as_deref().unwrap_or_default();
        findings.invalid("volumeBindingMode", mode, "field is immutable");
    }
    findings.0.extend(storage_class(new));
    findings.0
}
