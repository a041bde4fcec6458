//! The rows of `orlop get` for ConfigMaps and Secrets, in kubectl's columns.

use jiff::Timestamp;

use super::get::GetArgs;
use super::pod_row::age;
use super::print;
use crate::kube::kind::Kind;
use crate::kube::manifest::Object;

/// The table of objects of one kind; `prefix` stands before each name.
pub(super) fn table(
    args: &GetArgs,
    kind: Kind,
    prefix: &str,
    objects: &[Object],
    now: Timestamp,
) -> String {
    let mut header = Vec::new();
    if args.all_namespaces {
        header.push("NAMESPACE");
    }
    header.push("NAME");
    if kind == Kind::Secret {
        header.push("TYPE");
    }
    header.extend(["DATA", "AGE"]);
    let rows: Vec<Vec<String>> = objects
        .iter()
        .map(|object| {
            let mut row = Vec::new();
            if args.all_namespaces {
                row.push(object.namespace().to_owned());
            }
            row.push(format!("{prefix}{}", object.name()));
            row.extend(columns(object));
            let created = object.metadata().creation_timestamp.as_ref();
            row.push(age(created.map(|time| time.0), now));
            row
        })
        .collect();
    print::table((!args.no_headers).then_some(&header), &rows)
}

/// A Secret's type, and how many entries the object has.
fn columns(object: &Object) -> Vec<String> {
    match object {
        Object::ConfigMap(map) => {
            let texts = map.data.as_ref().map_or(0, |data| data.len());
            let bytes = map.binary_data.as_ref().map_or(0, |data| data.len());
            vec![(texts + bytes).to_string()]
        }
        Object::Secret(secret) => {
            let entries = secret.data.as_ref().map_or(0, |data| data.len());
            vec![
                secret.type_.clone().unwrap_or_default(),
                entries.to_string(),
            ]
        }
        Object::Pod(_) => Vec::new(),
    }
}
