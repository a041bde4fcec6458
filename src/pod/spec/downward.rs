//! What a pod can be told about itself, in variables and in files
//! (<https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>).

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceFieldSelector};

use super::SpecError;
use crate::kube::qos::{self, Compute};

/// What this machine has to give: what a limit is that was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Processors, in thousandths.
    pub cpu: u64,
    /// Memory, in bytes.
    pub memory: u64,
}

impl Capacity {
    /// What the machine has that this runs on.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let info = rustix::system::sysinfo();
        Self {
            cpu: std::thread::available_parallelism()
                .map_or(1000, |count| count.get() as u64 * 1000),
            memory: info.totalram.saturating_mul(u64::from(info.mem_unit)),
        }
    }
}

/// The value of a `fieldRef` that is in the pod's metadata: its name, namespace,
/// uid, labels or annotations, all or one. `None` for other fields.
///
/// # Errors
/// [`SpecError::FieldPath`] for a path that is not one.
pub fn metadata(pod: &Pod, path: &str) -> Result<Option<String>, SpecError> {
    let meta = &pod.metadata;
    let text = |text: &Option<String>| Some(text.clone().unwrap_or_default());
    if let Some((of, key)) = path.split_once("['") {
        let map = match of {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(SpecError::FieldPath(path.to_owned())),
        };
        let Some(key) = key.strip_suffix("']") else {
            return Err(SpecError::FieldPath(path.to_owned()));
        };
        let value = map.as_ref().and_then(|map| map.get(key));
        return Ok(Some(value.cloned().unwrap_or_default()));
    }
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => Some(lines(meta.labels.as_ref())),
        "metadata.annotations" => Some(lines(meta.annotations.as_ref())),
        _ => None,
    })
}

/// A map as a file has it: `key="value"` on each line, with Go's escapes.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    lines.join("\n")
}

/// A text as Go's `%q` writes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            other if other.is_control() => {
                let number = u32::from(other);
                // Writing to a string cannot fail.
                let _ = match number {
                    ..=0x7f => write!(quoted, "\\x{number:02x}"),
                    _ => write!(quoted, "\\u{number:04x}"),
                };
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// The value of a `resourceFieldRef`: the amount over the divisor, rounded up.
/// A missing limit is what the node has. `own` is the container that is meant when
/// none is named.
///
/// # Errors
/// A container or a resource that is not there.
pub fn resource(
    spec: &PodSpec,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    capacity: Capacity,
) -> Result<String, SpecError> {
    let name = selector.container_name.as_deref().unwrap_or_default();
    let named = || {
        let init = spec.init_containers.iter().flatten();
        let mut all = spec.containers.iter().chain(init);
        all.find(|container| container.name == name)
    };
    let container = match own {
        Some(own) if name.is_empty() => own,
        _ => named().ok_or_else(|| SpecError::UnknownContainer(name.to_owned()))?,
    };
    let resources = container.resources.as_ref();
    let limit_or = |compute, capacity| match qos::limit(resources, compute) {
        0 => capacity,
        limit => limit,
    };
    let (compute, whole, amount) = match selector.resource.as_str() {
        "limits.cpu" => (Compute::Cpu, 1000, limit_or(Compute::Cpu, capacity.cpu)),
        "limits.memory" => (
            Compute::Memory,
            1,
            limit_or(Compute::Memory, capacity.memory),
        ),
        "requests.cpu" => (Compute::Cpu, 1000, qos::request(resources, Compute::Cpu)),
        "requests.memory" => (Compute::Memory, 1, qos::request(resources, Compute::Memory)),
        _ => return Err(SpecError::ResourceField(selector.resource.clone())),
    };
    let divisor = match selector.divisor.as_ref().map_or(0, |d| compute.amount(d)) {
        0 => whole,
        divisor => divisor,
    };
    Ok(amount.div_ceil(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec::fixture::pod_of;
    use serde_json::json;

    #[test]
    fn maps_are_written_one_entry_a_line() {
        let mut pod = pod_of(json!({}));
        let of = |pod: &Pod, path: &str| metadata(pod, path).expect("a path");
        assert_eq!(
            of(&pod, "metadata.labels").as_deref(),
            Some("app=\"shop\"\nexample.com/tier=\"front\"")
        );
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert("note".into(), "a \"b\"\n\\c\u{1}é".into());
        assert_eq!(
            of(&pod, "metadata.annotations").as_deref(),
            Some("note=\"a \\\"b\\\"\\n\\\\c\\x01é\"")
        );
        assert_eq!(of(&pod, "metadata.labels['app']").as_deref(), Some("shop"));
        assert_eq!(of(&pod, "spec.nodeName"), None);
        assert!(metadata(&pod, "spec.nodeName['x']").is_err());
        assert!(metadata(&pod, "metadata.labels['x").is_err());
    }
}
