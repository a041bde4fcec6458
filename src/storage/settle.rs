//! Settling claims and volumes at the end of the transaction that changed one, and
//! what else reads and writes them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use rusqlite::OptionalExtension;

use super::binder::facts::{name, namespace, uid};
use super::binder::{
    self, Consumer, Explanation, Happening, Refusal, Settled, Snapshot, explain, may_be_placed,
    missing_claims,
};
use super::events::Event;
use super::objects::Kept;
use super::pods::whole_seconds;
use super::store::{Change, Store, StoreError};

/// Who says what happens to claims and volumes.
const SOURCE: &str = "persistentvolume-controller";
/// Events that hold as long as a state does are told again after this many seconds
/// only: as often as Kubernetes looks.
const TELL_AGAIN: i64 = 15;

impl Store {
    /// Settles claims and volumes, which nothing but a foreign hand in the database
    /// makes necessary.
    ///
    /// # Errors
    /// The database's.
    pub fn settle_claims(&self) -> Result<(), StoreError> {
        self.write("settle claims and volumes", |change| {
            change.touch_claims();
            Ok(())
        })
    }

    /// Lets the pod with this uid run on `node` if all of its claims are bound and
    /// free for it. From then on they are not removed before the pod is.
    ///
    /// # Errors
    /// The database's. What the pod waits for is in the result.
    pub fn place_pod(&self, pod_uid: &str, node: &str) -> Result<Result<Pod, Refusal>, StoreError> {
        self.write("place a pod", |change| {
            let mut pod = change.pod_by_uid(pod_uid)?.ok_or(StoreError::NotFound {
                resource: "pods",
                name: pod_uid.to_owned(),
            })?;
            let snapshot = change.settle()?;
            if let Err(refusal) = may_be_placed(&snapshot, pod_uid) {
                return Ok(Err(refusal));
            }
            let spec = pod.spec.get_or_insert_default();
            spec.node_name = Some(node.to_owned());
            change.write_pod(pod).map(Ok)
        })
    }

    /// Notes that a pod has ended: what only one pod may use is free for the next.
    ///
    /// # Errors
    /// The database's.
    pub fn pod_is_over(&self, pod: &Pod) -> Result<(), StoreError> {
        self.write("note the end of a pod", |change| change.user_is_gone(pod))
    }

    /// Why a claim has the volume that it has, or none; nothing when there is no such
    /// claim.
    ///
    /// # Errors
    /// The database's.
    pub fn explain_binding(
        &self,
        wanted_namespace: &str,
        wanted: &str,
    ) -> Result<Option<Explanation>, StoreError> {
        self.write("explain a binding", |change| {
            let snapshot = change.settle()?;
            let mut claims = snapshot.claims.iter();
            let claim =
                claims.find(|one| namespace(*one) == wanted_namespace && name(*one) == wanted);
            Ok(claim.map(|claim| explain(&snapshot, claim)))
        })
    }

    /// The pods that use a claim, as the claim's page names them.
    ///
    /// # Errors
    /// The database's.
    pub fn users_of_claim(&self, space: &str, claim: &str) -> Result<Vec<String>, StoreError> {
        let pods = self.pods(Some(space))?;
        let users = pods.iter().filter_map(Consumer::of);
        let users = users.filter(|pod| pod.claims.iter().any(|used| used == claim));
        Ok(users.map(|pod| pod.name).collect())
    }
}

impl Change<'_> {
    /// Brings claims and volumes to what they should be, and returns them.
    pub(super) fn settle(&self) -> Result<Snapshot, StoreError> {
        let mut snapshot = self.snapshot()?;
        for claim in missing_claims(&snapshot) {
            let claim = self.create_object(claim, None)?;
            snapshot.claims.push(claim);
        }
        let volumes = snapshot.volumes.clone();
        let claims = snapshot.claims.clone();
        let Settled { happenings, work } = binder::settle(&mut snapshot);
        self.write_changed(&volumes, &snapshot.volumes)?;
        self.write_changed(&claims, &snapshot.claims)?;
        self.set_work(&work)?;
        for happened in &happenings {
            self.say(happened)?;
        }
        self.claims_are_settled();
        Ok(snapshot)
    }

    fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let pod_uids = self.run(|db| {
            db.prepare_cached("SELECT uid FROM objects WHERE kind = 'Pod'")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<BTreeSet<String>>>()
        })?;
        Ok(Snapshot {
            volumes: self.all::<PersistentVolume>()?,
            claims: self.all::<PersistentVolumeClaim>()?,
            classes: self.all::<StorageClass>()?,
            pods: self.consumers()?,
            busy: self.busy_volumes()?,
            pod_uids,
            now: whole_seconds(Timestamp::now()),
        })
    }

    /// The pods that use claims.
    fn consumers(&self) -> Result<Vec<Consumer>, StoreError> {
        let pods = self.pods_like(&["\"persistentVolumeClaim\"", "\"ephemeral\""])?;
        Ok(pods.iter().filter_map(Consumer::of).collect())
    }

    /// Writes the objects of `after` that differ from those of `before`, and forgets
    /// those that are not in it any more.
    fn write_changed<T: Kept>(&self, before: &[T], after: &[T]) -> Result<(), StoreError> {
        let mut earlier: BTreeMap<&str, &T> = before.iter().map(|one| (uid(one), one)).collect();
        for object in after {
            if earlier.remove(uid(object)) != Some(object) {
                self.put(object)?;
            }
        }
        for gone in earlier.into_values() {
            self.forget_object(gone)?;
        }
        Ok(())
    }

    /// Records an event, unless the same was recorded a moment ago.
    pub(super) fn say(&self, happened: &Happening) -> Result<(), StoreError> {
        let event = Event {
            namespace: happened.namespace.clone(),
            kind: happened.kind.to_owned(),
            name: happened.name.clone(),
            uid: happened.uid.clone(),
            field_path: String::new(),
            type_: happened.type_,
            reason: happened.reason.to_owned(),
            message: happened.message.clone(),
            source: SOURCE.to_owned(),
        };
        let now = Timestamp::now();
        let last: Option<i64> = self.run(|db| {
            db.prepare_cached(
                "SELECT last FROM events WHERE uid = ?1 AND reason = ?2 AND message = ?3",
            )?
            .query_row([&event.uid, &event.reason, &event.message], |row| {
                row.get(0)
            })
            .optional()
        })?;
        match last {
            Some(last) if now.as_microsecond() - last < TELL_AGAIN * 1_000_000 => Ok(()),
            _ => self.record(&event, now),
        }
    }
}
