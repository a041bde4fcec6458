//! `orlop reconcile`: brings the machine to the state that was asked for.

use std::process::ExitCode;

use anyhow::Result;

use super::{Machine, print};
use crate::pod::cleanup;
use crate::pod::repair::{self, Scope};
use crate::storage::roots::Roots;

/// Finishes whatever was interrupted, starts pods again that ran before the
/// machine was started, and empties the trash. Says what it did, and nothing
/// when there was nothing to do.
///
/// # Errors
/// When the store or the run directory cannot be read. What fails for one pod is
/// told, and makes the command fail in the end.
pub fn run(roots: &Roots) -> Result<ExitCode> {
    let machine = Machine::open_as_it_is(roots)?;
    machine.store.settle_claims()?;
    let report = repair::repair(roots, &machine.store, Scope::All)?;
    for name in &report.started {
        print::say(format_args!("pod/{name} started\n"))?;
    }
    for name in &report.removed {
        print::say(format_args!("pod/{name} removed\n"))?;
    }
    for failure in &report.failures {
        print::note(format_args!("error: {failure:#}"));
    }
    repair::start_worker_if_due(roots, &machine.store)?;
    let swept = cleanup::sweep(roots);
    if let Err(error) = &swept {
        print::note(format_args!("error: {error:#}"));
    }
    Ok(u8::from(!report.failures.is_empty() || swept.is_err()).into())
}
