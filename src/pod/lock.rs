//! A pod's lock: held by its keeper for as long as it lives, and by whoever
//! repairs or removes the pod in its absence. The kernel gives it back when the
//! holder dies, however it dies.
//!
//! It belongs to the process (the record locks of fcntl(2)), unlike one of
//! flock(2), which a child that was just forked would hold on to when its parent
//! is killed. So a process never takes the lock of a pod twice.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

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
    /// What open(2) or fcntl(2) say.
    pub fn try_take(home: &Home) -> io::Result<Option<Self>> {
        Self::take_as(home, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes the lock of a pod and waits for whoever has it.
    ///
    /// # Errors
    /// What open(2) or fcntl(2) say.
    pub fn take(home: &Home) -> io::Result<Self> {
        let taken = Self::take_as(home, FlockOperation::LockExclusive)?;
        taken.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn take_as(home: &Home, operation: FlockOperation) -> io::Result<Option<Self>> {
        let path = home.lock();
        loop {
            let file = open(&path)?;
            match rustix::io::retry_on_intr(|| fcntl_lock(&file, operation)) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK | Errno::ACCESS) => return Ok(None),
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
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::storage::roots::Roots;

    const DIRECTORY: &str = "ORLOP_TEST_LOCK";

    fn home(directory: &std::path::Path) -> Home {
        let roots = Roots::new(Some(directory), Some(directory), None).expect("roots");
        Home::new(&roots, "one")
    }

    /// What another process than the tests' does: takes the lock and says so.
    #[test]
    #[ignore = "run by the others"]
    fn holder() {
        let Some(directory) = std::env::var_os(DIRECTORY) else {
            return;
        };
        let lock = Lock::take(&home(directory.as_ref())).expect("lock");
        println!("held");
        std::thread::sleep(std::time::Duration::from_secs(60));
        drop(lock);
    }

    /// Starts a process that takes the lock, and waits until it has.
    fn start_holder(directory: &std::path::Path) -> Child {
        let mut child = Command::new(std::env::current_exe().expect("the test's own path"))
            .args([
                "pod::lock::tests::holder",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(DIRECTORY, directory)
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the holder");
        let mut lines = BufReader::new(child.stdout.as_mut().expect("stdout")).lines();
        assert!(lines.any(|line| line.expect("read").ends_with("held")));
        child
    }

    #[test]
    fn a_lock_is_held_by_one_process_at_a_time_and_leaves_no_file() {
        let directory = tempfile::tempdir().expect("directory");
        let home = home(directory.path());
        let mut holder = start_holder(directory.path());
        assert!(Lock::try_take(&home).expect("lock").is_none());
        holder.kill().expect("kill");
        holder.wait().expect("wait");
        let lock = Lock::try_take(&home).expect("lock").expect("free");
        lock.remove().expect("remove");
        assert!(!home.lock().exists());
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_taken_anew() {
        let directory = tempfile::tempdir().expect("directory");
        let home = home(directory.path());
        let first = Lock::try_take(&home).expect("lock").expect("free");
        let path = directory.path().to_owned();
        let waiting = std::thread::spawn(move || start_holder(&path));
        std::thread::sleep(std::time::Duration::from_millis(50));
        first.remove().expect("remove");
        let mut second = waiting.join().expect("thread");
        assert!(home.lock().exists());
        assert!(Lock::try_take(&home).expect("lock").is_none());
        second.kill().expect("kill");
        second.wait().expect("wait");
    }

    #[test]
    fn a_process_that_was_forked_does_not_hold_the_lock_of_one_that_was_killed() {
        let directory = tempfile::tempdir().expect("directory");
        let home = home(directory.path());
        let lock = Lock::try_take(&home).expect("lock").expect("free");
        // It has all descriptors of this process, as a child has until it closes them.
        let held = rustix::io::dup(&lock.file).expect("duplicate");
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(held)
            .spawn()
            .expect("sleep");
        drop(lock);
        assert!(Lock::try_take(&home).expect("lock").is_some());
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
}
