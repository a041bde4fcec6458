//! The part of the table about what is drawn from other objects, from images and
//! from the pod itself; and the objects that are only drawn from.

use super::{GROUP, Group};

/// The types of a pod that say what its variables and volumes draw from.
pub const DRAWN: &[Group] = &[
    Group {
        kind: "LocalObjectReference",
        at: &["spec.imagePullSecrets[]"],
        used: "name",
        ..GROUP
    },
    Group {
        kind: "EnvFromSource",
        at: &["spec.containers[].envFrom[]"],
        used: "configMapRef prefix secretRef",
        ..GROUP
    },
    Group {
        kind: "ConfigMapEnvSource",
        at: &["spec.containers[].envFrom[].configMapRef"],
        used: "name optional",
        ..GROUP
    },
    Group {
        kind: "SecretEnvSource",
        at: &["spec.containers[].envFrom[].secretRef"],
        used: "name optional",
        ..GROUP
    },
    Group {
        kind: "ConfigMapKeySelector",
        at: &["spec.containers[].env[].valueFrom.configMapKeyRef"],
        used: "key name optional",
        ..GROUP
    },
    Group {
        kind: "SecretKeySelector",
        at: &["spec.containers[].env[].valueFrom.secretKeyRef"],
        used: "key name optional",
        ..GROUP
    },
    Group {
        kind: "ObjectFieldSelector",
        at: &[
            "spec.containers[].env[].valueFrom.fieldRef",
            "spec.volumes[].downwardAPI.items[].fieldRef",
            "spec.volumes[].projected.sources[].downwardAPI.items[].fieldRef",
        ],
        used: "apiVersion fieldPath",
        ..GROUP
    },
    Group {
        kind: "ResourceFieldSelector",
        at: &[
            "spec.containers[].env[].valueFrom.resourceFieldRef",
            "spec.volumes[].downwardAPI.items[].resourceFieldRef",
            "spec.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef",
        ],
        used: "containerName divisor resource",
        refused_values: &[(
            "resource",
            &[
                "limits.ephemeral-storage",
                "limits.hugepages-*",
                "requests.ephemeral-storage",
                "requests.hugepages-*",
            ],
        )],
        ..GROUP
    },
    Group {
        kind: "ConfigMapVolumeSource",
        at: &["spec.volumes[].configMap"],
        used: "defaultMode items name optional",
        ..GROUP
    },
    Group {
        kind: "SecretVolumeSource",
        at: &["spec.volumes[].secret"],
        used: "defaultMode items optional secretName",
        ..GROUP
    },
    Group {
        kind: "DownwardAPIVolumeSource",
        at: &["spec.volumes[].downwardAPI"],
        used: "defaultMode items",
        ..GROUP
    },
    Group {
        kind: "ProjectedVolumeSource",
        at: &["spec.volumes[].projected"],
        used: "defaultMode sources",
        ..GROUP
    },
    Group {
        kind: "VolumeProjection",
        at: &["spec.volumes[].projected.sources[]"],
        used: "configMap downwardAPI secret",
        refused: "clusterTrustBundle podCertificate serviceAccountToken",
        ..GROUP
    },
    Group {
        kind: "ConfigMapProjection",
        at: &["spec.volumes[].projected.sources[].configMap"],
        used: "items name optional",
        ..GROUP
    },
    Group {
        kind: "SecretProjection",
        at: &["spec.volumes[].projected.sources[].secret"],
        used: "items name optional",
        ..GROUP
    },
    Group {
        kind: "DownwardAPIProjection",
        at: &["spec.volumes[].projected.sources[].downwardAPI"],
        used: "items",
        ..GROUP
    },
    Group {
        kind: "KeyToPath",
        at: &[
            "spec.volumes[].configMap.items[]",
            "spec.volumes[].secret.items[]",
            "spec.volumes[].projected.sources[].configMap.items[]",
            "spec.volumes[].projected.sources[].secret.items[]",
        ],
        used: "key mode path",
        ..GROUP
    },
    Group {
        kind: "DownwardAPIVolumeFile",
        at: &[
            "spec.volumes[].downwardAPI.items[]",
            "spec.volumes[].projected.sources[].downwardAPI.items[]",
        ],
        used: "fieldRef mode path resourceFieldRef",
        ..GROUP
    },
    Group {
        kind: "ImageVolumeSource",
        at: &["spec.volumes[].image"],
        used: "pullPolicy reference",
        ..GROUP
    },
    Group {
        kind: "PersistentVolumeClaimVolumeSource",
        at: &["spec.volumes[].persistentVolumeClaim"],
        used: "claimName readOnly",
        ..GROUP
    },
    Group {
        kind: "EphemeralVolumeSource",
        at: &["spec.volumes[].ephemeral"],
        used: "volumeClaimTemplate",
        ..GROUP
    },
    Group {
        kind: "PersistentVolumeClaimTemplate",
        at: &["spec.volumes[].ephemeral.volumeClaimTemplate"],
        used: "metadata spec",
        ..GROUP
    },
];

/// The types that ConfigMaps and Secrets are made of; their paths begin with the
/// kind.
pub const CONFIGURATION: &[Group] = &[
    Group {
        kind: "ConfigMap",
        at: &["ConfigMap"],
        used: "apiVersion binaryData data immutable kind metadata",
        ..GROUP
    },
    Group {
        kind: "Secret",
        at: &["Secret"],
        used: "apiVersion data immutable kind metadata stringData type",
        ..GROUP
    },
    Group {
        kind: "ObjectMeta",
        at: &["ConfigMap.metadata", "Secret.metadata"],
        used: "annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp labels name namespace \
               resourceVersion uid",
        accepted: "generation managedFields ownerReferences selfLink",
        refused: "finalizers generateName",
        ..GROUP
    },
];

/// Why a field cannot be honoured, where there is more to say than that it isn't.
pub(super) fn reason(kind: &str, field: &str) -> &'static str {
    match (kind, field) {
        ("VolumeProjection", "serviceAccountToken") => {
            " (there is no API server that could issue or accept a token)"
        }
        ("VolumeProjection", "clusterTrustBundle") => {
            " (there is no API server that could hold a bundle)"
        }
        ("VolumeProjection", "podCertificate") => {
            " (there is no API server that could sign a certificate)"
        }
        _ => "",
    }
}
