//! Names, labels and annotations.

use super::names;
use crate::kube::field::{Findings, entry};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The most bytes of all annotations together.
const ANNOTATIONS: usize = 256 << 10;

pub(super) fn check(metadata: &ObjectMeta, findings: &mut Findings) {
    match metadata.name.as_deref().unwrap_or("") {
        "" => findings.required("metadata.name", "name is required"),
        name => {
            if let Err(why) = names::subdomain(name) {
                findings.invalid("metadata.name", name, why);
            }
        }
    }
    if let Some(namespace) = metadata.namespace.as_deref()
        && let Err(why) = names::label(namespace)
    {
        findings.invalid("metadata.namespace", namespace, why);
    }
    for (key, value) in metadata.labels.iter().flatten() {
        if let Err(why) = names::qualified(key) {
            findings.invalid("metadata.labels", key, why);
        }
        if let Err(why) = names::label_value(value) {
            findings.invalid(entry("metadata.labels", key), value, why);
        }
    }
    let mut size = 0;
    for (key, value) in metadata.annotations.iter().flatten() {
        if let Err(why) = names::qualified(&key.to_lowercase()) {
            findings.invalid("metadata.annotations", key, why);
        }
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS {
        findings.too_long("metadata.annotations", ANNOTATIONS);
    }
}
