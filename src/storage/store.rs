//! The database: opening it, and changing it one transaction at a time.
//!
//! Promises: a change is there as a whole or not at all, whatever is killed
//! and whenever; changes made through a [`Durability::Full`] store survive a
//! power failure once the call has returned; readers wait for nobody. A store
//! that is opened and only read writes nothing and waits for no disk.
//!
//! A store must not be carried across `fork`, and nothing but SQLite may open
//! its file in a process that has a store
//! (<https://www.sqlite.org/howtocorrupt.html>, sections 2.2 and 2.6).

use std::cell::{Cell, Ref, RefCell};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::roots::{self, Roots, RootsError};
use super::schema::{self, SchemaError};
use super::watch;
use crate::kube::error::findings_line;
use crate::kube::field::FieldError;

/// How long a change waits for those of other processes. A change takes well
/// under a millisecond, so 200 keepers that write at once are through long before.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pages in the write-ahead log after which they move into the database: 1 MiB,
/// which the next process to open the database reads in about a millisecond.
const CHECKPOINT_PAGES: i64 = 256;
/// Bytes to which the log's file is cut back after a rush in which readers kept
/// it from being emptied.
const LOG_LIMIT: i64 = 4 << 20;
/// Where Linux says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The data root cannot be made.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The database cannot be made.
    #[error("cannot create the database {path:?}")]
    Create {
        /// The database.
        path: PathBuf,
        /// The step and its reason.
        source: SchemaError,
    },
    /// The database is there and cannot be opened.
    #[error("cannot open the database {path:?} (orlop usually runs as root)")]
    Open {
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The database was written by a newer orlop.
    #[error(
        "the database {path:?} has version {found}, and this orlop knows versions up to {known}: use the newer orlop that wrote it"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// The version it has.
        found: i32,
        /// The newest version that this program knows.
        known: i32,
    },
    /// The file is a database of something else, or empty.
    #[error("{path:?} is not a database that orlop made: move it away")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged, or no SQLite database at all.
    #[error(
        "the database {path:?} is damaged: restore it from a copy, or move it away to begin with an empty one"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        source: rusqlite::Error,
    },
    /// SQLite failed in another way (disk full, I/O error, locked too long).
    #[error("cannot {step} in the database {path:?}")]
    Sql {
        /// What was being done.
        step: &'static str,
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// An object in the database is not of the form that this program writes.
    #[error("the stored {kind} {name:?} cannot be read")]
    Decode {
        /// Kind of the object.
        kind: &'static str,
        /// Its name, or its UID.
        name: String,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// An object cannot be written as JSON.
    #[error("the {kind} {name:?} cannot be stored")]
    Encode {
        /// Kind of the object.
        kind: &'static str,
        /// Its name, or its UID.
        name: String,
        /// The serializer's reason.
        source: serde_json::Error,
    },
    /// An object given to the store lacks what it is known by.
    #[error("a {kind} needs {field}")]
    Incomplete {
        /// Kind of the object.
        kind: &'static str,
        /// The missing field, as a path.
        field: &'static str,
    },
    /// There is an object of that kind and name.
    #[error("{resource} {name:?} already exists")]
    AlreadyExists {
        /// The kind's plural, as kubectl says it: `pods`.
        resource: &'static str,
        /// Name of the object.
        name: String,
    },
    /// There is no such object.
    #[error("{resource} {name:?} not found")]
    NotFound {
        /// The kind's plural, as kubectl says it: `pods`.
        resource: &'static str,
        /// Name or UID, as it was asked for.
        name: String,
    },
    /// The command asks for what there cannot be.
    #[error("{reason}")]
    BadRequest {
        /// One sentence, in the API server's words.
        reason: String,
    },
    /// The API server would not let anybody do this.
    #[error("{resource} {name:?} is forbidden: {reason}")]
    NotAllowed {
        /// The kind's plural, as kubectl says it.
        resource: &'static str,
        /// Name of the object.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A pod's field differs that an update must not change.
    #[error(
        "Pod {name:?} is invalid: spec: Forbidden: pod updates may not change fields other than \
         `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
         `spec.tolerations` (only additions to existing tolerations),\
         `spec.terminationGracePeriodSeconds`: {field} differs"
    )]
    Forbidden {
        /// Name of the pod.
        name: String,
        /// The first such field, as a path.
        field: String,
    },
    /// The object was changed since it was read.
    #[error("{resource} {name:?} has been changed since it was read; get it again and change that")]
    Conflict {
        /// The kind's plural, as kubectl says it: `pods`.
        resource: &'static str,
        /// Name of the object.
        name: String,
    },
    /// The object may not be changed like this.
    #[error("{kind} {name:?} is invalid: {}", findings_line(findings))]
    Refused {
        /// Kind of the object.
        kind: &'static str,
        /// Name of the object.
        name: String,
        /// What is wrong with the change.
        findings: Vec<FieldError>,
    },
}

/// What a change must survive once it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Power failure: what users declare. Each change waits for the disk.
    Full,
    /// The death of any process: status and events, which are written anew after
    /// a reboot. A power failure may take the last of them, and breaks nothing.
    Normal,
}

/// A database of objects and events.
#[derive(Debug)]
pub struct Store {
    /// None while nobody needs it.
    connection: RefCell<Option<Connection>>,
    path: PathBuf,
    durability: Durability,
}

impl Store {
    /// Opens the database below the data root, and makes both when they are not there.
    ///
    /// # Errors
    /// One sentence that names the file, for everything that can be wrong with it.
    pub fn open(roots: &Roots, durability: Durability) -> Result<Self, StoreError> {
        let path = roots.database();
        let connection = match connect(&path) {
            // It is not there, or was not there a moment ago.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => {
                roots::make(&roots.data, 0o711)?;
                schema::create(&path, &roots.data).map_err(|source| StoreError::Create {
                    path: path.clone(),
                    source,
                })?;
                connect(&path)
            }
            connected => connected,
        };
        let connection = connection.map_err(|source| opening(&path, source))?;
        let store = Self {
            connection: RefCell::new(None),
            path,
            durability,
        };
        let connection = store.check(connection)?;
        store.connection.replace(Some(connection));
        Ok(store)
    }

    /// Lets go of the database's file, its lock and the memory that goes with them.
    /// The next call opens it again.
    pub fn close(&self) {
        self.connection.take();
    }

    /// The open database.
    fn connection(&self) -> Result<Ref<'_, Connection>, StoreError> {
        if self.connection.borrow().is_none() {
            let connection = connect(&self.path).map_err(|source| opening(&self.path, source))?;
            self.connection.replace(Some(self.check(connection)?));
        }
        let open = Ref::filter_map(self.connection.borrow(), Option::as_ref);
        Ok(open.unwrap_or_else(|_| unreachable!("opened above")))
    }

    /// Makes sure that this is a database of orlop's, in today's form.
    fn check(&self, mut connection: Connection) -> Result<Connection, StoreError> {
        let version = configure(&connection, self.durability)
            .map_err(|source| opening(&self.path, source))?;
        let path = || self.path.clone();
        match version {
            Some(schema::VERSION) => Ok(connection),
            Some(found) if found > schema::VERSION => Err(StoreError::Newer {
                path: path(),
                found,
                known: schema::VERSION,
            }),
            Some(_) => {
                schema::upgrade(&mut connection)
                    .map_err(|source| self.failed("bring an older form up to date", source))?;
                Ok(connection)
            }
            None => Err(StoreError::Foreign { path: path() }),
        }
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the latest change to any object: two equal answers mean
    /// that no object was created, changed or given another status in between.
    ///
    /// # Errors
    /// [`StoreError::Sql`] or [`StoreError::Damaged`].
    pub fn latest_version(&self) -> Result<i64, StoreError> {
        self.read("read the version", |db| {
            db.query_row("SELECT last FROM versions", [], |row| row.get(0))
        })
    }

    /// Runs a query, or several that need not see the same state.
    pub(super) fn read<T>(
        &self,
        step: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        query(&*self.connection()?).map_err(|source| self.failed(step, source))
    }

    /// Runs `change` in one transaction, which is undone when it returns an error.
    pub(super) fn write<T>(
        &self,
        step: &'static str,
        change: impl FnOnce(&Change<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let connection = self.connection()?;
        let begun = Transaction::new_unchecked(&connection, TransactionBehavior::Immediate);
        let change_set = Change {
            transaction: begun.map_err(|source| self.failed(step, source))?,
            store: self,
            step,
            unsettled: Cell::new(false),
        };
        let result = change(&change_set)?;
        if change_set.unsettled.get() {
            change_set.settle()?;
        }
        change_set
            .transaction
            .commit()
            .map_err(|source| self.failed(step, source))?;
        watch::tell(&self.path);
        Ok(result)
    }

    fn failed(&self, step: &'static str, source: rusqlite::Error) -> StoreError {
        let path = self.path.clone();
        if is_damage(&source) {
            StoreError::Damaged { path, source }
        } else {
            StoreError::Sql { step, path, source }
        }
    }
}

/// A transaction in progress, which knows how to word its failures.
pub struct Change<'s> {
    transaction: Transaction<'s>,
    store: &'s Store,
    step: &'static str,
    /// Whether claims and volumes may have to change before the transaction ends.
    unsettled: Cell<bool>,
}

impl Change<'_> {
    /// Has claims and volumes settled before the transaction ends.
    pub(super) fn touch_claims(&self) {
        self.unsettled.set(true);
    }

    /// Claims and volumes are as they should be.
    pub(super) fn claims_are_settled(&self) {
        self.unsettled.set(false);
    }

    /// Runs one statement or query of the transaction.
    pub(super) fn run<T>(
        &self,
        statement: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        statement(&self.transaction).map_err(|source| self.store.failed(self.step, source))
    }

    /// Counts this change to an object.
    pub(super) fn next_version(&self) -> Result<i64, StoreError> {
        self.run(|db| {
            db.prepare_cached("UPDATE versions SET last = last + 1 RETURNING last")?
                .query_row([], |row| row.get(0))
        })
    }
}

/// Which boot of the machine this is, as the kernel names it; a status with
/// another one was written before the machine was restarted.
///
/// # Errors
/// The system's, when `/proc` is not there.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string(BOOT_ID)?.trim_end().to_owned())
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
}

/// Sets a connection up and tells the database's version; none: not orlop's.
fn configure(db: &Connection, durability: Durability) -> rusqlite::Result<Option<i32>> {
    db.busy_timeout(PATIENCE)?;
    db.set_prepared_statement_cache_capacity(16);
    // The last process to leave would otherwise empty the write-ahead log
    // and wait for the disk twice, on every short command.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let application: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if application != schema::APPLICATION_ID || version < 1 {
        return Ok(None);
    }
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    db.pragma_update(None, "journal_size_limit", LOG_LIMIT)?;
    // Negative sizes are KiB.
    let (synchronous, cache) = match durability {
        Durability::Full => ("full", -512),
        Durability::Normal => ("normal", -64),
    };
    db.pragma_update(None, "synchronous", synchronous)?;
    db.pragma_update(None, "cache_size", cache)?;
    Ok(Some(version))
}

fn opening(path: &Path, source: rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    if is_damage(&source) {
        StoreError::Damaged { path, source }
    } else {
        StoreError::Open { path, source }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}
