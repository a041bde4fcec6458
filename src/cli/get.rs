//! `orlop get`: what there is.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};

use super::output::{self, Output};
use super::pod_row::{as_of_boot, pod_row};
use super::print::{self, Answer, Resource, Selection};
use super::select::{Pods, to_value};
use super::{events, get_watch};
use crate::kube::selector::{FieldSelector, LabelSelector};
use crate::storage::store::{self, Store};

/// `orlop get` on the command line.
#[derive(Args, Clone, Debug)]
pub struct GetArgs {
    /// TYPE [NAME…] or TYPE/NAME…; types: pods (pod, po), all
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
    let selection = Selection::parse("get", &args.resources)?;
    let mut answer = Answer::default();
    let pods = pods(args, store, boot_id, &selection, &mut answer)?;
    let list = selection.names.len() != 1;
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    if let Some(output) = &args.output
        && (list || !pods.is_empty())
    {
        let values = pods.iter().map(to_value).collect::<Result<Vec<_>, _>>()?;
        if let Some(text) = output::render(output, &values, list, !args.no_headers)? {
            answer.out = text;
            return Ok(answer);
        }
    }
    if pods.is_empty() {
        return Ok(match selection.names.is_empty() && !args.ignore_not_found {
            true => Answer::nothing(namespace),
            false => answer,
        });
    }
    answer.out = table(args, selection.resource, &pods, now);
    Ok(answer)
}

/// The pods that are asked for, in the order that is asked for.
pub(super) fn pods(
    args: &GetArgs,
    store: &Store,
    boot_id: &str,
    selection: &Selection,
    answer: &mut Answer,
) -> anyhow::Result<Vec<Pod>> {
    let wanted = Pods::new(args.selector.as_ref(), args.field_selector.as_ref())?;
    if !selection.names.is_empty() {
        if args.all_namespaces {
            anyhow::bail!("a resource cannot be retrieved by name across all namespaces");
        }
        if args.selector.is_some() || args.field_selector.is_some() {
            anyhow::bail!("name cannot be provided when a selector is specified");
        }
    }
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let mut pods = Vec::new();
    if selection.names.is_empty() {
        for stored in store.stored_pods(namespace)? {
            let pod = as_of_boot(stored, boot_id);
            if wanted.match_pod(&pod)? {
                pods.push(pod);
            }
        }
    }
    for name in &selection.names {
        match store.stored_pod(&args.namespace, name)? {
            Some(stored) => pods.push(as_of_boot(stored, boot_id)),
            None if args.ignore_not_found => {}
            None => answer.missing("pods", name),
        }
    }
    if let Some(path) = &args.sort_by {
        let mut keyed = Vec::with_capacity(pods.len());
        for pod in pods {
            keyed.push((to_value(&pod)?, pod));
        }
        output::sort_by(path, &mut keyed)?;
        pods = keyed.into_iter().map(|(_, pod)| pod).collect();
    }
    Ok(pods)
}

/// The short table of pods.
pub(super) fn table(args: &GetArgs, resource: Resource, pods: &[Pod], now: Timestamp) -> String {
    let mut header = Vec::new();
    if args.all_namespaces {
        header.push("NAMESPACE");
    }
    header.extend(["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    let wide = args.output == Some(Output::Wide);
    if wide {
        header.extend(["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]);
    }
    let own_columns: Vec<String> = args
        .label_columns
        .iter()
        .map(|key| header_of(key))
        .collect();
    header.extend(own_columns.iter().map(String::as_str));
    if args.show_labels {
        header.push("LABELS");
    }
    let prefix = if resource == Resource::All {
        "pod/"
    } else {
        ""
    };
    let rows: Vec<Vec<String>> = pods
        .iter()
        .map(|pod| {
            let columns = pod_row(pod, now);
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let mut row = Vec::new();
            if args.all_namespaces {
                row.extend(pod.metadata.namespace.clone());
            }
            row.extend([
                format!("{prefix}{name}"),
                columns.ready,
                columns.status,
                columns.restarts,
                columns.age,
            ]);
            if wide {
                row.extend(wide_columns(pod));
            }
            let labels = pod.metadata.labels.as_ref();
            row.extend(args.label_columns.iter().map(|key| {
                let value = labels.and_then(|labels| labels.get(key));
                value.cloned().unwrap_or_default()
            }));
            if args.show_labels {
                row.push(label_list(labels));
            }
            row
        })
        .collect();
    print::table((!args.no_headers).then_some(&header), &rows)
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
