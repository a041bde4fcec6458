//! The end of a pod's traces. Every function here can be called again after it
//! was interrupted at any point, by any process that holds the pod's lock; each
//! step begins where the last one stopped.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;

use super::claims;
use super::home::{self, Home};
use super::lock::Lock;
use super::scope;
use crate::storage::roots::Roots;
use crate::storage::store::Store;
use crate::sys::cgroup::Cgroups;
use crate::sys::mount;
use crate::volume::empty_dir::{self, project};
use crate::volume::nfs::abandon;
use crate::volume::remove;
use crate::volume::trash::{Sweep, Trash};

/// How long killed processes may take to be gone.
const LIMIT: Duration = Duration::from_secs(20);

/// How long until it is looked for what they wait for.
const SOON: Duration = Duration::from_secs(1);

/// How long requests to servers that do not answer are failed.
const GIVE_UP: Duration = Duration::from_secs(3);

/// Ends what runs of a pod: processes, control groups and the run directory. Its
/// mounts end with its last process. Volumes, logs and what is recorded stay.
///
/// # Errors
/// A process that does not end, or a directory that cannot be removed.
pub fn release(home: &Home, cgroups: &Cgroups) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    let mut any = false;
    if let Some(group) = scope::group(home) {
        scope::clear(home, &group, cgroups, deadline)?;
    }
    // First the keeper: it would start again what ends.
    for group in [home.keeper_cgroup(), home.cgroup()] {
        if !cgroups.exists(&group) {
            continue;
        }
        any = true;
        cgroups
            .leave(&group)
            .context("cannot leave the pod's control group")?;
        if !kill(cgroups, &group, Instant::now() + SOON)? {
            // They were killed and do not end: what they wait for is ended.
            abandon::waited_for_by(&cgroups.processes(&group)?, GIVE_UP)
                .context("cannot give up the servers that the pod's processes wait for")?;
            cgroups
                .kill(&group, None, deadline)
                .context("cannot end the pod's processes")?;
        }
        cgroups
            .remove(&group, deadline)
            .context("cannot remove the pod's control groups")?;
    }
    if any {
        cgroups.remove_if_empty(&home::cgroup_parent(&home.roots));
    }
    delete(&home.roots.run.join("pods"), &home.uid).context("cannot remove the run directory")
}

/// Kills all processes of a group. Returns whether they are gone at `deadline`.
fn kill(cgroups: &Cgroups, group: &str, deadline: Instant) -> Result<bool> {
    match cgroups.kill(group, None, deadline) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
        Err(error) => Err(error).context("cannot end the pod's processes"),
    }
}

/// Removes all of a pod: what [`release`] ends, its logs, its directory (which
/// goes to the trash), its record, and `lock`, as the very last.
///
/// # Errors
/// The first step that fails; what comes after it is left for the next call.
pub fn remove(home: &Home, pod: &Pod, store: &Store, cgroups: &Cgroups, lock: Lock) -> Result<()> {
    release(home, cgroups)?;
    let metadata = &pod.metadata;
    let logs = home.roots.pod_logs(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
        &home.uid,
    );
    if let Some(name) = logs.file_name().and_then(|name| name.to_str()) {
        delete(&home.roots.logs, name).context("cannot remove the pod's logs")?;
    }
    if empty_dir::has_limit_on_disk(pod) {
        release_projects(home)?;
    }
    bury_directory(home)?;
    store.remove_pod(&home.uid)?;
    lock.remove()?;
    match claims::uses_some(pod) {
        true => claims::follow_up(&home.roots, store),
        false => Ok(()),
    }
}

/// Removes what a pod left behind of which there is no record.
///
/// # Errors
/// The first step that fails.
pub fn abandon(home: &Home, lock: Lock) -> Result<()> {
    let cgroups = Cgroups::detect().context("cannot use control groups")?;
    release(home, &cgroups)?;
    release_projects(home)?;
    bury_directory(home)?;
    Ok(lock.remove()?)
}

/// Gives back what the pod's volumes have of the file system's quotas: in the trash
/// nobody would know any more.
fn release_projects(home: &Home) -> Result<()> {
    let Some(volumes) = open(&home.volumes())? else {
        return Ok(());
    };
    project::release(volumes.as_fd()).context("cannot give back the project quotas of volumes")
}

/// Removes what one start of a container left: what it wrote, and its OCI state.
///
/// # Errors
/// What cannot be removed, and why.
pub fn discard_start(home: &Home, container: &str, attempt: u32, id: &str) -> Result<()> {
    delete(&home.state(), id)?;
    let label = format!("{}-{container}", home.uid);
    bury(
        &home.roots,
        &home.container(container),
        attempt.to_string().as_ref(),
        &label,
    )
}

/// Removes what all earlier starts of the pod's containers wrote.
///
/// # Errors
/// What cannot be removed, and why.
pub fn discard_starts(home: &Home) -> Result<()> {
    bury(&home.roots, &home.data(), "containers".as_ref(), &home.uid)
}

/// Deletes whatever is in the trash, unless another process is at it.
///
/// # Errors
/// When the trash cannot be opened or read, and what is wrong with the first
/// entry that cannot be deleted; such entries stay for the next time.
pub fn sweep(roots: &Roots) -> Result<()> {
    let Sweep::Done(swept) = trash(roots)?.sweep(remove::Options::default())? else {
        return Ok(());
    };
    match swept.stuck.into_iter().next() {
        None => Ok(()),
        Some(stuck) => {
            Err(anyhow::Error::from(stuck.error).context("cannot empty the trash of the data root"))
        }
    }
}

/// True when something waits in the trash.
///
/// # Errors
/// When the trash cannot be opened or read.
pub fn has_trash(roots: &Roots) -> Result<bool> {
    Ok(!trash(roots)?.is_empty()?)
}

fn trash(roots: &Roots) -> Result<Trash> {
    let data = File::open(&roots.data)?;
    Ok(Trash::open(data.as_fd())?)
}

/// Moves the pod's directory to the trash, unless something is mounted in it:
/// in the trash nobody would know any more which pod it was.
fn bury_directory(home: &Home) -> Result<()> {
    let directory = home.data();
    let mounts = mount::points_beneath(&directory)
        .context("cannot look for mounts in the pod's directory")?;
    if let Some(point) = mounts.first() {
        bail!(
            "{point:?} is a mount point in the pod's directory and was left alone: unmount it, \
             then delete the pod again"
        );
    }
    bury(
        &home.roots,
        &home.roots.pods(),
        home.uid.as_ref(),
        &home.uid,
    )
    .context("cannot remove the pod's directory")
}

fn bury(roots: &Roots, parent: &Path, name: &OsStr, label: &str) -> Result<()> {
    let Some(parent) = open(parent)? else {
        return Ok(());
    };
    trash(roots)?.bury(parent.as_fd(), name, label)?;
    Ok(())
}

fn delete(parent: &Path, name: &str) -> Result<()> {
    let Some(parent) = open(parent)? else {
        return Ok(());
    };
    remove::remove_tree(parent.as_fd(), name.as_ref(), remove::Options::default())?;
    Ok(())
}

fn open(directory: &Path) -> io::Result<Option<File>> {
    match File::open(directory) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
