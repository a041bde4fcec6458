//! Which mounts a volume shares (`mountPropagation`,
//! <https://kubernetes.io/docs/concepts/storage/volumes/#mount-propagation>).
//!
//! A hostPath shares them with the host. Every other volume is the pod's own:
//! what a container mounts in it shows in the pod's containers that ask for it,
//! never on the host, and ends with the pod.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{PodSpec, Volume, VolumeMount};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::MountPropagationFlags;

use crate::sys::mount::{Change, make_private};
use crate::sys::{mount_table, namespace};

/// What a volume shares, the most that any container asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sharing {
    Nothing,
    /// What others mount in it shows.
    Receives,
    /// And what is mounted here shows to others.
    Both,
}

impl Sharing {
    /// What `volume` of a pod shares.
    pub(super) fn of(spec: &PodSpec, volume: &str) -> Self {
        mounts(spec)
            .filter(|mount| mount.name == volume)
            .map(Self::asked_for)
            .max()
            .unwrap_or(Self::Nothing)
    }

    fn asked_for(mount: &VolumeMount) -> Self {
        match mount.mount_propagation.as_deref() {
            Some("Bidirectional") => Self::Both,
            Some("HostToContainer") => Self::Receives,
            _ => Self::Nothing,
        }
    }

    /// Makes of `tree`, a volume that is attached nowhere yet, what is shared.
    pub(super) fn apply(self, volume: &Volume, tree: BorrowedFd) -> Result<()> {
        let change = |propagation| {
            let change = Change {
                propagation,
                ..Change::default()
            };
            change.apply(tree, true)
        };
        match self {
            Self::Nothing => make_private(tree)?,
            Self::Receives if is_hosts(volume) => change(MountPropagationFlags::DOWNSTREAM)?,
            Self::Both if is_hosts(volume) => {}
            Self::Receives | Self::Both => {
                make_private(tree)?;
                change(MountPropagationFlags::SHARED)?;
            }
        }
        Ok(())
    }
}

/// Where volumes are set up that share mounts with the host: in the host's mount
/// namespace, because the pod's has turned away from one of the host's mounts.
pub(super) struct Host(Option<OwnedFd>);

impl Host {
    /// Remembers the caller's mount namespace, if a volume of the pod needs it.
    pub(super) fn remember(spec: &PodSpec) -> Result<Self> {
        if mounts(spec).all(|mount| Sharing::asked_for(mount) == Sharing::Nothing) {
            return Ok(Self(None));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = openat(CWD, "/proc/self/ns/mnt", flags, Mode::empty())
            .context("cannot open the host's mount namespace")?;
        Ok(Self(Some(namespace)))
    }

    /// Sets `volume` up with `set_up`, which returns its tree.
    pub(super) fn set_up(
        &self,
        volume: &Volume,
        sharing: Sharing,
        set_up: impl FnOnce() -> Result<OwnedFd>,
    ) -> Result<OwnedFd> {
        let (Some(host), true) = (&self.0, is_hosts(volume) && sharing > Sharing::Nothing) else {
            return set_up();
        };
        let path = volume.host_path.as_ref().map(|source| &source.path);
        namespace::in_mount_namespace(host.as_fd(), || {
            let tree = set_up()?;
            check(path.map_or("", String::as_str), sharing)?;
            Ok(tree)
        })
        .context("cannot enter the host's mount namespace")?
    }
}

/// Refuses to promise what the host's mounts do not allow.
fn check(path: &str, sharing: Sharing) -> Result<()> {
    let place = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let Some(entry) = mount_table::entry_of(place.as_fd())? else {
        bail!("the mount of {path:?} is not in the host's table of mounts");
    };
    let (fine, kinds) = match sharing {
        Sharing::Both => (entry.is_shared, "shared"),
        _ => (entry.is_shared || entry.is_slave, "shared or slave"),
    };
    if !fine {
        let point = entry.point;
        bail!(
            "path {path:?} is mounted on {point:?} but it is not a {kinds} mount: \
             mount --make-shared {}",
            point.display()
        );
    }
    Ok(())
}

/// Whether what is mounted in `volume` is the host's business.
fn is_hosts(volume: &Volume) -> bool {
    volume.host_path.is_some()
}

fn mounts(spec: &PodSpec) -> impl Iterator<Item = &VolumeMount> {
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    containers.flat_map(|container| container.volume_mounts.iter().flatten())
}
