//! `orlop label` and `orlop annotate`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Map, Value};

use super::{Machine, change, print};
use crate::kube::selector::LabelSelector;

/// `orlop label` and `orlop annotate` on the command line.
#[derive(Args, Debug)]
pub struct LabelArgs {
    /// TYPE NAME… or TYPE/NAME…, then KEY=VALUE to set and KEY- to take away
    #[arg(value_name = "TYPE NAME… KEY=VALUE… KEY-", required = true)]
    words: Vec<String>,
    /// Replace values that are there
    #[arg(long)]
    overwrite: bool,
    /// Namespace of the objects
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// All objects of the type in the namespace
    #[arg(long)]
    all: bool,
    /// All objects of the type with these labels
    #[arg(short = 'l', long)]
    selector: Option<LabelSelector>,
    /// Show what there is
    #[arg(long)]
    list: bool,
}

/// Which of the two maps is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// `metadata.labels`.
    Labels,
    /// `metadata.annotations`.
    Annotations,
}

impl Metadata {
    fn field(self) -> &'static str {
        match self {
            Self::Labels => "labels",
            Self::Annotations => "annotations",
        }
    }

    fn singular(self) -> &'static str {
        match self {
            Self::Labels => "label",
            Self::Annotations => "annotation",
        }
    }

    /// kubectl's word for what was done.
    fn done(self, changed: bool, only_removed: bool) -> &'static str {
        match (self, changed, only_removed) {
            (Self::Labels, false, _) => "not labeled",
            (Self::Labels, true, true) => "unlabeled",
            (Self::Labels, true, false) => "labeled",
            (Self::Annotations, ..) => "annotated",
        }
    }
}

/// Sets and takes away labels or annotations of objects, one object after the
/// other.
///
/// # Errors
/// Nothing to do, a value that is there already, or one that makes no label.
pub fn run(args: &LabelArgs, map: Metadata, machine: &Machine) -> Result<ExitCode> {
    let is_change = |word: &String| word.contains('=') || word.ends_with('-');
    let first = args
        .words
        .iter()
        .position(is_change)
        .unwrap_or(args.words.len());
    let (objects, changes) = args.words.split_at(first);
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for word in changes {
        match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => set.push((key, value)),
            (None, Some(key)) => removed.push(key),
            (None, None) => bail!(
                "all resources must be specified before {} changes: {word}",
                map.singular()
            ),
        }
    }
    if let Some((key, _)) = set.iter().find(|(key, _)| removed.contains(key)) {
        bail!(
            "can not both modify and remove a {} in the same command: {key}",
            map.singular()
        );
    }
    if changes.is_empty() && !args.list {
        bail!("at least one {} update is required", map.singular());
    }
    let targets = change::targets(
        machine,
        map.singular(),
        objects,
        &args.namespace,
        args.selector.as_ref(),
        args.all,
    )?;
    for (kind, name) in targets {
        let changed = change::change(machine, kind, &args.namespace, &name, |object| {
            edit(object, map, &set, &removed, args.overwrite)
        })?;
        if !changes.is_empty() {
            let word = map.done(changed.changed, set.is_empty());
            print::say(format_args!("{}/{name} {word}\n", kind.qualified()))?;
        }
        if args.list {
            let metadata = changed.object.metadata();
            let there = match map {
                Metadata::Labels => &metadata.labels,
                Metadata::Annotations => &metadata.annotations,
            };
            for (key, value) in there.iter().flatten() {
                print::say(format_args!("{key}={}\n", print::printable(value)))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn edit(
    object: &mut Value,
    map: Metadata,
    set: &[(&str, &str)],
    removed: &[&str],
    overwrite: bool,
) -> Result<()> {
    let there = &mut object["metadata"][map.field()];
    if there.is_null() {
        *there = Value::Object(Map::new());
    }
    for (key, value) in set {
        if let Some(old) = there[*key].as_str()
            && old != *value
            && !overwrite
        {
            bail!("'{key}' already has a value ({old}), and --overwrite is false");
        }
        there[*key] = Value::String((*value).to_owned());
    }
    for key in removed {
        if there
            .as_object_mut()
            .is_none_or(|map| map.remove(*key).is_none())
        {
            print::note(format_args!("{} {key:?} not found.", map.singular()));
        }
    }
    Ok(())
}
