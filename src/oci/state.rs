//! What is known about a container between two calls: one directory per
//! container under the state root, with a record in `state.json`.
//!
//! The record is written before the first thing is made for a container, so
//! that whatever a crash leaves behind can be found and deleted. Whether a
//! container runs is never stored: it is asked of the kernel each time, and
//! the process's start time keeps a recycled number from passing for it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use oci_spec::runtime::{Hooks, LinuxNamespaceType};
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::error::OciError;
use super::seccomp;
use super::systemd::Scope;
use crate::sys::pidfd;

const RECORD: &str = "state.json";

/// The socket on which a created container waits for its start. It is there
/// exactly as long as the container has not been started.
pub(crate) const START_SOCKET: &str = "start.sock";

/// What a container is doing (OCI runtime specification, runtime.md, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its environment is being made; there is no process yet.
    Creating,
    /// Its process waits for `start`.
    Created,
    /// Its process runs the user's program.
    Running,
    /// Its process has ended; a zombie that waits to be reaped has ended too.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
        })
    }
}

/// The record of one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The version of the specification that its configuration follows.
    pub oci_version: String,
    /// Its id.
    pub id: String,
    /// Its init's process id; 0 until there is one.
    pub pid: i32,
    /// When its init started, in clock ticks after boot (`/proc/PID/stat`).
    pub start_time: u64,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// The root file system's absolute path.
    pub rootfs: PathBuf,
    /// When it was created.
    pub created: Timestamp,
    /// The configuration's annotations.
    pub annotations: HashMap<String, String>,
    /// The namespaces it does not share with the runtime.
    pub namespaces: Vec<LinuxNamespaceType>,
    /// Its control group.
    pub cgroup: Cgroup,
    /// The scope that systemd made for it, if it did.
    pub scope: Option<Scope>,
    /// Its hooks, of which poststart and poststop are still to run.
    pub hooks: Option<Hooks>,
}

/// A container's directory below a state root.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The container's id.
    pub id: String,
    /// Its directory.
    pub directory: PathBuf,
}

impl Entry {
    /// Names the entry for `id` without looking for it.
    ///
    /// # Errors
    /// [`OciError::InvalidId`].
    pub fn new(state_root: &Path, id: &str) -> Result<Self, OciError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if id.is_empty() || id.len() > 1024 || id == "." || id == ".." || !id.chars().all(allowed) {
            return Err(OciError::InvalidId { id: id.to_owned() });
        }
        Ok(Self {
            id: id.to_owned(),
            directory: state_root.join(id),
        })
    }

    /// Makes the directory: from now on the id is taken.
    ///
    /// # Errors
    /// [`OciError::Exists`] when it is taken already.
    pub fn claim(&self) -> Result<(), OciError> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        let made = builder.create(&self.directory).or_else(|error| {
            match (error.kind(), self.directory.parent()) {
                (io::ErrorKind::NotFound, Some(root)) => {
                    builder.recursive(true).create(root)?;
                    builder.recursive(false).create(&self.directory)
                }
                _ => Err(error),
            }
        });
        made.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => OciError::Exists {
                id: self.id.clone(),
            },
            _ => {
                OciError::step::<io::Error>(format!("create directory {:?}", self.directory))(error)
            }
        })
    }

    /// Writes the record, replacing an earlier one in one step.
    ///
    /// # Errors
    /// [`OciError::Step`] naming the file.
    pub fn save(&self, record: &Record) -> Result<(), OciError> {
        let path = self.directory.join(RECORD);
        let new = self.directory.join("state.json.new");
        let write = || {
            fs::write(&new, serde_json::to_vec(record)?)?;
            fs::rename(&new, &path)
        };
        write().map_err(OciError::step::<io::Error>(format!("write {path:?}")))
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`OciError::NotFound`] when there is no such container; a directory
    /// without a record counts as one that is only being created.
    pub fn load(&self) -> Result<Record, OciError> {
        let path = self.directory.join(RECORD);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OciError::NotFound {
                id: self.id.clone(),
            },
            _ => OciError::step::<io::Error>(format!("read {path:?}"))(error),
        })?;
        serde_json::from_slice(&text).map_err(|error| OciError::Config {
            path,
            reason: error.to_string(),
        })
    }

    /// Asks the kernel what the container is doing.
    pub fn status(&self, record: &Record) -> Status {
        if record.pid == 0 {
            return Status::Creating;
        }
        if !is_alive(record.pid, record.start_time) {
            return Status::Stopped;
        }
        match self.directory.join(START_SOCKET).symlink_metadata() {
            Ok(_) => Status::Created,
            Err(_) => Status::Running,
        }
    }

    /// Removes the directory and all that is in it; it may be gone already.
    ///
    /// # Errors
    /// [`OciError::Step`] naming it.
    pub fn remove(&self) -> Result<(), OciError> {
        for name in [START_SOCKET, seccomp::FILE, "state.json.new", RECORD] {
            match fs::remove_file(self.directory.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(OciError::step::<io::Error>(format!(
                        "remove {name:?} in {:?}",
                        self.directory
                    ))(error));
                }
                _ => {}
            }
        }
        match fs::remove_dir(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(
                OciError::step::<io::Error>(format!("remove {:?}", self.directory))(error),
            ),
            _ => Ok(()),
        }
    }
}

impl Record {
    /// Opens the container's init, if it is still the process that was started.
    ///
    /// # Errors
    /// [`OciError::NotRunning`] when it is gone, a zombie, or was never there.
    pub fn open_init(&self) -> Result<OwnedFd, OciError> {
        let process = pidfd::open(self.pid).map_err(|_| OciError::NotRunning)?;
        // Asked after opening: the descriptor can't change hands any more.
        if is_alive(self.pid, self.start_time) {
            Ok(process)
        } else {
            Err(OciError::NotRunning)
        }
    }

    /// The container's state as the specification words it (runtime.md,
    /// "State"), with the fields that runtimes have added over the years.
    pub fn to_json(&self, status: Status) -> serde_json::Value {
        let annotations: BTreeMap<_, _> = self.annotations.iter().collect();
        serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "pid": if status == Status::Stopped { 0 } else { self.pid },
            "status": status,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "owner": "",
            "annotations": annotations,
        })
    }
}

/// When a process started (field 22 of `/proc/PID/stat`); `None` when there is
/// no such process or it has ended and waits to be reaped.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything, parentheses too.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

fn is_alive(pid: i32, started: u64) -> bool {
    start_time(pid) == Some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_can_only_be_a_plain_file_name() {
        let root = Path::new("/run/x");
        for id in ["", ".", "..", "a/b", "a b", "ä", "a\n"] {
            assert!(Entry::new(root, id).is_err(), "{id:?}");
        }
        for id in ["a", "...", "A-b_c+d.0"] {
            assert!(Entry::new(root, id).is_ok(), "{id:?}");
        }
    }

    #[test]
    fn an_id_can_be_taken_once() {
        let root = tempfile::tempdir().expect("tempdir");
        let entry = Entry::new(&root.path().join("deep/root"), "c").expect("id");
        entry.claim().expect("claim");
        assert!(matches!(entry.claim(), Err(OciError::Exists { .. })));
        assert!(matches!(entry.load(), Err(OciError::NotFound { .. })));
        entry.remove().expect("remove");
        entry.remove().expect("remove again");
        entry.claim().expect("claim again");
    }

    #[test]
    fn a_process_is_known_by_its_start_time_and_a_zombie_has_ended() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .expect("sleep");
        let pid = child.id() as i32;
        let started = start_time(pid).expect("alive");
        assert!(is_alive(pid, started) && !is_alive(pid, started + 1));
        child.kill().expect("kill");
        let mut patience = 1000;
        while start_time(pid).is_some() && patience > 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
            patience -= 1;
        }
        assert!(!is_alive(pid, started), "a zombie counts as alive");
        child.wait().expect("wait");
    }
}
