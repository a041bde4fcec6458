//! Word of changes in the store, for those who wait for one.
//!
//! Whoever has changed something touches the database's times once the change
//! is there to be read; inotify(7) tells. So nobody looks again and again, and
//! nobody who looks after being told sees an older state.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD, Timestamps, UTIME_NOW, utimensat};

use super::store::Store;

/// Tells that something in the store has changed.
#[derive(Debug)]
pub struct Changes {
    descriptor: OwnedFd,
}

impl Store {
    /// Tells of every change from now on. What is to be compared with later
    /// states must be read after this call.
    ///
    /// # Errors
    /// What inotify_add_watch(2) says.
    pub fn changes(&self) -> io::Result<Changes> {
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&descriptor, self.path(), WatchFlags::ATTRIB)?;
        Ok(Changes { descriptor })
    }
}

impl Changes {
    /// Waits until something has changed since the last call, or until
    /// `deadline`. False when nothing has.
    ///
    /// # Errors
    /// What poll(2) or read(2) say.
    pub fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(Timespec::try_from).transpose();
            let left = left.map_err(|_| io::ErrorKind::InvalidInput)?;
            let mut interest = [PollFd::new(&self.descriptor, PollFlags::IN)];
            match poll(&mut interest, left.as_ref()) {
                Ok(0) => return Ok(false),
                Ok(_) => {
                    self.settle()?;
                    return Ok(true);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes the word that has come, for a caller who polls the descriptor.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn settle(&self) -> io::Result<()> {
        let mut buffer = [0_u8; 4096];
        loop {
            match rustix::io::read(&self.descriptor, &mut buffer) {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Tells everybody who waits for changes of the database `path`.
pub(super) fn tell(path: &Path) {
    let now = rustix::fs::Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    // The change itself is made; that nobody could be told undoes nothing.
    let _ = utimensat(CWD, path, &times, AtFlags::empty());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::storage::roots::Roots;
    use crate::storage::store::Durability;

    #[test]
    fn every_change_is_told_and_only_changes_are() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(Some(dir.path()), None, None).unwrap();
        let store = Store::open(&roots, Durability::Full).unwrap();
        let reader = Store::open(&roots, Durability::Normal).unwrap();
        let changes = reader.changes().unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(50));
        assert!(!changes.wait(soon()).unwrap());
        let pod = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": "web"},
        }));
        let pod = store.create_pod(pod.unwrap()).unwrap();
        assert!(changes.wait(None).unwrap());
        assert!(reader.pod("default", "web").unwrap().is_some());
        assert!(!changes.wait(soon()).unwrap(), "reading changes nothing");
        store
            .remove_pod(pod.metadata.uid.as_deref().unwrap())
            .unwrap();
        assert!(changes.wait(None).unwrap());
    }
}
