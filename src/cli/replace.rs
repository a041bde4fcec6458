//! `orlop replace`: gives objects that are there the form that manifests declare.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{Machine, change, delete, print};
use crate::storage::roots::Roots;
use crate::storage::store::StoreError;

/// `orlop replace` on the command line.
#[derive(Args, Debug)]
pub struct ReplaceArgs {
    /// A manifest, a directory of manifests, or - for standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    filenames: Vec<OsString>,
    /// Namespace of the objects that name none
    #[arg(short, long)]
    namespace: Option<String>,
    /// Delete what is there and make it anew: everything may change then
    #[arg(long)]
    force: bool,
    /// Seconds that containers have to end with --force; less than 0 for what the pod says
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_name = "SECONDS", requires = "force")]
    grace_period: i64,
}

/// Replaces the objects, one after the other.
///
/// # Errors
/// What is wrong with a manifest, what is not there, or what may not change.
pub fn run(args: &ReplaceArgs, roots: &Roots) -> Result<ExitCode> {
    let pods = change::load(&args.filenames, args.namespace.as_deref())?;
    let machine = Machine::open(roots)?;
    let mut failed = false;
    for (_, pod) in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let replaced = if args.force {
            if let Some(old) = machine.store.pod(&namespace, &name)? {
                delete::remove(&machine, &old, u32::try_from(args.grace_period).ok())?;
                print::say(format_args!(
                    "pod {name:?} deleted from {namespace} namespace\n"
                ))?;
            }
            change::create(&machine, pod).map(drop)
        } else {
            replace(&machine, pod)
        };
        match replaced {
            Ok(()) => print::say(format_args!("pod/{name} replaced\n"))?,
            Err(error) if error.is::<StoreError>() => {
                print::note(format_args!("{}", print::error_line(&error)));
                failed = true;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(u8::from(failed).into())
}

fn replace(machine: &Machine, pod: k8s_openapi::api::core::v1::Pod) -> Result<()> {
    let changed = machine.store.change_pod(pod)?;
    if changed.changed {
        change::remind(machine, &changed.pod)?;
    }
    Ok(())
}
