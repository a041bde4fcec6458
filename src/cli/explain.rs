//! `orlop explain-binding`: why a claim has the volume that it has, or none.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use super::Machine;
use super::print::{Answer, Selection, printable};
use crate::kube::kind::Kind;

/// `orlop explain-binding` on the command line.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// pvc/NAME… or pvc NAME…
    #[arg(value_name = "pvc/NAME", required = true)]
    claims: Vec<String>,
    /// Namespace of the claims
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

/// Tells of every volume why a claim does or does not get it.
///
/// # Errors
/// Other kinds than claims; an unreadable store. A claim that is not there is told
/// after the others.
pub fn run(args: &ExplainArgs, machine: &Machine) -> Result<ExitCode> {
    let mut answer = Answer::default();
    let mut texts = Vec::new();
    for selection in Selection::parse_all("explain-binding", &args.claims)? {
        let kind = selection.resource.kind();
        if kind != Kind::PersistentVolumeClaim {
            bail!(
                "only persistentvolumeclaims are bound to volumes, not {}",
                kind.plural()
            );
        }
        if selection.names.is_empty() {
            bail!("resource(s) were provided, but no name was specified");
        }
        for name in selection.names {
            match machine.store.explain_binding(&args.namespace, &name)? {
                Some(explanation) => texts.push(printable(&explanation.to_string())),
                None => answer.missing(kind.plural(), &name),
            }
        }
    }
    answer.out = texts.join("\n");
    answer.say()
}
