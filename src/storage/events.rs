//! Events: what happened to an object, and why it waits or failed.
//!
//! As Kubernetes keeps them: equal events become one with a count and the
//! times of the first and the last, and an event is forgotten an hour after
//! it was last seen
//! (<https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>).

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Row, params};

use super::store::{Change, Store, StoreError};

/// How long an event is kept after it was last seen.
pub const TIME_TO_LIVE: SignedDuration = SignedDuration::from_hours(1);

const COLUMNS: &str = "SELECT namespace, kind, name, uid, field_path, type, reason, message, source, count, first, last FROM events";

/// Whether an event tells of progress or of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Things go as they should.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl EventType {
    /// As kubectl prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Namespace of the object; empty for kinds that have none.
    pub namespace: String,
    /// Kind of the object: `Pod`.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// UID of the object.
    pub uid: String,
    /// The part of the object that is meant, such as
    /// `spec.containers{producer}`; empty when it is the whole.
    pub field_path: String,
    /// Progress or trouble.
    pub type_: EventType,
    /// One word in camel case, for programs: `FailedMount`.
    pub reason: String,
    /// A sentence, for people.
    pub message: String,
    /// Who says so: `orlop`.
    pub source: String,
}

/// An event as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    /// What happened.
    pub event: Event,
    /// How often.
    pub count: i64,
    /// When first, to the microsecond.
    pub first: Timestamp,
    /// When last, to the microsecond.
    pub last: Timestamp,
}

impl Store {
    /// Records that something happened now, and forgets events that are too old.
    ///
    /// # Errors
    /// [`StoreError::Sql`] or [`StoreError::Damaged`].
    pub fn record(&self, event: &Event) -> Result<(), StoreError> {
        self.record_at(event, Timestamp::now())
    }

    /// Records that something happened at `now`; events whose hour is over at
    /// `now` are forgotten.
    ///
    /// # Errors
    /// [`StoreError::Sql`] or [`StoreError::Damaged`].
    pub fn record_at(&self, event: &Event, now: Timestamp) -> Result<(), StoreError> {
        self.write("record an event", |change| change.record(event, now))
    }

    /// The events of the object with this UID, the one last seen longest ago first.
    ///
    /// # Errors
    /// [`StoreError::Sql`] or [`StoreError::Damaged`].
    pub fn events_for(&self, uid: &str) -> Result<Vec<RecordedEvent>, StoreError> {
        self.read("read events", |db| {
            db.prepare_cached(&format!(
                "{COLUMNS} WHERE uid = ?1 AND last >= ?2 ORDER BY last, rowid"
            ))?
            .query_map(params![uid, oldest(Timestamp::now())], recorded)?
            .collect()
        })
    }

    /// The events of one namespace, or of all, the one last seen longest ago first.
    ///
    /// # Errors
    /// [`StoreError::Sql`] or [`StoreError::Damaged`].
    pub fn events(&self, namespace: Option<&str>) -> Result<Vec<RecordedEvent>, StoreError> {
        self.read("read events", |db| {
            db.prepare_cached(&format!(
                "{COLUMNS} WHERE (?1 IS NULL OR namespace = ?1) AND last >= ?2 ORDER BY last, rowid"
            ))?
            .query_map(params![namespace, oldest(Timestamp::now())], recorded)?
            .collect()
        })
    }
}

impl Change<'_> {
    /// Records that something happened at `now`; events whose hour is over at `now`
    /// are forgotten.
    pub(super) fn record(&self, event: &Event, now: Timestamp) -> Result<(), StoreError> {
        self.run(|db| {
            db.prepare_cached("DELETE FROM events WHERE last < ?1")?
                .execute([oldest(now)])?;
            db.prepare_cached(
                "INSERT INTO events (namespace, kind, name, uid, field_path, type, reason, message, source, count, first, last)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 1, ?10, ?10)
                 ON CONFLICT DO UPDATE SET count = count + 1, last = max(last, excluded.last)",
            )?
            .execute(params![
                event.namespace,
                event.kind,
                event.name,
                event.uid,
                event.field_path,
                event.type_.as_str(),
                event.reason,
                event.message,
                event.source,
                now.as_microsecond(),
            ])
        })?;
        Ok(())
    }
}

/// Microseconds since the epoch before which an event is too old.
fn oldest(now: Timestamp) -> i64 {
    (now - TIME_TO_LIVE).as_microsecond()
}

fn recorded(row: &Row<'_>) -> rusqlite::Result<RecordedEvent> {
    let type_: String = row.get(5)?;
    Ok(RecordedEvent {
        event: Event {
            namespace: row.get(0)?,
            kind: row.get(1)?,
            name: row.get(2)?,
            uid: row.get(3)?,
            field_path: row.get(4)?,
            type_: if type_ == "Warning" {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: row.get(6)?,
            message: row.get(7)?,
            source: row.get(8)?,
        },
        count: row.get(9)?,
        first: moment(row, 10)?,
        last: moment(row, 11)?,
    })
}

fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Timestamp::from_microsecond(row.get(column)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Integer,
            Box::new(error),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::roots::Roots;
    use crate::storage::store::Durability;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(Some(dir.path()), None, None).unwrap();
        let store = Store::open(&roots, Durability::Normal).unwrap();
        (dir, store)
    }

    fn failed_mount(uid: &str, message: &str) -> Event {
        Event {
            namespace: "default".into(),
            kind: "Pod".into(),
            name: "web".into(),
            uid: uid.into(),
            field_path: String::new(),
            type_: EventType::Warning,
            reason: "FailedMount".into(),
            message: message.into(),
            source: "orlop".into(),
        }
    }

    #[test]
    fn equal_events_become_one_with_a_count_and_two_times() {
        let (_dir, store) = store();
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
        let earlier = now - SignedDuration::from_mins(30);
        store
            .record_at(&failed_mount("u1", "refused"), earlier)
            .unwrap();
        store
            .record_at(&failed_mount("u1", "no such file"), earlier)
            .unwrap();
        store
            .record_at(&failed_mount("u1", "refused"), now)
            .unwrap();

        let events = store.events_for("u1").unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].event.message, "no such file");
        assert_eq!(events[0].count, 1);
        let last = &events[1];
        assert_eq!((last.event.message.as_str(), last.count), ("refused", 2));
        assert_eq!((last.first, last.last), (earlier, now));
        assert_eq!(last.event, failed_mount("u1", "refused"));
    }

    #[test]
    fn events_of_other_objects_and_namespaces_stay_apart() {
        let (_dir, store) = store();
        let elsewhere = Event {
            namespace: "kube-system".into(),
            ..failed_mount("u2", "refused")
        };
        store.record(&failed_mount("u1", "refused")).unwrap();
        store.record(&elsewhere).unwrap();
        assert_eq!(store.events_for("u1").unwrap().len(), 1);
        assert_eq!(
            store.events(Some("kube-system")).unwrap()[0].event,
            elsewhere
        );
        assert_eq!(store.events(None).unwrap().len(), 2);
    }

    #[test]
    fn an_event_is_forgotten_an_hour_after_it_was_last_seen() {
        let (_dir, store) = store();
        let now = Timestamp::now();
        let old = now - SignedDuration::from_mins(59);
        let older = now - SignedDuration::from_mins(61);
        store
            .record_at(&failed_mount("u1", "seen again"), older)
            .unwrap();
        store
            .record_at(&failed_mount("u1", "seen once"), older)
            .unwrap();
        store
            .record_at(&failed_mount("u1", "seen again"), old)
            .unwrap();
        assert_eq!(store.events(None).unwrap().len(), 1, "not shown any more");
        store.record_at(&failed_mount("u1", "new"), now).unwrap();
        let rows: i64 = store
            .read("count", |db| {
                db.query_row("SELECT count(*) FROM events", [], |row| row.get(0))
            })
            .unwrap();
        assert_eq!(rows, 2, "and gone at the next writing");
    }
}
