//! Which pods a command means when it names none: by labels and by fields.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

use super::pod_row::as_of_boot;
use crate::kube::selector::{FieldSelector, LabelSelector, POD_FIELDS};
use crate::storage::store::{self, Store, StoreError};

/// The pods with these labels and fields.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    /// `-l`.
    pub labels: LabelSelector,
    /// `--field-selector`.
    pub fields: FieldSelector,
}

impl Pods {
    /// What a command line says; nothing selects all.
    ///
    /// # Errors
    /// A field that cannot be selected by.
    pub fn new(labels: Option<&LabelSelector>, fields: Option<&FieldSelector>) -> Result<Self> {
        let fields = fields.cloned().unwrap_or_default();
        if let Some(field) = fields.unknown(POD_FIELDS) {
            let reason = format!("field label not supported: {field}");
            return Err(StoreError::BadRequest { reason }.into());
        }
        Ok(Self {
            labels: labels.cloned().unwrap_or_default(),
            fields,
        })
    }

    /// Those of a namespace, or of all, as they are in this boot of the machine.
    ///
    /// # Errors
    /// The store's.
    pub fn of(&self, store: &Store, namespace: Option<&str>) -> Result<Vec<Pod>> {
        let boot = store::boot_id()?;
        let mut pods = Vec::new();
        for stored in store.stored_pods(namespace)? {
            let pod = as_of_boot(stored, &boot);
            if self.match_pod(&pod)? {
                pods.push(pod);
            }
        }
        Ok(pods)
    }

    /// Whether this pod is meant.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn match_pod(&self, pod: &Pod) -> Result<bool> {
        if !self.labels.matches(pod.metadata.labels.as_ref()) {
            return Ok(false);
        }
        Ok(self.fields.is_empty() || self.fields.matches(&to_value(pod)?))
    }
}

/// An object as JSON.
///
/// # Errors
/// When it cannot be written so.
pub fn to_value(object: &impl Serialize) -> Result<serde_json::Value> {
    Ok(serde_json::to_value(object)?)
}
