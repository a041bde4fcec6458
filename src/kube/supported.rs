//! What this version of orlop does with each field of a pod.
//!
//! [`POD`] and [`DRAWN`] are the whole answer, one group for each type of the API: a field is
//! *used*, *accepted* (it means nothing to a single machine, or changes
//! nothing that a pod on it could see), or *refused* (ignoring it would change
//! what the manifest means). A field of the API that the table does not
//! mention fails a test, so an update of the API cannot slip one in.

mod drawn;
mod persistence;

pub use drawn::{CONFIGURATION, DRAWN};
pub use persistence::PERSISTENCE;

use self::drawn::reason;
use super::error::{Problem, quote};
use super::field::entry;
use k8s_openapi::api::core::v1::{Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The fields of one type of the API, wherever it stands in a pod.
#[derive(Debug)]
pub struct Group {
    /// The type's name in the API reference.
    pub kind: &'static str,
    /// Paths at which it stands; `[]` is any index.
    pub at: &'static [&'static str],
    /// Fields that orlop acts upon.
    pub used: &'static str,
    /// Fields that orlop rightly ignores.
    pub accepted: &'static str,
    /// Fields that orlop cannot honour yet.
    pub refused: &'static str,
    /// Fields that are used, but not with these values; `x*` is any value
    /// that begins with `x`.
    pub refused_values: &'static [(&'static str, &'static [&'static str])],
}

const GROUP: Group = Group {
    kind: "",
    at: &[],
    used: "",
    accepted: "",
    refused: "",
    refused_values: &[],
};

const PROBES: &[&str] = &[
    "spec.containers[].livenessProbe",
    "spec.containers[].readinessProbe",
    "spec.containers[].startupProbe",
];

/// Init containers are of the same type as the others: what the table says of
/// paths below the first holds for those below the second.
const ALIKE: [&str; 2] = ["spec.containers[]", "spec.initContainers[]"];

/// The types of the API that a pod is made of, as far as orlop looks into it; those
/// that say what it draws from elsewhere are in [`DRAWN`].
pub const POD: &[Group] = &[
    Group {
        kind: "Pod",
        at: &[""],
        used: "apiVersion kind metadata spec",
        accepted: "status",
        ..GROUP
    },
    Group {
        kind: "ObjectMeta",
        at: &["metadata"],
        used: "annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp labels name namespace \
               resourceVersion uid",
        accepted: "generation managedFields ownerReferences selfLink",
        refused: "finalizers generateName",
        ..GROUP
    },
    Group {
        kind: "PodSpec",
        at: &["spec"],
        used: "activeDeadlineSeconds containers dnsConfig dnsPolicy hostAliases hostIPC hostNetwork hostPID hostUsers \
               hostname imagePullSecrets initContainers os overhead resources restartPolicy securityContext shareProcessNamespace terminationGracePeriodSeconds volumes",
        accepted: "affinity automountServiceAccountToken enableServiceLinks nodeName nodeSelector \
                   preemptionPolicy priority priorityClassName readinessGates schedulerName \
                   schedulingGroup serviceAccount serviceAccountName subdomain tolerations \
                   topologySpreadConstraints",
        refused: "ephemeralContainers hostnameOverride resourceClaims runtimeClassName schedulingGates setHostnameAsFQDN",
        ..GROUP
    },
    Group {
        kind: "PodOS",
        at: &["spec.os"],
        used: "name",
        refused_values: &[("name", &["windows"])],
        ..GROUP
    },
    Group {
        kind: "PodDNSConfig",
        at: &["spec.dnsConfig"],
        used: "nameservers options searches",
        ..GROUP
    },
    Group {
        kind: "HostAlias",
        at: &["spec.hostAliases[]"],
        used: "hostnames ip",
        ..GROUP
    },
    Group {
        kind: "PodSecurityContext",
        at: &["spec.securityContext"],
        used: "appArmorProfile fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser seLinuxOptions \
               seccompProfile supplementalGroups supplementalGroupsPolicy sysctls",
        accepted: "seLinuxChangePolicy",
        refused: "windowsOptions",
        ..GROUP
    },
    Group {
        kind: "Container",
        at: &["spec.containers[]"],
        used: "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resources \
               restartPolicy securityContext startupProbe stdin stdinOnce terminationMessagePath \
               terminationMessagePolicy tty volumeMounts workingDir",
        accepted: "resizePolicy",
        refused: "restartPolicyRules volumeDevices",
        ..GROUP
    },
    Group {
        kind: "Probe",
        at: PROBES,
        used: "exec failureThreshold grpc httpGet initialDelaySeconds periodSeconds successThreshold tcpSocket \
               terminationGracePeriodSeconds timeoutSeconds",
        ..GROUP
    },
    Group {
        kind: "Lifecycle",
        at: &["spec.containers[].lifecycle"],
        used: "postStart preStop stopSignal",
        ..GROUP
    },
    Group {
        kind: "LifecycleHandler",
        at: &[
            "spec.containers[].lifecycle.postStart",
            "spec.containers[].lifecycle.preStop",
        ],
        used: "exec httpGet sleep tcpSocket",
        ..GROUP
    },
    Group {
        kind: "EnvVar",
        at: &["spec.containers[].env[]"],
        used: "name value valueFrom",
        ..GROUP
    },
    Group {
        kind: "EnvVarSource",
        at: &["spec.containers[].env[].valueFrom"],
        used: "configMapKeyRef fieldRef resourceFieldRef secretKeyRef",
        refused: "fileKeyRef",
        ..GROUP
    },
    Group {
        kind: "ContainerPort",
        at: &["spec.containers[].ports[]"],
        used: "containerPort hostIP hostPort name protocol",
        ..GROUP
    },
    Group {
        kind: "ResourceRequirements",
        at: &["spec.containers[].resources", "spec.resources"],
        used: "limits requests",
        refused: "claims",
        ..GROUP
    },
    Group {
        kind: "SecurityContext",
        at: &["spec.containers[].securityContext"],
        used: "allowPrivilegeEscalation appArmorProfile capabilities privileged procMount readOnlyRootFilesystem \
               runAsGroup runAsNonRoot runAsUser seLinuxOptions seccompProfile",
        refused: "windowsOptions",
        ..GROUP
    },
    Group {
        kind: "Capabilities",
        at: &["spec.containers[].securityContext.capabilities"],
        used: "add drop",
        ..GROUP
    },
    Group {
        kind: "SeccompProfile",
        at: &[
            "spec.securityContext.seccompProfile",
            "spec.containers[].securityContext.seccompProfile",
        ],
        used: "localhostProfile type",
        ..GROUP
    },
    Group {
        kind: "AppArmorProfile",
        at: &[
            "spec.securityContext.appArmorProfile",
            "spec.containers[].securityContext.appArmorProfile",
        ],
        used: "localhostProfile type",
        ..GROUP
    },
    Group {
        kind: "VolumeMount",
        at: &["spec.containers[].volumeMounts[]"],
        used: "mountPath mountPropagation name readOnly recursiveReadOnly subPath subPathExpr",
        ..GROUP
    },
    Group {
        kind: "Volume",
        at: &["spec.volumes[]"],
        used: "configMap downwardAPI emptyDir ephemeral hostPath image name nfs persistentVolumeClaim projected secret",
        refused: "awsElasticBlockStore azureDisk azureFile cephfs cinder csi fc flexVolume flocker \
                  gcePersistentDisk gitRepo glusterfs iscsi photonPersistentDisk \
                  portworxVolume quobyte rbd scaleIO storageos vsphereVolume",
        ..GROUP
    },
    Group {
        kind: "EmptyDirVolumeSource",
        at: &["spec.volumes[].emptyDir"],
        used: "medium sizeLimit",
        ..GROUP
    },
    Group {
        kind: "HostPathVolumeSource",
        at: &["spec.volumes[].hostPath"],
        used: "path type",
        ..GROUP
    },
    Group {
        kind: "NFSVolumeSource",
        at: &["spec.volumes[].nfs"],
        used: "path readOnly server",
        ..GROUP
    },
];

/// Every group of a pod.
fn pod_groups() -> impl Iterator<Item = &'static Group> {
    POD.iter().chain(DRAWN)
}

impl Group {
    /// The names of all fields, used or not.
    pub fn fields(&self) -> impl Iterator<Item = &'static str> {
        [self.used, self.accepted, self.refused]
            .into_iter()
            .flat_map(str::split_whitespace)
    }

    /// The group whose type stands at `path`, a path without indices as in
    /// `spec.containers[].env[]`.
    pub(super) fn at(path: &str) -> Option<&'static Group> {
        let path = in_place_of(path, ALIKE[1], ALIKE[0])
            .or_else(|| in_place_of(path, persistence::TEMPLATE, persistence::CLAIM))
            .unwrap_or_else(|| path.to_owned());
        let mut all = pod_groups().chain(CONFIGURATION).chain(PERSISTENCE);
        all.find(|group| group.at.contains(&path.as_str()))
    }
}

/// Refuses a pod that asks for what orlop can't do yet.
///
/// `value` is the manifest of `pod`, known to have no unknown fields.
///
/// # Errors
/// [`Problem::NotSupported`] with every such field.
pub(super) fn check(value: &Value, pod: &Pod) -> Result<(), Problem> {
    let mut refused = Vec::new();
    for group in pod_groups() {
        for at in group.at {
            let init = in_place_of(at, ALIKE[0], ALIKE[1]);
            for at in init.as_deref().into_iter().chain([*at]) {
                visit(value, at, String::new(), &mut |path, fields| {
                    refuse(group, path, fields, &mut refused);
                });
            }
        }
    }
    for group in PERSISTENCE {
        for at in group.at {
            if let Some(at) = in_place_of(at, persistence::CLAIM, persistence::TEMPLATE) {
                visit(value, &at, String::new(), &mut |path, fields| {
                    refuse(group, path, fields, &mut refused);
                });
            }
        }
    }
    if let Some(spec) = &pod.spec {
        refuse_combinations(spec, &mut refused);
    }
    match refused.is_empty() {
        true => Ok(()),
        false => Err(Problem::NotSupported(refused)),
    }
}

/// Refuses a ConfigMap or Secret, given as `value`, that asks for what orlop can't
/// do yet.
///
/// # Errors
/// [`Problem::NotSupported`] with every such field.
pub(super) fn check_configuration(kind: &str, value: &Value) -> Result<(), Problem> {
    check_groups(CONFIGURATION, kind, value)
}

/// Refuses a PersistentVolume, PersistentVolumeClaim or StorageClass, given as
/// `value`, that asks for what orlop can't do yet.
///
/// # Errors
/// [`Problem::NotSupported`] with every such field.
pub(super) fn check_persistence(kind: &str, value: &Value) -> Result<(), Problem> {
    check_groups(PERSISTENCE, kind, value)
}

fn check_groups(groups: &[Group], kind: &str, value: &Value) -> Result<(), Problem> {
    let mut refused = Vec::new();
    for group in groups {
        for at in group.at.iter().filter_map(|at| at.strip_prefix(kind)) {
            if !(at.is_empty() || at.starts_with('.')) {
                // Another kind, whose name begins with this one's.
                continue;
            }
            let at = at.trim_start_matches('.');
            visit(value, at, String::new(), &mut |path, fields| {
                refuse(group, path, fields, &mut refused);
            });
        }
    }
    match refused.is_empty() {
        true => Ok(()),
        false => Err(Problem::NotSupported(refused)),
    }
}

/// Calls `found` with every mapping that stands at `pattern` below `value`.
fn visit(
    value: &Value,
    pattern: &str,
    path: String,
    found: &mut dyn FnMut(&str, &Map<String, Value>),
) {
    if pattern.is_empty() {
        if let Value::Object(fields) = value {
            found(&path, fields);
        }
        return;
    }
    let (step, rest) = pattern.split_once('.').unwrap_or((pattern, ""));
    let name = step.trim_end_matches("[]");
    let path = join(&path, name);
    match value.get(name) {
        Some(Value::Array(items)) if step.ends_with("[]") => {
            for (i, item) in items.iter().enumerate() {
                visit(item, rest, format!("{path}[{i}]"), found);
            }
        }
        Some(value) => visit(value, rest, path, found),
        None => {}
    }
}

/// `path` with `new` in the place of its beginning `old`, if it begins so.
fn in_place_of(path: &str, old: &str, new: &str) -> Option<String> {
    path.strip_prefix(old).map(|rest| format!("{new}{rest}"))
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

fn refuse(group: &Group, path: &str, fields: &Map<String, Value>, refused: &mut Vec<String>) {
    for (name, value) in fields {
        if is_set(value) && group.refused.split_whitespace().any(|field| field == name) {
            refused.push(join(path, name) + reason(group.kind, name));
        }
        let values = group.refused_values.iter();
        let Some((_, values)) = values.into_iter().find(|(field, _)| field == name) else {
            continue;
        };
        let shown = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let matches = |refused: &&str| match refused.strip_suffix('*') {
            Some(start) => shown.starts_with(start),
            None => shown == *refused,
        };
        if values.iter().any(matches) {
            let value = if value.is_string() {
                quote(&shown)
            } else {
                shown
            };
            refused.push(format!("{} {value}", join(path, name)));
        }
    }
}

/// Whether a field says anything at all; `false`, `""` and `[]` are what it
/// would be without the manifest.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Number(_) | Value::Object(_) => true,
    }
}

/// What can be refused only in view of more than one field.
fn refuse_combinations(spec: &PodSpec, refused: &mut Vec<String>) {
    let host_network = spec.host_network.unwrap_or(false);
    let init = spec.init_containers.iter().flatten().enumerate();
    let init = init.map(|(i, container)| (format!("spec.initContainers[{i}]"), container));
    for (list, amounts) in lists(spec.resources.as_ref()) {
        for name in amounts.keys().filter(|name| name.contains(['/', '-'])) {
            refused.push(entry(&format!("spec.resources.{list}"), name));
        }
    }
    let proper = spec.containers.iter().enumerate();
    let proper = proper.map(|(i, container)| (format!("spec.containers[{i}]"), container));
    for (at, container) in init.chain(proper) {
        for (i, port) in container.ports.iter().flatten().enumerate() {
            if !host_network && port.host_port.unwrap_or(0) != 0 {
                refused.push(format!("{at}.ports[{i}].hostPort"));
            }
        }
        for (list, amounts) in lists(container.resources.as_ref()) {
            for name in amounts.keys() {
                // Names without a domain are either those of every machine
                // or mistakes, which validation tells the user.
                if name.contains('/') {
                    refused.push(entry(&format!("{at}.resources.{list}"), name));
                }
            }
        }
    }
}

/// The lists of amounts, with their names.
fn lists(
    resources: Option<&ResourceRequirements>,
) -> impl Iterator<Item = (&'static str, &BTreeMap<String, Quantity>)> {
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let limits = limits.map(|limits| ("limits", limits));
    let requests = requests.map(|requests| ("requests", requests));
    limits.into_iter().chain(requests)
}

#[cfg(test)]
mod tests;
