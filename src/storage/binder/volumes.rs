//! The phases of volumes
//! (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/#phase>).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::facts::{
    BOUND_BY_CONTROLLER, PROVISIONED, PROVISIONED_BY, annotation, claim_ref, claim_ref_uid,
    is_deleting, name, namespace, uid, unannotate, volume_of_claim, volume_phase,
};
use super::{Happening, Snapshot};
use crate::storage::events::EventType;
use crate::storage::pods::whole_seconds;
use crate::storage::work::Action;

/// Gives every volume the phase that it should have.
pub(super) fn settle(snapshot: &mut Snapshot, happenings: &mut Vec<Happening>) {
    let Snapshot {
        volumes,
        claims,
        busy,
        now,
        ..
    } = snapshot;
    for volume in volumes {
        if busy.contains(uid(volume)) && claim_ref_uid(volume).is_none() {
            // It is nobody's before that is over.
            set_phase(volume, "Released", *now);
            continue;
        }
        let Some(reference) = claim_ref(volume) else {
            unannotate(volume, BOUND_BY_CONTROLLER);
            set_phase(volume, "Available", *now);
            continue;
        };
        let Some(uid_of_claim) = claim_ref_uid(volume) else {
            // It is kept for a claim of that name.
            set_phase(volume, "Available", *now);
            continue;
        };
        let claim = claims.iter().find(|claim| {
            uid(*claim) == uid_of_claim
                && Some(name(*claim)) == reference.name.as_deref()
                && Some(namespace(*claim)) == reference.namespace.as_deref()
        });
        match claim {
            None => release(volume, *now, happenings),
            Some(claim) => match volume_of_claim(claim) {
                // The claim is about to name this volume.
                None => {}
                Some(theirs) if theirs == name(volume) => set_phase(volume, "Bound", *now),
                Some(_) => unbind(volume, claim, *now, happenings),
            },
        }
    }
}

/// The claim is gone: what becomes of the volume is its policy's to say.
fn release(volume: &mut PersistentVolume, now: Timestamp, happenings: &mut Vec<Happening>) {
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let has_recycler = spec.is_some_and(|spec| spec.nfs.is_some() || spec.host_path.is_some());
    match (policy, volume_phase(volume)) {
        (Some("Recycle"), _) if !has_recycler => {
            let message = "No recycler plugin found for the volume!";
            if volume_phase(volume) != "Failed" {
                happenings.push(warning(volume, "VolumeFailedRecycle", message.to_owned()));
            }
            fail(volume, "VolumeFailedRecycle", message, now);
        }
        // An attempt to reclaim it has failed, and is repeated.
        (Some("Recycle" | "Delete"), "Failed") => {}
        _ => set_phase(volume, "Released", now),
    }
}

/// The claim has another volume.
fn unbind(
    volume: &mut PersistentVolume,
    claim: &PersistentVolumeClaim,
    now: Timestamp,
    happenings: &mut Vec<Happening>,
) {
    let policy = volume.spec.as_ref();
    let policy = policy.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let is_provisioned = annotation(volume, PROVISIONED_BY).is_some();
    if is_provisioned && policy == Some("Delete") && volume_of_claim(claim).is_some() {
        // It was made for this claim alone, which has taken another one.
        release(volume, now, happenings);
    } else {
        free(volume);
        set_phase(volume, "Available", now);
    }
}

/// Takes the binding to a claim back: a user's reference stays, without the uid.
pub(in crate::storage) fn free(volume: &mut PersistentVolume) {
    let was_found = annotation(volume, BOUND_BY_CONTROLLER).is_some();
    unannotate(volume, BOUND_BY_CONTROLLER);
    let Some(spec) = &mut volume.spec else {
        return;
    };
    match &mut spec.claim_ref {
        Some(reference) if !was_found => {
            reference.uid = None;
            reference.resource_version = None;
        }
        reference => *reference = None,
    }
}

/// Sets the phase of a volume, without reason or message.
pub(in crate::storage) fn set_phase(volume: &mut PersistentVolume, phase: &str, now: Timestamp) {
    let status = volume.status.get_or_insert_default();
    (status.reason, status.message) = (None, None);
    if status.phase.as_deref() != Some(phase) {
        status.phase = Some(phase.to_owned());
        status.last_phase_transition_time = Some(Time(whole_seconds(now)));
    }
}

/// Makes a volume `Failed`, and says why.
pub(in crate::storage) fn fail(
    volume: &mut PersistentVolume,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    set_phase(volume, "Failed", now);
    let status = volume.status.get_or_insert_default();
    status.reason = Some(reason.to_owned());
    status.message = Some(message.to_owned());
}

/// What is to be done with volumes outside of the database.
pub(super) fn work(snapshot: &Snapshot) -> Vec<(Action, String)> {
    let due = snapshot.volumes.iter().filter_map(|volume| {
        let action = action(volume)?;
        Some((action, uid(volume).to_owned()))
    });
    due.collect()
}

/// What is to be done with a volume whose claim is gone.
pub(in crate::storage) fn action(volume: &PersistentVolume) -> Option<Action> {
    let spec = volume.spec.as_ref()?;
    if !matches!(volume_phase(volume), "Released" | "Failed")
        || (is_deleting(volume) && !is_held(volume))
        || claim_ref_uid(volume).is_none()
    {
        return None;
    }
    match spec.persistent_volume_reclaim_policy.as_deref() {
        Some("Recycle") if spec.nfs.is_some() || spec.host_path.is_some() => Some(Action::Recycle),
        Some("Delete") => Some(Action::Delete),
        _ => None,
    }
}

/// Whether the volume is not removed before what it stands for is deleted.
fn is_held(volume: &PersistentVolume) -> bool {
    let finalizers = volume.metadata.finalizers.as_deref();
    finalizers.is_some_and(|all| all.iter().any(|one| one == PROVISIONED))
}

/// A warning about a volume.
pub(in crate::storage) fn warning(
    volume: &PersistentVolume,
    reason: &'static str,
    message: String,
) -> Happening {
    Happening {
        kind: "PersistentVolume",
        namespace: String::new(),
        name: name(volume).to_owned(),
        uid: uid(volume).to_owned(),
        type_: EventType::Warning,
        reason,
        message,
    }
}
