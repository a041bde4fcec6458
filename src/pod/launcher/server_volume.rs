//! Volumes on servers, which may be away: whatever waits for one is a process that
//! is killed when its time is over, and the launcher itself never waits.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::{PodSpec, Volume};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::propagation::Sharing;
use super::sandbox::Sandbox;
use crate::pod::home::Home;
use crate::pod::protocol::{Answer, Failure, FailureKind};
use crate::sys::aside::Aside;
use crate::sys::namespace;
use crate::volume::nfs::kernel::KernelClient;
use crate::volume::nfs::{self, Mounter, NfsSource, abandon};
use crate::volume::usage::{self, Report};

/// How long a server may take to have a volume mounted.
const MOUNT_LIMIT: Duration = Duration::from_secs(30);

/// How long the file system of a volume may take to tell what is in it.
const USAGE_LIMIT: Duration = Duration::from_millis(800);

/// How long requests to a server that is away are failed, until nothing waits for
/// it any more.
const GIVE_UP: Duration = Duration::from_secs(3);

/// From where servers are reached: the network of the machine, not the pod's.
pub(super) struct HostNetwork(Option<OwnedFd>);

impl HostNetwork {
    /// Remembers the caller's network namespace, if a volume of the pod may need it.
    pub(super) fn remember(spec: &PodSpec) -> Result<Self> {
        let mut volumes = spec.volumes.iter().flatten();
        let needed = |volume: &Volume| {
            volume.nfs.is_some()
                || volume.persistent_volume_claim.is_some()
                || volume.ephemeral.is_some()
        };
        if spec.host_network == Some(true) || !volumes.any(needed) {
            return Ok(Self(None));
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = openat(CWD, "/proc/self/ns/net", flags, Mode::empty())
            .context("cannot open the host's network namespace")?;
        Ok(Self(Some(namespace)))
    }

    /// Moves the calling process there.
    fn enter(&self) -> Result<()> {
        match &self.0 {
            Some(network) => namespace::join_network(network.as_fd())
                .context("cannot enter the host's network namespace"),
            None => Ok(()),
        }
    }
}

/// Mounts what `source` names as the volume `name`. For a worker.
pub(super) fn mount(
    sandbox: &Sandbox,
    volume: &Volume,
    source: &NfsSource,
    sharing: Sharing,
) -> Answer {
    let late = format!(
        "mount failed: mount.nfs: Connection timed out for {}: the server has not answered within {} s",
        source.export(),
        MOUNT_LIMIT.as_secs()
    );
    in_time(|| mount_here(sandbox, volume, source, sharing), &late)
}

/// Sets the hostPath `volume` up with `set_up`, which attaches it. For a worker.
pub(super) fn set_host_path_up(volume: &Volume, set_up: impl FnOnce() -> Result<()>) -> Answer {
    let path = volume.host_path.as_ref().map(|source| &source.path);
    let late = format!(
        "{:?} does not answer: after {} s the file system that it is on had not opened it",
        path.map_or("", String::as_str),
        MOUNT_LIMIT.as_secs()
    );
    in_time(|| set_up().map(|()| None), &late)
}

/// Has a copy of the worker do `job`, which returns a warning. `late` is what is
/// said when its time is over.
fn in_time(job: impl FnOnce() -> Result<Option<String>>, late: &str) -> Answer {
    let deadline = Instant::now() + MOUNT_LIMIT;
    let job = || {
        let answer = match job() {
            Ok(warning) => Answer::Mounted { warning },
            Err(error) => failed(&error),
        };
        serde_json::to_vec(&answer).unwrap_or_default()
    };
    let done = Aside::begin(job).and_then(|job| job.result_until(deadline));
    match done.map(|bytes| bytes.map(|bytes| serde_json::from_slice(&bytes))) {
        Ok(Some(Ok(answer))) => answer,
        Ok(None) => failed(&anyhow!(late.to_owned())),
        Ok(Some(Err(error))) => failed(&error.into()),
        Err(error) => failed(&anyhow::Error::from(error).context("cannot have a volume mounted")),
    }
}

fn failed(error: &anyhow::Error) -> Answer {
    Answer::Failed(Failure::new(FailureKind::Other, error))
}

fn mount_here(
    sandbox: &Sandbox,
    volume: &Volume,
    source: &NfsSource,
    sharing: Sharing,
) -> Result<Option<String>> {
    source
        .make_directory(sandbox.volumes_on_disk.as_fd())
        .context("cannot make the volume's directory")?;
    sandbox.network.enter()?;
    let tree = KernelClient.mount(source)?;
    sharing
        .apply(volume, tree.as_fd())
        .with_context(|| format!("cannot set what volume {:?} shares", volume.name))?;
    let warning = match source.is_read_only() {
        true => None,
        false => nfs::what_root_may(tree.as_fd(), source),
    };
    match &sandbox.users {
        Some(users) => sandbox.attach_shown(&volume.name, tree, users)?,
        None => sandbox.attach_anew(&volume.name, tree)?,
    }
    Ok(warning)
}

/// What the file systems of the volumes tell that are mounted. For a worker.
pub(super) fn usage(sandbox: &Sandbox) -> Result<BTreeMap<String, Report>> {
    let deadline = Instant::now() + USAGE_LIMIT;
    let spec = sandbox.pod.spec.iter();
    let mut asked = Vec::new();
    let mut all = BTreeMap::new();
    for volume in spec.flat_map(|spec| spec.volumes.iter().flatten()) {
        let name = volume.name.as_str();
        if is_machines_own(volume) {
            if let Some(usage) = sandbox.usage(name)? {
                all.insert(name.to_owned(), Report::Usage(usage));
            }
            continue;
        }
        if !sandbox.has_volume(name) {
            continue;
        }
        let job = Aside::begin(|| {
            let usage = sandbox.usage(name).ok().flatten();
            serde_json::to_vec(&usage).unwrap_or_default()
        })?;
        asked.push((name, job));
    }
    for (name, job) in asked {
        let told = job.result_until(deadline)?;
        let told: Option<Option<usage::Usage>> =
            told.and_then(|told| serde_json::from_slice(&told).ok());
        let report = match told.flatten() {
            Some(usage) => Report::Usage(usage),
            None => Report::Unreachable,
        };
        all.insert(name.to_owned(), report);
    }
    Ok(all)
}

/// Whether what a volume is on cannot be away.
fn is_machines_own(volume: &Volume) -> bool {
    volume.host_path.is_none()
        && volume.nfs.is_none()
        && volume.persistent_volume_claim.is_none()
        && volume.ephemeral.is_none()
}

/// The volumes of `servers`, by their names, whose servers do not answer. For a
/// worker.
pub(super) fn away(
    sandbox: &Sandbox,
    servers: &BTreeMap<String, NfsSource>,
) -> Result<BTreeMap<String, NfsSource>> {
    let deadline = Instant::now() + abandon::PATIENCE;
    let mut asked = Vec::new();
    for (name, source) in servers {
        let job = Aside::begin(|| {
            // Who cannot even ask knows nothing, and gives nothing up.
            let there = sandbox.network.enter().is_err() || abandon::is_there(source);
            vec![u8::from(there)]
        })?;
        asked.push((name, source, job));
    }
    let mut away = BTreeMap::new();
    for (name, source, job) in asked {
        if job.result_until(deadline)?.is_none_or(|there| there == [0]) {
            away.insert(name.clone(), source.clone());
        }
    }
    Ok(away)
}

/// Fails what waits for the servers of `volumes`. For a worker.
pub(super) fn give_up(home: &Home, volumes: &BTreeMap<String, NfsSource>) -> Result<()> {
    if volumes.is_empty() {
        return Ok(());
    }
    let place = home.mounts().join("volumes");
    let points: Vec<PathBuf> = volumes.keys().map(|name| place.join(name)).collect();
    abandon::fail_requests(&points, None, GIVE_UP).context("cannot give the servers up")
}
