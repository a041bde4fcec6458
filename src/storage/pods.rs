//! Pods in the store.
//!
//! A pod is what its user declared (metadata and spec) and what its keeper
//! observed (status); the two are written by different processes and never
//! overwrite one another. The store owns `metadata.uid`, `creationTimestamp`,
//! `resourceVersion`, `deletionTimestamp` and `deletionGracePeriodSeconds`: what
//! callers put there is ignored, except the `resourceVersion` of a replacement.

use jiff::{SignedDuration, Timestamp, ToSpan};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::binder::Consumer;
use super::store::{Change, Store, StoreError};

pub(super) const KIND: &str = "Pod";
const RESOURCE: &str = "pods";
const CLAIM: &str = "PersistentVolumeClaim";
const ROW: &str = "SELECT uid, name, resource_version, deletion_timestamp, object, status, boot_id FROM objects WHERE kind = 'Pod'";

/// A pod, and the boot of the machine in which its status was written.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPod {
    /// The pod with its status.
    pub pod: Pod,
    /// The boot that the status is of; none while there is no status.
    pub boot_id: Option<String>,
}

impl Store {
    /// Stores a new pod, gives it a random UID, `creationTimestamp` and
    /// `resourceVersion`, and returns it with them. A status is not stored.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] when its namespace has a pod of that name
    /// (also one that is being deleted); [`StoreError::Incomplete`] without
    /// `metadata.name` or `metadata.namespace`.
    pub fn create_pod(&self, pod: Pod) -> Result<Pod, StoreError> {
        let (namespace, name) = identity(&pod)?;
        self.write("create a pod", |change| {
            change.create_pod(pod, &namespace, &name, None)
        })
    }

    /// Replaces labels, annotations, other metadata of the user's and spec of
    /// the pod with this namespace and name. With `metadata.resourceVersion`
    /// the pod must not have been changed since it had that version.
    /// The status stays.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`], [`StoreError::Incomplete`].
    pub fn replace_pod(&self, pod: Pod) -> Result<Pod, StoreError> {
        let (namespace, name) = identity(&pod)?;
        self.write("replace a pod", |change| {
            let current = change
                .pod(&namespace, &name)?
                .ok_or_else(|| not_found(&name))?;
            let expected = pod.metadata.resource_version.as_ref();
            if expected.is_some_and(|expected| {
                Some(expected) != current.metadata.resource_version.as_ref()
            }) {
                return Err(StoreError::Conflict {
                    resource: RESOURCE,
                    name,
                });
            }
            change.update_pod(&current, pod)
        })
    }

    /// The pod of this name.
    ///
    /// # Errors
    /// [`StoreError::Decode`] for a row that no orlop wrote, or the database's.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, StoreError> {
        let found = self.stored_pod(namespace, name)?;
        Ok(found.map(|stored| stored.pod))
    }

    /// The pod of this name, and the boot in which its status was written.
    ///
    /// # Errors
    /// As [`Store::pod`].
    pub fn stored_pod(&self, namespace: &str, name: &str) -> Result<Option<StoredPod>, StoreError> {
        self.read("read a pod", |db| by_name(db, namespace, name))?
            .map(PodRow::decode)
            .transpose()
    }

    /// The pod with this UID.
    ///
    /// # Errors
    /// As [`Store::pod`].
    pub fn pod_by_uid(&self, uid: &str) -> Result<Option<Pod>, StoreError> {
        let row = self.read("read a pod", |db| by_uid(db, uid))?;
        Ok(row
            .map(PodRow::decode)
            .transpose()?
            .map(|stored| stored.pod))
    }

    /// The pods of a namespace, or of all, by namespace and name.
    ///
    /// # Errors
    /// As [`Store::pod`].
    pub fn pods(&self, namespace: Option<&str>) -> Result<Vec<Pod>, StoreError> {
        let stored = self.stored_pods(namespace)?;
        Ok(stored.into_iter().map(|stored| stored.pod).collect())
    }

    /// The pods of a namespace, or of all, by namespace and name, each with the
    /// boot in which its status was written.
    ///
    /// # Errors
    /// As [`Store::pod`].
    pub fn stored_pods(&self, namespace: Option<&str>) -> Result<Vec<StoredPod>, StoreError> {
        let rows: Vec<PodRow> = self.read("read the pods", |db| {
            db.prepare_cached(&format!(
                "{ROW} AND (?1 IS NULL OR namespace = ?1) ORDER BY namespace, name"
            ))?
            .query_map([namespace], PodRow::read)?
            .collect()
        })?;
        rows.into_iter().map(PodRow::decode).collect()
    }

    /// Records that a pod is to end, `grace_seconds` from now at the latest:
    /// sets `deletionTimestamp` and `deletionGracePeriodSeconds`. Of several
    /// calls the one whose time is up first counts.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when no pod has that UID.
    pub fn mark_pod_deleted(&self, uid: &str, grace_seconds: u32) -> Result<Pod, StoreError> {
        self.mark_pod_deleted_at(uid, grace_seconds, Timestamp::now())
    }

    /// [`Store::mark_pod_deleted`], with the time that counts as now.
    ///
    /// # Errors
    /// The same.
    pub fn mark_pod_deleted_at(
        &self,
        uid: &str,
        grace_seconds: u32,
        now: Timestamp,
    ) -> Result<Pod, StoreError> {
        self.write("mark a pod for deletion", |change| {
            let row = change.run(|db| by_uid(db, uid))?;
            let mut pod = row.ok_or_else(|| not_found(uid))?.decode()?.pod;
            let deadline = whole_seconds(now + SignedDuration::from_secs(grace_seconds.into()));
            let metadata = &mut pod.metadata;
            if metadata
                .deletion_timestamp
                .as_ref()
                .is_some_and(|set| set.0 <= deadline)
            {
                return Ok(pod);
            }
            metadata.deletion_timestamp = Some(Time(deadline));
            metadata.deletion_grace_period_seconds = Some(grace_seconds.into());
            change.write_pod(pod)
        })
    }

    /// The boot in which the pod's status was written; none when there is no
    /// status, or no such pod.
    ///
    /// # Errors
    /// The database's.
    pub fn pod_boot_id(&self, uid: &str) -> Result<Option<String>, StoreError> {
        self.read("read a pod's boot", |db| {
            db.prepare_cached("SELECT boot_id FROM objects WHERE uid = ?1")?
                .query_row([uid], |row| row.get(0))
                .optional()
        })
        .map(Option::flatten)
    }

    /// Forgets a pod, when all that belonged to it is gone. Its events stay for
    /// their hour. False when it was not there.
    ///
    /// # Errors
    /// The database's.
    pub fn remove_pod(&self, uid: &str) -> Result<bool, StoreError> {
        self.write("remove a pod", |change| {
            let gone: Option<String> = change.run(|db| {
                db.prepare_cached(
                    "DELETE FROM objects WHERE kind = 'Pod' AND uid = ?1 RETURNING object",
                )?
                .query_row([uid], |row| row.get(0))
                .optional()
            })?;
            if let Some(object) = &gone {
                change.next_version()?;
                let pod: Pod = serde_json::from_str(object).map_err(unreadable(uid))?;
                change.user_is_gone(&pod)?;
            }
            Ok(gone.is_some())
        })
    }
}

impl Change<'_> {
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, StoreError> {
        let row = self.run(|db| by_name(db, namespace, name))?;
        Ok(row
            .map(PodRow::decode)
            .transpose()?
            .map(|stored| stored.pod))
    }

    pub(super) fn create_pod(
        &self,
        mut pod: Pod,
        namespace: &str,
        name: &str,
        applied: Option<&str>,
    ) -> Result<Pod, StoreError> {
        if self.run(|db| by_name(db, namespace, name))?.is_some() {
            return Err(StoreError::AlreadyExists {
                resource: RESOURCE,
                name: name.to_owned(),
            });
        }
        let uid = uuid::Uuid::new_v4().to_string();
        pod.metadata.uid = Some(uid.clone());
        pod.metadata.creation_timestamp = Some(Time(whole_seconds(Timestamp::now())));
        pod.metadata.deletion_timestamp = None;
        pod.metadata.deletion_grace_period_seconds = None;
        pod.status = None;
        let version = self.next_version()?;
        let object = object_json(&pod)?;
        self.run(|db| {
            db.execute(
                "INSERT INTO objects (uid, kind, namespace, name, resource_version, object, applied)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![uid, KIND, namespace, name, version, object, applied],
            )
        })?;
        pod.metadata.resource_version = Some(version.to_string());
        if Consumer::of(&pod).is_some() {
            self.touch_claims();
        }
        Ok(pod)
    }

    /// The pod with this uid.
    pub(super) fn pod_by_uid(&self, uid: &str) -> Result<Option<Pod>, StoreError> {
        let row = self.run(|db| by_uid(db, uid))?;
        let stored = row.map(PodRow::decode).transpose()?;
        Ok(stored.map(|stored| stored.pod))
    }

    /// The pods in whose text one of `words` stands.
    pub(super) fn pods_like(&self, words: &[&str]) -> Result<Vec<Pod>, StoreError> {
        let tests: Vec<String> = (1..=words.len())
            .map(|number| format!("instr(object, ?{number}) > 0"))
            .collect();
        let rows: Vec<PodRow> = self.run(|db| {
            db.prepare_cached(&format!("{ROW} AND ({})", tests.join(" OR ")))?
                .query_map(rusqlite::params_from_iter(words), PodRow::read)?
                .collect()
        })?;
        let pods = rows.into_iter().map(|row| Ok(row.decode()?.pod));
        pods.collect()
    }

    /// Has claims settled when a pod is gone that used some, and lets those know that
    /// use them too.
    pub(super) fn user_is_gone(&self, pod: &Pod) -> Result<(), StoreError> {
        let Some(consumer) = Consumer::of(pod) else {
            return Ok(());
        };
        let version = self.next_version()?;
        for claim in &consumer.claims {
            self.not_told(CLAIM, &consumer.namespace, claim, version)?;
        }
        self.touch_claims();
        Ok(())
    }

    /// Gives `current` the user's part of `wanted`.
    pub(super) fn update_pod(&self, current: &Pod, wanted: Pod) -> Result<Pod, StoreError> {
        let owned = current.metadata.clone();
        self.write_pod(Pod {
            metadata: ObjectMeta {
                uid: owned.uid,
                creation_timestamp: owned.creation_timestamp,
                deletion_timestamp: owned.deletion_timestamp,
                deletion_grace_period_seconds: owned.deletion_grace_period_seconds,
                ..wanted.metadata
            },
            spec: wanted.spec,
            status: current.status.clone(),
        })
    }

    /// Writes metadata and spec of a pod that is there.
    pub(super) fn write_pod(&self, mut pod: Pod) -> Result<Pod, StoreError> {
        let version = self.next_version()?;
        let object = object_json(&pod)?;
        let deleted = pod
            .metadata
            .deletion_timestamp
            .as_ref()
            .map(|time| time.0.to_string());
        self.run(|db| {
            db.prepare_cached("UPDATE objects SET object = ?2, resource_version = ?3, deletion_timestamp = ?4 WHERE uid = ?1")?
                .execute(params![pod.metadata.uid, object, version, deleted])
        })?;
        pod.metadata.resource_version = Some(version.to_string());
        Ok(pod)
    }
}

/// The columns of a pod's row, as they are.
struct PodRow {
    uid: String,
    name: String,
    version: i64,
    deletion: Option<String>,
    object: String,
    status: Option<String>,
    boot_id: Option<String>,
}

impl PodRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            uid: row.get(0)?,
            name: row.get(1)?,
            version: row.get(2)?,
            deletion: row.get(3)?,
            object: row.get(4)?,
            status: row.get(5)?,
            boot_id: row.get(6)?,
        })
    }

    fn decode(self) -> Result<StoredPod, StoreError> {
        let unreadable = |source| StoreError::Decode {
            kind: KIND,
            name: self.name.clone(),
            source,
        };
        let mut pod: Pod = serde_json::from_slice(self.object.as_bytes()).map_err(unreadable)?;
        let status = self
            .status
            .as_deref()
            .map(|status| serde_json::from_slice(status.as_bytes()));
        pod.status = status.transpose().map_err(unreadable)?;
        let deletion = self.deletion.as_deref().map(str::parse).transpose();
        let deletion: Option<Timestamp> =
            deletion.map_err(|error: jiff::Error| unreadable(serde::de::Error::custom(error)))?;
        pod.metadata.deletion_timestamp = deletion.map(Time);
        pod.metadata.resource_version = Some(self.version.to_string());
        pod.metadata.uid = Some(self.uid);
        Ok(StoredPod {
            pod,
            boot_id: self.boot_id,
        })
    }
}

fn by_name(db: &Connection, namespace: &str, name: &str) -> rusqlite::Result<Option<PodRow>> {
    db.prepare_cached(&format!("{ROW} AND namespace = ?1 AND name = ?2"))?
        .query_row([namespace, name], PodRow::read)
        .optional()
}

fn by_uid(db: &Connection, uid: &str) -> rusqlite::Result<Option<PodRow>> {
    db.prepare_cached(&format!("{ROW} AND uid = ?1"))?
        .query_row([uid], PodRow::read)
        .optional()
}

pub(super) fn identity(pod: &Pod) -> Result<(String, String), StoreError> {
    let field = |value: &Option<String>, field| match value.as_deref() {
        None | Some("") => Err(StoreError::Incomplete { kind: KIND, field }),
        Some(value) => Ok(value.to_owned()),
    };
    Ok((
        field(&pod.metadata.namespace, "metadata.namespace")?,
        field(&pod.metadata.name, "metadata.name")?,
    ))
}

fn unreadable(name: &str) -> impl Fn(serde_json::Error) -> StoreError {
    move |source| StoreError::Decode {
        kind: KIND,
        name: name.to_owned(),
        source,
    }
}

fn not_found(name: &str) -> StoreError {
    StoreError::NotFound {
        resource: RESOURCE,
        name: name.to_owned(),
    }
}

/// Metadata and spec; what has its own column is left out.
fn object_json(pod: &Pod) -> Result<String, StoreError> {
    let metadata = ObjectMeta {
        deletion_timestamp: None,
        resource_version: None,
        ..pod.metadata.clone()
    };
    let object = Pod {
        metadata,
        spec: pod.spec.clone(),
        status: None,
    };
    json(pod.metadata.name.as_deref().unwrap_or_default(), &object)
}

pub(super) fn json(name: &str, value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Encode {
        kind: KIND,
        name: name.to_owned(),
        source,
    })
}

/// Kubernetes' times have whole seconds.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    time - i64::from(time.subsec_nanosecond()).nanoseconds()
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
