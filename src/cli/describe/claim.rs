//! The pages of volumes that outlive pods, their claims and their classes.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::{
    NodeSelectorTerm, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Page, annotation_lines, event_table, list, pairs, volume};
use crate::cli::pod_row::age;
use crate::cli::print::printable;
use crate::storage::binder::facts::{
    capacity_text, claim_name, claim_phase, class_of_claim, class_of_volume, volume_of_claim,
    volume_phase,
};
use crate::storage::binder::{classes, short_modes};
use crate::storage::events::RecordedEvent;

/// A volume's page, with its events if some are given.
pub(super) fn volume(
    volume: &PersistentVolume,
    events: Option<&[RecordedEvent]>,
    now: Timestamp,
    zone: &TimeZone,
) -> String {
    let mut page = Page::new(zone.clone());
    let spec = volume.spec.clone().unwrap_or_default();
    let metadata = &volume.metadata;
    page.entry(0, "Name", metadata.name.as_deref().unwrap_or_default());
    pairs(&mut page, "Labels", metadata.labels.as_ref());
    annotations(&mut page, metadata);
    finalizers(&mut page, metadata);
    page.entry(0, "StorageClass", class_of_volume(volume));
    status(&mut page, metadata, volume_phase(volume), now);
    page.entry(0, "Claim", claim_name(volume));
    let policy = spec.persistent_volume_reclaim_policy.as_deref();
    page.entry(0, "Reclaim Policy", policy.unwrap_or_default());
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    page.entry(0, "Access Modes", short_modes(modes));
    volume_mode(&mut page, spec.volume_mode.as_deref());
    page.entry(0, "Capacity", capacity_text(&spec));
    affinity(&mut page, &spec);
    let message = volume.status.as_ref().and_then(|it| it.message.as_deref());
    page.entry(0, "Message", message.unwrap_or_default());
    page.line(0, "Source:");
    source(&mut page, &spec);
    if let Some(events) = events {
        event_table(&mut page, events, now);
    }
    page.finish()
}

fn source(page: &mut Page, spec: &PersistentVolumeSpec) {
    if let Some(source) = &spec.host_path {
        volume::host_path(page, source);
    } else if let Some(source) = &spec.nfs {
        let read_only = (source.read_only == Some(true)).to_string();
        volume::block(
            page,
            "NFS (an NFS mount that lasts the lifetime of a pod)",
            &[
                ("Server", &source.server),
                ("Path", &source.path),
                ("ReadOnly", &read_only),
            ],
        );
    } else if let Some(source) = &spec.local {
        volume::block(
            page,
            "LocalVolume (a persistent volume backed by local storage on a node)",
            &[("Path", &source.path)],
        );
    }
}

fn affinity(page: &mut Page, spec: &PersistentVolumeSpec) {
    let required = spec
        .node_affinity
        .as_ref()
        .and_then(|it| it.required.as_ref());
    let Some(required) = required else {
        page.entry(0, "Node Affinity", "<none>");
        return;
    };
    page.entry(0, "Node Affinity", "");
    page.entry(1, "Required Terms", "");
    for (number, term) in required.node_selector_terms.iter().enumerate() {
        page.entry(2, &format!("Term {number}"), term_text(term));
    }
}

fn term_text(term: &NodeSelectorTerm) -> String {
    let one = term.match_expressions.iter().flatten().map(|one| {
        let values = one.values.iter().flatten().cloned().collect::<Vec<_>>();
        let operator = one.operator.to_lowercase();
        match values.is_empty() {
            true => format!("{} {operator}", one.key),
            false => format!("{} {operator} [{}]", one.key, values.join(", ")),
        }
    });
    one.collect::<Vec<_>>().join("\n")
}

/// A claim's page: `users` are the pods that use it.
pub(super) fn claim(
    claim: &PersistentVolumeClaim,
    users: &[String],
    events: Option<&[RecordedEvent]>,
    now: Timestamp,
    zone: &TimeZone,
) -> String {
    let mut page = Page::new(zone.clone());
    let metadata = &claim.metadata;
    let has = claim.status.clone().unwrap_or_default();
    page.entry(0, "Name", metadata.name.as_deref().unwrap_or_default());
    page.entry(
        0,
        "Namespace",
        metadata.namespace.as_deref().unwrap_or_default(),
    );
    page.entry(0, "StorageClass", class_of_claim(claim).unwrap_or_default());
    status(&mut page, metadata, claim_phase(claim), now);
    let name_of_volume = volume_of_claim(claim).unwrap_or_default();
    page.entry(0, "Volume", name_of_volume);
    pairs(&mut page, "Labels", metadata.labels.as_ref());
    annotations(&mut page, metadata);
    finalizers(&mut page, metadata);
    let (mut capacity, mut modes) = ("", String::new());
    if !name_of_volume.is_empty() {
        let size = has.capacity.as_ref().and_then(|all| all.get("storage"));
        capacity = size.map_or("0", |size| &size.0);
        modes = short_modes(has.access_modes.as_deref().unwrap_or_default());
    }
    page.entry(0, "Capacity", capacity);
    page.entry(0, "Access Modes", modes);
    let mode = claim.spec.as_ref().and_then(|it| it.volume_mode.as_deref());
    volume_mode(&mut page, mode);
    list(&mut page, "Used By", users.to_vec());
    if let Some(events) = events {
        event_table(&mut page, events, now);
    }
    page.finish()
}

/// A class's page.
pub(super) fn class(
    class: &StorageClass,
    events: Option<&[RecordedEvent]>,
    now: Timestamp,
    zone: &TimeZone,
) -> String {
    let mut page = Page::new(zone.clone());
    let metadata = &class.metadata;
    page.entry(0, "Name", metadata.name.as_deref().unwrap_or_default());
    let yes = |is: bool| if is { "Yes" } else { "No" };
    page.entry(0, "IsDefaultClass", yes(classes::is_default(class)));
    annotations(&mut page, metadata);
    page.entry(0, "Provisioner", &class.provisioner);
    let parameters = class.parameters.iter().flatten();
    let parameters: Vec<String> = parameters
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let or_none = |texts: &[String]| match texts.is_empty() {
        true => "<none>".to_owned(),
        false => texts.join(","),
    };
    page.entry(0, "Parameters", or_none(&parameters));
    let expansion = class.allow_volume_expansion;
    let expansion = expansion.map(|allowed| match allowed {
        true => "True",
        false => "False",
    });
    page.entry(0, "AllowVolumeExpansion", expansion.unwrap_or("<unset>"));
    match class.mount_options.as_deref().unwrap_or_default() {
        [] => page.entry(0, "MountOptions", "<none>"),
        options => {
            page.line(0, "MountOptions:");
            for option in options {
                page.line(1, printable(option));
            }
        }
    }
    let policy = class.reclaim_policy.as_deref();
    page.entry(0, "ReclaimPolicy", policy.unwrap_or_default());
    let mode = class.volume_binding_mode.as_deref();
    page.entry(0, "VolumeBindingMode", mode.unwrap_or_default());
    if let Some(events) = events {
        event_table(&mut page, events, now);
    }
    page.finish()
}

fn annotations(page: &mut Page, metadata: &ObjectMeta) {
    let annotations = metadata.annotations.iter().flatten();
    let lines = annotations.flat_map(annotation_lines).collect();
    list(page, "Annotations", lines);
}

fn finalizers(page: &mut Page, metadata: &ObjectMeta) {
    let names = metadata.finalizers.as_deref().unwrap_or_default();
    page.entry(0, "Finalizers", format!("[{}]", names.join(" ")));
}

fn status(page: &mut Page, metadata: &ObjectMeta, phase: &str, now: Timestamp) {
    match &metadata.deletion_timestamp {
        None => page.entry(0, "Status", phase),
        Some(since) => {
            let lasts = age(Some(since.0), now);
            page.entry(0, "Status", format!("Terminating (lasts {lasts})"));
        }
    }
}

fn volume_mode(page: &mut Page, mode: Option<&str>) {
    if let Some(mode) = mode {
        page.entry(0, "VolumeMode", mode);
    }
}
