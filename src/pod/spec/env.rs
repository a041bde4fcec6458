//! The environment of a container.
//!
//! In this order, where a later value of the same name takes the place of an
//! earlier one: `PATH` (and `TERM` with a terminal), the image's variables,
//! `HOSTNAME`, the manifest's. `HOME` is set from the image's passwd file when
//! nothing else sets it: left to the runtime it would be looked up by the C
//! library inside the container's root, with name services of the image's own
//! making.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, PodSpec};
use serde::{Deserialize, Serialize};

use super::downward::{self, Capacity};
use super::{ImageDefaults, Sandbox, SpecError};
use crate::kube::expand::expand;
use crate::oci::defaults;

/// The variables that the manifest gives.
#[derive(Debug, Default)]
pub struct Given<'a> {
    /// Names in the manifest's order, each as often as it stands there.
    names: Vec<&'a str>,
    /// The value that counts, by name: what `$(NAME)` in the command stands for.
    pub values: HashMap<&'a str, String>,
}

/// What the container's variables come from that is not in the pod: the keeper
/// looks it up for each start.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct References {
    /// The variables of `envFrom`, in order; a later one of a name counts.
    pub from: Vec<(String, String)>,
    /// By place in `env`: the value of an entry of a ConfigMap or Secret; none for
    /// one that is not there and need not be.
    pub values: BTreeMap<usize, Option<String>>,
}

/// Names only: values may be secret.
impl fmt::Debug for References {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.iter().map(|(name, _)| name);
        f.debug_struct("References")
            .field("from", &from.collect::<Vec<_>>())
            .field("values", &self.values.keys())
            .finish()
    }
}

/// The values of the container's `envFrom` and `env`. `$(NAME)` in a value refers
/// to a variable defined before it.
///
/// # Errors
/// A value that comes from a field or an object that is not there.
pub fn given<'a>(
    pod: &Pod,
    spec: &PodSpec,
    container: &'a Container,
    sandbox: &Sandbox<'a>,
) -> Result<Given<'a>, SpecError> {
    let mut given = Given::default();
    for (name, value) in &sandbox.references.from {
        given.names.push(name);
        given.values.insert(name, value.clone());
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let value = match &variable.value_from {
            Some(source) => match sandbox.references.values.get(&index) {
                Some(value) => value.clone(),
                None => from_source(pod, spec, container, source, sandbox)?,
            },
            None => {
                let text = variable.value.as_deref().unwrap_or_default();
                let defined = |name: &str| given.values.get(name).map(String::as_str);
                Some(expand(text, defined))
            }
        };
        if let Some(value) = value {
            given.names.push(&variable.name);
            given.values.insert(&variable.name, value);
        }
    }
    Ok(given)
}

/// The whole environment, `NAME=value` each, every name once.
///
/// `home` is the user's home directory in the image.
///
/// # Errors
/// [`SpecError::Nul`].
pub fn environment(
    image: &ImageDefaults,
    mut given: Given,
    hostname: &str,
    tty: bool,
    home: &str,
) -> Result<Vec<String>, SpecError> {
    let mut list = List::default();
    list.set(defaults::PATH.to_owned());
    if tty {
        list.set("TERM=xterm".to_owned());
    }
    for variable in &image.env {
        list.set(variable.clone());
    }
    list.set(format!("HOSTNAME={hostname}"));
    for name in given.names {
        if let Some(value) = given.values.remove(name) {
            list.set(format!("{name}={value}"));
        }
    }
    if list.value("HOME").is_none_or(str::is_empty) {
        list.set(format!("HOME={home}"));
    }
    if list.entries.iter().any(|entry| entry.contains('\0')) {
        return Err(SpecError::Nul { field: "env" });
    }
    Ok(list.entries)
}

/// Variables in the order in which their names were first set.
#[derive(Default)]
struct List {
    entries: Vec<String>,
    index: HashMap<String, usize>,
}

impl List {
    /// Adds or replaces a `NAME=value`; one without a name is left out.
    fn set(&mut self, entry: String) {
        let name = entry.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return;
        }
        match self.index.get(name) {
            Some(&place) => self.entries[place] = entry,
            None => {
                self.index.insert(name.to_owned(), self.entries.len());
                self.entries.push(entry);
            }
        }
    }

    fn value(&self, name: &str) -> Option<&str> {
        let entry = &self.entries[*self.index.get(name)?];
        Some(entry.split_once('=').map_or("", |(_, value)| value))
    }
}

fn missing(kind: &'static str, name: &str, optional: Option<bool>) -> Result<(), SpecError> {
    if optional == Some(true) {
        return Ok(());
    }
    Err(SpecError::MissingObject {
        kind,
        name: name.to_owned(),
    })
}

/// The value of a `valueFrom`; none when its source is optional and missing.
fn from_source(
    pod: &Pod,
    spec: &PodSpec,
    container: &Container,
    source: &EnvVarSource,
    sandbox: &Sandbox,
) -> Result<Option<String>, SpecError> {
    if let Some(field) = &source.field_ref {
        return self::field(pod, spec, &field.field_path, sandbox).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        let capacity = Capacity {
            cpu: sandbox.cpu_capacity,
            memory: sandbox.memory_capacity,
        };
        return downward::resource(spec, Some(container), resource, capacity).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        missing("configmap", &key.name, key.optional)?;
    }
    if let Some(key) = &source.secret_key_ref {
        missing("secret", &key.name, key.optional)?;
    }
    if let Some(key) = &source.file_key_ref {
        missing("file", &key.path, key.optional)?;
    }
    Ok(None)
}

/// The value of a `fieldRef`
/// (<https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>).
fn field(pod: &Pod, spec: &PodSpec, path: &str, sandbox: &Sandbox) -> Result<String, SpecError> {
    let whole_map = matches!(path, "metadata.labels" | "metadata.annotations");
    if let Some(value) = downward::metadata(pod, path)?
        && !whole_map
    {
        return Ok(value);
    }
    Ok(match path {
        "spec.nodeName" => sandbox.node_name.to_owned(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => sandbox.host_ip.to_owned(),
        "status.podIP" => addresses(pod, spec, sandbox)
            .into_iter()
            .next()
            .unwrap_or_default()
            .to_owned(),
        "status.podIPs" => addresses(pod, spec, sandbox).join(","),
        _ => return Err(SpecError::FieldPath(path.to_owned())),
    })
}

fn addresses<'a>(pod: &'a Pod, spec: &PodSpec, sandbox: &Sandbox<'a>) -> Vec<&'a str> {
    if spec.host_network == Some(true) {
        return vec![sandbox.host_ip];
    }
    super::files::pod_addresses(pod)
}

#[cfg(test)]
mod tests;
