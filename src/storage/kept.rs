//! Volumes, claims and classes as objects of the store.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::binder::facts::{class_of_claim, name, requested, volume_of_claim};
use super::objects::Kept;
use super::store::{Change, StoreError};
use crate::kube::field::FieldError;
use crate::kube::validate;

impl Kept for PersistentVolume {
    const IS_DRAWN_FROM: bool = false;
    const IS_STORAGE: bool = true;
    const IS_HELD: bool = true;

    fn take_over(&mut self, stored: &Self) {
        self.status.clone_from(&stored.status);
    }

    fn refuse_update(&self, wanted: &Self) -> Vec<FieldError> {
        validate::persistent_volume_update(self, wanted)
    }
}

impl Kept for PersistentVolumeClaim {
    const IS_DRAWN_FROM: bool = true;
    const IS_STORAGE: bool = true;
    const IS_HELD: bool = true;

    fn take_over(&mut self, stored: &Self) {
        self.status.clone_from(&stored.status);
    }

    fn admit(&self, wanted: &Self, change: &Change) -> Result<(), StoreError> {
        let size = |claim: &Self| claim.spec.as_ref().map_or(0, requested);
        if volume_of_claim(self).is_none() || size(wanted) <= size(self) {
            return Ok(());
        }
        let class = class_of_claim(self).unwrap_or_default();
        let class: Option<StorageClass> = change.object("", class)?;
        match class.and_then(|class| class.allow_volume_expansion) {
            Some(true) => Ok(()),
            _ => Err(StoreError::NotAllowed {
                resource: "persistentvolumeclaims",
                name: name(self).to_owned(),
                reason: "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc \
                         must support resize"
                    .to_owned(),
            }),
        }
    }

    fn refuse_update(&self, wanted: &Self) -> Vec<FieldError> {
        validate::claim_update(self, wanted)
    }
}

impl Kept for StorageClass {
    const IS_DRAWN_FROM: bool = false;
    const IS_STORAGE: bool = true;

    fn refuse_update(&self, wanted: &Self) -> Vec<FieldError> {
        validate::storage_class_update(self, wanted)
    }
}
