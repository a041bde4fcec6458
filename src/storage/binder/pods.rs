//! Pods that use claims: what is made for them, when they may run, and which claims
//! they make wait no longer
//! (<https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode>).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimTemplate, Pod, PodSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::claims::{class, is_waiting};
use super::facts::{
    BIND_COMPLETED, annotation, claim_phase, is_deleting, is_for_one_pod, name, namespace,
    requested, uid, volume_of_claim,
};
use super::matching::find;
use super::{Snapshot, classes};

/// A pod that uses claims.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Consumer {
    /// Its uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// The claims that it uses, in the order of its volumes, those made for it
    /// included.
    pub claims: Vec<String>,
    /// The claims that are made for it.
    pub templates: Vec<Template>,
    /// Whether it may run, or ran: it has a node.
    pub placed: bool,
    /// Whether it is over.
    pub over: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// A claim that is made for a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Its name.
    pub claim: String,
    /// What it is made of.
    pub content: PersistentVolumeClaimTemplate,
}

/// Why a pod may not run yet, in the scheduler's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("0/1 nodes are available: {0}.")]
pub struct Refusal(String);

impl Consumer {
    /// What there is to know of a pod; none for one that uses no claims.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let own = pod.metadata.name.clone().unwrap_or_default();
        let claims = claims(&own, spec);
        if claims.is_empty() {
            return None;
        }
        let templates = spec.volumes.iter().flatten().filter_map(|volume| {
            let source = volume.ephemeral.as_ref()?;
            Some(Template {
                claim: format!("{own}-{}", volume.name),
                content: source.volume_claim_template.clone()?,
            })
        });
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let created = pod.metadata.creation_timestamp.as_ref();
        Some(Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            created: created.map(|time| time.0),
            templates: templates.collect(),
            placed: spec
                .node_name
                .as_deref()
                .is_some_and(|node| !node.is_empty()),
            over: matches!(phase, Some("Succeeded" | "Failed")),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            name: own,
            claims,
        })
    }

    fn is_active(&self) -> bool {
        !self.over && !self.deleting
    }
}

/// The names of the claims that the pod of this name uses, those made for it
/// included, in the order of its volumes.
#[must_use]
pub fn claims(pod: &str, spec: &PodSpec) -> Vec<String> {
    let volumes = spec.volumes.iter().flatten();
    let names = volumes.filter_map(|volume| {
        let claim = volume.persistent_volume_claim.as_ref();
        let named = claim.map(|claim| claim.claim_name.clone());
        let own = || Some(format!("{pod}-{}", volume.name));
        named.or_else(|| volume.ephemeral.as_ref().and_then(|_| own()))
    });
    names.collect()
}

/// The claims that are still to be made for pods.
#[must_use]
pub fn missing_claims(snapshot: &Snapshot) -> Vec<PersistentVolumeClaim> {
    let mut missing = Vec::new();
    for pod in snapshot.pods.iter().filter(|pod| pod.is_active()) {
        for template in &pod.templates {
            let is_there = |claim: &PersistentVolumeClaim| {
                namespace(claim) == pod.namespace && name(claim) == template.claim
            };
            if !snapshot.claims.iter().any(is_there) {
                missing.push(made_for(pod, template));
            }
        }
    }
    missing
}

fn made_for(pod: &Consumer, template: &Template) -> PersistentVolumeClaim {
    let given = template.content.metadata.clone().unwrap_or_default();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(template.claim.clone()),
            namespace: Some(pod.namespace.clone()),
            labels: given.labels,
            annotations: given.annotations,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(template.content.spec.clone()),
        status: None,
    }
}

/// Whether the pod with this uid may run now.
///
/// # Errors
/// What it waits for.
pub fn may_be_placed(snapshot: &Snapshot, pod: &str) -> Result<(), Refusal> {
    let Some(pod) = snapshot.pods.iter().find(|one| one.uid == pod) else {
        return Ok(());
    };
    obstacle(snapshot, pod)?;
    for claim in own_claims(snapshot, pod) {
        if is_bound(claim) {
            continue;
        }
        let class = class(snapshot, claim).filter(|class| classes::waits(class));
        return Err(Refusal(match class {
            None => "pod has unbound immediate PersistentVolumeClaims".to_owned(),
            Some(class) if classes::provisions(class) => {
                format!(
                    "a volume for persistentvolumeclaim {:?} is being provisioned",
                    name(claim)
                )
            }
            Some(_) => "1 node(s) didn't find available persistent volumes to bind".to_owned(),
        }));
    }
    Ok(())
}

/// What keeps a pod from running besides claims that are not bound.
fn obstacle(snapshot: &Snapshot, pod: &Consumer) -> Result<(), Refusal> {
    for wanted in &pod.claims {
        let mut claims = snapshot.claims.iter();
        let claim =
            claims.find(|claim| name(*claim) == wanted && namespace(*claim) == pod.namespace);
        let Some(claim) = claim else {
            return Err(Refusal(format!(
                "persistentvolumeclaim {wanted:?} not found"
            )));
        };
        if is_deleting(claim) {
            return Err(Refusal(format!(
                "persistentvolumeclaim {wanted:?} is being deleted"
            )));
        }
        if claim_phase(claim) == "Lost" {
            let volume = volume_of_claim(claim).unwrap_or_default();
            return Err(Refusal(format!(
                "persistentvolumeclaim {wanted:?} bound to non-existent persistentvolume {volume:?}"
            )));
        }
        let is_template = pod.templates.iter().any(|one| one.claim == *wanted);
        let owners = claim.metadata.owner_references.as_deref();
        let is_owned = owners.is_some_and(|all| all.iter().any(|one| one.uid == pod.uid));
        if is_template && !is_owned {
            let (space, own) = (&pod.namespace, &pod.name);
            return Err(Refusal(format!(
                "PVC {space}/{wanted} was not created for pod {space}/{own} (pod is not owner)"
            )));
        }
        let is_taken = |other: &Consumer| {
            other.uid != pod.uid
                && other.placed
                && !other.over
                && other.namespace == pod.namespace
                && other.claims.contains(wanted)
        };
        if is_for_one_pod(claim) && snapshot.pods.iter().any(is_taken) {
            return Err(Refusal(
                "1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
                    .to_owned(),
            ));
        }
    }
    Ok(())
}

/// Bindings of claims that waited for a pod: claim and volume, as indices. A pod
/// gets volumes for all of its claims or for none.
pub(super) fn bindings(snapshot: &Snapshot) -> Vec<(usize, usize)> {
    let mut taken = BTreeSet::new();
    let mut bindings = Vec::new();
    for pod in in_order(snapshot) {
        let plan = plan(snapshot, pod, &taken);
        let bound = plan.into_iter().flatten();
        for (claim, volume) in bound {
            if let Some(volume) = volume {
                taken.insert(volume);
                bindings.push((claim, volume));
            }
        }
    }
    bindings
}

/// The claims that waited for a pod and get a volume that is yet to be made, by uid.
pub(super) fn provisions(snapshot: &Snapshot) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    for pod in in_order(snapshot) {
        let plan = plan(snapshot, pod, &BTreeSet::new());
        let made = plan.into_iter().flatten();
        let made = made.filter(|(_, volume)| volume.is_none());
        wanted.extend(made.map(|(claim, _)| uid(&snapshot.claims[claim]).to_owned()));
    }
    wanted
}

/// The first pod that uses a claim and is not over.
pub(super) fn first<'s>(
    snapshot: &'s Snapshot,
    claim: &PersistentVolumeClaim,
) -> Option<&'s Consumer> {
    in_order(snapshot).into_iter().find(|pod| {
        pod.namespace == namespace(claim) && pod.claims.iter().any(|used| used == name(claim))
    })
}

/// Pods that run or want to, the oldest first.
fn in_order(snapshot: &Snapshot) -> Vec<&Consumer> {
    let mut pods: Vec<&Consumer> = snapshot.pods.iter().filter(|pod| pod.is_active()).collect();
    pods.sort_by_key(|pod| (pod.created, &pod.namespace, &pod.name));
    pods
}

/// A volume for each claim of the pod that waited for it, as indices; none for one
/// that is to be made. Nothing when one of the pod's claims can have none.
fn plan(
    snapshot: &Snapshot,
    pod: &Consumer,
    taken: &BTreeSet<usize>,
) -> Option<BTreeMap<usize, Option<usize>>> {
    obstacle(snapshot, pod).ok()?;
    let mut waiting = Vec::new();
    for (index, claim) in snapshot.claims.iter().enumerate() {
        let is_own =
            namespace(claim) == pod.namespace && pod.claims.iter().any(|used| used == name(claim));
        if !is_own || is_bound(claim) {
            continue;
        }
        if !is_waiting(claim) || !class(snapshot, claim).is_some_and(classes::waits) {
            return None;
        }
        waiting.push(index);
    }
    // The small ones first: what they leave is for the large ones.
    waiting.sort_by_key(|index| {
        let claim = &snapshot.claims[*index];
        (claim.spec.as_ref().map_or(0, requested), name(claim))
    });
    let mut plan = BTreeMap::new();
    let mut chosen = taken.clone();
    for index in waiting {
        let claim = &snapshot.claims[index];
        let is_taken = |volume: &_| {
            snapshot.is_busy(volume)
                || chosen
                    .iter()
                    .any(|index| uid(&snapshot.volumes[*index]) == uid(volume))
        };
        let volume = find(&snapshot.volumes, claim, is_taken, false);
        if volume.is_none() && !class(snapshot, claim).is_some_and(classes::provisions) {
            return None;
        }
        chosen.extend(volume);
        plan.insert(index, volume);
    }
    Some(plan)
}

fn own_claims<'s>(
    snapshot: &'s Snapshot,
    pod: &'s Consumer,
) -> impl Iterator<Item = &'s PersistentVolumeClaim> {
    let claims = snapshot.claims.iter();
    claims.filter(|claim| {
        namespace(*claim) == pod.namespace && pod.claims.iter().any(|used| used == name(*claim))
    })
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim_phase(claim) == "Bound" && annotation(claim, BIND_COMPLETED).is_some()
}
