//! PersistentVolumes, PersistentVolumeClaims and StorageClasses: from an untyped
//! value to an object that is complete and valid.

use super::decode::decode;
use super::error::{Problem, quote};
use super::field::FieldError;
use super::{defaults, strict, supported, validate};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The PersistentVolume that `value` is.
pub(super) fn volume(value: &Value) -> Result<PersistentVolume, Problem> {
    let mut volume: PersistentVolume = read("PersistentVolume", value)?;
    volume.status = None;
    leave_namespaces(&mut volume.metadata);
    defaults::persistent_volume(&mut volume);
    let findings = validate::persistent_volume(&volume);
    finish("PersistentVolume", &volume.metadata, findings)?;
    Ok(volume)
}

/// The PersistentVolumeClaim that `value` is; `settle` puts it into its namespace.
pub(super) fn claim(
    value: &Value,
    settle: impl FnOnce(&mut ObjectMeta) -> Result<(), Problem>,
) -> Result<PersistentVolumeClaim, Problem> {
    let mut claim: PersistentVolumeClaim = read("PersistentVolumeClaim", value)?;
    claim.status = None;
    settle(&mut claim.metadata)?;
    defaults::namespace(&mut claim.metadata);
    defaults::claim(&mut claim);
    let findings = validate::claim(&claim);
    finish("PersistentVolumeClaim", &claim.metadata, findings)?;
    Ok(claim)
}

/// The StorageClass that `value` is.
pub(super) fn class(value: &Value) -> Result<StorageClass, Problem> {
    let mut class: StorageClass = read("StorageClass", value)?;
    leave_namespaces(&mut class.metadata);
    defaults::storage_class(&mut class);
    let findings = validate::storage_class(&class);
    finish("StorageClass", &class.metadata, findings)?;
    Ok(class)
}

fn read<T: DeserializeOwned + Serialize>(kind: &str, value: &Value) -> Result<T, Problem> {
    strict::refuse_nul(value)?;
    let object: T = decode(value)?;
    let understood = serde_json::to_value(&object)
        .map_err(|error| Problem::Syntax(quote(&error.to_string())))?;
    strict::check(kind, value, &understood)?;
    supported::check_persistence(kind, value)?;
    Ok(object)
}

/// Of an object that belongs to no namespace the API server takes one away.
fn leave_namespaces(metadata: &mut ObjectMeta) {
    metadata.namespace = None;
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
}

fn finish(
    kind: &'static str,
    metadata: &ObjectMeta,
    findings: Vec<FieldError>,
) -> Result<(), Problem> {
    match findings.is_empty() {
        true => Ok(()),
        false => Err(Problem::Invalid {
            kind,
            name: metadata.name.clone().unwrap_or_default(),
            findings,
        }),
    }
}

#[cfg(test)]
#[path = "persistence_tests.rs"]
mod tests;
