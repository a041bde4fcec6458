//! Which volume a claim gets.

use std::fmt;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::facts::{
    capacity, capacity_text, claim_name, claim_ref, class_of_claim, class_of_volume, is_deleting,
    name, namespace, refers_to, requested, requested_text, volume_phase,
};
use crate::kube::selector::LabelSelector;

/// The volume mode of what names none.
const FILESYSTEM: &str = "Filesystem";

/// What a claim asks for.
pub(super) struct Wish<'c> {
    claim: &'c PersistentVolumeClaim,
    class: &'c str,
    modes: &'c [String],
    mode: &'c str,
    size: u64,
    selector: LabelSelector,
}

/// Why a claim does not get a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Deleting,
    Claimed(String),
    Released { phase: String, by: String },
    Former(String),
    Phase(String),
    Class { has: String, wanted: String },
    Size { has: String, wanted: String },
    Modes { has: String, lacks: String },
    Mode { has: String, wanted: String },
    Labels,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = |class: &str| match class {
            "" => "no storage class".to_owned(),
            class => format!("storage class {class:?}"),
        };
        match self {
            Self::Deleting => f.write_str("it is being deleted"),
            Self::Claimed(by) => write!(f, "it is claimed by {by}"),
            Self::Released { phase, by } => {
                write!(f, "it is {phase}, {by} had it")
            }
            Self::Former(phase) => write!(
                f,
                "it is {phase}, an earlier claim of this name had it (`orlop release` makes it Available)"
            ),
            Self::Phase(phase) => write!(f, "it is {phase}, not Available"),
            Self::Class { has, wanted } => write!(
                f,
                "it has {}, the claim asks for {}",
                class(has),
                class(wanted)
            ),
            Self::Size { has, wanted } => {
                write!(f, "it has {has}, the claim asks for {wanted}")
            }
            Self::Modes { has, lacks } => {
                write!(f, "its access modes {has} do not include {lacks}")
            }
            Self::Mode { has, wanted } => {
                write!(f, "its volume mode is {has}, the claim asks for {wanted}")
            }
            Self::Labels => f.write_str("its labels do not match the claim's selector"),
        }
    }
}

impl<'c> Wish<'c> {
    /// What `claim` asks for.
    pub(super) fn of(claim: &'c PersistentVolumeClaim) -> Self {
        let spec = claim.spec.as_ref();
        let selector = spec.and_then(|spec| spec.selector.as_ref());
        Self {
            claim,
            class: class_of_claim(claim).unwrap_or(""),
            modes: spec
                .and_then(|spec| spec.access_modes.as_deref())
                .unwrap_or_default(),
            mode: spec
                .and_then(|spec| spec.volume_mode.as_deref())
                .unwrap_or(FILESYSTEM),
            size: spec.map_or(0, requested),
            selector: selector.map(LabelSelector::from).unwrap_or_default(),
        }
    }

    /// What keeps the claim from getting `volume`, one after the other. A volume that
    /// names the claim may be of any class and have any labels.
    pub(super) fn obstacles(&self, volume: &PersistentVolume) -> impl Iterator<Item = Obstacle> {
        let checks: [fn(&Self, &PersistentVolume) -> Option<Obstacle>; 8] = [
            |_, volume| is_deleting(volume).then_some(Obstacle::Deleting),
            Self::claimed,
            Self::class,
            Self::size,
            Self::modes,
            Self::mode,
            Self::labels,
            Self::phase,
        ];
        checks
            .into_iter()
            .filter_map(move |check| check(self, volume))
    }

    /// Whether the claim may get `volume`.
    pub(super) fn is_met_by(&self, volume: &PersistentVolume) -> bool {
        self.obstacles(volume).next().is_none()
    }

    /// What keeps a claim from getting the volume that it names itself, in the words
    /// of Kubernetes.
    pub(super) fn refusal(&self, volume: &PersistentVolume) -> Option<&'static str> {
        if is_deleting(volume) {
            Some("the volume is marked for deletion")
        } else if self.size(volume).is_some() {
            Some("requested PV is too small")
        } else if class_of_volume(volume) != self.class {
            Some("storageClassName does not match")
        } else if self.mode(volume).is_some() {
            Some("incompatible volumeMode")
        } else if self.modes(volume).is_some() {
            Some("incompatible accessMode")
        } else {
            None
        }
    }

    fn is_named_by(&self, volume: &PersistentVolume) -> bool {
        refers_to(volume, self.claim)
    }

    fn claimed(&self, volume: &PersistentVolume) -> Option<Obstacle> {
        let is_others = claim_ref(volume).is_some() && !self.is_named_by(volume);
        if !is_others {
            return None;
        }
        let by = claim_name(volume);
        let phase = volume_phase(volume).to_owned();
        Some(match phase.as_str() {
            "Released" | "Failed" if by == full_name(self.claim) => Obstacle::Former(phase),
            "Released" | "Failed" => Obstacle::Released { phase, by },
            _ => Obstacle::Claimed(by),
        })
    }

    fn phase(&self, volume: &PersistentVolume) -> Option<Obstacle> {
        let phase = volume_phase(volume);
        let is_free = phase == "Available" || claim_ref(volume).is_some();
        (!is_free).then(|| Obstacle::Phase(phase.to_owned()))
    }

    fn class(&self, volume: &PersistentVolume) -> Option<Obstacle> {
        let has = class_of_volume(volume);
        let fits = has == self.class || self.is_named_by(volume);
        (!fits).then(|| Obstacle::Class {
            has: has.to_owned(),
            wanted: self.class.to_owned(),
        })
    }

    fn size(&self, volume: &PersistentVolume) -> Option<Obstacle> {
        let spec = volume.spec.as_ref()?;
        (capacity(spec) < self.size).then(|| Obstacle::Size {
            has: capacity_text(spec).to_owned(),
            wanted: self
                .claim
                .spec
                .as_ref()
                .map_or("0", requested_text)
                .to_owned(),
        })
    }

    fn modes(&self, volume: &PersistentVolume) -> Option<Obstacle> {
        let has = modes(volume);
        let lacks: Vec<String> = self
            .modes
            .iter()
            .filter(|mode| !has.contains(mode))
            .cloned()
            .collect();
        (!lacks.is_empty()).then(|| Obstacle::Modes {
            has: short_modes(has),
            lacks: short_modes(&lacks),
        })
    }

    fn mode(&self, volume: &PersistentVolume) -> Option<Obstacle> {
        let spec = volume.spec.as_ref()?;
        let has = spec.volume_mode.as_deref().unwrap_or(FILESYSTEM);
        (has != self.mode).then(|| Obstacle::Mode {
            has: has.to_owned(),
            wanted: self.mode.to_owned(),
        })
    }

    fn labels(&self, volume: &PersistentVolume) -> Option<Obstacle> {
        let fits =
            self.selector.matches(volume.metadata.labels.as_ref()) || self.is_named_by(volume);
        (!fits).then_some(Obstacle::Labels)
    }
}

/// The best of `volumes` for `claim`, as an index: one that names the claim before
/// all others, then that with the fewest access modes, the smallest, the oldest, the
/// first by name. `is_taken` tells of volumes that somebody else is to get;
/// `named_only` leaves volumes out that do not name the claim.
pub(super) fn find(
    volumes: &[PersistentVolume],
    claim: &PersistentVolumeClaim,
    is_taken: impl Fn(&PersistentVolume) -> bool,
    named_only: bool,
) -> Option<usize> {
    let wish = Wish::of(claim);
    let suitable = volumes.iter().enumerate().filter(|(_, volume)| {
        (wish.is_named_by(volume) || !named_only) && wish.is_met_by(volume) && !is_taken(volume)
    });
    let best = suitable.min_by_key(|(_, volume)| {
        let created = volume.metadata.creation_timestamp.as_ref();
        (
            !wish.is_named_by(volume),
            modes(volume).len(),
            volume.spec.as_ref().map_or(0, capacity),
            created.map(|time| time.0),
            name(*volume).to_owned(),
        )
    });
    best.map(|(index, _)| index)
}

fn modes(volume: &PersistentVolume) -> &[String] {
    let modes = volume
        .spec
        .as_ref()
        .and_then(|it| it.access_modes.as_deref());
    modes.unwrap_or_default()
}

/// `namespace/name` of a claim.
fn full_name(claim: &PersistentVolumeClaim) -> String {
    format!("{}/{}", namespace(claim), name(claim))
}

/// Access modes as tables show them: `RWO,RWX`.
#[must_use]
pub fn short_modes(modes: &[String]) -> String {
    let all = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = all
        .into_iter()
        .filter(|(mode, _)| modes.iter().any(|one| one == mode));
    has.map(|(_, short)| short).collect::<Vec<_>>().join(",")
}
