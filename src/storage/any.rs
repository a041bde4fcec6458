//! Objects of whatever kind, as command lines name them and manifests hold them.
//!
//! What a command does with several objects it does in one transaction, so that
//! either all of it is there afterwards or nothing.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::Value;

use super::apply::{Applied, apply};
use super::objects::{Kept, disown, identity, json};
use super::store::{Change, Store, StoreError};
use crate::kube::kind::Kind;
use crate::kube::manifest::Object;

impl Store {
    /// Makes objects be as their manifests say, all in one transaction: each is
    /// created, or changed where it may be, or left as it is. Returns them in the
    /// same order.
    ///
    /// # Errors
    /// [`StoreError::Forbidden`] or [`StoreError::Refused`] when one must not
    /// become so; nothing is changed then.
    pub fn apply(&self, wanted: Vec<Object>) -> Result<Vec<Applied<Object>>, StoreError> {
        self.write("apply the objects", |change| {
            let one = |object| apply_any(change, object);
            wanted.into_iter().map(one).collect()
        })
    }

    /// The object of this kind and name.
    ///
    /// # Errors
    /// [`StoreError::Decode`] for a row that no orlop wrote, or the database's.
    pub fn find(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, StoreError> {
        Ok(match kind {
            Kind::Pod => self.pod(namespace, name)?.map(Object::from),
            Kind::ConfigMap => self.object::<ConfigMap>(namespace, name)?.map(Object::from),
            Kind::Secret => self.object::<Secret>(namespace, name)?.map(Object::from),
            Kind::PersistentVolume => self.object::<PersistentVolume>("", name)?.map(Object::from),
            Kind::PersistentVolumeClaim => self
                .object::<PersistentVolumeClaim>(namespace, name)?
                .map(Object::from),
            Kind::StorageClass => self.object::<StorageClass>("", name)?.map(Object::from),
        })
    }

    /// The objects of this kind in a namespace, or in all, by namespace and name.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn list(&self, kind: Kind, namespace: Option<&str>) -> Result<Vec<Object>, StoreError> {
        fn all<T: Into<Object>>(found: Vec<T>) -> Vec<Object> {
            found.into_iter().map(Into::into).collect()
        }
        Ok(match kind {
            Kind::Pod => all(self.pods(namespace)?),
            Kind::ConfigMap => all(self.objects::<ConfigMap>(namespace)?),
            Kind::Secret => all(self.objects::<Secret>(namespace)?),
            Kind::PersistentVolume => all(self.objects::<PersistentVolume>(None)?),
            Kind::PersistentVolumeClaim => all(self.objects::<PersistentVolumeClaim>(namespace)?),
            Kind::StorageClass => all(self.objects::<StorageClass>(None)?),
        })
    }

    /// Stores a new object.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`], [`StoreError::Incomplete`].
    pub fn create(&self, object: Object) -> Result<Object, StoreError> {
        Ok(match object {
            Object::Pod(pod) => self.create_pod(*pod)?.into(),
            Object::ConfigMap(map) => self.create_object(*map)?.into(),
            Object::Secret(secret) => self.create_object(*secret)?.into(),
            Object::PersistentVolume(volume) => self.create_object(*volume)?.into(),
            Object::PersistentVolumeClaim(claim) => self.create_object(*claim)?.into(),
            Object::StorageClass(class) => self.create_object(*class)?.into(),
        })
    }

    /// Replaces the object of the same kind, namespace and name; see
    /// [`Store::replace_pod`] and [`Store::replace_object`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`], [`StoreError::Refused`].
    pub fn replace(&self, object: Object) -> Result<Object, StoreError> {
        Ok(match object {
            Object::Pod(pod) => self.replace_pod(*pod)?.into(),
            Object::ConfigMap(map) => self.replace_object(*map)?.into(),
            Object::Secret(secret) => self.replace_object(*secret)?.into(),
            Object::PersistentVolume(volume) => self.replace_object(*volume)?.into(),
            Object::PersistentVolumeClaim(claim) => self.replace_object(*claim)?.into(),
            Object::StorageClass(class) => self.replace_object(*class)?.into(),
        })
    }

    /// Forgets an object that nothing runs for, and returns what it was; one that is
    /// held is marked for it. A pod is not removed by this: its keeper has to stop it.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn forget(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Object>, StoreError> {
        Ok(match kind {
            Kind::Pod => None,
            Kind::ConfigMap => self
                .remove_object::<ConfigMap>(namespace, name)?
                .map(Object::from),
            Kind::Secret => self
                .remove_object::<Secret>(namespace, name)?
                .map(Object::from),
            Kind::PersistentVolume => self
                .remove_object::<PersistentVolume>("", name)?
                .map(Object::from),
            Kind::PersistentVolumeClaim => self
                .remove_object::<PersistentVolumeClaim>(namespace, name)?
                .map(Object::from),
            Kind::StorageClass => self
                .remove_object::<StorageClass>("", name)?
                .map(Object::from),
        })
    }
}

fn apply_any(change: &Change, wanted: Object) -> Result<Applied<Object>, StoreError> {
    Ok(match wanted {
        Object::Pod(pod) => apply(change, *pod)?.map(Object::from),
        Object::ConfigMap(map) => apply_kept(change, *map)?.map(Object::from),
        Object::Secret(secret) => apply_kept(change, *secret)?.map(Object::from),
        Object::PersistentVolume(volume) => apply_kept(change, *volume)?.map(Object::from),
        Object::PersistentVolumeClaim(claim) => apply_kept(change, *claim)?.map(Object::from),
        Object::StorageClass(class) => apply_kept(change, *class)?.map(Object::from),
    })
}

fn apply_kept<T: Kept>(change: &Change, mut wanted: T) -> Result<Applied<T>, StoreError> {
    disown(wanted.metadata_mut());
    let (namespace, name) = identity(&wanted)?;
    let manifest = json(&wanted)?;
    let Some(current) = change.object::<T>(&namespace, &name)? else {
        let made = change.create_object(wanted, Some(&manifest))?;
        return Ok(Applied::Created(made));
    };
    let decode = |source| StoreError::Decode {
        kind: T::KIND,
        name: name.clone(),
        source,
    };
    let uid = current.metadata().uid.clone();
    let before: Option<String> = change.run(|db| {
        db.query_row(
            "SELECT applied FROM objects WHERE uid = ?1",
            [&uid],
            |row| row.get(0),
        )
    })?;
    let earlier: Value = match &before {
        Some(text) => serde_json::from_str(text).map_err(decode)?,
        None => Value::Null,
    };
    let mut merged = serde_json::to_value(&current).map_err(decode)?;
    let manifest_value = serde_json::to_value(&wanted).map_err(decode)?;
    merge(&mut merged, manifest_value, &earlier);
    let merged: T = serde_json::from_value(merged).map_err(decode)?;
    let updated = change.update_object(&current, merged)?;
    if before.as_deref() != Some(&manifest) {
        change.run(|db| {
            db.execute(
                "UPDATE objects SET applied = ?2 WHERE uid = ?1",
                (&uid, &manifest),
            )
        })?;
    }
    Ok(match updated == current {
        true => Applied::Unchanged(updated),
        false => Applied::Configured(updated),
    })
}

/// `current` with everything that `wanted` says, and without what `before` said
/// and `wanted` says no more. What neither mentions stays.
fn merge(current: &mut Value, wanted: Value, before: &Value) {
    let (Value::Object(fields), Value::Object(wanted)) = (&mut *current, &wanted) else {
        *current = wanted;
        return;
    };
    for key in before.as_object().into_iter().flat_map(|map| map.keys()) {
        if !wanted.contains_key(key) {
            fields.remove(key);
        }
    }
    for (key, value) in wanted {
        let place = fields.entry(key).or_insert(Value::Null);
        merge(place, value.clone(), &before[key]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::roots::Roots;
    use crate::storage::store::Durability;
    use serde_json::json;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(Some(dir.path()), None, None).unwrap();
        let store = Store::open(&roots, Durability::Full).unwrap();
        (dir, store)
    }

    fn map(fields: Value) -> ConfigMap {
        let mut value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "default", "name": "settings"}});
        for (key, field) in fields.as_object().unwrap() {
            value[key] = field.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn word(store: &Store, object: impl Into<Object>) -> Result<&'static str, String> {
        let applied = store.apply(vec![object.into()]);
        applied
            .map(|applied| applied[0].word())
            .map_err(|error| error.to_string())
    }

    fn data(store: &Store) -> Value {
        let found: ConfigMap = store.object("default", "settings").unwrap().unwrap();
        serde_json::to_value(found.data).unwrap()
    }

    #[test]
    fn an_object_is_created_left_alone_changed_and_forgotten() {
        let (_dir, store) = store();
        assert_eq!(
            word(&store, map(json!({"data": {"a": "1"}}))),
            Ok("created")
        );
        let made: ConfigMap = store.object("default", "settings").unwrap().unwrap();
        assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());
        assert_eq!(
            word(&store, map(json!({"data": {"a": "1"}}))),
            Ok("unchanged")
        );
        assert_eq!(
            word(&store, map(json!({"data": {"a": "2"}}))),
            Ok("configured")
        );
        let changed: ConfigMap = store.object("default", "settings").unwrap().unwrap();
        assert_eq!(changed.metadata.uid, made.metadata.uid);
        assert_ne!(
            changed.metadata.resource_version,
            made.metadata.resource_version
        );
        assert_eq!(data(&store), json!({"a": "2"}));
        assert_eq!(
            store.list(Kind::ConfigMap, Some("default")).unwrap().len(),
            1
        );
        assert!(store.list(Kind::Secret, None).unwrap().is_empty());
        assert!(store.pods(None).unwrap().is_empty());

        let forgotten = store
            .forget(Kind::ConfigMap, "default", "settings")
            .unwrap();
        assert_eq!(forgotten, Some(changed.into()));
        assert_eq!(
            store
                .forget(Kind::ConfigMap, "default", "settings")
                .unwrap(),
            None
        );
    }

    #[test]
    fn keys_taken_out_of_the_manifest_go_and_those_added_elsewhere_stay() {
        let (_dir, store) = store();
        word(&store, map(json!({"data": {"a": "1", "b": "1"}}))).unwrap();
        let mut other: ConfigMap = store.object("default", "settings").unwrap().unwrap();
        other
            .data
            .as_mut()
            .unwrap()
            .insert("theirs".into(), "x".into());
        store.replace_object(other).unwrap();
        word(&store, map(json!({"data": {"b": "2"}}))).unwrap();
        assert_eq!(data(&store), json!({"b": "2", "theirs": "x"}));
    }

    #[test]
    fn what_is_immutable_stays_as_it_is() {
        let (_dir, store) = store();
        let immutable = json!({"data": {"a": "1"}, "immutable": true});
        word(&store, map(immutable.clone())).unwrap();
        assert_eq!(word(&store, map(immutable)), Ok("unchanged"));
        for (fields, why) in [
            (
                json!({"data": {"a": "2"}, "immutable": true}),
                "data: Forbidden: field is immutable when `immutable` is set",
            ),
            (
                json!({"data": {"a": "1"}}),
                "immutable: Forbidden: field is immutable when `immutable` is set",
            ),
        ] {
            assert_eq!(
                word(&store, map(fields)),
                Err(format!("ConfigMap \"settings\" is invalid: {why}"))
            );
        }
        assert_eq!(data(&store), json!({"a": "1"}));
    }

    #[test]
    fn one_object_that_is_refused_keeps_the_others_from_being_stored() {
        let (_dir, store) = store();
        word(&store, map(json!({"data": {"a": "1"}, "immutable": true}))).unwrap();
        let mut first = map(json!({}));
        first.metadata.name = Some("first".into());
        let second = map(json!({"data": {}}));
        assert!(store.apply(vec![first.into(), second.into()]).is_err());
        assert_eq!(
            store.find(Kind::ConfigMap, "default", "first").unwrap(),
            None
        );
    }

    #[test]
    fn a_replacement_of_what_was_changed_meanwhile_is_a_conflict() {
        let (_dir, store) = store();
        let made = store
            .create_object(map(json!({"data": {"a": "1"}})))
            .unwrap();
        assert!(matches!(
            store.create_object(made.clone()),
            Err(StoreError::AlreadyExists { .. })
        ));
        word(&store, map(json!({"data": {"a": "2"}}))).unwrap();
        assert!(matches!(
            store.replace(made.into()),
            Err(StoreError::Conflict { .. })
        ));
        let mut gone = map(json!({}));
        gone.metadata.name = Some("gone".into());
        assert!(matches!(
            store.replace_object(gone),
            Err(StoreError::NotFound { .. })
        ));
    }
}
