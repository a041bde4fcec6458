//! The tables of the database, and how a database made by an older orlop
//! becomes one of today.
//!
//! `PRAGMA user_version` counts the steps in `STEPS` that a database has
//! been through; `PRAGMA application_id` tells orlop's databases from others.
//! A database is made under another name and renamed when it is whole, so that
//! one that is there is never half made.

use std::fs::File;
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rustix::fs::{self, FlockOperation, Mode, OFlags};

/// `orlp`, in the header of every database that orlop makes.
pub(super) const APPLICATION_ID: i32 = 0x6f72_6c70;

/// What to do to a database, in order; step *n* makes version *n + 1*.
const STEPS: &[&str] = &[
    "
    CREATE TABLE versions (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 0),
        last INTEGER NOT NULL
    ) STRICT;
    INSERT INTO versions VALUES (0, 0);

    CREATE TABLE objects (
        uid TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        resource_version INTEGER NOT NULL,
        deletion_timestamp TEXT,
        object TEXT NOT NULL,
        status TEXT,
        boot_id TEXT,
        applied TEXT,
        UNIQUE (kind, namespace, name)
    ) STRICT;

    CREATE TABLE events (
        namespace TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        uid TEXT NOT NULL,
        field_path TEXT NOT NULL,
        type TEXT NOT NULL,
        reason TEXT NOT NULL,
        message TEXT NOT NULL,
        source TEXT NOT NULL,
        count INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        UNIQUE (uid, kind, namespace, name, field_path, type, reason, source, message)
    ) STRICT;
    CREATE INDEX events_by_age ON events (last);
",
    "
    CREATE TABLE untold (
        kind TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        version INTEGER NOT NULL,
        UNIQUE (kind, namespace, name)
    ) STRICT;
",
    "
    CREATE TABLE work (
        action TEXT NOT NULL,
        uid TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        due INTEGER NOT NULL,
        begun INTEGER NOT NULL,
        wanted INTEGER NOT NULL,
        UNIQUE (action, uid)
    ) STRICT;
",
];

/// The version that this program reads and writes.
pub(super) const VERSION: i32 = STEPS.len() as i32;

/// Why a database could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The lock on the data root, the new file or its renaming.
    #[error("{step}")]
    File {
        /// What was being done.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// SQLite's own.
    #[error("create the tables")]
    Tables(#[from] rusqlite::Error),
}

/// Makes the database `path` if it is not there, and whole: of several
/// processes that try at once one makes it and the others wait for it.
///
/// # Errors
/// The step that failed. `path` is then not there.
pub(super) fn create(path: &Path, data: &Path) -> Result<(), SchemaError> {
    let file = |step: &'static str| {
        move |errno: rustix::io::Errno| SchemaError::File {
            step,
            source: errno.into(),
        }
    };
    let directory = fs::open(
        data,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(file("open the data root"))?;
    fs::flock(&directory, FlockOperation::LockExclusive).map_err(file("lock the data root"))?;
    if path.exists() {
        return Ok(());
    }

    let unfinished = path.with_extension("db.new");
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut leftover = unfinished.clone().into_os_string();
        leftover.push(suffix);
        match fs::unlink(&leftover) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(file("remove an unfinished database")(errno)),
        }
    }
    let new = fs::open(
        &unfinished,
        OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    )
    .map_err(file("create the database"))?;
    let mut connection = Connection::open_with_flags(
        &unfinished,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // Nobody sees this file before it is whole; it goes to disk once, below.
    connection.pragma_update(None, "synchronous", "off")?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    upgrade(&mut connection)?;
    connection.close().map_err(|(_, source)| source)?;

    fs::fsync(&new).map_err(file("write the database to disk"))?;
    // Closing a descriptor drops all of a process's locks on the file
    // (fcntl(2)): this one must go before another thread can open the database.
    drop(new);
    fs::rename(&unfinished, path).map_err(file("name the database"))?;
    File::from(directory)
        .sync_all()
        .map_err(|source| SchemaError::File {
            step: "write the data root to disk",
            source,
        })
}

/// Takes an older database through the steps that it lacks, all or none.
///
/// # Errors
/// SQLite's; the database is then as it was.
pub(super) fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version >= VERSION {
        return Ok(());
    }
    for step in STEPS.iter().skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
