//! Changes of objects that the pods which use them have not been told of.

use rusqlite::params;

use super::store::{Change, Store, StoreError};
use crate::kube::kind::Kind;

/// A changed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The change that is meant, as the store counts them.
    version: i64,
}

impl Store {
    /// The objects that were created, changed or removed, and whose users have not
    /// been told.
    ///
    /// # Errors
    /// The database's.
    pub fn untold(&self) -> Result<Vec<Untold>, StoreError> {
        let rows: Vec<(String, String, String, i64)> = self.read("read the changes", |db| {
            db.prepare_cached("SELECT kind, namespace, name, version FROM untold")?
                .query_map([], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })?
                .collect()
        })?;
        let untold = rows
            .into_iter()
            .filter_map(|(kind, namespace, name, version)| {
                Some(Untold {
                    kind: Kind::parse(&kind)?,
                    namespace,
                    name,
                    version,
                })
            });
        Ok(untold.collect())
    }

    /// Notes that the users of these objects know. A change that was made since
    /// stays untold.
    ///
    /// # Errors
    /// The database's.
    pub fn told(&self, objects: &[Untold]) -> Result<(), StoreError> {
        self.write("note who was told", |change| {
            objects.iter().try_for_each(|object| {
                change.run(|db| {
                    db.prepare_cached(
                        "DELETE FROM untold WHERE kind = ?1 AND namespace = ?2 AND name = ?3 AND version = ?4",
                    )?
                    .execute(params![
                        object.kind.name(),
                        object.namespace,
                        object.name,
                        object.version
                    ])
                })?;
                Ok(())
            })
        })
    }
}

impl Change<'_> {
    /// Records that the users of an object do not know of its change `version`.
    pub(super) fn not_told(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        version: i64,
    ) -> Result<(), StoreError> {
        self.run(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO untold VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![kind, namespace, name, version])
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::roots::Roots;
    use crate::storage::store::Durability;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::{Value, json};

    fn map(data: Value) -> ConfigMap {
        let metadata = json!({"namespace": "shop", "name": "settings"});
        serde_json::from_value(json!({"metadata": metadata, "data": data})).expect("a map")
    }

    #[test]
    fn a_change_is_untold_until_somebody_has_told_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let roots = Roots::new(Some(dir.path()), None, None).expect("roots");
        let store = Store::open(&roots, Durability::Full).expect("a store");
        let untold = || store.untold().expect("untold");
        assert!(untold().is_empty());
        store
            .create_object(map(json!({"a": "1"})))
            .expect("created");
        let first = untold();
        assert_eq!(first.len(), 1);
        assert_eq!(
            (first[0].kind, first[0].name.as_str()),
            (Kind::ConfigMap, "settings")
        );

        // What changes while the users are being told stays untold.
        store
            .replace_object(map(json!({"a": "2"})))
            .expect("replaced");
        store.told(&first).expect("told");
        let second = untold();
        assert_eq!(second.len(), 1);
        store.told(&second).expect("told");
        assert!(untold().is_empty());
        store
            .replace_object(map(json!({"a": "2"})))
            .expect("the same");
        assert!(untold().is_empty(), "nothing has changed");
        store
            .remove_object::<ConfigMap>("shop", "settings")
            .expect("removed");
        assert_eq!(untold().len(), 1);
    }

    #[test]
    fn a_database_without_the_table_gets_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let roots = Roots::new(Some(dir.path()), None, None).expect("roots");
        drop(Store::open(&roots, Durability::Full).expect("a store"));
        let database = rusqlite::Connection::open(roots.database()).expect("the database");
        database
            .execute_batch("DROP TABLE untold; DROP TABLE work; PRAGMA user_version = 1;")
            .expect("as the first version made it");
        drop(database);
        let store = Store::open(&roots, Durability::Normal).expect("brought up to date");
        assert!(store.untold().expect("untold").is_empty());
    }
}
