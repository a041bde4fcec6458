//! Making volumes for claims, and taking away what was made
//! (<https://kubernetes.io/docs/concepts/storage/dynamic-provisioning/>).
//!
//! A provisioner is a file here and a line in [`of`]; its names are in
//! [`super::binder::classes::BUILT_IN`]. It plans a volume, which touches nothing;
//! then it makes what the plan stands for. Both halves of the work, and taking it
//! away again, go by what the volume says of itself: its path, which never changes,
//! and how much of it was made. So nothing else has to be kept, and doing it twice
//! does no harm.

pub mod component;
mod draft;
mod ground;
mod local_path;
mod nfs;
pub mod template;

use std::io;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use self::component::UnsafeName;
use self::template::TemplateError;
use super::reclaim::ReclaimError;
use super::roots::Roots;
use crate::volume::nfs::NfsError;
use crate::volume::remove::{Options, Removed};

/// A claim for which a volume is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The claim.
    pub claim: &'a PersistentVolumeClaim,
    /// Its class.
    pub class: &'a StorageClass,
    /// Where orlop keeps things.
    pub roots: &'a Roots,
    /// The name of this machine as a node.
    pub node: &'a str,
}

/// Makes volumes of one kind.
pub trait Provisioner: Sync {
    /// The volume that a claim is to get, named `pvc-<uid of the claim>`. Nothing is
    /// touched.
    ///
    /// # Errors
    /// What is wrong with the class or with the claim.
    fn plan(&self, wish: &Wish<'_>) -> Result<PersistentVolume, ProvisionError>;

    /// Makes what a planned volume stands for, if it is not there.
    ///
    /// # Errors
    /// The step that failed.
    fn make(&self, volume: &PersistentVolume, roots: &Roots) -> Result<(), ProvisionError>;

    /// Takes away what [`make`](Self::make) made for a volume that nobody ever had:
    /// what is not empty stays.
    ///
    /// # Errors
    /// The step that failed.
    fn unmake(&self, volume: &PersistentVolume, roots: &Roots) -> Result<(), ProvisionError>;

    /// Takes away what a volume stands for, or keeps it, as its class has said.
    ///
    /// # Errors
    /// What stands in the way.
    fn remove(
        &self,
        volume: &PersistentVolume,
        roots: &Roots,
        options: Options<'_>,
    ) -> Result<Removed, ReclaimError>;

    /// What becomes of the data of a volume that is deleted, as a verb: `delete`,
    /// `retain`, `archive`.
    fn on_delete(&self, volume: &PersistentVolume) -> &'static str;
}

/// The provisioner of this name.
#[must_use]
pub fn of(name: &str) -> Option<&'static dyn Provisioner> {
    Some(match name {
        "nfs.orlop.dev" => &nfs::OWN,
        "nfs.csi.k8s.io" => &nfs::CSI,
        "k8s-sigs.io/nfs-subdir-external-provisioner"
        | "cluster.local/nfs-subdir-external-provisioner" => &nfs::SUBDIR,
        "local-path.orlop.dev" => &local_path::OWN,
        "rancher.io/local-path" => &local_path::RANCHER,
        _ => return None,
    })
}

/// Why a volume could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// A parameter of the class is wrong.
    #[error("parameter {name:?} of the class: {why}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A name is not fit for a path.
    #[error(transparent)]
    Unsafe(#[from] UnsafeName),
    /// A template is not fit for a path.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The claim asks for what cannot be made.
    #[error("{0}")]
    Claim(&'static str),
    /// The class asks for what cannot be had.
    #[error("mount options are not supported for volumes of type hostPath: {0}")]
    Options(String),
    /// The volume does not say how it was made.
    #[error(
        "volume {0:?} was not made by this provisioner on this machine: delete what it stands for by hand, then the volume"
    )]
    Foreign(String),
    /// The volume would lie where another one's data is about to be deleted.
    #[error("volume {0:?} is still to be reclaimed, and its data is in the same directory")]
    Taken(String),
    /// The directory in which volumes are made cannot be used.
    #[error(transparent)]
    Base(Box<ReclaimError>),
    /// The server's export cannot be mounted.
    #[error(transparent)]
    Mount(#[from] NfsError),
    /// A step failed.
    #[error("cannot {step} {path:?}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl ProvisionError {
    /// Whether trying again is of no use before somebody has changed something.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Taken(_) | Self::Mount(_) | Self::Step { .. } => false,
            Self::Base(error) => error.is_lasting(),
            _ => true,
        }
    }

    fn parameter(name: &str, why: impl Into<String>) -> Self {
        Self::Parameter {
            name: name.to_owned(),
            why: why.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::binder::classes::{BUILT_IN, NO_PROVISIONER};

    #[test]
    fn every_name_has_its_provisioner() {
        for name in BUILT_IN {
            assert!(of(name).is_some(), "{name}");
        }
        assert!(of(NO_PROVISIONER).is_none() && of("ebs.csi.aws.com").is_none());
    }
}
