//! Routing: which of the kinds of Kubernetes an object is, and what becomes of
//! those that aren't here (yet).

use super::error::Problem;
use super::near::{hint, nearest};

/// What to do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// A `v1` `Pod`.
    Pod,
    /// A `v1` `ConfigMap`.
    ConfigMap,
    /// A `v1` `Secret`.
    Secret,
    /// A `v1` `PersistentVolume`.
    PersistentVolume,
    /// A `v1` `PersistentVolumeClaim`.
    PersistentVolumeClaim,
    /// A `storage.k8s.io/v1` `StorageClass`.
    StorageClass,
    /// A `v1` `List`, or the list of a kind such as `PodList`: its items are objects of their own.
    List,
}

/// The kinds of Kubernetes, today's and those of API versions now gone, so
/// that "not here yet" can be told from "no such thing".
const KNOWN: &[(&str, &str)] = &[
    (
        "v1",
        "Binding ComponentStatus ConfigMap ConfigMapList Endpoints Event LimitRange List Namespace Node PersistentVolume \
         PersistentVolumeClaim PersistentVolumeClaimList PersistentVolumeList Pod PodList PodTemplate ReplicationController ResourceQuota Secret SecretList Service ServiceAccount",
    ),
    (
        "apps/v1",
        "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet",
    ),
    ("apps/v1beta1", "ControllerRevision Deployment StatefulSet"),
    (
        "apps/v1beta2",
        "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet",
    ),
    (
        "extensions/v1beta1",
        "DaemonSet Deployment Ingress NetworkPolicy ReplicaSet",
    ),
    ("batch/v1", "CronJob Job"),
    ("batch/v1beta1", "CronJob"),
    ("autoscaling/v1", "HorizontalPodAutoscaler"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    (
        "networking.k8s.io/v1",
        "IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR",
    ),
    ("networking.k8s.io/v1beta1", "Ingress IngressClass"),
    ("policy/v1", "Eviction PodDisruptionBudget"),
    ("policy/v1beta1", "PodDisruptionBudget PodSecurityPolicy"),
    (
        "rbac.authorization.k8s.io/v1",
        "ClusterRole ClusterRoleBinding Role RoleBinding",
    ),
    (
        "storage.k8s.io/v1",
        "CSIDriver CSINode CSIStorageCapacity StorageClass StorageClassList VolumeAttachment VolumeAttributesClass",
    ),
    ("storage.k8s.io/v1beta1", "CSIDriver CSINode StorageClass"),
    ("scheduling.k8s.io/v1", "PriorityClass"),
    ("node.k8s.io/v1", "RuntimeClass"),
    ("coordination.k8s.io/v1", "Lease"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("events.k8s.io/v1", "Event"),
    ("certificates.k8s.io/v1", "CertificateSigningRequest"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("apiregistration.k8s.io/v1", "APIService"),
    (
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding \
         ValidatingWebhookConfiguration",
    ),
    (
        "flowcontrol.apiserver.k8s.io/v1",
        "FlowSchema PriorityLevelConfiguration",
    ),
    (
        "resource.k8s.io/v1",
        "DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice",
    ),
    (
        "snapshot.storage.k8s.io/v1",
        "VolumeSnapshot VolumeSnapshotClass VolumeSnapshotContent",
    ),
];

/// Finds the way for an object of this `apiVersion` and `kind`.
pub(super) fn route(version: &str, kind: &str) -> Result<Route, Problem> {
    match (version, kind) {
        ("v1", "Pod") => return Ok(Route::Pod),
        ("v1", "ConfigMap") => return Ok(Route::ConfigMap),
        ("v1", "Secret") => return Ok(Route::Secret),
        ("v1", "PersistentVolume") => return Ok(Route::PersistentVolume),
        ("v1", "PersistentVolumeClaim") => return Ok(Route::PersistentVolumeClaim),
        ("storage.k8s.io/v1", "StorageClass") => return Ok(Route::StorageClass),
        ("v1", "List" | "PodList" | "ConfigMapList" | "SecretList") => return Ok(Route::List),
        ("v1", "PersistentVolumeList" | "PersistentVolumeClaimList") => return Ok(Route::List),
        ("storage.k8s.io/v1", "StorageClassList") => return Ok(Route::List),
        _ => {}
    }
    let known = KNOWN.iter().find(|(known, _)| *known == version);
    let has = |kinds: &str, kind: &str| kinds.split(' ').any(|known| known == kind);
    if known.is_some_and(|(_, kinds)| has(kinds, kind)) {
        let kind = kind.to_owned();
        return Err(Problem::KindNotSupported { kind });
    }
    let elsewhere = KNOWN.iter().find(|(_, kinds)| has(kinds, kind));
    let hint = match (elsewhere, known) {
        (Some((version, _)), _) => format!(" ({kind} is of version {version:?})"),
        (None, Some((_, kinds))) => hint(nearest(kind, kinds.split(' '))),
        (None, None) => hint(nearest(version, KNOWN.iter().map(|(version, _)| *version))),
    };
    Err(Problem::NoMatch {
        kind: kind.to_owned(),
        version: version.to_owned(),
        hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_not_here_are_told_from_those_that_do_not_exist() {
        for (version, kind, want) in [
            (
                "apps/v1",
                "Deployment",
                "kind \"Deployment\" is not supported by this version of orlop",
            ),
            ("v1", "Foo", "no matches for kind \"Foo\" in version \"v1\""),
            (
                "v1",
                "pod",
                "no matches for kind \"pod\" in version \"v1\" (did you mean \"Pod\"?)",
            ),
            (
                "v1",
                "Deployment",
                "no matches for kind \"Deployment\" in version \"v1\" (Deployment is of version \"apps/v1\")",
            ),
            (
                "V1",
                "Pods",
                "no matches for kind \"Pods\" in version \"V1\" (did you mean \"v1\"?)",
            ),
            (
                "example.com/v1",
                "Thing",
                "no matches for kind \"Thing\" in version \"example.com/v1\"",
            ),
        ] {
            let problem = route(version, kind).expect_err(kind);
            assert_eq!(problem.to_string(), want);
        }
        assert_eq!(route("v1", "Pod").expect("a pod"), Route::Pod);
        assert_eq!(route("v1", "List").expect("a list"), Route::List);
    }
}
