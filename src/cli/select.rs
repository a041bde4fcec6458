//! Which objects a command means when it names none: by labels and by fields.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use super::get;
use crate::kube::kind::Kind;
use crate::kube::manifest::Object;
use crate::kube::selector::{COMMON_FIELDS, FieldSelector, LabelSelector, POD_FIELDS};
use crate::storage::store::{self, Store, StoreError};

/// The objects with these labels and fields.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// `-l`.
    pub labels: LabelSelector,
    /// `--field-selector`.
    pub fields: FieldSelector,
}

impl Wanted {
    /// What a command line says of objects of `kind`; nothing selects all.
    ///
    /// # Errors
    /// A field that cannot be selected by.
    pub fn new(
        kind: Kind,
        labels: Option<&LabelSelector>,
        fields: Option<&FieldSelector>,
    ) -> Result<Self> {
        let fields = fields.cloned().unwrap_or_default();
        let known = match kind {
            Kind::Pod => POD_FIELDS,
            _ => COMMON_FIELDS,
        };
        if let Some(field) = fields.unknown(known) {
            let reason = format!("field label not supported: {field}");
            return Err(StoreError::BadRequest { reason }.into());
        }
        Ok(Self {
            labels: labels.cloned().unwrap_or_default(),
            fields,
        })
    }

    /// Those of a kind, of a namespace or of all, as they are in the boot of the
    /// machine with the id `boot_id`.
    ///
    /// # Errors
    /// The store's.
    pub fn of(
        &self,
        store: &Store,
        kind: Kind,
        namespace: Option<&str>,
        boot_id: &str,
    ) -> Result<Vec<Object>> {
        let mut found = Vec::new();
        for object in get::list(store, kind, namespace, boot_id)? {
            if self.matches(&object)? {
                found.push(object);
            }
        }
        Ok(found)
    }

    /// Those pods, as they are in this boot.
    ///
    /// # Errors
    /// The store's.
    pub fn pods(&self, store: &Store, namespace: Option<&str>) -> Result<Vec<Pod>> {
        let all = self
            .of(store, Kind::Pod, namespace, &store::boot_id()?)?
            .into_iter();
        Ok(all
            .filter_map(|object| match object {
                Object::Pod(pod) => Some(*pod),
                _ => None,
            })
            .collect())
    }

    /// Whether this object is meant.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn matches(&self, object: &Object) -> Result<bool> {
        if !self.labels.matches(object.metadata().labels.as_ref()) {
            return Ok(false);
        }
        Ok(self.fields.is_empty() || self.fields.matches(&object.to_value()?))
    }
}

/// An object as JSON.
///
/// # Errors
/// When it cannot be written so.
pub fn to_value(object: &impl Serialize) -> Result<serde_json::Value> {
    Ok(serde_json::to_value(object)?)
}
