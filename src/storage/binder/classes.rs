//! StorageClasses: which is the default, and who makes volumes of a class
//! (<https://kubernetes.io/docs/concepts/storage/storage-classes/>).

use std::cmp::Reverse;

use k8s_openapi::api::storage::v1::StorageClass;

use super::facts::{annotation, name};

/// Annotation of the class that claims get which name none.
pub const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
/// The same, under its older name.
pub const BETA_DEFAULT: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// The provisioner that makes no volumes.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// The provisioners that orlop has, under all names that it knows them by.
pub const BUILT_IN: &[&str] = &[
    "nfs.orlop.dev",
    "nfs.csi.k8s.io",
    "k8s-sigs.io/nfs-subdir-external-provisioner",
    "cluster.local/nfs-subdir-external-provisioner",
    "local-path.orlop.dev",
    "rancher.io/local-path",
];

/// Whether a class is marked as the default.
#[must_use]
pub fn is_default(class: &StorageClass) -> bool {
    [DEFAULT, BETA_DEFAULT]
        .into_iter()
        .any(|key| annotation(class, key) == Some("true"))
}

/// The class that claims get which name none: of several that are marked, the
/// newest, then the first by name.
#[must_use]
pub fn default(classes: &[StorageClass]) -> Option<&StorageClass> {
    let created = |class: &StorageClass| {
        let time = class.metadata.creation_timestamp.as_ref();
        time.map(|time| time.0)
    };
    let marked = classes.iter().filter(|class| is_default(class));
    marked.min_by_key(|class| (Reverse(created(class)), name(*class).to_owned()))
}

/// Whether claims of the class wait for a pod that uses them.
#[must_use]
pub fn waits(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// Whether volumes of the class can be made on demand, by whomever.
#[must_use]
pub fn provisions(class: &StorageClass) -> bool {
    class.provisioner != NO_PROVISIONER
}
