//! The pages of ConfigMaps and Secrets. A Secret's page tells how long its values
//! are, never what they are.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Page, annotation_lines, event_table, list, pairs};
use crate::cli::print::printable;
use crate::storage::events::RecordedEvent;

/// A ConfigMap's page, with its events if some are given.
pub(super) fn config_map(
    map: &ConfigMap,
    events: Option<&[RecordedEvent]>,
    now: Timestamp,
    zone: &TimeZone,
) -> String {
    let mut page = Page::new(zone.clone());
    identity(&mut page, &map.metadata);
    page.line(0, "\nData\n====");
    page.break_columns();
    for (key, text) in map.data.iter().flatten() {
        page.line(0, printable(key) + ":\n----");
        page.line(0, printable(text) + "\n");
    }
    page.line(0, "\nBinaryData\n====");
    for (key, bytes) in map.binary_data.iter().flatten() {
        page.line(0, format!("{}: {} bytes", printable(key), bytes.0.len()));
    }
    page.line(0, "");
    if let Some(events) = events {
        page.break_columns();
        event_table(&mut page, events, now);
    }
    page.finish()
}

/// A Secret's page.
pub(super) fn secret(secret: &Secret, zone: &TimeZone) -> String {
    let mut page = Page::new(zone.clone());
    identity(&mut page, &secret.metadata);
    let type_ = secret.type_.as_deref().unwrap_or_default();
    page.line(0, format!("\nType:\t{}", printable(type_)));
    page.line(0, "\nData\n====");
    for (key, bytes) in secret.data.iter().flatten() {
        page.entry(0, &printable(key), format!("{} bytes", bytes.0.len()));
    }
    page.finish()
}

fn identity(page: &mut Page, metadata: &ObjectMeta) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    page.entry(0, "Name", text(&metadata.name));
    page.entry(0, "Namespace", text(&metadata.namespace));
    pairs(page, "Labels", metadata.labels.as_ref());
    let annotations = metadata.annotations.iter().flatten();
    list(
        page,
        "Annotations",
        annotations.flat_map(annotation_lines).collect(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_configmap_shows_its_texts_and_the_sizes_of_the_rest() {
        let map = serde_json::from_value(json!({
            "metadata": {"name": "settings", "namespace": "default"},
            "data": {"colour": "blue", "lines": "one\ntwo\u{1b}\n"},
            "binaryData": {"logo": "AAECAw=="},
        }))
        .unwrap();
        let page = config_map(&map, Some(&[]), Timestamp::UNIX_EPOCH, &TimeZone::UTC);
        let expected = "\
Name:         settings
Namespace:    default
Labels:       <none>
Annotations:  <none>

Data
====
colour:
----
blue

lines:
----
one
two^[


BinaryData
====
logo: 4 bytes

Events:  <none>
";
        // The text's own last line end, and the empty line below every entry.
        let expected = expected.replace("two^[\n\n\nBinary", "two^[\n\n\n\nBinary");
        assert_eq!(page, expected);
    }

    #[test]
    fn a_secret_shows_sizes_only() {
        let hidden = serde_json::from_value(json!({
            "metadata": {"name": "login", "namespace": "default", "labels": {"a": "b"}},
            "type": "Opaque",
            "data": {"password": "aHVudGVyMg==", "user": "bWU="},
        }))
        .unwrap();
        let page = secret(&hidden, &TimeZone::UTC);
        let expected = "\
Name:         login
Namespace:    default
Labels:       a=b
Annotations:  <none>

Type:  Opaque

Data
====
password:  7 bytes
user:      2 bytes
";
        assert_eq!(page, expected);
    }
}
