//! The steward does what claims and volumes ask for outside of the database:
//! volumes to be made, emptied and deleted ([`crate::storage::work`]).
//!
//! A process of its own, started by whoever finds something to do
//! ([`super::repair::start_worker_if_due`]), and gone when nothing is left. One at a
//! time: it holds the lock `<run>/steward.lock`. It touches no file of a volume
//! itself: a copy of it does each piece of work, several at once, and is
//! killed when its time is over or what it does is not wanted any more. So a server
//! that is away holds up nothing but its own volumes.
//!
//! The copies hold the lock, too. So no other steward begins before the last of them
//! is gone: nobody is told that a volume is free while something still deletes in it.

mod chore;
mod job;
mod plans;
mod prepare;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PersistentVolume;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use self::chore::{Chore, Ending};
use self::job::Job;
use self::plans::Plans;
use self::prepare::Prepared;
use super::{claims, cleanup, home, repair, scope};
use crate::storage::binder::facts::{claim_ref_uid, name};
use crate::storage::roots::Roots;
use crate::storage::store::{Durability, Store, StoreError};
use crate::storage::watch::Changes;
use crate::storage::work::{Outcome, Work};
use crate::sys::cgroup::Cgroups;
use crate::sys::memory;

/// Pieces of work that are done at once.
const AT_ONCE: usize = 4;
/// How long to wait for work that is due later, rather than to end.
const STAY: SignedDuration = SignedDuration::from_mins(5);
/// After how long what failed is tried again: this, doubling to [`LONGEST`].
const FIRST: SignedDuration = SignedDuration::from_millis(500);
/// As kubelet has it for volumes.
const LONGEST: SignedDuration = SignedDuration::from_secs(122);
/// After how long what cannot succeed before somebody changes something is tried: by
/// another steward, which the next command starts.
const MUCH_LATER: SignedDuration = SignedDuration::from_mins(6);

/// Does all that is to be done, unless another steward is at it.
///
/// # Errors
/// When the store or the lock cannot be used. What fails of the work itself is
/// recorded, and tried again.
pub fn run(roots: &Roots) -> Result<()> {
    let cgroups = Cgroups::detect().context("cannot use control groups")?;
    for pods in [home::cgroup_parent(roots), scope::parent(roots)] {
        cgroups
            .leave(&pods)
            .context("cannot leave the control group of a pod")?;
    }
    let store = Store::open(roots, Durability::Full)?;
    // What becomes due between the last look and the end of the lock finds a steward,
    // and starts none: hence one more look after it.
    while let Some(lock) = lock(roots, FlockOperation::NonBlockingLockExclusive)? {
        // Whoever held the lock before is gone, with all copies.
        store.no_work_is_begun()?;
        let changes = store.changes().context("cannot watch the store")?;
        let mut steward = Steward {
            roots,
            store: &store,
            changes,
            plans: Plans::new(roots),
            jobs: Vec::new(),
        };
        steward.work()?;
        drop(lock);
        if !store.needs_worker(Timestamp::now())? {
            break;
        }
    }
    Ok(())
}

/// Whether a steward is at work, or what one has left.
///
/// # Errors
/// What open(2) or flock(2) say.
pub fn is_at_work(roots: &Roots) -> io::Result<bool> {
    Ok(lock(roots, FlockOperation::NonBlockingLockShared)?.is_none())
}

fn lock(roots: &Roots, operation: FlockOperation) -> io::Result<Option<File>> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(roots.run.join("steward.lock"))?;
    match rustix::io::retry_on_intr(|| flock(&file, operation)) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

struct Steward<'a> {
    roots: &'a Roots,
    store: &'a Store,
    changes: Changes,
    plans: Plans,
    /// What copies of this process do, or did and are about to end.
    jobs: Vec<Job>,
}

impl Steward<'_> {
    /// Works until nothing is to be done any more, or only what is due much later.
    fn work(&mut self) -> Result<()> {
        self.take_back_plans()?;
        loop {
            let next = self.begin_what_is_due()?;
            let stays = next.is_some_and(|due| due < Timestamp::now() + STAY);
            if self.jobs.is_empty() && !stays {
                return Ok(());
            }
            self.wait(next)?;
            self.hear()?;
        }
    }

    /// Begins with all that is due, and ends what is not wanted any more. Returns
    /// when the next of what is left is due.
    fn begin_what_is_due(&mut self) -> Result<Option<Timestamp>> {
        let pending = self.store.pending_work()?;
        let is_wanted = |job: &Job| {
            let same = |work: &Work| job.work.as_ref().is_some_and(|own| is_same(own, work));
            job.work.is_none() || job.finishes_anyway() || pending.iter().any(same)
        };
        for job in self.jobs.iter_mut().filter(|job| !is_wanted(job)) {
            job.kill();
        }
        let mut next: Option<Timestamp> = None;
        for work in pending {
            if self.jobs.iter().any(|job| job.is_about(&work.uid)) {
                continue;
            }
            if work.due > Timestamp::now() {
                next = Some(next.map_or(work.due, |other| other.min(work.due)));
            } else if self.working().count() < AT_ONCE {
                self.begin(&work)?;
            }
        }
        // A store must not be open when a process is copied, and need not be meanwhile.
        self.store.close();
        Ok(next)
    }

    fn working(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(|job| job.is_working())
    }

    fn begin(&mut self, work: &Work) -> Result<()> {
        let Some(task) = self.store.begin_work(work)? else {
            return Ok(());
        };
        match self.prepare(work, &task)? {
            Prepared::Chore(chore) => match self.store.start_work(work)? {
                true => self.start(Some(work.clone()), *chore),
                false => Ok(()),
            },
            Prepared::Failed { reason, lasting } => self.failed(work, reason, lasting),
            Prepared::Postponed => Ok(()),
        }
    }

    fn start(&mut self, work: Option<Work>, chore: Chore) -> Result<()> {
        self.store.close();
        let job = Job::begin(work, chore, self.roots);
        self.jobs
            .push(job.context("cannot copy the steward's process")?);
        Ok(())
    }

    /// Waits until a copy says something or ends, the store changes, or it is time.
    fn wait(&self, next: Option<Timestamp>) -> Result<()> {
        let until = self.jobs.iter().filter_map(Job::next_look).min();
        let mut left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if let Some(next) = next {
            let pause = next.duration_since(Timestamp::now());
            let pause = Duration::try_from(pause).unwrap_or_default();
            left = Some(left.map_or(pause, |left| left.min(pause)));
        }
        if self.jobs.is_empty() {
            memory::release_unused().context("cannot give memory back")?;
        }
        let left = left.map(Timespec::try_from).transpose()?;
        let files = self.jobs.iter().map(Job::stirs);
        let files = files.chain([self.changes.as_fd()]);
        let mut watched: Vec<PollFd<'_>> = files
            .map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN))
            .collect();
        match poll(&mut watched, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
        Ok(self.changes.settle()?)
    }

    /// Takes in what the copies have said, and records what became of their work.
    fn hear(&mut self) -> Result<()> {
        let mut ended = Vec::new();
        for job in &mut self.jobs {
            if let Some(ending) = job.hear()? {
                ended.push((job.work.clone(), job.chore.clone(), ending));
            }
            if let Some(event) = job.progress() {
                self.store.record(&event)?;
            }
        }
        for (work, chore, ending) in ended {
            self.record(work.as_ref(), chore, ending)?;
        }
        let gone = self.jobs.extract_if(.., |job| job.is_gone());
        let killed = gone.filter(Job::was_killed).filter_map(|job| job.work);
        for work in killed.collect::<Vec<Work>>() {
            self.store.stop_work(&work)?;
            claims::follow_up(self.roots, self.store)?;
        }
        Ok(())
    }

    fn record(&self, work: Option<&Work>, chore: Chore, ending: Ending) -> Result<()> {
        let Some(work) = work else {
            // What was planned and not made: it is tried again by the next steward.
            return match (chore, ending) {
                (Chore::Unmake(volume), Ending::Done) => Ok(self.plans.forget(&volume)?),
                _ => Ok(()),
            };
        };
        let outcome = match (chore, ending) {
            (_, Ending::Failed { reason, lasting }) => return self.failed(work, reason, lasting),
            (Chore::Make(volume), Ending::Done) => Outcome::Provisioned(volume),
            (_, Ending::Done) => Outcome::Done,
        };
        let made = match &outcome {
            Outcome::Provisioned(volume) => Some(volume.clone()),
            _ => None,
        };
        match self.store.finish_work(work, outcome) {
            Err(error @ StoreError::AlreadyExists { .. }) => {
                return self.failed(work, error.to_string(), false);
            }
            finished => finished?,
        }
        if let Some(volume) = made {
            self.plans.forget(&volume)?;
        }
        if cleanup::has_trash(self.roots)? {
            repair::start_sweeper(self.roots)?;
        }
        claims::follow_up(self.roots, self.store)
    }

    fn failed(&self, work: &Work, reason: String, lasting: bool) -> Result<()> {
        let again = match lasting {
            true => MUCH_LATER,
            false => pause(work.attempts),
        };
        self.store
            .finish_work(work, Outcome::Failed { reason, again })?;
        // What is killed may take its time to die, and its last step may still be done.
        if self
            .jobs
            .iter()
            .any(|job| job.was_killed() && job.is_about(&work.uid))
        {
            self.store.start_work(work)?;
        }
        claims::follow_up(self.roots, self.store)
    }

    /// Takes away what was made for claims that are gone, by a steward that was
    /// killed before it could record it.
    fn take_back_plans(&mut self) -> Result<()> {
        let pending = self.store.pending_work()?;
        for volume in self.plans.all()? {
            let claim = claim_ref_uid(&volume).unwrap_or_default();
            let known: Option<PersistentVolume> = self.store.object("", name(&volume))?;
            if known.is_some() {
                self.plans.forget(&volume)?;
            } else if !pending.iter().any(|work| work.uid == claim) {
                self.start(None, Chore::Unmake(Box::new(volume)))?;
            }
        }
        Ok(())
    }
}

fn is_same(one: &Work, other: &Work) -> bool {
    one.action == other.action && one.uid == other.uid
}

/// How long to wait after so many attempts in vain.
fn pause(attempts: u32) -> SignedDuration {
    let factor = 1_i32.checked_shl(attempts.min(16)).unwrap_or(i32::MAX);
    FIRST.checked_mul(factor).unwrap_or(LONGEST).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_later_and_later() {
        let pauses: Vec<i128> = [0, 1, 2, 7, 8, 40].map(|n| pause(n).as_millis()).into();
        assert_eq!(pauses, [500, 1000, 2000, 64_000, 122_000, 122_000]);
    }
}
