//! What all volumes that are made for claims have in common.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::component::{Component, component, components};
use super::{ProvisionError, Wish};
use crate::storage::binder::facts::{
    PROVISIONED, PROVISIONED_BY, annotate, annotation, name, namespace, reference_to,
    requested_text, uid,
};

/// Annotation with that part of the volume's path which was made for it.
const DIRECTORY: &str = "orlop.dev/provisioned-directory";

/// The names from which that of a directory is made, each fit for a path.
pub(super) struct Names {
    pub(super) volume: Component,
    pub(super) namespace: Component,
    pub(super) claim: Component,
}

impl Names {
    pub(super) fn of(wish: &Wish<'_>) -> Result<Self, ProvisionError> {
        let claim = wish.claim;
        Ok(Self {
            volume: component("the name of the volume", &format!("pvc-{}", uid(claim)))?,
            namespace: component("the claim's namespace", namespace(claim))?,
            claim: component("the claim's name", name(claim))?,
        })
    }
}

/// Refuses claims for which no directory can stand.
pub(super) fn check_claim(wish: &Wish<'_>) -> Result<(), ProvisionError> {
    let spec = wish.claim.spec.clone().unwrap_or_default();
    if spec.selector.is_some() {
        return Err(ProvisionError::Claim("claim Selector is not supported"));
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(ProvisionError::Claim(
            "raw block volumes are not supported: ask for volumeMode Filesystem",
        ));
    }
    Ok(())
}

/// The class's parameters, their names in lower case; each must be among `known`.
pub(super) fn parameters(
    wish: &Wish<'_>,
    known: &[&str],
) -> Result<BTreeMap<String, String>, ProvisionError> {
    let given = wish.class.parameters.iter().flatten();
    let mut parameters = BTreeMap::new();
    for (key, value) in given {
        let lower = key.to_lowercase();
        if !known.contains(&lower.as_str()) {
            let why = "this provisioner knows no such parameter";
            return Err(ProvisionError::parameter(key, why));
        }
        parameters.insert(lower, value.clone());
    }
    Ok(parameters)
}

/// A volume for the claim, without a source; `directory` is the part of its path
/// that is to be made.
pub(super) fn volume(wish: &Wish<'_>, directory: &str) -> PersistentVolume {
    let claim = wish.claim.spec.clone().unwrap_or_default();
    let class = wish.class;
    let capacity = Quantity(requested_text(&claim).to_owned());
    let policy = class.reclaim_policy.as_deref().unwrap_or("Delete");
    let mut volume = PersistentVolume {
        metadata: ObjectMeta {
            name: Some(format!("pvc-{}", uid(wish.claim))),
            finalizers: (policy == "Delete").then(|| vec![PROVISIONED.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: claim.access_modes,
            capacity: Some(BTreeMap::from([("storage".to_owned(), capacity)])),
            claim_ref: Some(reference_to(wish.claim)),
            persistent_volume_reclaim_policy: Some(policy.to_owned()),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            mount_options: class.mount_options.clone().filter(|all| !all.is_empty()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    };
    annotate(&mut volume, PROVISIONED_BY, &class.provisioner);
    annotate(&mut volume, DIRECTORY, directory);
    volume
}

/// Divides the path of a volume into what was there before and what was made: the
/// base, which may be `/`, and the components below it.
///
/// Whatever the annotation says, both together are the volume's path, which nobody
/// can change: another division never makes another directory of it.
pub(super) fn divide<'a>(
    volume: &PersistentVolume,
    path: &'a str,
) -> Result<(&'a str, Vec<Component>), ProvisionError> {
    let foreign = || ProvisionError::Foreign(name(volume).to_owned());
    let directory = annotation(volume, DIRECTORY).ok_or_else(foreign)?;
    let made = components("the directory of the volume", directory)?;
    let base = path.strip_suffix(directory).ok_or_else(foreign)?;
    match base {
        "/" => Ok((base, made)),
        _ => Ok((base.strip_suffix('/').ok_or_else(foreign)?, made)),
    }
}
