//! `orlop create`: makes what manifests declare, and nothing that is there
//! already.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::output::{self, Output};
use super::{Machine, change, print};
use crate::storage::roots::Roots;
use crate::storage::store::StoreError;

/// `orlop create` on the command line.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// A manifest, a directory of manifests, or - for standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    filenames: Vec<OsString>,
    /// Namespace of the objects that name none
    #[arg(short, long)]
    namespace: Option<String>,
    /// client: check and print, but make nothing
    #[arg(long, value_enum, default_value = "none", value_name = "STRATEGY")]
    dry_run: DryRun,
    /// Print the objects instead: yaml, json, name, jsonpath=…
    #[arg(short, long, value_name = "FORM")]
    output: Option<Output>,
}

/// Whether anything is done at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DryRun {
    /// Everything.
    None,
    /// Nothing.
    Client,
}

/// Makes the objects. All manifests are read and checked before the first is made.
///
/// # Errors
/// What is wrong with a manifest. An object that is there already is told after
/// the others are made.
pub fn run(args: &CreateArgs, roots: &Roots) -> Result<ExitCode> {
    let objects = change::load(&args.filenames, args.namespace.as_deref())?;
    let dry = args.dry_run == DryRun::Client;
    let machine = if dry {
        None
    } else {
        Some(Machine::open(roots)?)
    };
    let mut failed = false;
    // What cannot be told must not keep the next object from being made.
    let mut told = Ok(());
    for (file, object) in objects {
        let made = match &machine {
            Some(machine) => change::create(machine, object),
            None => Ok(object),
        };
        let object = match made {
            Ok(object) => object,
            Err(error) => {
                failed = true;
                match error.downcast_ref::<StoreError>() {
                    Some(there @ StoreError::AlreadyExists { .. }) => print::note(format_args!(
                        "Error from server (AlreadyExists): error when creating {file}: {there}"
                    )),
                    _ => return Err(error),
                }
                continue;
            }
        };
        let said = match &args.output {
            Some(form) => {
                let text = output::render(form, &[object.to_value()?], false, true)?;
                print::say(format_args!("{}", text.unwrap_or_default()))
            }
            None => print::say(format_args!(
                "{}/{} created{}\n",
                object.kind().qualified(),
                object.name(),
                if dry { " (dry run)" } else { "" }
            )),
        };
        told = told.and(said);
    }
    told?;
    Ok(u8::from(failed).into())
}
