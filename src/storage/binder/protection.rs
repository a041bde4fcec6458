//! What is being deleted, and what must wait until nobody uses it
//! (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>).

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::facts::{
    CLAIM_PROTECTION, PROVISIONED, VOLUME_PROTECTION, is_deleting, name, namespace, volume_phase,
};
use super::volumes::action;
use super::{Consumer, Snapshot};

/// Protects what is there, lets go of what nobody uses any more, and takes out what
/// nothing holds.
pub(super) fn settle(snapshot: &mut Snapshot) {
    let Snapshot {
        volumes,
        claims,
        pods,
        pod_uids,
        now,
        ..
    } = snapshot;
    for claim in claims.iter_mut() {
        let owners = claim.metadata.owner_references.iter().flatten();
        let mut pods_own = owners.filter(|owner| owner.kind == "Pod");
        let is_orphan = pods_own.next().is_some_and(|first| {
            !pod_uids.contains(&first.uid) && !pods_own.any(|next| pod_uids.contains(&next.uid))
        });
        if is_orphan && !is_deleting(claim) {
            claim.metadata.deletion_timestamp = Some(Time(*now));
        }
        let is_used = pods.iter().any(|pod| uses(pod, claim));
        protect(claim, CLAIM_PROTECTION, is_used);
    }
    for volume in volumes.iter_mut() {
        let is_used = volume_phase(volume) == "Bound";
        protect(volume, VOLUME_PROTECTION, is_used);
        if is_deleting(volume) && !is_used && action(volume).is_none() {
            // Its data is not to be deleted, or not any more.
            let finalizers = volume.metadata.finalizers.iter_mut();
            finalizers.for_each(|all| all.retain(|one| one != PROVISIONED));
        }
    }
    claims.retain(|claim| !is_gone(&claim.metadata));
    volumes.retain(|volume| !is_gone(&volume.metadata));
}

/// Whether a pod keeps the claim from being removed: one that was placed, also when
/// it is over; a claim that was made for the pod alone only while it is not.
fn uses(pod: &Consumer, claim: &PersistentVolumeClaim) -> bool {
    let is_own = pod.templates.iter().any(|one| one.claim == name(claim));
    pod.placed
        && pod.namespace == namespace(claim)
        && pod.claims.iter().any(|used| used == name(claim))
        && !(is_own && pod.over)
}

fn protect(object: &mut impl Metadata<Ty = ObjectMeta>, finalizer: &str, is_used: bool) {
    let deleting = is_deleting(object);
    let finalizers = object.metadata_mut().finalizers.get_or_insert_default();
    let has = finalizers.iter().any(|one| one == finalizer);
    if !deleting && !has {
        finalizers.push(finalizer.to_owned());
    } else if deleting && has && !is_used {
        finalizers.retain(|one| one != finalizer);
    }
    if finalizers.is_empty() {
        object.metadata_mut().finalizers = None;
    }
}

fn is_gone(metadata: &ObjectMeta) -> bool {
    let is_held = metadata
        .finalizers
        .as_ref()
        .is_some_and(|all| !all.is_empty());
    metadata.deletion_timestamp.is_some() && !is_held
}
