//! What the objects say, in the form in which the binder asks: names of
//! annotations and finalizers, sizes, classes, and who refers to whom.

use std::collections::BTreeMap;

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kube::quantity::Quantity;

/// Annotation of a claim whose binding is complete.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation of a claim or volume whose partner was found for it, not named by a user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Annotation of a volume that a provisioner has made, with the provisioner's name.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// Annotation that was the class of claims and volumes before there was a field.
pub const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Annotation of a claim that names who is to make a volume for it.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same, under its older name.
pub const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// Finalizer of volumes: not removed while bound.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Finalizer of volumes that a provisioner has made: not removed before what they
/// stand for is deleted.
pub const PROVISIONED: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// Finalizer of claims: not removed while a pod uses them.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// The access mode that lets one pod alone use a claim.
pub const ONE_POD: &str = "ReadWriteOncePod";

/// The object's uid.
pub fn uid(object: &impl Metadata<Ty = ObjectMeta>) -> &str {
    object.metadata().uid.as_deref().unwrap_or_default()
}

/// The object's name.
pub fn name(object: &impl Metadata<Ty = ObjectMeta>) -> &str {
    object.metadata().name.as_deref().unwrap_or_default()
}

/// The object's namespace.
pub fn namespace(object: &impl Metadata<Ty = ObjectMeta>) -> &str {
    object.metadata().namespace.as_deref().unwrap_or_default()
}

/// Whether the object is being deleted.
pub fn is_deleting(object: &impl Metadata<Ty = ObjectMeta>) -> bool {
    object.metadata().deletion_timestamp.is_some()
}

/// The value of an annotation.
pub fn annotation<'a>(object: &'a impl Metadata<Ty = ObjectMeta>, key: &str) -> Option<&'a str> {
    let annotations = object.metadata().annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

/// Sets an annotation.
pub fn annotate(object: &mut impl Metadata<Ty = ObjectMeta>, key: &str, value: &str) {
    let annotations = object.metadata_mut().annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), value.to_owned());
}

/// Takes an annotation away.
pub fn unannotate(object: &mut impl Metadata<Ty = ObjectMeta>, key: &str) {
    let annotations = &mut object.metadata_mut().annotations;
    if let Some(map) = annotations {
        map.remove(key);
        if map.is_empty() {
            *annotations = None;
        }
    }
}

/// The spec of a volume; every stored one has it.
pub fn volume_spec(volume: &PersistentVolume) -> PersistentVolumeSpec {
    volume.spec.clone().unwrap_or_default()
}

/// The class of a volume; empty for none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let field = || volume.spec.as_ref()?.storage_class_name.as_deref();
    annotation(volume, BETA_CLASS).or_else(field).unwrap_or("")
}

/// The class that a claim asks for: empty for volumes without one, none when the
/// default class is meant, if there is one.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    let field = || claim.spec.as_ref()?.storage_class_name.as_deref();
    annotation(claim, BETA_CLASS).or_else(field)
}

/// The volume that a claim names; none when it names none.
pub fn volume_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    let name = claim.spec.as_ref()?.volume_name.as_deref();
    name.filter(|name| !name.is_empty())
}

/// The reference of a volume to its claim.
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The uid of the claim that a volume refers to; none also when it refers to any
/// claim of a name.
pub fn claim_ref_uid(volume: &PersistentVolume) -> Option<&str> {
    let uid = claim_ref(volume)?.uid.as_deref();
    uid.filter(|uid| !uid.is_empty())
}

/// Whether a volume refers to this claim: by name, and by uid if it has one.
pub fn refers_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        reference.name.as_deref() == Some(name(claim))
            && reference.namespace.as_deref() == Some(namespace(claim))
            && claim_ref_uid(volume).is_none_or(|known| known == uid(claim))
    })
}

/// `namespace/name` of the claim that a volume refers to; empty for none.
pub fn claim_name(volume: &PersistentVolume) -> String {
    let Some(reference) = claim_ref(volume) else {
        return String::new();
    };
    format!(
        "{}/{}",
        reference.namespace.as_deref().unwrap_or_default(),
        reference.name.as_deref().unwrap_or_default()
    )
}

/// The reference to a claim that a volume bound to it has.
pub fn reference_to(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// The amount of storage in a list of resources.
pub fn storage(resources: Option<&BTreeMap<String, Written>>) -> Option<Quantity> {
    resources?.get("storage")?.0.parse().ok()
}

/// What a claim asks for, in bytes.
pub fn requested(spec: &PersistentVolumeClaimSpec) -> u64 {
    let requests = spec.resources.as_ref().and_then(|it| it.requests.as_ref());
    storage(requests).map_or(0, |size| size.to_bytes())
}

/// What a claim asks for, as it was written.
pub fn requested_text(spec: &PersistentVolumeClaimSpec) -> &str {
    let requests = spec.resources.as_ref().and_then(|it| it.requests.as_ref());
    let size = requests.and_then(|requests| requests.get("storage"));
    size.map_or("0", |size| &size.0)
}

/// What a volume has, in bytes.
pub fn capacity(spec: &PersistentVolumeSpec) -> u64 {
    storage(spec.capacity.as_ref()).map_or(0, |size| size.to_bytes())
}

/// What a volume has, as it was written.
pub fn capacity_text(spec: &PersistentVolumeSpec) -> &str {
    let size = spec.capacity.as_ref().and_then(|all| all.get("storage"));
    size.map_or("0", |size| &size.0)
}

/// The phase of a volume.
pub fn volume_phase(volume: &PersistentVolume) -> &str {
    let phase = volume.status.as_ref().and_then(|it| it.phase.as_deref());
    phase.unwrap_or("Pending")
}

/// The phase of a claim.
pub fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    let phase = claim.status.as_ref().and_then(|it| it.phase.as_deref());
    phase.unwrap_or("Pending")
}

/// Whether a claim may be used by one pod alone.
pub fn is_for_one_pod(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim
        .spec
        .as_ref()
        .and_then(|it| it.access_modes.as_deref());
    modes.is_some_and(|modes| modes.iter().any(|mode| mode == ONE_POD))
}
