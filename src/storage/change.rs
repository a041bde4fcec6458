//! What users change of an object that is there.

use k8s_openapi::api::core::v1::Pod;

use super::apply::forbidden_change;
use super::pods::identity;
use super::store::{Store, StoreError};

/// A pod after a change that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The pod as it is now.
    pub pod: Pod,
    /// False when it was like that before.
    pub changed: bool,
}

impl Store {
    /// Gives a pod the metadata and the spec of `wanted`, as far as Kubernetes
    /// lets a pod's spec change: images, `activeDeadlineSeconds`,
    /// `terminationGracePeriodSeconds` and tolerations
    /// (<https://kubernetes.io/docs/concepts/workloads/pods/#pod-update-and-replacement>).
    ///
    /// `wanted`: with its namespace and all defaults filled in; with a
    /// `metadata.resourceVersion` the pod must not have been changed since, and
    /// with a `metadata.uid` it must be that pod.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`], and
    /// [`StoreError::Forbidden`], which names the first field that differs.
    pub fn change_pod(&self, mut wanted: Pod) -> Result<Changed, StoreError> {
        let (namespace, name) = identity(&wanted)?;
        self.write("change a pod", |change| {
            let current = change
                .pod(&namespace, &name)?
                .ok_or_else(|| StoreError::NotFound {
                    resource: "pods",
                    name: name.clone(),
                })?;
            let same = |wanted: &Option<String>, current: &Option<String>| {
                wanted
                    .as_deref()
                    .is_none_or(|wanted| wanted.is_empty() || Some(wanted) == current.as_deref())
            };
            let (asked, is) = (&wanted.metadata, &current.metadata);
            if !same(&asked.resource_version, &is.resource_version) || !same(&asked.uid, &is.uid) {
                return Err(StoreError::Conflict {
                    resource: "pods",
                    name,
                });
            }
            if let (Some(current), Some(wanted)) = (&current.spec, &mut wanted.spec) {
                if wanted.node_name.is_none() {
                    wanted.node_name.clone_from(&current.node_name);
                }
                if let Some(field) = forbidden_change(current, wanted) {
                    return Err(StoreError::Forbidden { name, field });
                }
            }
            wanted.status.clone_from(&current.status);
            wanted.metadata.uid.clone_from(&current.metadata.uid);
            wanted
                .metadata
                .resource_version
                .clone_from(&current.metadata.resource_version);
            wanted
                .metadata
                .creation_timestamp
                .clone_from(&current.metadata.creation_timestamp);
            wanted
                .metadata
                .deletion_timestamp
                .clone_from(&current.metadata.deletion_timestamp);
            wanted.metadata.deletion_grace_period_seconds =
                current.metadata.deletion_grace_period_seconds;
            let no_labels = |map: &std::collections::BTreeMap<_, _>| !map.is_empty();
            wanted.metadata.labels = wanted.metadata.labels.filter(no_labels);
            wanted.metadata.annotations = wanted.metadata.annotations.filter(no_labels);
            if wanted == current {
                return Ok(Changed {
                    pod: current,
                    changed: false,
                });
            }
            let pod = change.update_pod(&current, wanted)?;
            Ok(Changed { pod, changed: true })
        })
    }
}
