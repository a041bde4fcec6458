//! `orlop get`: what there is.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};

use super::output::{self, Output};
use super::pod_row::{as_of_boot, pod_row};
use super::print::{self, Answer, Resource, Selection};
use super::select::Wanted;
use super::{claim_row, config_row};
use super::{events, get_watch};
use crate::kube::kind::Kind;
use crate::kube::manifest::Object;
use crate::kube::selector::{FieldSelector, LabelSelector};
use crate::storage::store::{self, Store};

/// `orlop get` on the command line.
#[derive(Args, Clone, Debug)]
pub struct GetArgs {
    /// TYPE[,TYPE…] [NAME…] or TYPE/NAME…; types: pods (po), configmaps (cm), secrets, persistentvolumes (pv),
    /// persistentvolumeclaims (pvc), storageclasses (sc), all
    #[arg(value_name = "TYPE [NAME…]")]
    pub resources: Vec<String>,
    /// Namespace to look in
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Look in all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// What to print instead of the short table: wide, yaml, json, name, jsonpath=TEMPLATE,
    /// custom-columns=HEADER:PATH,… (the last two also from a file: jsonpath-file=, custom-columns-file=)
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<Output>,
    /// Leave the table's header out
    #[arg(long)]
    pub no_headers: bool,
    /// A name that is not there is no error
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Only objects with these labels, as in app=web,tier in (a,b),!old
    #[arg(short = 'l', long)]
    pub selector: Option<LabelSelector>,
    /// Only objects with these fields, as in status.phase!=Running
    #[arg(long, value_name = "SELECTOR")]
    pub field_selector: Option<FieldSelector>,
    /// Show all labels in the last column
    #[arg(long)]
    pub show_labels: bool,
    /// Show these labels in columns of their own
    #[arg(short = 'L', long, value_name = "LABELS", value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// Sort by what stands at a path, as in .metadata.creationTimestamp
    #[arg(long, value_name = "PATH")]
    pub sort_by: Option<String>,
    /// Go on and show what changes
    #[arg(short, long)]
    pub watch: bool,
    /// Show what changes, but not what there is
    #[arg(long)]
    pub watch_only: bool,
}

/// Prints what is asked for, as it is at the time `now`, and with `--watch` what
/// changes after it.
///
/// # Errors
/// An unknown type, contradictory arguments, an unreadable store. A name
/// that is not there is told on standard error, after what is there has been printed.
pub fn run(args: GetArgs, store: &Store, now: Timestamp) -> anyhow::Result<ExitCode> {
    if events::is_meant(&args.resources) {
        return events::get(&args, store);
    }
    if args.watch || args.watch_only {
        return get_watch::run(&args, store);
    }
    answer(&args, store, now, &store::boot_id()?)?.say()
}

fn answer(args: &GetArgs, store: &Store, now: Timestamp, boot_id: &str) -> anyhow::Result<Answer> {
    let selections = Selection::parse_all("get", &args.resources)?;
    let is_named = selections.iter().any(|one| !one.names.is_empty());
    let mut answer = Answer::default();
    let mut found = Vec::with_capacity(selections.len());
    for selection in &selections {
        let objects = objects(args, store, boot_id, selection, &mut answer)?;
        found.push((selection.resource, objects));
    }
    let is_empty = found.iter().all(|(_, objects)| objects.is_empty());
    let is_list = !matches!(selections.as_slice(), [one] if one.names.len() == 1);
    if let Some(output) = &args.output
        && (is_list || !is_empty)
    {
        let all = found.iter().flat_map(|(_, objects)| objects);
        let values = all.map(Object::to_value).collect::<Result<Vec<_>, _>>()?;
        if let Some(text) = output::render(output, &values, is_list, !args.no_headers)? {
            answer.out = text;
            return Ok(answer);
        }
    }
    if is_empty {
        let namespaced = selections
            .iter()
            .any(|one| one.resource.kind().is_namespaced());
        let namespace = (!args.all_namespaces && namespaced).then_some(args.namespace.as_str());
        return Ok(match is_named || args.ignore_not_found {
            true => answer,
            false => Answer::nothing(namespace),
        });
    }
    let several = selections.len() > 1;
    let tables = found.iter().filter(|(_, objects)| !objects.is_empty());
    let tables = tables.map(|(resource, objects)| {
        let prefixed = several || *resource == Resource::All;
        table(args, resource.kind(), prefixed, objects, now)
    });
    answer.out = tables.collect::<Vec<_>>().join("\n");
    Ok(answer)
}

/// The objects of one selection, in the order that is asked for; names that are
/// not there are told in `answer`.
pub(super) fn objects(
    args: &GetArgs,
    store: &Store,
    boot_id: &str,
    selection: &Selection,
    answer: &mut Answer,
) -> anyhow::Result<Vec<Object>> {
    let kind = selection.resource.kind();
    let wanted = Wanted::new(kind, args.selector.as_ref(), args.field_selector.as_ref())?;
    if !selection.names.is_empty() {
        if args.all_namespaces {
            anyhow::bail!("a resource cannot be retrieved by name across all namespaces");
        }
        if args.selector.is_some() || args.field_selector.is_some() {
            anyhow::bail!("name cannot be provided when a selector is specified");
        }
    }
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let mut found = match selection.names.as_slice() {
        [] => wanted.of(store, kind, namespace, boot_id)?,
        names => named(args, store, kind, names, boot_id, answer)?,
    };
    if let Some(path) = &args.sort_by {
        let mut keyed = Vec::with_capacity(found.len());
        for object in found {
            keyed.push((object.to_value()?, object));
        }
        output::sort_by(path, &mut keyed)?;
        found = keyed.into_iter().map(|(_, object)| object).collect();
    }
    Ok(found)
}

/// All objects of a kind; pods as they are in this boot.
pub(super) fn list(
    store: &Store,
    kind: Kind,
    namespace: Option<&str>,
    boot_id: &str,
) -> anyhow::Result<Vec<Object>> {
    if kind != Kind::Pod {
        return Ok(store.list(kind, namespace)?);
    }
    let pods = store.stored_pods(namespace)?.into_iter();
    Ok(pods.map(|pod| as_of_boot(pod, boot_id).into()).collect())
}

/// The objects of these names; those that are not there are told in `answer`.
fn named(
    args: &GetArgs,
    store: &Store,
    kind: Kind,
    names: &[String],
    boot_id: &str,
    answer: &mut Answer,
) -> anyhow::Result<Vec<Object>> {
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let object = match kind {
            Kind::Pod => store
                .stored_pod(&args.namespace, name)?
                .map(|stored| as_of_boot(stored, boot_id).into()),
            kind => store.find(kind, &args.namespace, name)?,
        };
        match object {
            Some(object) => found.push(object),
            None if args.ignore_not_found => {}
            None => answer.missing(kind.resource(), name),
        }
    }
    Ok(found)
}

/// The table of one kind. `prefixed`: with the kind before each name.
pub(super) fn table(
    args: &GetArgs,
    kind: Kind,
    prefixed: bool,
    objects: &[Object],
    now: Timestamp,
) -> String {
    let mut header = Vec::new();
    let namespaced = args.all_namespaces && kind.is_namespaced();
    if namespaced {
        header.push("NAMESPACE");
    }
    let wide = args.output == Some(Output::Wide);
    header.extend(match kind {
        Kind::Pod => pod_header(args),
        Kind::ConfigMap | Kind::Secret => config_row::header(kind),
        kind => claim_row::header(kind, wide),
    });
    let own_columns: Vec<String> = args
        .label_columns
        .iter()
        .map(|key| header_of(key))
        .collect();
    header.extend(own_columns.iter().map(String::as_str));
    if args.show_labels {
        header.push("LABELS");
    }
    let prefix = match prefixed {
        true => format!("{}/", kind.qualified()),
        false => String::new(),
    };
    let row = |object: &Object| {
        let mut row = Vec::new();
        if namespaced {
            row.push(object.namespace().to_owned());
        }
        row.push(format!("{prefix}{}", claim_row::name(object)));
        match object {
            Object::Pod(pod) => row.extend(pod_columns(args, pod, now)),
            object => row.extend(
                claim_row::columns(object, wide, now)
                    .unwrap_or_else(|| config_row::columns(object, now)),
            ),
        }
        let labels = object.metadata().labels.as_ref();
        row.extend(args.label_columns.iter().map(|key| {
            let value = labels.and_then(|labels| labels.get(key));
            value.cloned().unwrap_or_default()
        }));
        if args.show_labels {
            row.push(label_list(labels));
        }
        row
    };
    let rows: Vec<Vec<String>> = objects.iter().map(row).collect();
    print::table((!args.no_headers).then_some(&header), &rows)
}

fn pod_header(args: &GetArgs) -> Vec<&'static str> {
    let mut header = vec!["NAME", "READY", "STATUS", "RESTARTS", "AGE"];
    if args.output == Some(Output::Wide) {
        header.extend(["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]);
    }
    header
}

/// What stands behind a pod's name.
fn pod_columns(args: &GetArgs, pod: &Pod, now: Timestamp) -> Vec<String> {
    let columns = pod_row(pod, now);
    let mut row = vec![columns.ready, columns.status, columns.restarts, columns.age];
    if args.output == Some(Output::Wide) {
        row.extend(wide_columns(pod));
    }
    row
}

/// The header of a label's column: the last part of its key.
fn header_of(key: &str) -> String {
    key.rsplit('/').next().unwrap_or(key).to_uppercase()
}

fn label_list(labels: Option<&BTreeMap<String, String>>) -> String {
    let labels = labels.into_iter().flatten();
    let labels: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    match labels.is_empty() {
        true => "<none>".to_owned(),
        false => labels.join(","),
    }
}

fn wide_columns(pod: &Pod) -> [String; 4] {
    let nothing = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&nothing.0);
    let status = pod.status.as_ref().unwrap_or(&nothing.1);
    let or_none = |text: Option<&str>| {
        let text = text.filter(|text| !text.is_empty());
        text.unwrap_or("<none>").to_owned()
    };
    let first_ip = status
        .pod_ips
        .iter()
        .flatten()
        .next()
        .map(|ip| ip.ip.as_str());
    let gates = spec.readiness_gates.as_deref().unwrap_or_default();
    let passed = gates.iter().filter(|gate| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.any(|c| c.type_ == gate.condition_type && c.status == "True")
    });
    [
        or_none(first_ip.or(status.pod_ip.as_deref())),
        or_none(spec.node_name.as_deref()),
        or_none(status.nominated_node_name.as_deref()),
        match gates.len() {
            0 => or_none(None),
            all => format!("{}/{all}", passed.count()),
        },
    ]
}

#[cfg(test)]
#[path = "get_tests.rs"]
mod tests;
