//! `orlop describe`: all about an object on one page, its events last.
//!
//! Sections, their order and their words are kubectl's, so that people and
//! scripts find what they look for where they look for it.

mod claim;
mod config;
mod container;
mod volume;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus, SeccompProfile, Toleration};

use super::pod_row::age;
use super::print::{Answer, Page, Selection, printable};
use super::select::Wanted;
use super::{Machine, get};
use crate::kube::kind::Kind;
use crate::kube::manifest::Object;
use crate::kube::qos::qos_class;
use crate::kube::selector::LabelSelector;
use crate::storage::events::RecordedEvent;
use crate::storage::store::{self, Store};
use crate::volume::empty_dir::{self, Enforcement};

/// An annotation longer than this, in bytes, goes below its key.
const LONG_ANNOTATION: usize = 140;

/// `orlop describe` on the command line.
#[derive(Args, Clone, Debug)]
pub struct DescribeArgs {
    /// TYPE [NAME or beginning of a name…] or TYPE/NAME…; types: pods (po), configmaps (cm), secrets,
    /// persistentvolumes (pv), persistentvolumeclaims (pvc), storageclasses (sc)
    #[arg(value_name = "TYPE [NAME…]")]
    pub resources: Vec<String>,
    /// Namespace to look in
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Look in all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects with these labels
    #[arg(short = 'l', long)]
    pub selector: Option<LabelSelector>,
    /// Whether to end with the events
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub show_events: bool,
}

/// Prints a page for each object that is asked for, as it is at the time `now`.
///
/// # Errors
/// An unknown type, contradictory arguments, an unreadable store. A name
/// that is not there is told on standard error, after what is there has been printed.
pub fn run(args: DescribeArgs, machine: &Machine, now: Timestamp) -> anyhow::Result<ExitCode> {
    let limits = |pod: &Pod| limits(machine, pod);
    let zone = TimeZone::system();
    answer(
        &args,
        &machine.store,
        now,
        &store::boot_id()?,
        &zone,
        &limits,
    )?
    .say()
}

/// What enforces the limits of a pod's volumes.
type Limits = BTreeMap<String, Enforcement>;

fn limits(machine: &Machine, pod: &Pod) -> Limits {
    // Without its directories, a pod has no volumes yet.
    let Ok(directory) = File::open(machine.home(pod).volumes()) else {
        return Limits::new();
    };
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let limits = volumes.filter_map(|volume| {
        let enforcement = empty_dir::enforcement(directory.as_fd(), volume)?;
        Some((volume.name.clone(), enforcement))
    });
    limits.collect()
}

fn answer(
    args: &DescribeArgs,
    store: &Store,
    now: Timestamp,
    boot_id: &str,
    zone: &TimeZone,
    limits: &dyn Fn(&Pod) -> Limits,
) -> anyhow::Result<Answer> {
    let selections = Selection::parse_all("describe", &args.resources)?;
    let is_named = selections.iter().any(|one| !one.names.is_empty());
    if args.all_namespaces && is_named {
        anyhow::bail!("a resource cannot be retrieved by name across all namespaces");
    }
    if args.selector.is_some() && is_named {
        anyhow::bail!("name cannot be provided when a selector is specified");
    }
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let mut answer = Answer::default();
    let mut found = Vec::new();
    for selection in &selections {
        let kind = selection.resource.kind();
        if selection.names.is_empty() {
            let wanted = Wanted::new(kind, args.selector.as_ref(), None)?;
            found.extend(wanted.of(store, kind, namespace, boot_id)?);
        }
        for name in &selection.names {
            let named = named(store, kind, &args.namespace, name, boot_id)?;
            if named.is_empty() {
                answer.missing(kind.resource(), name);
            }
            found.extend(named);
        }
    }
    if found.is_empty() && !is_named {
        let mut kinds = selections.iter().map(|one| one.resource.kind());
        let namespaced = kinds.any(|kind| kind.is_namespaced());
        return Ok(Answer::nothing(namespace.filter(|_| namespaced)));
    }
    let mut pages = Vec::new();
    for object in found {
        let events = match &object.metadata().uid {
            Some(uid) if args.show_events => Some(store.events_for(uid)?),
            _ => None,
        };
        let events = events.as_deref();
        pages.push(match &object {
            Object::Pod(pod) => page(pod, events, now, zone, &limits(pod)),
            Object::ConfigMap(map) => config::config_map(map, events, now, zone),
            Object::Secret(secret) => config::secret(secret, zone),
            Object::PersistentVolume(volume) => claim::volume(volume, events, now, zone),
            Object::PersistentVolumeClaim(claim) => {
                let users = store.users_of_claim(object.namespace(), object.name())?;
                claim::claim(claim, &users, events, now, zone)
            }
            Object::StorageClass(class) => claim::class(class, events, now, zone),
        });
    }
    answer.out = pages.join("\n\n");
    Ok(answer)
}

/// The object of that name, or else those whose names begin with it.
fn named(
    store: &Store,
    kind: Kind,
    namespace: &str,
    name: &str,
    boot_id: &str,
) -> anyhow::Result<Vec<Object>> {
    let mut all = get::list(store, kind, Some(namespace), boot_id)?;
    if let Some(exact) = all.iter().position(|object| object.name() == name) {
        return Ok(vec![all.swap_remove(exact)]);
    }
    all.retain(|object| !name.is_empty() && object.name().starts_with(name));
    Ok(all)
}

/// A pod's page, as it is at the time `now`, with its events if some are given.
fn page(
    pod: &Pod,
    events: Option<&[RecordedEvent]>,
    now: Timestamp,
    zone: &TimeZone,
    limits: &Limits,
) -> String {
    let nothing = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&nothing.0);
    let status = pod.status.as_ref().unwrap_or(&nothing.1);
    let mut page = Page::new(zone.clone());

    identity(&mut page, pod, spec, status);
    state(&mut page, pod, status, now);
    if let Some(profile) = spec
        .security_context
        .as_ref()
        .and_then(|c| c.seccomp_profile.as_ref())
    {
        seccomp(&mut page, 0, profile);
    }
    addresses(&mut page, status);
    if let Some(owner) = controller(pod) {
        page.entry(0, "Controlled By", owner);
    }
    container::all(&mut page, pod, spec, status);
    conditions(&mut page, spec, status);
    volume::all(
        &mut page,
        spec.volumes.as_deref().unwrap_or_default(),
        limits,
    );
    let class = status
        .qos_class
        .as_deref()
        .filter(|class| !class.is_empty());
    page.entry(
        0,
        "QoS Class",
        class.unwrap_or_else(|| qos_class(spec).as_str()),
    );
    pairs(&mut page, "Node-Selectors", spec.node_selector.as_ref());
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    list(&mut page, "Tolerations", toleration_lines(tolerations));
    if let Some(events) = events {
        event_table(&mut page, events, now);
    }
    page.finish()
}

fn identity(page: &mut Page, pod: &Pod, spec: &PodSpec, status: &PodStatus) {
    let metadata = &pod.metadata;
    page.entry(0, "Name", metadata.name.as_deref().unwrap_or_default());
    page.entry(
        0,
        "Namespace",
        metadata.namespace.as_deref().unwrap_or_default(),
    );
    if let Some(priority) = spec.priority {
        page.entry(0, "Priority", priority.to_string());
    }
    for (key, value) in [
        ("Priority Class Name", &spec.priority_class_name),
        ("Runtime Class Name", &spec.runtime_class_name),
        ("Service Account", &spec.service_account_name),
    ] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            page.entry(0, key, value);
        }
    }
    let address = status.host_ip.as_deref().unwrap_or_default();
    match spec.node_name.as_deref() {
        None | Some("") => page.entry(0, "Node", "<none>"),
        Some(node) => page.entry(0, "Node", format!("{node}/{address}")),
    }
    if let Some(started) = &status.start_time {
        page.date(0, "Start Time", started.0);
    }
    pairs(page, "Labels", metadata.labels.as_ref());
    let annotations = metadata.annotations.iter().flatten();
    list(
        page,
        "Annotations",
        annotations.flat_map(annotation_lines).collect(),
    );
}

fn state(page: &mut Page, pod: &Pod, status: &PodStatus, now: Timestamp) {
    let phase = status.phase.as_deref().unwrap_or("Pending");
    match &pod.metadata.deletion_timestamp {
        Some(deletion) if !matches!(phase, "Succeeded" | "Failed") => {
            let lasts = age(Some(deletion.0), now.max(deletion.0));
            page.entry(0, "Status", format!("Terminating (lasts {lasts})"));
            let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
            page.entry(0, "Termination Grace Period", format!("{grace}s"));
        }
        _ => page.entry(0, "Status", phase),
    }
    for (key, value) in [("Reason", &status.reason), ("Message", &status.message)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            page.entry(0, key, value);
        }
    }
}

fn seccomp(page: &mut Page, level: usize, profile: &SeccompProfile) {
    page.entry(level, "SeccompProfile", &profile.type_);
    if let Some(local) = &profile.localhost_profile {
        page.entry(level, "LocalhostProfile", local);
    }
}

fn addresses(page: &mut Page, status: &PodStatus) {
    page.entry(0, "IP", status.pod_ip.as_deref().unwrap_or_default());
    let addresses = status.pod_ips.as_deref().unwrap_or_default();
    if addresses.is_empty() {
        page.entry(0, "IPs", "<none>");
        return;
    }
    page.line(0, "IPs:");
    for address in addresses {
        page.entry(1, "IP", &address.ip);
    }
}

fn controller(pod: &Pod) -> Option<String> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some(format!("{}/{}", owner.kind, owner.name))
}

fn conditions(page: &mut Page, spec: &PodSpec, status: &PodStatus) {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let gates = spec.readiness_gates.as_deref().unwrap_or_default();
    let line = |type_: &str, status: &str| printable(type_) + " \t" + &printable(status) + " ";
    if !gates.is_empty() {
        page.line(0, "Readiness Gates:\n  Type\tStatus");
    }
    for gate in gates {
        let condition = conditions.iter().find(|c| c.type_ == gate.condition_type);
        let status = condition.map_or("<none>", |condition| &condition.status);
        page.line(1, line(&gate.condition_type, status));
    }
    if !conditions.is_empty() {
        page.line(0, "Conditions:\n  Type\tStatus");
    }
    for condition in conditions {
        page.line(1, line(&condition.type_, &condition.status));
    }
}

fn event_table(page: &mut Page, events: &[RecordedEvent], now: Timestamp) {
    if events.is_empty() {
        page.entry(0, "Events", "<none>");
        return;
    }
    page.break_columns();
    page.line(0, "Events:\n  Type\tReason\tAge\tFrom\tMessage");
    page.line(1, "----\t------\t----\t----\t-------");
    for recorded in events {
        let event = &recorded.event;
        let first = age(Some(recorded.first), now);
        let seen = match recorded.count {
            ..=1 => first,
            count => format!("{} (x{count} over {first})", age(Some(recorded.last), now)),
        };
        let message = printable(event.message.trim());
        let message = match event.field_path.as_str() {
            "" => message,
            part => format!("{}: {message}", printable(part)),
        };
        let columns = [
            event.type_.as_str().to_owned(),
            printable(&event.reason),
            seen,
            printable(&event.source),
            message,
        ];
        page.line(1, columns.join("\t"));
    }
}

/// A key and one line per item, the first beside the key.
fn list(page: &mut Page, key: &str, lines: Vec<String>) {
    if lines.is_empty() {
        page.entry(0, key, "<none>");
    } else {
        page.entry(0, key, lines.join("\n"));
    }
}

fn pairs(page: &mut Page, key: &str, map: Option<&BTreeMap<String, String>>) {
    let lines = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"));
    list(page, key, lines.collect());
}

fn annotation_lines((key, value): (&String, &String)) -> Vec<String> {
    let value = value.strip_suffix('\n').unwrap_or(value);
    if key.len() + 2 + value.len() <= LONG_ANNOTATION && !value.contains('\n') {
        return vec![format!("{key}: {value}")];
    }
    let shortened = value.split('\n').map(|line| {
        let end = line.floor_char_boundary(LONG_ANNOTATION - 2);
        let dots = if end < line.len() { "..." } else { "" };
        format!("  {}{dots}", &line[..end])
    });
    std::iter::once(format!("{key}:"))
        .chain(shortened)
        .collect()
}

fn toleration_lines(tolerations: &[Toleration]) -> Vec<String> {
    let mut sorted: Vec<&Toleration> = tolerations.iter().collect();
    sorted.sort_by_key(|toleration| toleration.key.as_deref().unwrap_or_default());
    sorted.into_iter().map(toleration_line).collect()
}

fn toleration_line(toleration: &Toleration) -> String {
    let mut line = toleration.key.clone().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    if !value.is_empty() {
        line += &format!("={value}");
    }
    if let Some(effect) = toleration
        .effect
        .as_deref()
        .filter(|effect| !effect.is_empty())
    {
        line += &format!(":{effect}");
    }
    if toleration.operator.as_deref() == Some("Exists") && value.is_empty() {
        line += if line.is_empty() {
            "op=Exists"
        } else {
            " op=Exists"
        };
    }
    if let Some(seconds) = toleration.toleration_seconds {
        line += &format!(" for {seconds}s");
    }
    line
}

#[cfg(test)]
mod tests;
