//! `orlop events` and `orlop get events`: what happened to objects, and why they
//! wait or failed.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use super::get::GetArgs;
use super::output::{self, Output};
use super::print::{self, Answer};
use crate::kube::duration;
use crate::kube::selector::{COMMON_FIELDS, FieldSelector};
use crate::storage::events::RecordedEvent;
use crate::storage::store::{Store, StoreError};

/// `orlop events` on the command line.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Namespace to look in
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Look in all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only events of one object, as in pod/web
    #[arg(long = "for", value_name = "TYPE/NAME")]
    for_: Option<String>,
    /// Only events of these types: Normal, Warning
    #[arg(long, value_delimiter = ',', value_name = "TYPES")]
    types: Vec<String>,
    /// Go on and show what happens
    #[arg(short, long)]
    watch: bool,
    /// What to print instead of the table: yaml, json, name, jsonpath=…, custom-columns=…
    #[arg(short, long, value_name = "FORM")]
    output: Option<Output>,
    /// Leave the table's header out
    #[arg(long)]
    no_headers: bool,
}

/// The events that are asked for.
struct Wanted {
    namespace: Option<String>,
    object: Option<(String, String)>,
    types: Vec<String>,
    fields: FieldSelector,
}

/// Prints the events, the latest last.
///
/// # Errors
/// Unknown types, or an unreadable store.
pub fn run(args: &EventsArgs, store: &Store) -> Result<ExitCode> {
    let mut types = Vec::new();
    for typed in &args.types {
        match ["Normal", "Warning"]
            .iter()
            .find(|known| known.eq_ignore_ascii_case(typed))
        {
            Some(known) => types.push((*known).to_owned()),
            None => bail!("valid --types are Normal or Warning"),
        }
    }
    let object = args.for_.as_deref().map(object).transpose()?;
    let wanted = Wanted {
        namespace: (!args.all_namespaces).then(|| args.namespace.clone()),
        object,
        types,
        fields: FieldSelector::default(),
    };
    show(
        &wanted,
        store,
        args.output.as_ref(),
        args.no_headers,
        args.watch,
        false,
    )
}

/// Whether `get` is asked for events.
#[must_use]
pub fn is_meant(resources: &[String]) -> bool {
    let first = resources.first().map(|word| word.to_ascii_lowercase());
    matches!(first.as_deref(), Some("events" | "event" | "ev"))
}

/// `orlop get events`.
///
/// # Errors
/// As [`run`].
pub fn get(args: &GetArgs, store: &Store) -> Result<ExitCode> {
    if args.resources.len() > 1 {
        bail!(
            "events have no names of their own here: use --field-selector involvedObject.name=NAME"
        );
    }
    let fields = args.field_selector.clone().unwrap_or_default();
    let known = [
        "involvedObject.name",
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.uid",
        "reason",
        "type",
        "source",
    ];
    if let Some(field) = fields.unknown(&[&known, COMMON_FIELDS].concat()) {
        let reason = format!("field label not supported: {field}");
        return Err(StoreError::BadRequest { reason }.into());
    }
    let wanted = Wanted {
        namespace: (!args.all_namespaces).then(|| args.namespace.clone()),
        object: None,
        types: Vec::new(),
        fields,
    };
    let watch = args.watch || args.watch_only;
    show(
        &wanted,
        store,
        args.output.as_ref(),
        args.no_headers,
        watch,
        args.watch_only,
    )
}

fn object(typed: &str) -> Result<(String, String)> {
    let Some((kind, name)) = typed.split_once('/') else {
        bail!("--for must be in resource/name form, such as pod/web");
    };
    let kind = match kind.to_ascii_lowercase().as_str() {
        "pods" | "pod" | "po" => "Pod",
        "configmaps" | "configmap" | "cm" => "ConfigMap",
        "secrets" | "secret" => "Secret",
        _ => bail!("the server doesn't have a resource type {kind:?}"),
    };
    Ok((kind.to_owned(), name.to_owned()))
}

impl Wanted {
    fn find(&self, store: &Store) -> Result<Vec<RecordedEvent>> {
        let mut events = store.events(self.namespace.as_deref())?;
        events.retain(|recorded| {
            let event = &recorded.event;
            let object = self.object.as_ref();
            object.is_none_or(|(kind, name)| event.kind == *kind && event.name == *name)
                && (self.types.is_empty()
                    || self.types.iter().any(|one| one == event.type_.as_str()))
                && (self.fields.is_empty() || self.fields.matches(&value(recorded)))
        });
        Ok(events)
    }
}

/// What makes two recorded events the same one at two times.
fn identity(event: &RecordedEvent) -> String {
    format!("{:?}{}", event.event, event.first)
}

fn show(
    wanted: &Wanted,
    store: &Store,
    form: Option<&Output>,
    no_headers: bool,
    watch: bool,
    only_new: bool,
) -> Result<ExitCode> {
    let changes = store.changes()?;
    let mut events = wanted.find(store)?;
    let everywhere = wanted.namespace.is_none();
    if !watch {
        if events.is_empty() && !matches!(form, Some(Output::Json | Output::Yaml)) {
            return Answer::nothing(wanted.namespace.as_deref()).say();
        }
        print::say(format_args!(
            "{}",
            text(&events, form, true, !no_headers, everywhere)?
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    let mut headers = !no_headers;
    let mut skip = only_new;
    loop {
        events.retain(|event| seen.insert(identity(event), event.count) != Some(event.count));
        if !events.is_empty() && !skip {
            let text = text(&events, form, false, headers, everywhere)?;
            if !print::say_on(format_args!("{text}"))? {
                return Ok(ExitCode::SUCCESS);
            }
            headers = false;
        }
        skip = false;
        changes.wait(None)?;
        events = wanted.find(store)?;
    }
}

fn text(
    events: &[RecordedEvent],
    form: Option<&Output>,
    list: bool,
    headers: bool,
    everywhere: bool,
) -> Result<String> {
    if let Some(form) = form {
        let values: Vec<Value> = events.iter().map(value).collect();
        if let Some(text) = output::render(form, &values, list, headers)? {
            return Ok(text);
        }
    }
    Ok(table(events, headers, everywhere, Timestamp::now()))
}

fn table(events: &[RecordedEvent], headers: bool, everywhere: bool, now: Timestamp) -> String {
    let mut header = vec!["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    if everywhere {
        header.insert(0, "NAMESPACE");
    }
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|recorded| {
            let event = &recorded.event;
            let mut row = vec![
                last_seen(recorded, now),
                event.type_.as_str().to_owned(),
                event.reason.clone(),
                format!("{}/{}", event.kind, event.name),
                event.message.trim().to_owned(),
            ];
            if everywhere {
                row.insert(0, event.namespace.clone());
            }
            row
        })
        .collect();
    print::table(headers.then_some(&header[..]), &rows)
}

/// `7s`, or `7s (x3 over 2m)`.
fn last_seen(recorded: &RecordedEvent, now: Timestamp) -> String {
    let last = duration::age(recorded.last, now);
    match recorded.count {
        0 | 1 => last,
        count => format!(
            "{last} (x{count} over {})",
            duration::age(recorded.first, now)
        ),
    }
}

/// An event as the API has it.
fn value(recorded: &RecordedEvent) -> Value {
    let event = &recorded.event;
    let seconds =
        |time: Timestamp| (time - i64::from(time.subsec_nanosecond()).nanoseconds()).to_string();
    // The API's own names are the object's and the time in base 16.
    let name = format!("{}.{:x}", event.name, recorded.first.as_nanosecond());
    let mut involved = json!({
        "apiVersion": "v1", "kind": event.kind, "name": event.name,
        "namespace": event.namespace, "uid": event.uid,
    });
    if !event.field_path.is_empty() {
        involved["fieldPath"] = json!(event.field_path);
    }
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": event.namespace, "creationTimestamp": seconds(recorded.first)},
        "involvedObject": involved,
        "reason": event.reason, "message": event.message, "type": event.type_.as_str(),
        "count": recorded.count, "source": {"component": event.source},
        "firstTimestamp": seconds(recorded.first), "lastTimestamp": seconds(recorded.last),
    })
}
