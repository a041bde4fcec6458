//! Putting off what is to be done, and doing it sooner.

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;

use super::binder::Consumer;
use super::events::Event;
use super::store::{Store, StoreError};
use super::work::Work;

impl Store {
    /// Whether somebody has to work: something is due at `now`, or was begun, is not
    /// wanted any more, and keeps a volume from being free as long as it counts as begun.
    ///
    /// # Errors
    /// The database's.
    pub fn needs_worker(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.read("look for something to do", |db| {
            db.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM work WHERE iif(wanted, due <= ?1, begun))",
            )?
            .query_row([now.as_microsecond()], |row| row.get(0))
        })
    }

    /// Puts work off for `pause` without counting it as failed, and says why.
    ///
    /// # Errors
    /// The database's.
    pub fn postpone_work(
        &self,
        work: &Work,
        pause: SignedDuration,
        why: &Event,
    ) -> Result<(), StoreError> {
        self.write("put work off", |change| {
            let now = Timestamp::now();
            let due = (now + pause).as_microsecond();
            change.run(|db| {
                db.prepare_cached("UPDATE work SET due = ?3 WHERE action = ?1 AND uid = ?2")?
                    .execute(params![work.action.as_str(), work.uid, due])
            })?;
            change.record(why, now)
        })
    }

    /// Makes what is to be done about the object with this uid due now. False when
    /// nothing is to be done.
    ///
    /// # Errors
    /// The database's.
    pub fn hurry_work(&self, uid: &str) -> Result<bool, StoreError> {
        self.write("make work due", |change| {
            let now = Timestamp::now().as_microsecond();
            let changed = change.run(|db| {
                db.prepare_cached("UPDATE work SET due = min(due, ?2) WHERE uid = ?1 AND wanted")?
                    .execute(params![uid, now])
            })?;
            Ok(changed > 0)
        })
    }

    /// The pods that have been let run on a claim of this name and are not over.
    ///
    /// # Errors
    /// The database's.
    pub fn placed_users_of_claim(
        &self,
        namespace: &str,
        claim: &str,
    ) -> Result<Vec<String>, StoreError> {
        let pods = self.pods(Some(namespace))?;
        let users = pods.iter().filter_map(Consumer::of);
        let users = users
            .filter(|pod| pod.placed && !pod.over && pod.claims.iter().any(|used| used == claim));
        Ok(users
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .collect())
    }
}
