//! The defaults of PersistentVolumes, PersistentVolumeClaims and StorageClasses.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::fill;

/// Fills in what a volume made by hand leaves out: above all, its data is kept.
pub fn persistent_volume(volume: &mut PersistentVolume) {
    let spec = volume.spec.get_or_insert_default();
    fill(&mut spec.persistent_volume_reclaim_policy, "Retain");
    fill(&mut spec.volume_mode, "Filesystem");
    if let Some(host_path) = &mut spec.host_path {
        host_path.type_.get_or_insert_default();
    }
}

/// Fills in what a claim leaves out.
pub fn claim(claim: &mut PersistentVolumeClaim) {
    let spec = claim.spec.get_or_insert_default();
    fill(&mut spec.volume_mode, "Filesystem");
    if spec.volume_name.as_deref() == Some("") {
        spec.volume_name = None;
    }
}

/// Fills in what a class leaves out.
pub fn storage_class(class: &mut StorageClass) {
    fill(&mut class.reclaim_policy, "Delete");
    fill(&mut class.volume_binding_mode, "Immediate");
}
