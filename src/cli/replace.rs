//! `orlop replace`: gives objects that are there the form that manifests declare.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{Machine, change, delete, print};
use crate::kube::manifest::Object;
use crate::pod::claims;
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
    let objects = change::load(&args.filenames, args.namespace.as_deref())?;
    let machine = Machine::open(roots)?;
    let mut failed = false;
    for (_, object) in objects {
        let (kind, name) = (object.kind().qualified(), object.name().to_owned());
        let replaced = match args.force {
            true => make_anew(args, &machine, object),
            false => change::replace(&machine, object).map(drop),
        };
        match replaced {
            Ok(()) => print::say(format_args!("{kind}/{name} replaced\n"))?,
            Err(error) if error.is::<StoreError>() => {
                print::note(format_args!("{}", print::error_line(&error)));
                failed = true;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(u8::from(failed).into())
}

/// Deletes the object, if it is there, and makes it again.
fn make_anew(args: &ReplaceArgs, machine: &Machine, object: Object) -> Result<()> {
    let (kind, namespace, name) = (object.kind(), object.namespace(), object.name());
    if let Some(old) = machine.store.find(kind, namespace, name)? {
        match &old {
            Object::Pod(pod) => {
                delete::remove(machine, pod, u32::try_from(args.grace_period).ok())?;
            }
            old => {
                machine.store.forget(kind, namespace, name)?;
                claims::follow_up(&machine.roots, &machine.store)?;
                delete::wait_until_gone(machine, old)?;
            }
        }
        delete::say(&old, false)?;
    }
    change::create(machine, object).map(drop)
}
