//! `orlop reclaim`: recycles or deletes volumes whose claims are gone, now; or tells
//! what that would take away.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;

use super::print::{self, Answer, Selection, printable};
use super::{Machine, volumes};
use crate::kube::kind::Kind;
use crate::pod::repair;
use crate::storage::binder::facts::{
    PROVISIONED_BY, annotation, claim_name, name, uid, volume_phase,
};
use crate::storage::provisioner;
use crate::storage::reclaim;
use crate::storage::work::Work;
use crate::sys::aside::Aside;
use crate::volume::count::Count;

/// How long counting what is in a volume may take.
const COUNTING: Duration = Duration::from_secs(120);
/// After how long it is looked whether the steward that does the work still lives:
/// nothing tells that it does not.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// `orlop reclaim` on the command line.
#[derive(Args, Debug)]
pub struct ReclaimArgs {
    /// pv/NAME… or pv NAME…
    #[arg(value_name = "pv/NAME", required = true)]
    volumes: Vec<String>,
    /// Delete nothing: count the files and bytes that would go
    #[arg(long)]
    dry_run: bool,
}

/// Reclaims volumes as their policies say, without waiting for their turn.
///
/// # Errors
/// A volume that is not there, has a claim, or retains its data; and why it could not
/// be reclaimed.
pub fn run(args: &ReclaimArgs, machine: &Machine) -> Result<ExitCode> {
    let mut answer = Answer::default();
    for selection in Selection::parse_all("reclaim", &args.volumes)? {
        let kind = selection.resource.kind();
        if kind != Kind::PersistentVolume {
            bail!(
                "only persistentvolumes can be reclaimed, not {}",
                kind.plural()
            );
        }
        if selection.names.is_empty() {
            bail!("resource(s) were provided, but no name was specified");
        }
        for wanted in selection.names {
            let Some(volume) = machine.store.object::<PersistentVolume>("", &wanted)? else {
                answer.missing(kind.plural(), &wanted);
                continue;
            };
            let said = match args.dry_run {
                true => preview(machine, &volume)?,
                false => reclaim(machine, &volume)?,
            };
            print::say(format_args!("persistentvolume/{wanted} {said}\n"))?;
        }
    }
    answer.say()
}

fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

/// What would become of a volume, without a touch of it.
fn preview(machine: &Machine, volume: &PersistentVolume) -> Result<String> {
    let maker = annotation(volume, PROVISIONED_BY).and_then(provisioner::of);
    let verb = match (policy(volume), maker.map(|maker| maker.on_delete(volume))) {
        ("Recycle", _) => "would be emptied",
        ("Delete", Some("archive")) => "would be archived",
        ("Delete", Some("delete") | None) => "would be deleted",
        _ => "would keep its data",
    };
    if verb == "would be deleted" {
        reclaim::may_delete(volume).with_context(|| name(volume).to_owned())?;
    }
    // Whatever the volume is on may not answer: who asks must be a process to be killed.
    machine.store.close();
    let job = Aside::begin(|| {
        let counted = reclaim::preview(volume, &machine.roots).map_err(|error| error.to_string());
        serde_json::to_vec(&counted).unwrap_or_default()
    });
    let counted = job.and_then(|job| job.result_until(Instant::now() + COUNTING));
    let counted = counted.context("cannot have the volume looked at")?;
    let counted = counted.with_context(|| {
        format!(
            "{}: {} was not counted within {} s: whatever it is on does not answer",
            name(volume),
            reclaim::describe(volume),
            COUNTING.as_secs()
        )
    })?;
    let counted: Result<Count, String> = serde_json::from_slice(&counted)?;
    let count = counted.map_err(|error| anyhow!("{}: {error}", name(volume)))?;
    let mut said = format!(
        "{verb} (dry run): {} and {}, {} bytes ({}), in {}",
        number(count.files, "file", "files"),
        number(count.directories, "directory", "directories"),
        count.bytes,
        volumes::human(count.bytes),
        printable(&reclaim::describe(volume))
    );
    if volume_phase(volume) == "Bound" && verb != "would keep its data" {
        said += &format!(", once claim {} is gone", claim_name(volume));
    }
    if let Some(mount) = &count.mount {
        said += &format!("; it stops at the mount point {mount:?} inside");
    }
    Ok(said)
}

fn number(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Has a volume reclaimed, and waits for it.
fn reclaim(machine: &Machine, volume: &PersistentVolume) -> Result<String> {
    let wanted = name(volume);
    let store = &machine.store;
    match (volume_phase(volume), policy(volume)) {
        ("Released" | "Failed", "Retain") => bail!(
            "persistentvolume {wanted:?} has the policy Retain: nothing of it is deleted. Make it Available with its \
             data (orlop release pv/{wanted}), or give it the policy Recycle or Delete"
        ),
        ("Bound", _) => bail!(
            "persistentvolume {wanted:?} is bound to claim {}: delete the claim first",
            claim_name(volume)
        ),
        _ => {}
    }
    let changes = store.changes()?;
    let tried = pending(machine, volume)?.map_or(0, |work| work.attempts);
    if !store.hurry_work(uid(volume))? {
        bail!(
            "persistentvolume {wanted:?} is {}: there is nothing to reclaim",
            volume_phase(volume)
        );
    }
    loop {
        repair::start_worker_if_due(&machine.roots, store)?;
        let now: Option<PersistentVolume> = store.object("", wanted)?;
        let Some(now) = now.filter(|now| uid(now) == uid(volume)) else {
            return Ok("deleted".to_owned());
        };
        match pending(machine, volume)? {
            // The next claim may have it already.
            None if matches!(volume_phase(&now), "Available" | "Bound") => {
                return Ok("recycled".to_owned());
            }
            None => bail!(
                "persistentvolume {wanted:?} is {} now: its policy or its claim has changed meanwhile",
                volume_phase(&now)
            ),
            Some(work) if work.attempts > tried => {
                let why = now.status.and_then(|status| status.message);
                bail!("persistentvolume {wanted:?}: {}", why.unwrap_or_default());
            }
            Some(work) if work.due > Timestamp::now() => bail!(
                "persistentvolume {wanted:?} cannot be reclaimed yet; orlop describe pv/{wanted} tells why"
            ),
            Some(_) => {}
        }
        changes.wait(Some(Instant::now() + LOOK_AGAIN))?;
    }
}

/// What is to be done with a volume, if anything is.
fn pending(machine: &Machine, volume: &PersistentVolume) -> Result<Option<Work>> {
    let all = machine.store.pending_work()?;
    Ok(all.into_iter().find(|work| work.uid == uid(volume)))
}
