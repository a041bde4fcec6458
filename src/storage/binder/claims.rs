//! The phases of claims, and binding
//! (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/#binding>).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use super::classes::{self, NO_PROVISIONER};
use super::explain::explain_briefly;
use super::facts::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, annotate, annotation, capacity, claim_phase, claim_ref,
    claim_ref_uid, class_of_claim, is_deleting, name, namespace, reference_to, refers_to,
    requested, uid, volume_of_claim,
};
use super::matching::{Wish, find};
use super::volumes::set_phase;
use super::{Happening, Snapshot, pods};
use crate::storage::events::EventType;

/// Binds every claim that can be bound, the oldest first, and gives each its phase.
pub(super) fn settle(snapshot: &mut Snapshot, happenings: &mut Vec<Happening>) {
    let created = |claim: &PersistentVolumeClaim| {
        let time = claim.metadata.creation_timestamp.as_ref();
        time.map(|time| time.0)
    };
    let mut order: Vec<usize> = (0..snapshot.claims.len()).collect();
    order.sort_by_key(|index| {
        let claim = &snapshot.claims[*index];
        let place = (namespace(claim).to_owned(), name(claim).to_owned());
        (created(claim), place)
    });
    for index in order {
        if snapshot.claims[index].status.is_none() {
            // As the API server does when a claim is made.
            give_default_class(snapshot, index);
            set_claim_phase(&mut snapshot.claims[index], "Pending");
        }
        match annotation(&snapshot.claims[index], BIND_COMPLETED) {
            Some(_) => keep(snapshot, index, happenings),
            None => bind_if_possible(snapshot, index),
        }
    }
    for (claim, volume) in pods::bindings(snapshot) {
        bind(snapshot, claim, volume);
    }
}

/// Looks after a claim whose binding was complete.
fn keep(snapshot: &mut Snapshot, index: usize, happenings: &mut Vec<Happening>) {
    let claim = &snapshot.claims[index];
    let lost = "Data on the volume is lost!";
    let Some(wanted) = volume_of_claim(claim) else {
        let why = format!("Bound claim has lost reference to PersistentVolume. {lost}");
        return lose(snapshot, index, "ClaimLost", why, happenings);
    };
    let volumes = &snapshot.volumes;
    let Some(volume) = volumes.iter().position(|volume| name(volume) == wanted) else {
        let why = format!("Bound claim has lost its PersistentVolume. {lost}");
        return lose(snapshot, index, "ClaimLost", why, happenings);
    };
    let found = &volumes[volume];
    if claim_phase(claim) == "Lost" && claim_ref_uid(found) != Some(uid(claim)) {
        // Another volume of that name has other data.
        return;
    }
    if claim_ref(found).is_none() || claim_ref_uid(found) == Some(uid(claim)) {
        grow(snapshot, index, volume, happenings);
        bind(snapshot, index, volume);
    } else {
        let why = "Two claims are bound to the same volume, this one is bound incorrectly";
        lose(snapshot, index, "ClaimMisbound", why.to_owned(), happenings);
    }
}

fn lose(
    snapshot: &mut Snapshot,
    index: usize,
    reason: &'static str,
    message: String,
    happenings: &mut Vec<Happening>,
) {
    let claim = &mut snapshot.claims[index];
    if claim_phase(claim) == "Lost" {
        return;
    }
    set_claim_phase(claim, "Lost");
    let status = claim.status.get_or_insert_default();
    (status.capacity, status.access_modes) = (None, None);
    happenings.push(said(claim, EventType::Warning, reason, message));
}

/// Makes a volume as large as its claim asks for, if the class allows that: none of
/// the kinds of volumes that orlop has a size of its own.
fn grow(snapshot: &mut Snapshot, index: usize, volume: usize, happenings: &mut Vec<Happening>) {
    let claim = &snapshot.claims[index];
    let (Some(spec), Some(has)) = (&claim.spec, &mut snapshot.volumes[volume].spec) else {
        return;
    };
    let class = class_of_claim(claim)
        .and_then(|class| snapshot.classes.iter().find(|one| name(*one) == class));
    let allowed = class.is_some_and(|class| class.allow_volume_expansion == Some(true));
    if !allowed || requested(spec) <= capacity(has) {
        return;
    }
    let requests = spec.resources.as_ref().and_then(|it| it.requests.as_ref());
    if let Some(wanted) = requests.and_then(|requests| requests.get("storage")) {
        let capacity = has.capacity.get_or_insert_default();
        capacity.insert("storage".to_owned(), wanted.clone());
        let message = format!(
            "ExpandVolume succeeded for volume {}",
            volume_of_claim(claim).unwrap_or_default()
        );
        happenings.push(said(
            claim,
            EventType::Normal,
            "VolumeResizeSuccessful",
            message,
        ));
    }
}

/// Binds a claim that waits, unless it waits for a pod.
fn bind_if_possible(snapshot: &mut Snapshot, index: usize) {
    let claim = &snapshot.claims[index];
    if is_deleting(claim) {
        return;
    }
    let volumes = &snapshot.volumes;
    let found = match volume_of_claim(claim) {
        Some(wanted) => {
            let named = volumes.iter().position(|volume| name(volume) == wanted);
            named.filter(|volume| may_have(snapshot, claim, &volumes[*volume]))
        }
        None => {
            let waits = class(snapshot, claim).is_some_and(classes::waits);
            find(volumes, claim, |volume| snapshot.is_busy(volume), waits)
        }
    };
    match found {
        Some(volume) => bind(snapshot, index, volume),
        None if volume_of_claim(claim).is_none() => give_default_class(snapshot, index),
        None => {}
    }
}

/// Whether a claim may have the volume that it names.
fn may_have(snapshot: &Snapshot, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    if snapshot.is_busy(volume) {
        return false;
    }
    match claim_ref(volume) {
        None => Wish::of(claim).refusal(volume).is_none(),
        Some(_) => refers_to(volume, claim),
    }
}

/// Gives a claim that names no class the default one, if there is one now.
fn give_default_class(snapshot: &mut Snapshot, index: usize) {
    let claim = &mut snapshot.claims[index];
    if class_of_claim(claim).is_none()
        && let Some(class) = classes::default(&snapshot.classes)
        && let Some(spec) = &mut claim.spec
    {
        spec.storage_class_name.clone_from(&class.metadata.name);
    }
}

/// Makes claim and volume say that they are bound to one another.
fn bind(snapshot: &mut Snapshot, claim: usize, volume: usize) {
    let claim = &mut snapshot.claims[claim];
    let volume = &mut snapshot.volumes[volume];
    if !refers_to(volume, claim) {
        annotate(volume, BOUND_BY_CONTROLLER, "yes");
    }
    if claim_ref_uid(volume) != Some(uid(claim)) || !refers_to(volume, claim) {
        let reference = reference_to(claim);
        volume.spec.get_or_insert_default().claim_ref = Some(reference);
    }
    set_phase(volume, "Bound", snapshot.now);
    if volume_of_claim(claim).is_none() {
        annotate(claim, BOUND_BY_CONTROLLER, "yes");
        let spec = claim.spec.get_or_insert_default();
        spec.volume_name.clone_from(&volume.metadata.name);
    }
    annotate(claim, BIND_COMPLETED, "yes");
    set_claim_phase(claim, "Bound");
    let has = volume.spec.as_ref();
    let status = claim.status.get_or_insert_default();
    status.capacity = has.and_then(|spec| spec.capacity.clone());
    status.access_modes = has.and_then(|spec| spec.access_modes.clone());
}

fn set_claim_phase(claim: &mut PersistentVolumeClaim, phase: &str) {
    claim.status.get_or_insert_default().phase = Some(phase.to_owned());
}

/// The class of a claim, if it names one that is there.
pub(super) fn class<'s>(
    snapshot: &'s Snapshot,
    claim: &PersistentVolumeClaim,
) -> Option<&'s StorageClass> {
    let wanted = class_of_claim(claim)?;
    snapshot.classes.iter().find(|class| name(*class) == wanted)
}

/// The claims for which one of orlop's own provisioners is to make a volume, by uid.
pub(super) fn to_provision(snapshot: &Snapshot) -> BTreeSet<String> {
    let wanted = pods::provisions(snapshot);
    let pending = snapshot.claims.iter().filter(|claim| is_waiting(claim));
    let due = pending.filter(|claim| {
        class(snapshot, claim).is_some_and(|class| {
            classes::BUILT_IN.contains(&class.provisioner.as_str())
                && (!classes::waits(class) || wanted.contains(uid(*claim)))
        })
    });
    due.map(|claim| uid(claim).to_owned()).collect()
}

/// Whether a claim has no volume and names none.
pub(super) fn is_waiting(claim: &PersistentVolumeClaim) -> bool {
    annotation(claim, BIND_COMPLETED).is_none()
        && volume_of_claim(claim).is_none()
        && !is_deleting(claim)
}

/// Why each claim that is not bound has to wait.
pub(super) fn complaints(snapshot: &Snapshot) -> Vec<Happening> {
    let mut said = Vec::new();
    for claim in &snapshot.claims {
        if annotation(claim, BIND_COMPLETED).is_none() && !is_deleting(claim) {
            complain(snapshot, claim, &mut said);
        }
    }
    said
}

fn complain(snapshot: &Snapshot, claim: &PersistentVolumeClaim, happenings: &mut Vec<Happening>) {
    let mut say = |type_, reason, message: String| {
        happenings.push(said(claim, type_, reason, message));
    };
    if let Some(wanted) = volume_of_claim(claim) {
        let mut volumes = snapshot.volumes.iter();
        return match volumes.find(|volume| name(*volume) == wanted) {
            None => say(
                EventType::Normal,
                "FailedBinding",
                format!("volume {wanted:?} not found."),
            ),
            Some(volume) if snapshot.is_busy(volume) => say(
                EventType::Normal,
                "FailedBinding",
                format!("volume {wanted:?} is being emptied or deleted."),
            ),
            Some(volume) if claim_ref(volume).is_some() => say(
                EventType::Warning,
                "FailedBinding",
                format!("volume {wanted:?} already bound to a different claim."),
            ),
            Some(volume) => {
                let why = Wish::of(claim).refusal(volume).unwrap_or_default();
                let message = format!("Cannot bind to requested volume {wanted:?}: {why}");
                say(EventType::Warning, "VolumeMismatch", message);
            }
        };
    }
    let name_of_class = class_of_claim(claim).unwrap_or("");
    match class(snapshot, claim) {
        Some(class) if classes::waits(class) && pods::first(snapshot, claim).is_none() => {
            return say(
                EventType::Normal,
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".to_owned(),
            );
        }
        Some(class) if class.provisioner == NO_PROVISIONER && classes::waits(class) => {
            let pod = pods::first(snapshot, claim).map_or("", |pod| &pod.name);
            let message = format!("waiting for pod {pod} to be scheduled");
            say(EventType::Normal, "WaitForPodScheduled", message);
        }
        Some(class) if class.provisioner == NO_PROVISIONER => say(
            EventType::Warning,
            "ProvisioningFailed",
            format!("no volume plugin matched name: {NO_PROVISIONER}"),
        ),
        Some(class) => say(
            EventType::Normal,
            "ExternalProvisioning",
            format!(
                "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system \
                 administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
                 registered.",
                class.provisioner
            ),
        ),
        None if !name_of_class.is_empty() => say(
            EventType::Warning,
            "ProvisioningFailed",
            format!("storageclass.storage.k8s.io {name_of_class:?} not found"),
        ),
        None => say(
            EventType::Normal,
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set".to_owned(),
        ),
    }
    let explanation = explain_briefly(snapshot, claim);
    say(EventType::Normal, "NoMatch", explanation.in_brief());
}

fn said(
    claim: &PersistentVolumeClaim,
    type_: EventType,
    reason: &'static str,
    message: String,
) -> Happening {
    Happening {
        kind: "PersistentVolumeClaim",
        namespace: namespace(claim).to_owned(),
        name: name(claim).to_owned(),
        uid: uid(claim).to_owned(),
        type_,
        reason,
        message,
    }
}
