//! Variables that come from ConfigMaps and Secrets, as they are stored now. Error
//! texts are kubelet's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, Secret};

use super::spec::env::References;
use crate::storage::store::{Store, StoreError};

/// Why a variable has no value.
#[derive(Debug, thiserror::Error)]
pub enum VariableError {
    /// The object is not there.
    #[error("{kind} \"{name}\" not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Name of the object.
        name: String,
    },
    /// The object has no such entry.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey {
        /// The entry.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Namespace of the object.
        namespace: String,
        /// Name of the object.
        name: String,
    },
    /// A value that no variable can have.
    #[error("key {key} in Secret {namespace}/{name} is not UTF-8 text: mount it as a file instead")]
    NotText {
        /// The entry.
        key: String,
        /// Namespace of the object.
        namespace: String,
        /// Name of the object.
        name: String,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the variables of `container` come from in `namespace`, and a sentence for
/// each source of `envFrom` of which some names cannot be variables.
///
/// # Errors
/// An object or a key that is not there and not optional.
pub fn resolve(
    container: &Container,
    namespace: &str,
    store: &Store,
) -> Result<(References, Vec<String>), VariableError> {
    let lookup = Lookup { namespace, store };
    let mut references = References::default();
    let mut skipped = Vec::new();
    for source in container.env_from.iter().flatten() {
        let Some((kind, name, entries)) = lookup.whole(source)? else {
            continue;
        };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let mut invalid = Vec::new();
        for (key, value) in entries {
            let variable = format!("{prefix}{key}");
            match is_variable(&variable) {
                true => references.from.push((variable, value)),
                false => invalid.push(variable),
            }
        }
        if !invalid.is_empty() {
            skipped.push(format!(
                "Keys [{}] from the EnvFrom {kind} {namespace}/{name} were skipped since they are considered \
                 invalid environment variable names.",
                invalid.join(", ")
            ));
        }
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let Some(source) = &variable.value_from else {
            continue;
        };
        if let Some(key) = &source.config_map_key_ref {
            let value = lookup.config_map_key(&key.name, &key.key, key.optional)?;
            references.values.insert(index, value);
        } else if let Some(key) = &source.secret_key_ref {
            let value = lookup.secret_key(&key.name, &key.key, key.optional)?;
            references.values.insert(index, value);
        }
    }
    Ok((references, skipped))
}

/// Whether an entry of `envFrom` becomes a variable of this name
/// (<https://kubernetes.io/docs/tasks/configure-pod-container/configure-pod-configmap/#restrictions>).
fn is_variable(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let starts_well = name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    starts_well && name.bytes().all(plain) && name != "." && !name.starts_with("..")
}

/// The kind and name of a source with all its entries.
type Whole = (&'static str, String, BTreeMap<String, String>);

struct Lookup<'a> {
    namespace: &'a str,
    store: &'a Store,
}

impl Lookup<'_> {
    fn whole(&self, source: &EnvFromSource) -> Result<Option<Whole>, VariableError> {
        if let Some(map) = &source.config_map_ref {
            let found = self.config_map(&map.name, map.optional)?;
            let whole = |found: ConfigMap| {
                let entries = found.data.unwrap_or_default();
                ("configMap", map.name.clone(), entries)
            };
            return Ok(found.map(whole));
        }
        let Some(reference) = &source.secret_ref else {
            return Ok(None);
        };
        let Some(secret) = self.secret(&reference.name, reference.optional)? else {
            return Ok(None);
        };
        let mut entries = BTreeMap::new();
        for (key, value) in secret.data.into_iter().flatten() {
            let value = self.text(&reference.name, &key, value.0)?;
            entries.insert(key, value);
        }
        Ok(Some(("secret", reference.name.clone(), entries)))
    }

    fn config_map_key(
        &self,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Result<Option<String>, VariableError> {
        let Some(map) = self.config_map(name, optional)? else {
            return Ok(None);
        };
        match map.data.and_then(|mut data| data.remove(key)) {
            Some(value) => Ok(Some(value)),
            None => self.missing_key("ConfigMap", name, key, optional),
        }
    }

    fn secret_key(
        &self,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Result<Option<String>, VariableError> {
        let Some(secret) = self.secret(name, optional)? else {
            return Ok(None);
        };
        match secret.data.and_then(|mut data| data.remove(key)) {
            Some(value) => self.text(name, key, value.0).map(Some),
            None => self.missing_key("Secret", name, key, optional),
        }
    }

    fn config_map(
        &self,
        name: &str,
        optional: Option<bool>,
    ) -> Result<Option<ConfigMap>, VariableError> {
        let found = self.store.object(self.namespace, name)?;
        present(found, "configmap", name, optional)
    }

    fn secret(&self, name: &str, optional: Option<bool>) -> Result<Option<Secret>, VariableError> {
        let found = self.store.object(self.namespace, name)?;
        present(found, "secret", name, optional)
    }

    fn missing_key(
        &self,
        kind: &'static str,
        name: &str,
        key: &str,
        optional: Option<bool>,
    ) -> Result<Option<String>, VariableError> {
        match optional {
            Some(true) => Ok(None),
            _ => Err(VariableError::MissingKey {
                key: key.to_owned(),
                kind,
                namespace: self.namespace.to_owned(),
                name: name.to_owned(),
            }),
        }
    }

    fn text(&self, name: &str, key: &str, value: Vec<u8>) -> Result<String, VariableError> {
        String::from_utf8(value).map_err(|_| VariableError::NotText {
            key: key.to_owned(),
            namespace: self.namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// An object that is not there is an error, unless it is optional.
fn present<T>(
    found: Option<T>,
    kind: &'static str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<T>, VariableError> {
    match (found, optional) {
        (None, Some(true)) => Ok(None),
        (None, _) => Err(VariableError::Missing {
            kind,
            name: name.to_owned(),
        }),
        (found, _) => Ok(found),
    }
}
