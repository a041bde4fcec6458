//! A container's variables, and where their values come from.

use super::names;
use crate::kube::field::Findings;
use crate::kube::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};

/// Fields of the pod that a variable can take its value from.
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// Checks `envFrom` and `env` of the container at `at`.
pub(super) fn check(container: &Container, at: &str, findings: &mut Findings) {
    for (i, source) in container.env_from.iter().flatten().enumerate() {
        let at = format!("{at}.envFrom[{i}]");
        if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty())
            && let Err(why) = names::variable(prefix)
        {
            findings.invalid(format!("{at}.prefix"), prefix, why);
        }
        match (&source.config_map_ref, &source.secret_ref) {
            (None, None) => {
                findings.invalid(at, "", "must specify one of: `configMapRef` or `secretRef`");
            }
            (Some(_), Some(_)) => {
                let why = "may not have more than one field specified at a time";
                findings.invalid(at, "", why);
            }
            (Some(map), None) => check_object(&map.name, &format!("{at}.configMapRef"), findings),
            (None, Some(secret)) => {
                check_object(&secret.name, &format!("{at}.secretRef"), findings);
            }
        }
    }
    for (i, variable) in container.env.iter().flatten().enumerate() {
        let at = format!("{at}.env[{i}]");
        if variable.name.is_empty() {
            findings.required(format!("{at}.name"), "");
        } else if let Err(why) = names::variable(&variable.name) {
            findings.invalid(format!("{at}.name"), &variable.name, why);
        }
        check_value_from(variable, &format!("{at}.valueFrom"), findings);
    }
}

fn check_value_from(variable: &EnvVar, at: &str, findings: &mut Findings) {
    let Some(source) = &variable.value_from else {
        return;
    };
    if variable.value.as_deref().is_some_and(|v| !v.is_empty()) {
        let why = "may not be specified when `value` is not empty";
        findings.invalid(at, "", why);
    }
    match sources(source) {
        0 => {
            let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            findings.invalid(at, "", why);
        }
        1 => {}
        _ => {
            let why = "may not have more than one field specified at a time";
            findings.invalid(at, "", why);
        }
    }
    if let Some(field) = &source.field_ref {
        check_field(field, FIELDS, &format!("{at}.fieldRef"), findings);
    }
    if let Some(resource) = &source.resource_field_ref {
        let at = format!("{at}.resourceFieldRef");
        check_resource(resource, &at, findings);
    }
    if let Some(key) = &source.config_map_key_ref {
        check_key(
            &key.name,
            &key.key,
            &format!("{at}.configMapKeyRef"),
            findings,
        );
    }
    if let Some(key) = &source.secret_key_ref {
        check_key(&key.name, &key.key, &format!("{at}.secretKeyRef"), findings);
    }
}

fn sources(source: &EnvVarSource) -> usize {
    usize::from(source.field_ref.is_some())
        + usize::from(source.resource_field_ref.is_some())
        + usize::from(source.config_map_key_ref.is_some())
        + usize::from(source.secret_key_ref.is_some())
}

fn check_key(name: &str, key: &str, at: &str, findings: &mut Findings) {
    check_object(name, at, findings);
    let field = format!("{at}.key");
    if key.is_empty() {
        findings.required(field, "");
    } else if let Err(why) = names::config_key(key) {
        findings.invalid(field, key, why);
    }
}

/// Checks the name of a ConfigMap or Secret that the field `at` refers to.
pub(super) fn check_object(name: &str, at: &str, findings: &mut Findings) {
    let field = format!("{at}.name");
    if name.is_empty() {
        findings.required(field, "");
    } else if let Err(why) = names::subdomain(name) {
        findings.invalid(field, name, why);
    }
}

/// Checks a reference to a field of the pod, one of `fields` or an entry of a map.
pub(super) fn check_field(
    field: &ObjectFieldSelector,
    fields: &'static [&'static str],
    at: &str,
    findings: &mut Findings,
) {
    let version = field.api_version.as_deref();
    findings.one_of(format!("{at}.apiVersion"), version, &["v1"]);
    let at = format!("{at}.fieldPath");
    let path = field.field_path.as_str();
    let entry = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .find_map(|map| path.strip_prefix(map)?.strip_suffix("']"));
    match entry {
        Some(key) => {
            // Keys of annotations may be in capitals.
            if let Err(why) = names::qualified(&key.to_lowercase()) {
                findings.invalid(at, path, why);
            }
        }
        None if path.is_empty() => findings.required(at, ""),
        None => findings.one_of(at, Some(path), fields),
    }
}

/// Checks a reference to a resource of a container.
pub(super) fn check_resource(selector: &ResourceFieldSelector, at: &str, findings: &mut Findings) {
    let field = format!("{at}.resource");
    match selector.resource.as_str() {
        "" => findings.required(field, ""),
        resource => findings.one_of(field, Some(resource), RESOURCES),
    }
    let Some(divisor) = &selector.divisor else {
        return;
    };
    let field = format!("{at}.divisor");
    let possible: &[&str] = match selector.resource.ends_with(".cpu") {
        true => &["1m", "1"],
        false => &[
            "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
        ],
    };
    match divisor.0.parse::<Quantity>() {
        Err(error) => findings.invalid(field, &divisor.0, error.to_string()),
        Ok(wanted) if wanted.to_millis() == 0 && !wanted.is_negative() => {}
        Ok(wanted) => {
            let equal = |unit: &&str| unit.parse::<Quantity>().is_ok_and(|unit| unit == wanted);
            if !possible.iter().any(equal) {
                let why = format!("must be one of {}", possible.join(", "));
                findings.invalid(field, &divisor.0, why);
            }
        }
    }
}
