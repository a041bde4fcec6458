//! `orlop wait`: until objects are as is said, which the store tells.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use super::pod_row::as_of_boot;
use super::print::{self, Selection};
use super::select::Wanted;
use crate::kube::go_duration;
use crate::kube::jsonpath::{Template, text_of};
use crate::kube::kind::Kind;
use crate::kube::manifest::Object;
use crate::kube::selector::{FieldSelector, LabelSelector};
use crate::storage::store::{self, Store, StoreError};

/// How long a week is: what a negative `--timeout` means.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// `orlop wait` on the command line.
#[derive(Args, Clone, Debug)]
pub struct WaitArgs {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(value_name = "TYPE NAME…", required = true)]
    resources: Vec<String>,
    /// What to wait for: condition=NAME[=VALUE], jsonpath='{PATH}'[=VALUE], create, delete
    #[arg(long = "for", value_name = "CONDITION", required = true)]
    for_: Goal,
    /// How long at most, as in 90s or 5m; 0 looks once, less waits for a week
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = timeout, allow_hyphen_values = true)]
    timeout: Duration,
    /// Namespace of the objects
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// All objects of the type in the namespace
    #[arg(long)]
    all: bool,
    /// All objects of the type with these labels
    #[arg(short = 'l', long)]
    selector: Option<LabelSelector>,
    /// All objects of the type with these fields
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<FieldSelector>,
}

fn timeout(text: &str) -> Result<Duration, String> {
    match text.strip_prefix('-') {
        Some(rest) => go_duration::parse(rest).map(|_| WEEK),
        None => go_duration::parse(text),
    }
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
enum Goal {
    Create,
    Delete,
    Condition {
        name: String,
        value: String,
    },
    JsonPath {
        path: Template,
        value: Option<String>,
    },
}

impl FromStr for Goal {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case("delete") {
            return Ok(Self::Delete);
        }
        if text.eq_ignore_ascii_case("create") {
            return Ok(Self::Create);
        }
        if let Some(condition) = text.strip_prefix("condition=") {
            let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
            return Ok(Self::Condition {
                name: name.to_owned(),
                value: value.to_owned(),
            });
        }
        if let Some(expression) = text.strip_prefix("jsonpath=") {
            // The path itself may have == in it.
            let end = expression.find('}').map_or(0, |end| end + 1);
            let (path, value) = match expression[end..].split_once('=') {
                Some((rest, value)) => (&expression[..end + rest.len()], Some(value)),
                None => (expression, None),
            };
            let unquoted = |text: &str| text.trim_matches(['"', '\'']).to_owned();
            let value = value.map(unquoted);
            if value.as_deref() == Some("") {
                bail!("jsonpath wait has to have a value after =, or no =");
            }
            return Ok(Self::JsonPath {
                path: Template::path(path.trim_matches(['"', '\'']))?,
                value,
            });
        }
        bail!("unrecognized condition: {text:?}")
    }
}

impl Goal {
    /// Whether an object is as it shall be; `None` for one that is not there.
    fn is_met(&self, object: Option<&Object>) -> Result<bool> {
        Ok(match (self, object) {
            (Self::Create, object) => object.is_some(),
            (Self::Delete, object) => object.is_none(),
            (_, None) => false,
            (Self::Condition { name, value }, Some(Object::Pod(pod))) => {
                let conditions = pod.status.iter().flat_map(|status| &status.conditions);
                conditions.flatten().any(|condition| {
                    condition.type_.eq_ignore_ascii_case(name)
                        && condition.status.eq_ignore_ascii_case(value)
                })
            }
            // No other kind has conditions.
            (Self::Condition { .. }, Some(_)) => false,
            (Self::JsonPath { path, value }, Some(object)) => {
                let object = object.to_value()?;
                match (path.values(&object).as_slice(), value) {
                    ([], _) => false,
                    ([_, ..], None) => true,
                    ([one], Some(value)) => text_of(one) == *value,
                    (several, Some(_)) => bail!(
                        "given jsonpath expression matches more than one value ({}): write one that \
                         matches one",
                        several.len()
                    ),
                }
            }
        })
    }
}

/// Waits for every object in turn, and says so of each.
///
/// # Errors
/// That it took too long, or that an object is not there.
pub fn run(args: &WaitArgs, store: &Store) -> Result<ExitCode> {
    let selections = Selection::parse_all("wait", &args.resources)?;
    let selects = args.all || args.selector.is_some() || args.field_selector.is_some();
    for selection in &selections {
        match (selection.names.is_empty(), selects) {
            (true, false) => bail!("resource(s) were provided, but no name was specified"),
            (false, true) => bail!("name cannot be provided when a selector or --all is specified"),
            _ => {}
        }
    }
    let deadline = Instant::now() + args.timeout;
    let waiting = Waiting {
        store,
        boot: store::boot_id()?,
        changes: store.changes()?,
        deadline,
        goal: &args.for_,
    };
    let mut targets = Vec::new();
    for selection in selections {
        let kind = selection.resource.kind();
        if selects {
            let wanted = Wanted::new(kind, args.selector.as_ref(), args.field_selector.as_ref())?;
            let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
            let found = loop {
                let found = wanted.of(store, kind, namespace, &waiting.boot)?;
                let late = args.for_ != Goal::Create || !found.is_empty();
                if late || !waiting.changes.wait(Some(deadline))? {
                    break found;
                }
            };
            targets.extend(found.iter().map(|object| Target {
                kind,
                namespace: object.namespace().to_owned(),
                name: object.name().to_owned(),
                uid: object.metadata().uid.clone(),
            }));
        }
        for name in selection.names {
            let found = store.find(kind, &args.namespace, &name)?;
            targets.push(Target {
                kind,
                namespace: args.namespace.clone(),
                uid: found.and_then(|object| object.metadata().uid.clone()),
                name,
            });
        }
    }
    if targets.is_empty() {
        if args.for_ == Goal::Delete {
            return Ok(ExitCode::SUCCESS);
        }
        bail!("no matching resources found");
    }
    let mut failed = false;
    for target in &targets {
        if let Err(error) = waiting.wait(target) {
            print::note(format_args!("{}", print::error_line(&error)));
            failed = true;
        }
    }
    Ok(u8::from(failed).into())
}

/// What is waited for.
struct Target {
    kind: Kind,
    namespace: String,
    name: String,
    /// None: it is not there yet.
    uid: Option<String>,
}

struct Waiting<'a> {
    store: &'a Store,
    boot: String,
    changes: crate::storage::watch::Changes,
    deadline: Instant,
    goal: &'a Goal,
}

impl Waiting<'_> {
    fn wait(&self, target: &Target) -> Result<()> {
        let Target {
            kind,
            namespace,
            name,
            uid,
        } = target;
        let may_be_missing = matches!(self.goal, Goal::Create | Goal::Delete);
        if uid.is_none() && *self.goal == Goal::Delete {
            return Ok(());
        }
        loop {
            let object = match kind {
                Kind::Pod => self
                    .store
                    .stored_pod(namespace, name)?
                    .map(|stored| Object::from(as_of_boot(stored, &self.boot))),
                kind => self.store.find(*kind, namespace, name)?,
            };
            // Another one of the same name is not the one that was meant.
            let same = |object: &Object| uid.is_none() || object.metadata().uid == *uid;
            let object = object.filter(same);
            if object.is_none() && !may_be_missing {
                let resource = kind.plural();
                let name = name.clone();
                return Err(StoreError::NotFound { resource, name }.into());
            }
            if self.goal.is_met(object.as_ref())? {
                let kind = kind.qualified();
                return print::say(format_args!("{kind}/{name} condition met\n"));
            }
            if !self.changes.wait(Some(self.deadline))? {
                let kind = kind.plural();
                bail!("timed out waiting for the condition on {kind}/{name}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    #[test]
    fn goals_are_read_as_kubectl_reads_them() {
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "False"}, {"type": "Initialized", "status": "True"}]},
        }))
        .expect("a pod");
        let pod = Object::from(pod);
        for (goal, met) in [
            ("condition=Ready", false),
            ("condition=ready=False", true),
            ("condition=Initialized", true),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath='{.status.phase}'=Running", true),
            ("jsonpath={.status.phase}=Failed", false),
            ("jsonpath={.status.phase}", true),
            ("jsonpath={.status.podIP}", false),
            (
                "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=False",
                true,
            ),
            ("create", true),
            ("delete", false),
        ] {
            let read: Goal = goal.parse().expect(goal);
            assert_eq!(read.is_met(Some(&pod)).expect(goal), met, "{goal}");
        }
        for goal in ["ready", "jsonpath={.x}=", "jsonpath={.x"] {
            assert!(goal.parse::<Goal>().is_err(), "{goal}");
        }
        assert_eq!(timeout("-1s"), Ok(WEEK));
    }
}
