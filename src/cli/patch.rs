//! `orlop patch`: changes fields of objects.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::output::{self, Output};
use super::{Machine, change, print};
use crate::kube::strategic;

/// `orlop patch` on the command line.
#[derive(Args, Debug)]
pub struct PatchArgs {
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "TYPE NAME", required = true)]
    resources: Vec<String>,
    /// The patch, as JSON or YAML
    #[arg(
        short,
        long,
        value_name = "PATCH",
        required_unless_present = "patch_file",
        conflicts_with = "patch_file"
    )]
    patch: Option<String>,
    /// A file with the patch
    #[arg(long, value_name = "FILE")]
    patch_file: Option<PathBuf>,
    /// How the patch is to be read
    #[arg(long = "type", value_enum, default_value = "strategic")]
    type_: Type,
    /// Namespace of the objects
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Print the object instead: yaml, json, name, jsonpath=…
    #[arg(short, long, value_name = "FORM")]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    /// Kubernetes' own: lists of objects are merged by their names
    Strategic,
    /// RFC 7386: lists are replaced
    Merge,
    /// RFC 6902: a list of operations
    Json,
}

/// Patches the objects.
///
/// # Errors
/// A patch that cannot be read or does not fit, an object that is not there, or
/// what may not change.
pub fn run(args: &PatchArgs, machine: &Machine) -> Result<ExitCode> {
    let text = match (&args.patch, &args.patch_file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {file:?}"))?
        }
        (None, None) => {
            bail!("must specify --patch or --patch-file containing the contents of the patch")
        }
    };
    let patch: Value = serde_saphyr::from_str(&text)
        .map_err(|error| anyhow!("unable to parse {text:?}: {error}"))?;
    let targets = change::targets(
        machine,
        "patch",
        &args.resources,
        &args.namespace,
        None,
        false,
    )?;
    for (kind, name) in targets {
        let changed = change::change(machine, kind, &args.namespace, &name, |object| {
            apply(args.type_, object, &patch)
        })?;
        match &args.output {
            Some(form) => {
                let text = output::render(form, &[changed.object.to_value()?], false, true)?;
                print::say(format_args!("{}", text.unwrap_or_default()))?;
            }
            None => {
                let note = if changed.changed { "" } else { " (no change)" };
                let kind = kind.qualified();
                print::say(format_args!("{kind}/{name} patched{note}\n"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn apply(type_: Type, object: &mut Value, patch: &Value) -> Result<()> {
    match type_ {
        Type::Strategic => strategic::apply(object, patch).map_err(|why| anyhow!("{why}")),
        Type::Merge if patch.is_object() => {
            json_patch::merge(object, patch);
            Ok(())
        }
        Type::Merge => bail!("a merge patch must be a mapping"),
        Type::Json => {
            let operations: json_patch::Patch =
                serde_json::from_value(patch.clone()).map_err(|error| {
                    anyhow!("a JSON patch is a list of operations (RFC 6902): {error}")
                })?;
            json_patch::patch(object, &operations).map_err(|error| {
                anyhow!("the server rejected our request due to an error in our request: {error}")
            })
        }
    }
}
