//! `orlop get`: what there is.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};

use super::pod_row::{as_of_boot, pod_row};
use super::print::{self, Answer, Format, Resource, Selection};
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
    /// What to print instead of the short table
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    /// Leave the table's header out
    #[arg(long)]
    pub no_headers: bool,
    /// A name that is not there is no error
    #[arg(long)]
    pub ignore_not_found: bool,
}

/// The forms that `orlop get` can print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// More columns
    Wide,
    /// The objects in full, as YAML
    Yaml,
    /// The objects in full, as JSON
    Json,
    /// TYPE/NAME, one a line
    Name,
}

/// Prints what is asked for, as it is at the time `now`.
///
/// # Errors
/// An unknown type, contradictory arguments, an unreadable store. A name
/// that is not there is told on standard error, after what is there has been printed.
pub fn run(args: GetArgs, store: &Store, now: Timestamp) -> anyhow::Result<ExitCode> {
    answer(&args, store, now, &store::boot_id()?)?.say()
}

fn answer(args: &GetArgs, store: &Store, now: Timestamp, boot_id: &str) -> anyhow::Result<Answer> {
    let selection = Selection::parse("get", &args.resources)?;
    if args.all_namespaces && !selection.names.is_empty() {
        anyhow::bail!("a resource cannot be retrieved by name across all namespaces");
    }
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let mut answer = Answer::default();
    let mut pods = Vec::new();
    if selection.names.is_empty() {
        for stored in store.stored_pods(namespace)? {
            pods.push(as_of_boot(stored, boot_id));
        }
    }
    for name in &selection.names {
        match store.stored_pod(&args.namespace, name)? {
            Some(stored) => pods.push(as_of_boot(stored, boot_id)),
            None if args.ignore_not_found => {}
            None => answer.missing("pods", name),
        }
    }

    let list = selection.names.len() != 1;
    answer.out = match args.output {
        Some(Output::Yaml) if list || !pods.is_empty() => {
            print::objects(&pods, list, Format::Yaml)?
        }
        Some(Output::Json) if list || !pods.is_empty() => {
            print::objects(&pods, list, Format::Json)?
        }
        Some(Output::Name) => {
            let name =
                |pod: &Pod| format!("pod/{}\n", pod.metadata.name.as_deref().unwrap_or_default());
            pods.iter().map(name).collect()
        }
        _ if pods.is_empty() && selection.names.is_empty() => {
            return Ok(Answer::nothing(namespace));
        }
        _ if pods.is_empty() => String::new(),
        _ => table(args, selection.resource, &pods, now),
    };
    Ok(answer)
}

fn table(args: &GetArgs, resource: Resource, pods: &[Pod], now: Timestamp) -> String {
    let mut header = Vec::new();
    if args.all_namespaces {
        header.push("NAMESPACE");
    }
    header.extend(["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    let wide = args.output == Some(Output::Wide);
    if wide {
        header.extend(["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]);
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
            row
        })
        .collect();
    print::table((!args.no_headers).then_some(&header), &rows)
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
