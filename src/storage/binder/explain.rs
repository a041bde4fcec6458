//! Why a claim has the volume that it has, or none: volume by volume, in words.

use std::fmt;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::facts::{
    claim_phase, class_of_claim, name, namespace, refers_to, requested_text, volume_of_claim,
};
use super::matching::{Wish, find, short_modes};
use super::{Snapshot, classes};
use crate::storage::binder::claims::class;

/// The most volumes that a claim's event tells of.
const BRIEFLY: usize = 10;

/// What there is to say about a claim and every volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The claim, as `namespace/name`.
    pub claim: String,
    /// What it asks for, and how it stands.
    pub state: String,
    /// Each volume, and why the claim does or does not get it, by name.
    pub volumes: Vec<(String, String)>,
    /// How many more volumes there are.
    pub more: usize,
}

impl Explanation {
    /// The volumes in one line, as the claim's event has them.
    #[must_use]
    pub fn in_brief(&self) -> String {
        let shown = self.volumes.iter();
        let mut text: Vec<String> = shown.map(|(name, why)| format!("{name}: {why}")).collect();
        if self.volumes.is_empty() {
            text.push("there are no PersistentVolumes".to_owned());
        }
        if self.more > 0 {
            let (_, name) = self.claim.split_once('/').unwrap_or_default();
            text.push(format!(
                "and {} more, see: orlop explain-binding pvc/{name}",
                self.more
            ));
        }
        text.join("; ")
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "persistentvolumeclaim/{} {}", self.claim, self.state)?;
        if self.volumes.is_empty() {
            writeln!(f, "there are no PersistentVolumes")?;
        }
        for (name, why) in &self.volumes {
            writeln!(f, "{name}: {why}")?;
        }
        Ok(())
    }
}

/// Explains a claim of the snapshot, which is settled.
#[must_use]
pub fn explain(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Explanation {
    explain_some(snapshot, claim, usize::MAX)
}

/// [`explain`], but with as many volumes as an event tells of.
pub(super) fn explain_briefly(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> Explanation {
    explain_some(snapshot, claim, BRIEFLY)
}

fn explain_some(snapshot: &Snapshot, claim: &PersistentVolumeClaim, most: usize) -> Explanation {
    let wish = Wish::of(claim);
    let is_busy = |volume: &_| snapshot.is_busy(volume);
    let chosen = find(&snapshot.volumes, claim, is_busy, false);
    let chosen = chosen.map(|index| name(&snapshot.volumes[index]));
    let bound = volume_of_claim(claim);
    let verdict = |volume: &_| {
        if bound == Some(name(volume)) && refers_to(volume, claim) {
            return match claim_phase(claim) {
                "Bound" => "it is bound to the claim".to_owned(),
                phase => format!("the claim names it, and is {phase}"),
            };
        }
        let mut obstacles: Vec<String> =
            wish.obstacles(volume).map(|one| one.to_string()).collect();
        if snapshot.is_busy(volume) {
            obstacles.push("it is being emptied or deleted".to_owned());
        }
        if let Some(bound) = bound.filter(|bound| *bound != name(volume)) {
            obstacles.push(format!("the claim names {bound:?}"));
        }
        match (obstacles.is_empty(), chosen) {
            (false, _) => obstacles.join(", "),
            (true, Some(chosen)) if chosen != name(volume) => {
                format!("it would do, but {chosen:?} comes first")
            }
            (true, _) => "it matches".to_owned(),
        }
    };
    let mut volumes: Vec<&PersistentVolume> = snapshot.volumes.iter().collect();
    volumes.sort_by_key(|volume| name(*volume));
    let more = volumes.len().saturating_sub(most);
    let volumes = volumes
        .into_iter()
        .take(most)
        .map(|volume| (name(volume).to_owned(), verdict(volume)));
    Explanation {
        claim: format!("{}/{}", namespace(claim), name(claim)),
        state: state(snapshot, claim),
        volumes: volumes.collect(),
        more,
    }
}

fn state(snapshot: &Snapshot, claim: &PersistentVolumeClaim) -> String {
    let spec = claim.spec.clone().unwrap_or_default();
    let modes = short_modes(spec.access_modes.as_deref().unwrap_or_default());
    let asked_class = match class_of_claim(claim) {
        None | Some("") => "no storage class".to_owned(),
        Some(class) => format!("storage class {class:?}"),
    };
    let mut text = format!(
        "({}, {modes}, {asked_class}) is {}",
        requested_text(&spec),
        claim_phase(claim)
    );
    if let Some(volume) = volume_of_claim(claim) {
        text += &format!(", volume {volume:?}");
    }
    if claim_phase(claim) == "Pending" && class(snapshot, claim).is_some_and(classes::waits) {
        text += ", it is bound when a pod uses it";
    }
    text
}
