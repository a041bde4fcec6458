//! The rows of `orlop get` for volumes that outlive pods, their claims and their
//! classes, in kubectl's columns.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::pod_row::age;
use crate::kube::kind::Kind;
use crate::kube::manifest::Object;
use crate::storage::binder::facts::{
    capacity_text, claim_name, claim_phase, class_of_claim, class_of_volume, is_deleting,
    volume_of_claim, volume_phase,
};
use crate::storage::binder::{classes, short_modes};

/// The columns of a kind, the name's among them.
pub(super) fn header(kind: Kind, wide: bool) -> Vec<&'static str> {
    let mut header = match kind {
        Kind::PersistentVolume => vec![
            "NAME",
            "CAPACITY",
            "ACCESS MODES",
            "RECLAIM POLICY",
            "STATUS",
            "CLAIM",
            "STORAGECLASS",
            "REASON",
            "AGE",
        ],
        Kind::PersistentVolumeClaim => vec![
            "NAME",
            "STATUS",
            "VOLUME",
            "CAPACITY",
            "ACCESS MODES",
            "STORAGECLASS",
            "AGE",
        ],
        _ => vec![
            "NAME",
            "PROVISIONER",
            "RECLAIMPOLICY",
            "VOLUMEBINDINGMODE",
            "ALLOWVOLUMEEXPANSION",
            "AGE",
        ],
    };
    if wide && kind != Kind::StorageClass {
        header.push("VOLUMEMODE");
    }
    header
}

/// An object's name, as the table shows it.
pub(super) fn name(object: &Object) -> String {
    match object {
        Object::StorageClass(class) if classes::is_default(class) => {
            format!("{} (default)", object.name())
        }
        _ => object.name().to_owned(),
    }
}

/// What stands behind an object's name; none for other kinds.
pub(super) fn columns(object: &Object, wide: bool, now: Timestamp) -> Option<Vec<String>> {
    let (mut row, mode) = match object {
        Object::PersistentVolume(volume) => (of_volume(volume), mode_of_volume(volume)),
        Object::PersistentVolumeClaim(claim) => (of_claim(claim), mode_of_claim(claim)),
        Object::StorageClass(class) => (of_class(class), None),
        _ => return None,
    };
    let created = object.metadata().creation_timestamp.as_ref();
    row.push(age(created.map(|time| time.0), now));
    if wide && !matches!(object, Object::StorageClass(_)) {
        row.push(mode.unwrap_or_else(|| "<unset>".to_owned()));
    }
    Some(row)
}

fn of_volume(volume: &PersistentVolume) -> Vec<String> {
    let spec = volume.spec.clone().unwrap_or_default();
    let status = volume.status.as_ref();
    vec![
        capacity_text(&spec).to_owned(),
        short_modes(spec.access_modes.as_deref().unwrap_or_default()),
        spec.persistent_volume_reclaim_policy.unwrap_or_default(),
        phase(is_deleting(volume), volume_phase(volume)),
        claim_name(volume),
        class_of_volume(volume).to_owned(),
        status
            .and_then(|status| status.reason.clone())
            .unwrap_or_default(),
    ]
}

fn of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let volume = volume_of_claim(claim).unwrap_or_default();
    let status = claim.status.clone().unwrap_or_default();
    let (mut capacity, mut modes) = (String::new(), String::new());
    if !volume.is_empty() {
        let size = status.capacity.as_ref().and_then(|all| all.get("storage"));
        capacity = size.map_or("0", |size| &size.0).to_owned();
        modes = short_modes(status.access_modes.as_deref().unwrap_or_default());
    }
    vec![
        phase(is_deleting(claim), claim_phase(claim)),
        volume.to_owned(),
        capacity,
        modes,
        class_of_claim(claim).unwrap_or_default().to_owned(),
    ]
}

fn of_class(class: &StorageClass) -> Vec<String> {
    vec![
        class.provisioner.clone(),
        class.reclaim_policy.clone().unwrap_or_default(),
        class.volume_binding_mode.clone().unwrap_or_default(),
        (class.allow_volume_expansion == Some(true)).to_string(),
    ]
}

/// What is being deleted is shown so, whatever its phase.
pub(super) fn phase(is_deleting: bool, phase: &str) -> String {
    match is_deleting {
        true => "Terminating".to_owned(),
        false => phase.to_owned(),
    }
}

fn mode_of_volume(volume: &PersistentVolume) -> Option<String> {
    volume.spec.as_ref()?.volume_mode.clone()
}

fn mode_of_claim(claim: &PersistentVolumeClaim) -> Option<String> {
    claim.spec.as_ref()?.volume_mode.clone()
}
