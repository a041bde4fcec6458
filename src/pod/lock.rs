//! A pod's lock: held by its keeper for as long as it lives, and by whoever
//! repairs or removes the pod in its absence. The kernel gives it back when the
//! holder dies, however it dies (flock(2)).

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};

use super::home::Home;

/// A lock that is held. Dropping it gives it back.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of a pod, or returns `None` when somebody else has it.
    ///
    /// # Errors
    /// What open(2) or flock(2) say.
    pub fn try_take(home: &Home) -> io::Result<Option<Self>> {
        Self::take_as(home, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes the lock of a pod and waits for whoever has it.
    ///
    /// # Errors
    /// What open(2) or flock(2) say.
    pub fn take(home: &Home) -> io::Result<Self> {
        let taken = Self::take_as(home, FlockOperation::LockExclusive)?;
        taken.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn take_as(home: &Home, operation: FlockOperation) -> io::Result<Option<Self>> {
        let path = home.lock();
        loop {
            let file = open(&path)?;
            match rustix::io::retry_on_intr(|| flock(&file, operation)) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            // The former holder may have removed the file in between; a lock
            // on a file without a name keeps nobody out.
            let held = file.metadata()?;
            match std::fs::metadata(&path) {
                Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Some(Self { file, path }));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }

    /// Removes the lock's file, as the last trace of a pod that is gone.
    ///
    /// # Errors
    /// What unlink(2) says.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        drop(self.file);
        Ok(())
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    let open = || {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
    };
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            open()
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::roots::Roots;

    fn home(directory: &std::path::Path) -> Home {
        let roots = Roots::new(Some(directory), Some(directory), None).expect("roots");
        Home::new(&roots, "one")
    }

    #[test]
    fn a_lock_is_held_by_one_at_a_time_and_leaves_no_file() {
        let directory = tempfile::tempdir().expect("directory");
        let home = home(directory.path());
        let first = Lock::try_take(&home).expect("lock").expect("free");
        assert!(Lock::try_take(&home).expect("lock").is_none());
        first.remove().expect("remove");
        assert!(!home.lock().exists());
        assert!(Lock::try_take(&home).expect("lock").is_some());
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_taken_anew() {
        let directory = tempfile::tempdir().expect("directory");
        let home = home(directory.path());
        let first = Lock::try_take(&home).expect("lock").expect("free");
        let waiting = {
            let home = home.clone();
            std::thread::spawn(move || Lock::take(&home).expect("lock"))
        };
        first.remove().expect("remove");
        let second = waiting.join().expect("thread");
        assert!(home.lock().exists());
        assert!(Lock::try_take(&home).expect("lock").is_none());
        drop(second);
    }
}
