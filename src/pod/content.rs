//! The files of configMap, secret, downwardAPI and projected volumes: what is in
//! them, from the objects as they are stored now. Error texts are kubelet's.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, PodSpec, Secret, Volume,
};

use super::spec::SpecError;
use super::spec::downward::{self, Capacity};
use crate::storage::store::{Store, StoreError};
use crate::volume::atomic::{File, Files};
use crate::volume::written::LARGEST;

/// Permissions of files that name none.
const MODE: i32 = 0o644;

/// Why a volume's files are not known.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The object is not there.
    #[error("{kind} \"{name}\" not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Name of the object.
        name: String,
    },
    /// The ConfigMap has no such entry.
    #[error("configmap references non-existent config key: {0}")]
    ConfigMapKey(String),
    /// The Secret has no such entry.
    #[error("references non-existent secret key: {0}")]
    SecretKey(String),
    /// A field of the pod that has no value.
    #[error(transparent)]
    Field(#[from] SpecError),
    /// More than a volume may hold.
    #[error("the files of the volume have {0} bytes together: {LARGEST} are the most")]
    TooLarge(usize),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The files of `volume`; none for volumes of other kinds.
///
/// # Errors
/// An object or a key that is not there and not optional.
pub fn files(
    pod: &Pod,
    volume: &Volume,
    store: &Store,
    capacity: Capacity,
) -> Result<Option<Files>, ContentError> {
    let mut gathering = Gathering {
        pod,
        store,
        capacity,
        files: Files::new(),
    };
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode;
        let items = source.items.as_deref();
        gathering.config_map(&source.name, items, source.optional, mode)?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let items = source.items.as_deref();
        gathering.secret(name, items, source.optional, source.default_mode)?;
    } else if let Some(source) = &volume.downward_api {
        gathering.downward(source.items.as_deref(), source.default_mode)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode;
        for part in source.sources.iter().flatten() {
            if let Some(map) = &part.config_map {
                gathering.config_map(&map.name, map.items.as_deref(), map.optional, mode)?;
            } else if let Some(secret) = &part.secret {
                let items = secret.items.as_deref();
                gathering.secret(&secret.name, items, secret.optional, mode)?;
            } else if let Some(fields) = &part.downward_api {
                gathering.downward(fields.items.as_deref(), mode)?;
            }
        }
    } else {
        return Ok(None);
    }
    let size = gathering.files.values().map(|file| file.bytes.len()).sum();
    match size {
        ..=LARGEST => Ok(Some(gathering.files)),
        _ => Err(ContentError::TooLarge(size)),
    }
}

struct Gathering<'a> {
    pod: &'a Pod,
    store: &'a Store,
    capacity: Capacity,
    files: Files,
}

impl Gathering<'_> {
    fn config_map(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: Option<i32>,
    ) -> Result<(), ContentError> {
        let Some(map) = self.store.object::<ConfigMap>(self.namespace(), name)? else {
            return missing("configmap", name, optional);
        };
        let texts = map.data.into_iter().flatten();
        let texts = texts.map(|(key, text)| (key, text.into_bytes()));
        let rest = map.binary_data.into_iter().flatten();
        let rest = rest.map(|(key, ByteString(bytes))| (key, bytes));
        self.add(
            texts.chain(rest),
            items,
            optional,
            mode,
            ContentError::ConfigMapKey,
        )
    }

    fn secret(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: Option<i32>,
    ) -> Result<(), ContentError> {
        let Some(secret) = self.store.object::<Secret>(self.namespace(), name)? else {
            return missing("secret", name, optional);
        };
        let entries = secret.data.into_iter().flatten();
        let entries = entries.map(|(key, ByteString(bytes))| (key, bytes));
        self.add(entries, items, optional, mode, ContentError::SecretKey)
    }

    /// Adds the entries of an object: those that `items` name, or all.
    fn add(
        &mut self,
        entries: impl Iterator<Item = (String, Vec<u8>)>,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: Option<i32>,
        missing: fn(String) -> ContentError,
    ) -> Result<(), ContentError> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, bytes) in entries {
                self.insert(key, bytes, None, mode);
            }
            return Ok(());
        };
        let entries: std::collections::BTreeMap<_, _> = entries.collect();
        for item in items {
            match entries.get(&item.key) {
                Some(bytes) => self.insert(item.path.clone(), bytes.clone(), item.mode, mode),
                None if optional == Some(true) => {}
                None => return Err(missing(item.key.clone())),
            }
        }
        Ok(())
    }

    fn downward(
        &mut self,
        items: Option<&[DownwardAPIVolumeFile]>,
        mode: Option<i32>,
    ) -> Result<(), ContentError> {
        let nothing = PodSpec::default();
        let spec = self.pod.spec.as_ref().unwrap_or(&nothing);
        for item in items.into_iter().flatten() {
            let text = if let Some(field) = &item.field_ref {
                let unknown = || SpecError::FieldPath(field.field_path.clone());
                downward::metadata(self.pod, &field.field_path)?.ok_or_else(unknown)?
            } else if let Some(selector) = &item.resource_field_ref {
                downward::resource(spec, None, selector, self.capacity)?
            } else {
                continue;
            };
            self.insert(item.path.clone(), text.into_bytes(), item.mode, mode);
        }
        Ok(())
    }

    fn insert(&mut self, path: String, bytes: Vec<u8>, own: Option<i32>, default: Option<i32>) {
        let mode = own.or(default).unwrap_or(MODE).cast_unsigned() & 0o777;
        self.files.insert(path, File { mode, bytes });
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }
}

/// An object that is not there is an error, unless it is optional.
fn missing(kind: &'static str, name: &str, optional: Option<bool>) -> Result<(), ContentError> {
    match optional {
        Some(true) => Ok(()),
        _ => Err(ContentError::Missing {
            kind,
            name: name.to_owned(),
        }),
    }
}

/// The paths below the volume's root at which containers of the pod mount other
/// volumes: places that must be there in a volume which containers cannot write.
#[must_use]
pub fn places(spec: &PodSpec, volume: &str) -> Vec<String> {
    let init = spec.init_containers.iter().flatten();
    let mut places = Vec::new();
    for container in init.chain(&spec.containers) {
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        let roots = mounts.iter().filter(|mount| mount.name == volume);
        for root in roots {
            let of_a_part = [&root.sub_path, &root.sub_path_expr];
            if of_a_part
                .iter()
                .any(|part| part.as_deref().is_some_and(|part| !part.is_empty()))
            {
                continue;
            }
            let root = steps(&root.mount_path);
            for inner in mounts {
                let inner = steps(&inner.mount_path);
                if inner.len() > root.len() && inner.starts_with(&root) {
                    places.push(inner[root.len()..].join("/"));
                }
            }
        }
    }
    places.sort();
    places.dedup();
    places
}

fn steps(path: &str) -> Vec<&str> {
    let parts = path.split('/');
    parts.filter(|part| !matches!(*part, "" | ".")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::roots::Roots;
    use crate::storage::store::Durability;
    use serde_json::json;

    const CAPACITY: Capacity = Capacity {
        cpu: 2000,
        memory: 1 << 30,
    };

    #[test]
    fn what_one_volume_holds_is_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let roots = Roots::new(Some(dir.path()), None, None).expect("roots");
        let store = Store::open(&roots, Durability::Full).expect("a store");
        let map = json!({
            "metadata": {"namespace": "shop", "name": "big"},
            "data": {"k": "x".repeat(1 << 20)},
        });
        let map: ConfigMap = serde_json::from_value(map).expect("a map");
        store.create_object(map).expect("stored");
        let volume = |copies: usize| -> Volume {
            let source = |n| json!({"configMap": {"name": "big", "items": [{"key": "k", "path": format!("f{n}")}]}});
            let sources: Vec<_> = (0..copies).map(source).collect();
            let volume = json!({"name": "v", "projected": {"sources": sources}});
            serde_json::from_value(volume).expect("a volume")
        };
        let pod = crate::pod::spec::fixture::pod(json!({"containers": []}));
        let gathered = |copies| files(&pod, &volume(copies), &store, CAPACITY);
        let most = gathered(32).expect("just enough").expect("files");
        assert_eq!(most.len(), 32);
        let refused = gathered(33).expect_err("too much").to_string();
        assert_eq!(
            refused,
            "the files of the volume have 34603008 bytes together: 33554432 are the most"
        );
    }

    #[test]
    fn places_are_what_is_mounted_inside_a_volume() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [
            {"name": "a", "volumeMounts": [
                {"name": "v", "mountPath": "/etc//config/"},
                {"name": "w", "mountPath": "/etc/config/cache"},
                {"name": "x", "mountPath": "/etc/configuration"},
                {"name": "y", "mountPath": "/etc/config/a/./b"},
            ]},
            {"name": "b", "volumeMounts": [
                {"name": "v", "mountPath": "/other", "subPath": "file"},
                {"name": "w", "mountPath": "/other/w"},
            ]},
        ]}))
        .expect("a spec");
        assert_eq!(places(&spec, "v"), ["a/b", "cache"]);
        assert!(places(&spec, "w").is_empty());
    }
}
