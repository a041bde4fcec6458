//! `orlop get`: what there is.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};

use super::config_row;
use super::pod_row::{as_of_boot, pod_row};
use super::print::{self, Answer, Format, Resource, Selection};
use crate::kube::kind::Kind;
use crate::kube::manifest::Object;
use crate::storage::store::{self, Store};

/// `orlop get` on the command line.
#[derive(Args, Clone, Debug)]
pub struct GetArgs {
    /// TYPE[,TYPE…] [NAME…] or TYPE/NAME…; types: pods (po), configmaps (cm), secrets, all
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
    let selections = Selection::parse_all("get", &args.resources)?;
    let is_named = selections.iter().any(|one| !one.names.is_empty());
    if args.all_namespaces && is_named {
        anyhow::bail!("a resource cannot be retrieved by name across all namespaces");
    }
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let mut answer = Answer::default();
    let mut found = Vec::with_capacity(selections.len());
    for selection in &selections {
        let objects = match selection.names.as_slice() {
            [] => list(store, selection.resource.kind(), namespace, boot_id)?,
            names => named(
                args,
                store,
                selection.resource.kind(),
                names,
                boot_id,
                &mut answer,
            )?,
        };
        found.push((selection.resource, objects));
    }

    let is_empty = found.iter().all(|(_, objects)| objects.is_empty());
    let is_list = !matches!(selections.as_slice(), [one] if one.names.len() == 1);
    let several = selections.len() > 1;
    answer.out = match args.output {
        Some(output @ (Output::Yaml | Output::Json)) if is_list || !is_empty => {
            let values = found.iter().flat_map(|(_, objects)| objects);
            let values = values
                .map(Object::to_value)
                .collect::<Result<Vec<_>, _>>()?;
            let format = match output {
                Output::Yaml => Format::Yaml,
                _ => Format::Json,
            };
            print::objects(&values, is_list, format)?
        }
        Some(Output::Name) => {
            let objects = found.iter().flat_map(|(_, objects)| objects);
            let name =
                |object: &Object| format!("{}/{}\n", object.kind().singular(), object.name());
            objects.map(name).collect()
        }
        _ if is_empty && !is_named => return Ok(Answer::nothing(namespace)),
        _ => {
            let tables = found.iter().filter(|(_, objects)| !objects.is_empty());
            let tables = tables.map(|(resource, objects)| {
                let prefixed = several || *resource == Resource::All;
                kind_table(args, resource.kind(), prefixed, objects, now)
            });
            tables.collect::<Vec<_>>().join("\n")
        }
    };
    Ok(answer)
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
            None => answer.missing(kind.plural(), name),
        }
    }
    Ok(found)
}

/// The table of one kind. `prefixed`: with the kind before each name.
fn kind_table(
    args: &GetArgs,
    kind: Kind,
    prefixed: bool,
    objects: &[Object],
    now: Timestamp,
) -> String {
    let prefix = match prefixed {
        true => format!("{}/", kind.singular()),
        false => String::new(),
    };
    if kind != Kind::Pod {
        return config_row::table(args, kind, &prefix, objects, now);
    }
    let pods = objects.iter().filter_map(|object| match object {
        Object::Pod(pod) => Some(pod.as_ref()),
        _ => None,
    });
    table(args, &prefix, pods, now)
}

fn table<'p>(
    args: &GetArgs,
    prefix: &str,
    pods: impl Iterator<Item = &'p Pod>,
    now: Timestamp,
) -> String {
    let mut header = Vec::new();
    if args.all_namespaces {
        header.push("NAMESPACE");
    }
    header.extend(["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    let wide = args.output == Some(Output::Wide);
    if wide {
        header.extend(["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]);
    }
    let rows: Vec<Vec<String>> = pods
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
