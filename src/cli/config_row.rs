//! The rows of `orlop get` for ConfigMaps and Secrets, in kubectl's columns.

use jiff::Timestamp;

use super::pod_row::age;
use crate::kube::kind::Kind;
use crate::kube::manifest::Object;

/// The columns of a kind, the name's among them.
pub(super) fn header(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::Secret => vec!["NAME", "TYPE", "DATA", "AGE"],
        _ => vec!["NAME", "DATA", "AGE"],
    }
}

/// What stands behind an object's name: a Secret's type, how many entries the
/// object has, its age.
pub(super) fn columns(object: &Object, now: Timestamp) -> Vec<String> {
    let mut row = Vec::new();
    match object {
        Object::ConfigMap(map) => {
            let texts = map.data.as_ref().map_or(0, |data| data.len());
            let bytes = map.binary_data.as_ref().map_or(0, |data| data.len());
            row.push((texts + bytes).to_string());
        }
        Object::Secret(secret) => {
            let entries = secret.data.as_ref().map_or(0, |data| data.len());
            row.push(secret.type_.clone().unwrap_or_default());
            row.push(entries.to_string());
        }
        _ => {}
    }
    let created = object.metadata().creation_timestamp.as_ref();
    row.push(age(created.map(|time| time.0), now));
    row
}
