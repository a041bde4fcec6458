//! Objects that nothing runs for: ConfigMaps, Secrets, and what else is only
//! declared. (Pods, which have a keeper and a status of its making, are in
//! [`super::pods`].)
//!
//! A kind takes part by implementing [`Kept`]. The typed calls ([`Store::object`]
//! and its like) are for those who want one kind; those of [`super::any`] take
//! whatever a command line names. The store owns `metadata.uid`,
//! `creationTimestamp` and `resourceVersion`: what callers put there is ignored,
//! except the `resourceVersion` of a replacement.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{Metadata, Resource};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::pods::whole_seconds;
use super::store::{Change, Store, StoreError};
use crate::kube::field::FieldError;
use crate::kube::kind::Kind;
use crate::kube::validate;

const ROW: &str = "SELECT uid, name, resource_version, object FROM objects WHERE kind = ?1";

/// A kind of object that the store keeps as it was declared.
pub trait Kept:
    Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Clone + PartialEq
{
    /// Whether pods draw from such objects while they run, and are to be told of changes.
    const IS_DRAWN_FROM: bool;

    /// Whether volumes and claims are settled when such an object has changed.
    const IS_STORAGE: bool = false;

    /// Whether a deletion is only marked, and done once nothing holds the object.
    const IS_HELD: bool = false;

    /// Takes over from what is stored what no user may say of an object.
    fn take_over(&mut self, _stored: &Self) {}

    /// Refuses a change because of other objects.
    ///
    /// # Errors
    /// [`StoreError::NotAllowed`], or the database's.
    fn admit(&self, _wanted: &Self, _change: &Change) -> Result<(), StoreError> {
        Ok(())
    }

    /// What keeps this object, as it is, from becoming `wanted`; nothing when it may.
    fn refuse_update(&self, wanted: &Self) -> Vec<FieldError>;
}

impl Kept for ConfigMap {
    const IS_DRAWN_FROM: bool = true;

    fn refuse_update(&self, wanted: &Self) -> Vec<FieldError> {
        validate::config_map_update(self, wanted)
    }
}

impl Kept for Secret {
    const IS_DRAWN_FROM: bool = true;

    fn refuse_update(&self, wanted: &Self) -> Vec<FieldError> {
        validate::secret_update(self, wanted)
    }
}

impl Store {
    /// Stores a new object and returns it with what the store adds.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`]; [`StoreError::Incomplete`] without
    /// `metadata.name`.
    pub fn create_object<T: Kept>(&self, object: T) -> Result<T, StoreError> {
        self.write("create an object", |change| {
            change.create_object(object, None)
        })
    }

    /// Replaces the object of the same namespace and name. With
    /// `metadata.resourceVersion` the object must not have been changed since it
    /// had that version.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`],
    /// [`StoreError::Refused`] when it may not become so.
    pub fn replace_object<T: Kept>(&self, object: T) -> Result<T, StoreError> {
        self.write("replace an object", |change| {
            let (namespace, name) = identity(&object)?;
            let current: T = change
                .object(&namespace, &name)?
                .ok_or_else(|| not_found::<T>(&name))?;
            let expected = object.metadata().resource_version.as_ref();
            if expected.is_some_and(|expected| {
                Some(expected) != current.metadata().resource_version.as_ref()
            }) {
                return Err(StoreError::Conflict {
                    resource: resource::<T>(),
                    name,
                });
            }
            change.update_object(&current, object)
        })
    }

    /// The object of this kind, namespace (empty for kinds without) and name.
    ///
    /// # Errors
    /// [`StoreError::Decode`] for a row that no orlop wrote, or the database's.
    pub fn object<T: Kept>(&self, namespace: &str, name: &str) -> Result<Option<T>, StoreError> {
        let found = self.read("read an object", |db| by_name(db, T::KIND, namespace, name))?;
        found.map(ObjectRow::decode).transpose()
    }

    /// The objects of this kind in a namespace, or in all, by namespace and name.
    ///
    /// # Errors
    /// As [`Store::object`].
    pub fn objects<T: Kept>(&self, namespace: Option<&str>) -> Result<Vec<T>, StoreError> {
        let rows: Vec<ObjectRow> = self.read("read the objects", |db| {
            db.prepare_cached(&format!(
                "{ROW} AND (?2 IS NULL OR namespace = ?2) ORDER BY namespace, name"
            ))?
            .query_map(params![T::KIND, namespace], ObjectRow::read)?
            .collect()
        })?;
        rows.into_iter().map(ObjectRow::decode).collect()
    }

    /// Forgets an object, and returns what it was. One that is held (a claim that pods
    /// use) is marked, and forgotten when nothing holds it any more.
    ///
    /// # Errors
    /// As [`Store::object`].
    pub fn remove_object<T: Kept>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        self.write("remove an object", |change| {
            let Some(object) = change.object::<T>(namespace, name)? else {
                return Ok(None);
            };
            if T::IS_HELD {
                change.mark_deleted(object.clone())?;
            } else {
                change.forget_object(&object)?;
            }
            Ok(Some(object))
        })
    }
}

impl Change<'_> {
    pub(super) fn object<T: Kept>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        self.run(|db| by_name(db, T::KIND, namespace, name))?
            .map(ObjectRow::decode)
            .transpose()
    }

    pub(super) fn create_object<T: Kept>(
        &self,
        mut object: T,
        applied: Option<&str>,
    ) -> Result<T, StoreError> {
        let (namespace, name) = identity(&object)?;
        if self
            .run(|db| by_name(db, T::KIND, &namespace, &name))?
            .is_some()
        {
            return Err(StoreError::AlreadyExists {
                resource: resource::<T>(),
                name,
            });
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let metadata = object.metadata_mut();
        disown(metadata);
        metadata.creation_timestamp = Some(Time(whole_seconds(Timestamp::now())));
        let version = self.next_version()?;
        let text = json(&object)?;
        self.run(|db| {
            db.prepare_cached(
                "INSERT INTO objects (uid, kind, namespace, name, resource_version, object, applied)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![uid, T::KIND, namespace, name, version, text, applied])
        })?;
        if T::IS_DRAWN_FROM {
            self.not_told(T::KIND, &namespace, &name, version)?;
        }
        if T::IS_STORAGE {
            self.touch_claims();
        }
        let metadata = object.metadata_mut();
        metadata.uid = Some(uid);
        metadata.resource_version = Some(version.to_string());
        Ok(object)
    }

    /// Marks an object that is to go once nothing holds it.
    fn mark_deleted<T: Kept>(&self, mut object: T) -> Result<(), StoreError> {
        let now = Time(whole_seconds(Timestamp::now()));
        let metadata = object.metadata_mut();
        if metadata.deletion_timestamp.is_none() {
            metadata.deletion_timestamp = Some(now);
            metadata.deletion_grace_period_seconds = Some(0);
            self.put(&object)?;
        }
        self.touch_claims();
        Ok(())
    }

    /// Takes an object out of the database.
    pub(super) fn forget_object<T: Kept>(&self, object: &T) -> Result<(), StoreError> {
        let uid = object.metadata().uid.as_deref();
        self.run(|db| {
            db.prepare_cached("DELETE FROM objects WHERE uid = ?1")?
                .execute([uid])
        })?;
        self.changed::<T>(object).map(drop)
    }

    /// Writes an object as it is, with what only the store may say of it.
    pub(super) fn put<T: Kept>(&self, object: &T) -> Result<(), StoreError> {
        let mut bare = object.clone();
        let metadata = bare.metadata_mut();
        let uid = metadata.uid.take();
        metadata.resource_version = None;
        let text = json(&bare)?;
        let version = self.changed(object)?;
        self.run(|db| {
            db.prepare_cached(
                "UPDATE objects SET object = ?2, resource_version = ?3 WHERE uid = ?1",
            )?
            .execute(params![uid, text, version])
        })?;
        Ok(())
    }

    /// Counts the change of an object, and has those told who are to know of it.
    fn changed<T: Kept>(&self, object: &T) -> Result<i64, StoreError> {
        let version = self.next_version()?;
        if T::IS_DRAWN_FROM {
            let (namespace, name) = identity(object)?;
            self.not_told(T::KIND, &namespace, &name, version)?;
        }
        if T::IS_STORAGE {
            self.touch_claims();
        }
        Ok(version)
    }

    /// All objects of a kind.
    pub(super) fn all<T: Kept>(&self) -> Result<Vec<T>, StoreError> {
        let rows: Vec<ObjectRow> = self.run(|db| {
            db.prepare_cached(&format!("{ROW} ORDER BY namespace, name"))?
                .query_map([T::KIND], ObjectRow::read)?
                .collect()
        })?;
        rows.into_iter().map(ObjectRow::decode).collect()
    }

    /// The object of a kind with this uid.
    pub(super) fn by_uid<T: Kept>(&self, uid: &str) -> Result<Option<T>, StoreError> {
        self.run(|db| {
            db.prepare_cached(&format!("{ROW} AND uid = ?2"))?
                .query_row([T::KIND, uid], ObjectRow::read)
                .optional()
        })?
        .map(ObjectRow::decode)
        .transpose()
    }

    /// Makes `current` be `wanted`, unless it is already.
    pub(super) fn update_object<T: Kept>(
        &self,
        current: &T,
        mut wanted: T,
    ) -> Result<T, StoreError> {
        let owned = current.metadata();
        let metadata = wanted.metadata_mut();
        disown(metadata);
        metadata
            .creation_timestamp
            .clone_from(&owned.creation_timestamp);
        metadata
            .deletion_timestamp
            .clone_from(&owned.deletion_timestamp);
        metadata.deletion_grace_period_seconds = owned.deletion_grace_period_seconds;
        metadata.uid.clone_from(&owned.uid);
        metadata
            .resource_version
            .clone_from(&owned.resource_version);
        wanted.take_over(current);
        if wanted == *current {
            return Ok(wanted);
        }
        let findings = current.refuse_update(&wanted);
        if !findings.is_empty() {
            return Err(StoreError::Refused {
                kind: T::KIND,
                name: owned.name.clone().unwrap_or_default(),
                findings,
            });
        }
        current.admit(&wanted, self)?;
        self.put(&wanted)?;
        let stored = self.by_uid(owned.uid.as_deref().unwrap_or_default())?;
        Ok(stored.unwrap_or(wanted))
    }
}

struct ObjectRow {
    uid: String,
    name: String,
    version: i64,
    object: String,
}

impl ObjectRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            uid: row.get(0)?,
            name: row.get(1)?,
            version: row.get(2)?,
            object: row.get(3)?,
        })
    }

    fn decode<T: Kept>(self) -> Result<T, StoreError> {
        let mut object: T =
            serde_json::from_str(&self.object).map_err(|source| StoreError::Decode {
                kind: T::KIND,
                name: self.name,
                source,
            })?;
        let metadata = object.metadata_mut();
        metadata.uid = Some(self.uid);
        metadata.resource_version = Some(self.version.to_string());
        Ok(object)
    }
}

fn by_name(
    db: &Connection,
    kind: &str,
    namespace: &str,
    name: &str,
) -> rusqlite::Result<Option<ObjectRow>> {
    db.prepare_cached(&format!("{ROW} AND namespace = ?2 AND name = ?3"))?
        .query_row([kind, namespace, name], ObjectRow::read)
        .optional()
}

/// Namespace (empty for kinds without) and name of an object.
pub(super) fn identity<T: Kept>(object: &T) -> Result<(String, String), StoreError> {
    let metadata = object.metadata();
    match metadata.name.as_deref() {
        None | Some("") => Err(StoreError::Incomplete {
            kind: T::KIND,
            field: "metadata.name",
        }),
        Some(name) => Ok((
            metadata.namespace.clone().unwrap_or_default(),
            name.to_owned(),
        )),
    }
}

/// Takes out what is the store's to say.
pub(super) fn disown(metadata: &mut ObjectMeta) {
    metadata.uid = None;
    metadata.resource_version = None;
    metadata.creation_timestamp = None;
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    metadata.generation = None;
    metadata.managed_fields = None;
    metadata.self_link = None;
}

pub(super) fn json<T: Kept>(object: &T) -> Result<String, StoreError> {
    serde_json::to_string(object).map_err(|source| StoreError::Encode {
        kind: T::KIND,
        name: object.metadata().name.clone().unwrap_or_default(),
        source,
    })
}

/// How errors name the kind: `storageclasses.storage.k8s.io`.
fn resource<T: Kept>() -> &'static str {
    Kind::parse(T::KIND).map_or(T::URL_PATH_SEGMENT, Kind::resource)
}

fn not_found<T: Kept>(name: &str) -> StoreError {
    StoreError::NotFound {
        resource: resource::<T>(),
        name: name.to_owned(),
    }
}
