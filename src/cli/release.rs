//! `orlop release`: makes a volume free again whose claim is gone.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use super::print::{self, Selection};
use super::{Machine, change};
use crate::kube::kind::Kind;

/// `orlop release` on the command line.
#[derive(Args, Debug)]
pub struct ReleaseArgs {
    /// pv/NAME… or pv NAME…
    #[arg(value_name = "pv/NAME", required = true)]
    volumes: Vec<String>,
}

/// Takes the reference to their former claim from volumes: they are `Available`
/// again, with whatever is in them.
///
/// # Errors
/// A volume that is not there, or whose claim still is.
pub fn run(args: &ReleaseArgs, machine: &Machine) -> Result<ExitCode> {
    for selection in Selection::parse_all("release", &args.volumes)? {
        let kind = selection.resource.kind();
        if kind != Kind::PersistentVolume {
            bail!(
                "only persistentvolumes can be released, not {}",
                kind.plural()
            );
        }
        if selection.names.is_empty() {
            bail!("resource(s) were provided, but no name was specified");
        }
        for name in selection.names {
            release(machine, &name)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn release(machine: &Machine, name: &str) -> Result<()> {
    let changed = change::change(machine, Kind::PersistentVolume, "", name, |volume| {
        let reference = &volume["spec"]["claimRef"];
        if volume["status"]["phase"] == "Bound" {
            let text = |key: &str| reference[key].as_str().unwrap_or_default();
            bail!(
                "persistentvolume {name:?} is bound to claim {}/{}: delete the claim first",
                text("namespace"),
                text("name")
            );
        }
        if let Some(spec) = volume["spec"].as_object_mut() {
            spec.remove("claimRef");
        }
        Ok(())
    })?;
    let note = match changed.changed {
        true => "released",
        false => "released (no change)",
    };
    print::say(format_args!("persistentvolume/{name} {note}\n"))
}
