//! Finishing what was interrupted.
//!
//! The store says what shall be; locks, directories and control groups say what
//! is. A pod whose lock is free has no keeper: either it is to be removed, and
//! is, or it shall run, and gets a keeper, which ends what is left of the former
//! one before it starts anything. What belongs to a pod of which there is no
//! record is removed.
//!
//! This runs at the beginning of every command, so it only looks: one directory
//! listing a root, and one lock a pod.

use std::collections::BTreeSet;
use std::io::{self, PipeReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::cleanup;
use super::control::{Client, Request};
use super::home::{self, Home};
use super::lock::Lock;
use super::{remind, scope, steward};
use crate::storage::roots::Roots;
use crate::storage::store::{Store, boot_id};
use crate::sys::cgroup::Cgroups;

/// The program that keeps pods, looked for beside the running one.
const SHIM: &str = "containerd-shim-orlop-v2";

/// Which pods without a keeper are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those whose keeper ended since the machine was started: what every
    /// command does.
    Interrupted,
    /// Also those that ran before the machine was started: what `reconcile`
    /// does.
    All,
}

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// Pods that got a keeper, as `namespace/name`.
    pub started: Vec<String>,
    /// Pods whose removal was finished, as `namespace/name`, and uids of which
    /// there was no record.
    pub removed: Vec<String>,
    /// What could not be done.
    pub failures: Vec<anyhow::Error>,
}

/// Brings the machine to the state that the store records.
///
/// # Errors
/// When the store or the run directory cannot be read. What fails for one pod is
/// in the report, and keeps no other pod waiting.
pub fn repair(roots: &Roots, store: &Store, scope: Scope) -> Result<Report> {
    // What belongs to a pod is made after its record and removed before it: an
    // owner that is listed first and not on record afterwards has no record.
    let owners = owners(roots).context("cannot list what pods left behind")?;
    let boot = boot_id().context("cannot read the machine's boot id")?;
    let mut report = Report::default();
    let mut known = BTreeSet::new();
    for stored in store.stored_pods(None)? {
        let pod = stored.pod;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let this_boot = stored.boot_id.is_none_or(|recorded| recorded == boot);
        let may_start = this_boot || scope == Scope::All;
        let name = qualified_name(&pod);
        match settle(roots, store, &pod, &uid, may_start) {
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::Started) => report.started.push(name),
            Ok(Outcome::Removed) => report.removed.push(name),
            Err(error) => report.failures.push(error.context(format!("pod {name}"))),
        }
        known.insert(uid);
    }
    if let Err(error) = remind::users(roots, store) {
        let what = "pods could not be told of a changed ConfigMap or Secret";
        report.failures.push(error.context(what));
    }
    for uid in owners.difference(&known) {
        match remove_stray(roots, store, uid) {
            Ok(true) => report.removed.push(uid.clone()),
            Ok(false) => {}
            Err(error) => report
                .failures
                .push(error.context(format!("pod directory {uid}"))),
        }
    }
    Ok(report)
}

/// Starts the keeper of a pod; it goes on when the caller ends. What is returned
/// closes when the keeper listens on its socket, or has ended.
///
/// # Errors
/// When its program cannot be executed.
pub fn start_keeper(roots: &Roots, uid: &str) -> Result<PipeReader> {
    let (ready, theirs) = std::io::pipe()?;
    execute_shim(roots, "keep", &[uid], theirs.into())?;
    Ok(ready)
}

/// Lets a process of its own delete what is in the trash.
///
/// # Errors
/// When its program cannot be executed.
pub fn start_sweeper(roots: &Roots) -> Result<()> {
    execute_shim(roots, "sweep", &[], Stdio::null())
}

/// Lets a process of its own do what claims and volumes ask for outside of the
/// database, if anything is due and nobody is at it.
///
/// # Errors
/// When the store or the lock cannot be used, or its program not be executed.
pub fn start_worker_if_due(roots: &Roots, store: &Store) -> Result<()> {
    if !store.needs_worker(Timestamp::now())? || steward::is_at_work(roots)? {
        return Ok(());
    }
    execute_shim(roots, "steward", &[], Stdio::null())
}

fn execute_shim(roots: &Roots, action: &str, arguments: &[&str], stdout: Stdio) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name(SHIM);
    let log = roots.run.join("keepers.log");
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&log);
    let log = log.map_or_else(|_| Stdio::null(), Stdio::from);
    Command::new(&program)
        .arg(action)
        .args([&roots.data, &roots.run, &roots.logs])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot execute {program:?}"))?;
    Ok(())
}

enum Outcome {
    Nothing,
    Started,
    Removed,
}

fn settle(roots: &Roots, store: &Store, pod: &Pod, uid: &str, may_start: bool) -> Result<Outcome> {
    let home = Home::new(roots, uid);
    if !may_start && pod.metadata.deletion_timestamp.is_none() && !is_over(pod) {
        return Ok(Outcome::Nothing);
    }
    let Some(lock) = Lock::try_take(&home)? else {
        // Whoever recorded the deletion may have ended before telling the keeper.
        if let Some(deletion) = &pod.metadata.deletion_timestamp {
            remind(&home, deletion.0)?;
        }
        return Ok(Outcome::Nothing);
    };
    // It may have changed before the lock was ours.
    let Some(pod) = store
        .pod_by_uid(uid)?
        .filter(|now| now.metadata.uid == pod.metadata.uid)
    else {
        lock.remove()?;
        return Ok(Outcome::Nothing);
    };
    if pod.metadata.deletion_timestamp.is_some() {
        cleanup::remove(&home, &pod, store, &Cgroups::detect()?, lock)?;
        return Ok(Outcome::Removed);
    }
    if is_over(&pod) {
        cleanup::release(&home, &Cgroups::detect()?)?;
        lock.remove()?;
        return Ok(Outcome::Nothing);
    }
    if !may_start {
        return Ok(Outcome::Nothing);
    }
    drop(lock);
    start_keeper(roots, uid)?;
    Ok(Outcome::Started)
}

fn is_over(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Tells the keeper of a pod that it shall end at `deadline`, as was recorded.
fn remind(home: &Home, deadline: Timestamp) -> Result<()> {
    let Some(keeper) = Client::connect(home)? else {
        return Ok(());
    };
    // What is recorded was rounded down to a whole second: rounded up, it never
    // takes any of the time away that the containers were given.
    let left = deadline.duration_since(Timestamp::now()).as_secs() + 2;
    let grace = u32::try_from(left.max(0)).unwrap_or(u32::MAX);
    match keeper.send(&Request::Stop { grace, wait: false }, &[]) {
        // It is ending.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot talk to the pod's keeper"),
    }
}

fn remove_stray(roots: &Roots, store: &Store, uid: &str) -> Result<bool> {
    let home = Home::new(roots, uid);
    let Some(lock) = Lock::try_take(&home)? else {
        return Ok(false);
    };
    if store.pod_by_uid(uid)?.is_some() {
        return Ok(false);
    }
    cleanup::abandon(&home, lock)?;
    Ok(true)
}

/// The uids of everything that belongs to some pod.
fn owners(roots: &Roots) -> Result<BTreeSet<String>> {
    let mut owners = names(&roots.pods())?;
    owners.extend(names(&roots.run.join("pods"))?);
    owners.extend(names(&home::locks(roots))?);
    let prefixes = [home::group_name(""), home::keeper_group_name("")];
    let groups = Cgroups::detect()?.children(&home::cgroup_parent(roots))?;
    owners.extend(
        groups
            .iter()
            .filter_map(|group| {
                let mut prefixes = prefixes.iter();
                prefixes.find_map(|prefix| group.strip_prefix(prefix))
            })
            .map(str::to_owned),
    );
    let scopes = Cgroups::detect()?.children(&scope::parent(roots))?;
    owners.extend(
        scopes
            .iter()
            .filter_map(|unit| scope::owner(unit))
            .map(str::to_owned),
    );
    Ok(owners)
}

fn names(directory: &Path) -> io::Result<BTreeSet<String>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn qualified_name(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    )
}
