//! The part of the table about volumes that outlive pods. Paths begin with the
//! kind.

use super::{GROUP, Group};

/// The types that PersistentVolumes, PersistentVolumeClaims and StorageClasses are
/// made of.
pub const PERSISTENCE: &[Group] = &[
    Group {
        kind: "PersistentVolume",
        at: &["PersistentVolume"],
        used: "apiVersion kind metadata spec",
        accepted: "status",
        ..GROUP
    },
    Group {
        kind: "ObjectMeta",
        at: &[
            "PersistentVolume.metadata",
            "PersistentVolumeClaim.metadata",
        ],
        used: "annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers labels name namespace \
               ownerReferences resourceVersion uid",
        accepted: "generation managedFields selfLink",
        refused: "generateName",
        ..GROUP
    },
    Group {
        kind: "ObjectMeta",
        at: &["StorageClass.metadata"],
        used: "annotations creationTimestamp deletionGracePeriodSeconds deletionTimestamp labels name namespace \
               resourceVersion uid",
        accepted: "generation managedFields ownerReferences selfLink",
        refused: "finalizers generateName",
        ..GROUP
    },
    Group {
        kind: "PersistentVolumeSpec",
        at: &["PersistentVolume.spec"],
        used: "accessModes capacity claimRef hostPath local mountOptions nfs persistentVolumeReclaimPolicy storageClassName \
               volumeMode",
        accepted: "nodeAffinity",
        refused: "awsElasticBlockStore azureDisk azureFile cephfs cinder csi fc flexVolume flocker gcePersistentDisk glusterfs \
                  iscsi photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos volumeAttributesClassName vsphereVolume",
        ..GROUP
    },
    Group {
        kind: "ObjectReference",
        at: &["PersistentVolume.spec.claimRef"],
        used: "apiVersion kind name namespace uid",
        accepted: "fieldPath resourceVersion",
        ..GROUP
    },
    Group {
        kind: "LocalVolumeSource",
        at: &["PersistentVolume.spec.local"],
        used: "path",
        accepted: "fsType",
        ..GROUP
    },
    Group {
        kind: "HostPathVolumeSource",
        at: &["PersistentVolume.spec.hostPath"],
        used: "path type",
        ..GROUP
    },
    Group {
        kind: "NFSVolumeSource",
        at: &["PersistentVolume.spec.nfs"],
        used: "path readOnly server",
        ..GROUP
    },
    Group {
        kind: "PersistentVolumeClaim",
        at: &["PersistentVolumeClaim"],
        used: "apiVersion kind metadata spec",
        accepted: "status",
        ..GROUP
    },
    Group {
        kind: "PersistentVolumeClaimSpec",
        at: &[CLAIM],
        used: "accessModes resources selector storageClassName volumeMode volumeName",
        refused: "dataSource dataSourceRef volumeAttributesClassName",
        ..GROUP
    },
    Group {
        kind: "VolumeResourceRequirements",
        at: &["PersistentVolumeClaim.spec.resources"],
        used: "requests",
        accepted: "limits",
        ..GROUP
    },
    Group {
        kind: "LabelSelector",
        at: &["PersistentVolumeClaim.spec.selector"],
        used: "matchExpressions matchLabels",
        ..GROUP
    },
    Group {
        kind: "LabelSelectorRequirement",
        at: &["PersistentVolumeClaim.spec.selector.matchExpressions[]"],
        used: "key operator values",
        ..GROUP
    },
    Group {
        kind: "StorageClass",
        at: &["StorageClass"],
        used: "allowVolumeExpansion apiVersion kind metadata mountOptions parameters provisioner reclaimPolicy \
               volumeBindingMode",
        accepted: "allowedTopologies",
        ..GROUP
    },
];

/// Where a claim's spec stands.
pub(super) const CLAIM: &str = "PersistentVolumeClaim.spec";
/// Where a pod has the spec of a claim that is made for it.
pub(super) const TEMPLATE: &str = "spec.volumes[].ephemeral.volumeClaimTemplate.spec";
