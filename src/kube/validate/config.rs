//! ConfigMaps and Secrets: keys, sizes, and what may change
//! (the Kubernetes API reference, "ConfigMap v1 core" and "Secret v1 core").

use super::{metadata, names};
use crate::kube::field::{FieldError, Findings, entry};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use std::collections::BTreeMap;

/// The most bytes of all values of one object together.
pub const LARGEST: usize = 1 << 20;

const FROZEN: &str = "field is immutable when `immutable` is set";
const REDACTED: &str = "<secret contents redacted>";
const ACCOUNT: &str = "kubernetes.io/service-account.name";

/// Everything that is wrong with a ConfigMap.
pub fn config_map(map: &ConfigMap) -> Vec<FieldError> {
    let mut findings = Findings::default();
    metadata::check(&map.metadata, &mut findings);
    let mut size = 0;
    for (key, text) in map.data.iter().flatten() {
        check_key("data", key, &mut findings);
        size += text.len();
    }
    for (key, bytes) in map.binary_data.iter().flatten() {
        check_key("binaryData", key, &mut findings);
        if map.data.as_ref().is_some_and(|data| data.contains_key(key)) {
            findings.invalid("binaryData", key, "duplicate of key present in data");
        }
        size += bytes.0.len();
    }
    if size > LARGEST {
        findings.too_long("data", LARGEST);
    }
    findings.0
}

/// Everything that is wrong with a Secret, whose `stringData` is in `data`.
pub fn secret(secret: &Secret) -> Vec<FieldError> {
    let mut findings = Findings::default();
    metadata::check(&secret.metadata, &mut findings);
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    let mut size = 0;
    for (key, bytes) in data {
        check_key("data", key, &mut findings);
        size += bytes.0.len();
    }
    if size > LARGEST {
        findings.too_long("data", LARGEST);
    }
    check_type(secret, data, &mut findings);
    findings.0
}

fn check_type(secret: &Secret, data: &BTreeMap<String, ByteString>, findings: &mut Findings) {
    let mut require = |keys: &[&str]| {
        let is_there = |key: &str| data.get(key).is_some_and(|value| !value.0.is_empty());
        for key in keys.iter().filter(|key| !is_there(key)) {
            findings.required(entry("data", key), "");
        }
    };
    match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/dockerconfigjson" => check_json(".dockerconfigjson", data, findings),
        "kubernetes.io/dockercfg" => check_json(".dockercfg", data, findings),
        "kubernetes.io/basic-auth" => {
            let either = ["username", "password"];
            let is_there = either.iter().any(|key| data.contains_key(*key));
            require(if is_there { &[] } else { &either });
        }
        "kubernetes.io/ssh-auth" => require(&["ssh-privatekey"]),
        "kubernetes.io/tls" => require(&["tls.crt", "tls.key"]),
        "kubernetes.io/service-account-token" => {
            let annotations = secret.metadata.annotations.as_ref();
            let account = annotations.and_then(|map| map.get(ACCOUNT));
            if account.is_none_or(String::is_empty) {
                findings.required(entry("metadata.annotations", ACCOUNT), "");
            }
        }
        _ => {}
    }
}

fn check_json(key: &str, data: &BTreeMap<String, ByteString>, findings: &mut Findings) {
    let field = entry("data", key);
    match data.get(key) {
        None => findings.required(field, ""),
        Some(bytes) => {
            if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes.0) {
                // serde_json's texts name a place, never what stands there.
                findings.invalid_plain(field, REDACTED, error.to_string());
            }
        }
    }
}

/// Keys become names of files and of variables.
fn check_key(field: &str, key: &str, findings: &mut Findings) {
    if let Err(why) = names::config_key(key) {
        findings.invalid(entry(field, key), key, why);
    }
}

/// What keeps the ConfigMap `old` from becoming `new`.
pub fn config_map_update(old: &ConfigMap, new: &ConfigMap) -> Vec<FieldError> {
    let mut findings = Findings::default();
    if old.immutable == Some(true) {
        for (field, differs) in [
            ("immutable", new.immutable != Some(true)),
            ("data", differs(&old.data, &new.data)),
            ("binaryData", differs(&old.binary_data, &new.binary_data)),
        ] {
            if differs {
                findings.forbidden(field, FROZEN);
            }
        }
    }
    findings.0.extend(config_map(new));
    findings.0
}

/// What keeps the Secret `old` from becoming `new`.
pub fn secret_update(old: &Secret, new: &Secret) -> Vec<FieldError> {
    let mut findings = Findings::default();
    if old.type_ != new.type_ {
        let type_ = new.type_.as_deref().unwrap_or_default();
        findings.invalid("type", type_, "field is immutable");
    }
    if old.immutable == Some(true) {
        for (field, differs) in [
            ("immutable", new.immutable != Some(true)),
            ("data", differs(&old.data, &new.data)),
        ] {
            if differs {
                findings.forbidden(field, FROZEN);
            }
        }
    }
    findings.0.extend(secret(new));
    findings.0
}

/// Whether two maps differ; none is the same as an empty one.
fn differs<V: PartialEq>(
    old: &Option<BTreeMap<String, V>>,
    new: &Option<BTreeMap<String, V>>,
) -> bool {
    let empty = BTreeMap::new();
    old.as_ref().unwrap_or(&empty) != new.as_ref().unwrap_or(&empty)
}
