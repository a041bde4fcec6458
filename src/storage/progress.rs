//! What a pod's keeper tells the store: the pod's status, and what happened to it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use rusqlite::{OptionalExtension, params};

use super::events::Event;
use super::pods::json;
use super::store::{Change, Store, StoreError};

/// What a pod's keeper has to tell.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// What happened, and when.
    pub happened: &'a [(Event, Timestamp)],
    /// The pod's status as it is now, and the boot in which that was seen; none when it is
    /// as it was.
    pub status: Option<(&'a PodStatus, &'a str)>,
}

impl Store {
    /// Stores what a pod's keeper observed in the boot `boot_id`; nothing is
    /// written when that is what the store has. False when the pod is gone.
    ///
    /// # Errors
    /// The database's.
    pub fn set_pod_status(
        &self,
        uid: &str,
        status: &PodStatus,
        boot_id: &str,
    ) -> Result<bool, StoreError> {
        let status = json(uid, status)?;
        let known = self.read("read a pod's status", |db| {
            db.prepare_cached("SELECT status IS ?2 AND boot_id IS ?3 FROM objects WHERE uid = ?1")?
                .query_row(params![uid, status, boot_id], |row| row.get::<_, bool>(0))
                .optional()
        })?;
        match known {
            None => Ok(false),
            Some(true) => Ok(true),
            Some(false) => self.write("write a pod's status", |change| {
                change.set_status(uid, &status, boot_id)
            }),
        }
    }

    /// Stores what a pod's keeper has to tell, in one transaction; nothing is written
    /// when there is nothing new. False when the pod is gone.
    ///
    /// # Errors
    /// The database's.
    pub fn record_progress(&self, uid: &str, news: Progress) -> Result<bool, StoreError> {
        if news.happened.is_empty() {
            return match news.status {
                Some((status, boot_id)) => self.set_pod_status(uid, status, boot_id),
                None => Ok(true),
            };
        }
        let status = news
            .status
            .map(|(status, boot_id)| (json(uid, status), boot_id));
        self.write("write what happened to a pod", |change| {
            for (event, when) in news.happened {
                change.record(event, *when)?;
            }
            match status {
                Some((status, boot_id)) => change.set_status(uid, &status?, boot_id),
                None => Ok(true),
            }
        })
    }
}

impl Change<'_> {
    /// Stores the status of the pod `uid`. False when the pod is gone.
    fn set_status(&self, uid: &str, status: &str, boot_id: &str) -> Result<bool, StoreError> {
        let version = self.next_version()?;
        let rows = self.run(|db| {
            db.prepare_cached("UPDATE objects SET status = ?2, boot_id = ?3, resource_version = ?4 WHERE uid = ?1")?
                .execute(params![uid, status, boot_id, version])
        })?;
        Ok(rows == 1)
    }
}
