//! What is to be done outside of the database: volumes to be recycled, deleted and
//! made.
//!
//! What is to be done is recorded in the transaction in which it became due
//! ([`super::settle`]); a worker process looks at it with [`Store::begin_work`], says
//! with [`Store::start_work`] that it does it now, does it without holding anything of the database, and records what became of it
//! with [`Store::finish_work`], in one transaction. A worker that is killed in
//! between leaves the work where it was: so doing it twice must do no harm. What is
//! not wanted any more (the policy was edited, the claim went away) is dropped by
//! whoever made that change, and the worker hears of it by getting nothing to do.
//!
//! A volume whose emptying or deletion was begun is bound to nobody before the worker
//! has said that it is over ([`Store::finish_work`]) or stopped
//! ([`Store::stop_work`]), whatever is edited meanwhile: nothing that a pod writes is
//! deleted by what was begun before.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use rusqlite::{Row, params};

use super::binder::facts::{PROVISIONED_BY, annotate, class_of_claim, name, namespace, uid};
use super::binder::{Happening, outcome};
use super::events::EventType;
use super::store::{Change, Store, StoreError};

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Delete everything inside a volume.
    Recycle,
    /// Delete what a volume stands for, and the volume.
    Delete,
    /// Make a volume for a claim.
    Provision,
}

impl Action {
    /// The action as one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recycle => "Recycle",
            Self::Delete => "Delete",
            Self::Provision => "Provision",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Self::Recycle, Self::Delete, Self::Provision];
        all.into_iter().find(|action| action.as_str() == text)
    }
}

/// Something that is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// What.
    pub action: Action,
    /// The uid of the volume; for a provision, of the claim.
    pub uid: String,
    /// How often it was tried in vain.
    pub attempts: u32,
    /// When it is to be tried, to the microsecond.
    pub due: Timestamp,
}

/// Work with the objects that it is about, as they are now.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Delete everything inside this volume.
    Recycle(Box<PersistentVolume>),
    /// Delete what this volume stands for.
    Delete(Box<PersistentVolume>),
    /// Make a volume of this class for this claim.
    Provision {
        /// The claim.
        claim: Box<PersistentVolumeClaim>,
        /// Its class.
        class: Box<StorageClass>,
    },
}

/// What became of work.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A volume was recycled, or what it stands for deleted.
    Done,
    /// This volume was made. Its name is to be `pvc-<uid of the claim>`; what binds it
    /// to the claim is filled in when it is recorded.
    Provisioned(Box<PersistentVolume>),
    /// It failed, for the reason in this sentence, and is tried again after this
    /// time.
    Failed {
        /// The reason, in Kubernetes' words where it has some.
        reason: String,
        /// How long until it is tried again.
        again: SignedDuration,
    },
}

impl Store {
    /// All that is to be done, what is due first before the rest.
    ///
    /// # Errors
    /// The database's.
    pub fn pending_work(&self) -> Result<Vec<Work>, StoreError> {
        self.read("read what is to be done", |db| {
            db.prepare_cached(
                "SELECT action, uid, attempts, due FROM work WHERE wanted ORDER BY due, rowid",
            )?
            .query_map([], work)?
            .collect()
        })
    }

    /// Whether anything is to be done that is due at `now`.
    ///
    /// # Errors
    /// The database's.
    pub fn has_work(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.read("look for something to do", |db| {
            db.prepare_cached("SELECT EXISTS (SELECT 1 FROM work WHERE wanted AND due <= ?1)")?
                .query_row([now.as_microsecond()], |row| row.get(0))
        })
    }

    /// The objects that work is about, as they are now; none when it is not wanted any
    /// more.
    ///
    /// # Errors
    /// The database's.
    pub fn begin_work(&self, work: &Work) -> Result<Option<Task>, StoreError> {
        self.write("look at work", |change| change.task(work))
    }

    /// Records that work is being done from now on: a volume is bound to nobody before
    /// that is over. False when it is not wanted any more, and must not be done.
    ///
    /// # Errors
    /// The database's.
    pub fn start_work(&self, work: &Work) -> Result<bool, StoreError> {
        self.write("begin with work", |change| {
            let is_wanted = change.is_wanted(work)?;
            if is_wanted {
                change.set_begun(work, true)?;
            }
            Ok(is_wanted)
        })
    }

    /// Records that nobody does this work any more, and that it was not finished. A
    /// volume that waited for that is free.
    ///
    /// # Errors
    /// The database's.
    pub fn stop_work(&self, work: &Work) -> Result<(), StoreError> {
        self.write("record that work has stopped", |change| {
            change.touch_claims();
            change.set_begun(work, false)
        })
    }

    /// Records that no work is being done at all: for a worker that begins, and knows
    /// that there is no other.
    ///
    /// # Errors
    /// The database's.
    pub fn no_work_is_begun(&self) -> Result<(), StoreError> {
        let begun = self.read("look for work that was begun", |db| {
            db.prepare_cached("SELECT EXISTS (SELECT 1 FROM work WHERE begun)")?
                .query_row([], |row| row.get::<_, bool>(0))
        })?;
        match begun {
            false => Ok(()),
            true => self.write("record that no work is begun", |change| {
                change.touch_claims();
                change.run(|db| db.execute("UPDATE work SET begun = 0", []).map(drop))
            }),
        }
    }

    /// Records what became of work, and what follows from it. Work that is not wanted
    /// any more changes nothing, except that a volume which was made is stored all the
    /// same: nothing that exists outside is forgotten.
    ///
    /// # Errors
    /// The database's; [`StoreError::AlreadyExists`] when a volume of another claim
    /// has the name of the one that was made.
    pub fn finish_work(&self, work: &Work, outcome: Outcome) -> Result<(), StoreError> {
        self.write("record what was done", |change| {
            change.touch_claims();
            change.set_begun(work, false)?;
            match (outcome, change.task(work)?) {
                (Outcome::Failed { reason, again }, Some(task)) => {
                    change.failed(work, &task, &reason, again)
                }
                (Outcome::Provisioned(volume), task) => change.provisioned(*volume, task),
                (Outcome::Done, Some(Task::Recycle(volume))) => {
                    let (recycled, happened) = outcome::recycled(*volume, Timestamp::now());
                    change.put(&recycled)?;
                    change.say(&happened)
                }
                (Outcome::Done, Some(Task::Delete(mut volume))) => {
                    volume.metadata.finalizers = None;
                    volume.metadata.deletion_timestamp = Some(now());
                    change.put(&*volume)
                }
                (Outcome::Done | Outcome::Failed { .. }, _) => Ok(()),
            }
        })
    }
}

fn now() -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(super::pods::whole_seconds(
        Timestamp::now(),
    ))
}

impl Change<'_> {
    /// The uids of volumes that somebody empties or deletes now.
    pub(super) fn busy_volumes(&self) -> Result<BTreeSet<String>, StoreError> {
        self.run(|db| {
            db.prepare_cached("SELECT uid FROM work WHERE begun AND action <> ?1")?
                .query_map([Action::Provision.as_str()], |row| row.get(0))?
                .collect()
        })
    }

    fn set_begun(&self, work: &Work, begun: bool) -> Result<(), StoreError> {
        self.run(|db| {
            db.prepare_cached("UPDATE work SET begun = ?3 WHERE action = ?1 AND uid = ?2")?
                .execute(params![work.action.as_str(), work.uid, begun])
                .map(drop)
        })
    }

    /// Makes `wanted` and nothing else be what is to be done. Times and attempts of
    /// what was to be done before stay; what was begun and is not wanted any more is
    /// kept, as that, until it has stopped.
    pub(super) fn set_work(&self, wanted: &[(Action, String)]) -> Result<(), StoreError> {
        let known: Vec<(String, String, bool, bool)> = self.run(|db| {
            db.prepare_cached("SELECT action, uid, begun, wanted FROM work")?
                .query_map([], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })?
                .collect()
        })?;
        let mut new: BTreeSet<(&str, &str)> = wanted
            .iter()
            .map(|(action, uid)| (action.as_str(), uid.as_str()))
            .collect();
        for (action, uid, begun, was_wanted) in &known {
            let is_wanted = new.remove(&(action.as_str(), uid.as_str()));
            let statement = match (is_wanted, begun) {
                (true, _) if !was_wanted => "UPDATE work SET wanted = 1",
                (false, true) if *was_wanted => "UPDATE work SET wanted = 0",
                (false, false) => "DELETE FROM work",
                _ => continue,
            };
            self.run(|db| {
                db.prepare_cached(&format!("{statement} WHERE action = ?1 AND uid = ?2"))?
                    .execute([action, uid])
            })?;
        }
        let now = Timestamp::now().as_microsecond();
        for (action, uid) in new {
            self.run(|db| {
                db.prepare_cached("INSERT INTO work VALUES (?1, ?2, 0, ?3, 0, 1)")?
                    .execute(params![action, uid, now])
            })?;
        }
        Ok(())
    }

    fn is_wanted(&self, work: &Work) -> Result<bool, StoreError> {
        self.run(|db| {
            db.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM work WHERE action = ?1 AND uid = ?2 AND wanted)",
            )?
            .query_row([work.action.as_str(), &work.uid], |row| row.get(0))
        })
    }

    fn task(&self, work: &Work) -> Result<Option<Task>, StoreError> {
        if !self.is_wanted(work)? {
            return Ok(None);
        }
        Ok(match work.action {
            Action::Recycle => {
                (self.by_uid(&work.uid)?).map(|volume| Task::Recycle(Box::new(volume)))
            }
            Action::Delete => {
                (self.by_uid(&work.uid)?).map(|volume| Task::Delete(Box::new(volume)))
            }
            Action::Provision => {
                let Some(claim) = self.by_uid::<PersistentVolumeClaim>(&work.uid)? else {
                    return Ok(None);
                };
                let class = class_of_claim(&claim).unwrap_or_default();
                let class: Option<StorageClass> = self.object("", class)?;
                class.map(|class| Task::Provision {
                    claim: Box::new(claim),
                    class: Box::new(class),
                })
            }
        })
    }

    fn provisioned(
        &self,
        mut volume: PersistentVolume,
        task: Option<Task>,
    ) -> Result<(), StoreError> {
        if let Some(there) = self.object::<PersistentVolume>("", name(&volume))? {
            let same = there
                .spec
                .as_ref()
                .map(|spec| (&spec.nfs, &spec.host_path, &spec.local));
            let made = volume
                .spec
                .as_ref()
                .map(|spec| (&spec.nfs, &spec.host_path, &spec.local));
            // It was recorded before, by a worker that was thought dead.
            return match same == made {
                true => Ok(()),
                false => Err(StoreError::AlreadyExists {
                    resource: "persistentvolumes",
                    name: name(&volume).to_owned(),
                }),
            };
        }
        if let Some(Task::Provision { claim, class }) = &task {
            annotate(&mut volume, PROVISIONED_BY, &class.provisioner);
            self.say(&outcome::provisioned(claim, name(&volume)))?;
            let reference = super::binder::facts::reference_to(claim);
            volume.spec.get_or_insert_default().claim_ref = Some(reference);
        }
        self.create_object(volume, None).map(drop)
    }

    fn failed(
        &self,
        work: &Work,
        task: &Task,
        reason: &str,
        again: SignedDuration,
    ) -> Result<(), StoreError> {
        let due = (Timestamp::now() + again).as_microsecond();
        self.run(|db| {
            db.prepare_cached(
                "UPDATE work SET attempts = attempts + 1, due = ?3 WHERE action = ?1 AND uid = ?2",
            )?
            .execute(params![work.action.as_str(), work.uid, due])
        })?;
        match task {
            Task::Recycle(volume) | Task::Delete(volume) => {
                let (failed, happened) = outcome::not_reclaimed(
                    (**volume).clone(),
                    work.action,
                    reason,
                    Timestamp::now(),
                );
                self.put(&failed)?;
                self.say(&happened)
            }
            Task::Provision { claim, class } => self.say(&Happening {
                kind: "PersistentVolumeClaim",
                namespace: namespace(&**claim).to_owned(),
                name: name(&**claim).to_owned(),
                uid: uid(&**claim).to_owned(),
                type_: EventType::Warning,
                reason: "ProvisioningFailed",
                message: format!(
                    "failed to provision volume with StorageClass {:?}: {reason}",
                    name(&**class)
                ),
            }),
        }
    }
}

fn work(row: &Row<'_>) -> rusqlite::Result<Work> {
    let wrong = |column, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    let action: String = row.get(0)?;
    Ok(Work {
        action: Action::parse(&action).ok_or_else(|| wrong(0, action.into()))?,
        uid: row.get(1)?,
        attempts: row.get(2)?,
        due: Timestamp::from_microsecond(row.get(3)?).map_err(|error| wrong(3, error.into()))?,
    })
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
