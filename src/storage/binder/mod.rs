//! Which claim gets which volume, and what becomes of both: phases, protection,
//! and what is to be done outside of the database.
//!
//! All of it is one function of a snapshot, [`settle`]: it changes the objects to
//! what they should be and tells what happened. [`super::settle`] calls it at the
//! end of every transaction that changed a claim, a volume, a class or a pod that
//! uses claims; so no other process ever sees a claim that could have been bound,
//! and none is ever bound twice. Settling what is settled changes nothing.
//!
//! The rules are those of Kubernetes' controllers
//! (<https://kubernetes.io/docs/concepts/storage/persistent-volumes/>), with what
//! they leave open made definite: of volumes of equal size the oldest wins, then
//! the first by name. A volume that names its claim goes before all others.

pub mod classes;
pub mod facts;
pub mod outcome;

mod claims;
mod explain;
mod matching;
mod pods;
mod protection;
mod volumes;

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

pub use explain::{Explanation, explain};
pub use matching::short_modes;
pub use pods::{Consumer, Refusal, claims as claims_of, may_be_placed, missing_claims};

use super::events::EventType;
use super::work::Action;

/// Rounds after which settling stops whatever happens; each claim and each volume
/// changes a few times at the most.
const ROUNDS: usize = 16;

/// Everything that a decision may depend on.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All volumes.
    pub volumes: Vec<PersistentVolume>,
    /// All claims.
    pub claims: Vec<PersistentVolumeClaim>,
    /// All classes.
    pub classes: Vec<StorageClass>,
    /// All pods that use claims.
    pub pods: Vec<Consumer>,
    /// The uids of all pods.
    pub pod_uids: BTreeSet<String>,
    /// The uids of volumes that somebody empties or deletes now.
    pub busy: BTreeSet<String>,
    /// The time that counts as now.
    pub now: Timestamp,
}

impl Snapshot {
    /// Whether somebody empties or deletes a volume now.
    fn is_busy(&self, volume: &PersistentVolume) -> bool {
        self.busy.contains(facts::uid(volume))
    }
}

/// Something that happened to a claim or to a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// Kind of the object.
    pub kind: &'static str,
    /// Its namespace; empty for a volume.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Progress or trouble.
    pub type_: EventType,
    /// One word for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// What settling has found out besides what it changed.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// What happened, in order.
    pub happenings: Vec<Happening>,
    /// What is to be done outside of the database: the action, and the uid of the
    /// volume or (for a provision) of the claim.
    pub work: Vec<(Action, String)>,
}

/// Makes everything in `snapshot` be as it should be. Objects whose deletion is
/// complete are taken out of it.
pub fn settle(snapshot: &mut Snapshot) -> Settled {
    let mut settled = Settled::default();
    for _ in 0..ROUNDS {
        let before = (snapshot.volumes.clone(), snapshot.claims.clone());
        protection::settle(snapshot);
        volumes::settle(snapshot, &mut settled.happenings);
        claims::settle(snapshot, &mut settled.happenings);
        if before.0 == snapshot.volumes && before.1 == snapshot.claims {
            break;
        }
    }
    let provisions = claims::to_provision(snapshot);
    settled.happenings.extend(claims::complaints(snapshot));
    settled.work = volumes::work(snapshot);
    let provisions = provisions.into_iter();
    settled
        .work
        .extend(provisions.map(|uid| (Action::Provision, uid)));
    settled
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
