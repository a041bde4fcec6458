//! A pod's claims: what is mounted for them, and what follows when they change.

use std::collections::BTreeMap;

use anyhow::Result;
use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NFSVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Volume,
};

use super::{remind, repair};
use crate::storage::binder::facts::{
    claim_phase, claim_ref, claim_ref_uid, name, uid, volume_of_claim,
};
use crate::storage::binder::{Consumer, claims_of};
use crate::storage::roots::Roots;
use crate::storage::store::{Store, StoreError};
use crate::sys::node;
use crate::volume::Persistent;

/// Why what a claim stands for cannot be mounted, in kubelet's words.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// There is no such claim.
    #[error("persistentvolumeclaim {0:?} not found")]
    NoClaim(String),
    /// The claim has no volume, or has none any more.
    #[error("PVC is not bound: persistentvolumeclaim {claim:?} is {phase}")]
    NotBound {
        /// The claim's name.
        claim: String,
        /// Its phase.
        phase: String,
    },
    /// The volume that the claim names is not there.
    #[error("persistentvolume {0:?} not found")]
    NoVolume(String),
    /// The volume belongs to another claim.
    #[error("persistentvolume {volume:?} is not bound to persistentvolumeclaim {claim:?}")]
    Other {
        /// The volume's name.
        volume: String,
        /// The claim's name.
        claim: String,
    },
    /// The volume is a raw device.
    #[error("volume {0:?} has volumeMode Block, but is specified in volumeMounts")]
    Block(String),
    /// The kind of the volume takes no mount options.
    #[error("mount options are not supported for volumes of type {kind}: {options}")]
    Options {
        /// The kind, as in the manifest.
        kind: &'static str,
        /// The options.
        options: String,
    },
    /// The volume is of a kind that this version cannot mount.
    #[error("persistentvolume {0:?} is of a kind that this version of orlop cannot mount")]
    Unsupported(String),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A volume of a pod that cannot be mounted for want of what its claim stands for.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {why}")]
pub struct Unresolved {
    /// Its name in the pod.
    volume: String,
    /// What is wrong with the claim.
    why: Box<ClaimError>,
}

/// A pod as its launcher needs it: volumes of claims replaced by what they stand for.
pub struct Resolved {
    /// The pod.
    pub pod: Pod,
    /// What PersistentVolumes say of the volumes besides their sources, by the name of
    /// the volume in the pod.
    pub persistent: BTreeMap<String, Persistent>,
}

/// Replaces the volumes of claims in a pod by what is to be mounted for them. A volume
/// that the pod may only read is mounted so in all of its containers.
///
/// # Errors
/// The first volume that cannot be mounted, and why.
pub fn resolve(mut pod: Pod, store: &Store) -> Result<Resolved, Unresolved> {
    let mut persistent = BTreeMap::new();
    let space = pod.metadata.namespace.clone().unwrap_or_default();
    let own = pod.metadata.name.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else {
        return Ok(Resolved { pod, persistent });
    };
    for volume in spec.volumes.iter_mut().flatten() {
        let (claim, read_only) = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => (source.claim_name.clone(), source.read_only == Some(true)),
            (None, Some(_)) => (format!("{own}-{}", volume.name), false),
            (None, None) => continue,
        };
        let resolved = volume_of(store, &space, &claim)
            .and_then(|found| source(&found, &volume.name, read_only));
        let (source, options) = resolved.map_err(|why| Unresolved {
            volume: volume.name.clone(),
            why: Box::new(why),
        })?;
        *volume = source;
        if read_only {
            let init = spec.init_containers.iter_mut().flatten();
            let containers = init.chain(&mut spec.containers);
            let mounts = containers.flat_map(|one| one.volume_mounts.iter_mut().flatten());
            for mount in mounts.filter(|mount| mount.name == volume.name) {
                mount.read_only = Some(true);
            }
        }
        persistent.insert(volume.name.clone(), options);
    }
    Ok(Resolved { pod, persistent })
}

/// The volume of a claim, if a pod may have it mounted.
fn volume_of(store: &Store, namespace: &str, wanted: &str) -> Result<PersistentVolume, ClaimError> {
    let claim: PersistentVolumeClaim = store
        .object(namespace, wanted)?
        .ok_or_else(|| ClaimError::NoClaim(wanted.to_owned()))?;
    let bound = volume_of_claim(&claim).filter(|_| claim_phase(&claim) == "Bound");
    let bound = bound.ok_or_else(|| ClaimError::NotBound {
        claim: wanted.to_owned(),
        phase: claim_phase(&claim).to_owned(),
    })?;
    let volume: PersistentVolume = store
        .object("", bound)?
        .ok_or_else(|| ClaimError::NoVolume(bound.to_owned()))?;
    if claim_ref(&volume).is_none() || claim_ref_uid(&volume) != Some(uid(&claim)) {
        return Err(ClaimError::Other {
            volume: bound.to_owned(),
            claim: wanted.to_owned(),
        });
    }
    Ok(volume)
}

/// What is to be mounted for a PersistentVolume, as a volume of the pod with this
/// `name`. `nfs.readOnly` of a PersistentVolume is ignored, as Kubernetes does: only
/// what the pod says counts.
///
/// # Errors
/// [`ClaimError::Block`], [`ClaimError::Options`], [`ClaimError::Unsupported`].
pub fn source(
    volume: &PersistentVolume,
    name_in_pod: &str,
    read_only: bool,
) -> Result<(Volume, Persistent), ClaimError> {
    let spec = volume.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(ClaimError::Block(name_in_pod.to_owned()));
    }
    let mut source = Volume {
        name: name_in_pod.to_owned(),
        ..Volume::default()
    };
    let mut persistent = Persistent {
        name: name(volume).to_owned(),
        mount_options: spec.mount_options.unwrap_or_default(),
        is_local: spec.local.is_some(),
    };
    if let Some(nfs) = spec.nfs {
        let read_only = Some(read_only);
        source.nfs = Some(NFSVolumeSource { read_only, ..nfs });
        return Ok((source, persistent));
    }
    let kind = if spec.local.is_some() {
        "local"
    } else {
        "hostPath"
    };
    source.host_path = spec.host_path.or_else(|| {
        let path = spec.local?.path;
        Some(HostPathVolumeSource { path, type_: None })
    });
    if source.host_path.is_none() {
        return Err(ClaimError::Unsupported(name(volume).to_owned()));
    }
    let options = std::mem::take(&mut persistent.mount_options);
    match options.is_empty() {
        true => Ok((source, persistent)),
        false => Err(ClaimError::Options {
            kind,
            options: options.join(","),
        }),
    }
}

/// Puts a pod on this machine: one that uses claims as soon as they are bound.
pub fn assign_node(pod: &mut Pod) {
    let own = pod.metadata.name.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else {
        return;
    };
    if claims_of(&own, spec).is_empty() {
        spec.node_name.get_or_insert_with(node::name);
    } else {
        spec.node_name = None;
    }
}

/// Whether a pod uses claims.
#[must_use]
pub fn uses_some(pod: &Pod) -> bool {
    Consumer::of(pod).is_some()
}

/// Does what follows when claims have changed: the pods that wait for them are told,
/// and what is to be done with volumes is begun.
///
/// # Errors
/// As [`remind::users`] and [`repair::start_worker_if_due`].
pub fn follow_up(roots: &Roots, store: &Store) -> Result<()> {
    remind::users(roots, store)?;
    repair::start_worker_if_due(roots, store)
}
