//! What is being pulled, on its way into the store. A directory of the store,
//! shared by all who pull:
//!
//! ```text
//! pulls/blob-<digest>        a layer as the registry has it, as far as it came
//! pulls/unpack-<digest>      the same, being unpacked
//! pulls/done-<diffID>        a layer that is complete and checked
//! pulls/done-<diffID>.json   its size, and the boot in which it was written
//! ```
//!
//! Whoever downloads a blob holds a flock on its file. So nothing is downloaded
//! twice at a time, and what a killed process leaves is taken up by the next:
//! the bytes of a blob by asking for the rest, a layer that is done as it is.
//! After a reboot nothing is known about what reached the disk: then a layer is
//! made anew, and a blob is checked by its digest as always.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::{self, AtFlags, Dir, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::PullError;
use crate::image::discard::discard;
use crate::image::store::ImageStore;
use crate::image::{ImageError, Layer, digest};

const PULLS: &str = "pulls";

/// When something that nobody went on with is garbage.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The directory of what is being pulled.
pub(super) struct Staging {
    dir: OwnedFd,
    path: PathBuf,
    boot: String,
}

/// A blob that this process may write to, as long as it holds this.
pub(super) struct Partial {
    pub file: File,
    hex: String,
}

#[derive(Serialize, Deserialize)]
struct Done {
    size: u64,
    opaque: bool,
    boot: String,
}

impl Staging {
    /// Opens the directory, and makes it when it is missing.
    pub fn open(store: &ImageStore) -> Result<Self, PullError> {
        match fs::mkdirat(&store.fd, PULLS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(store.failed("make", PULLS)(errno).into()),
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        Ok(Self {
            dir: store.open_dir(PULLS)?,
            path: store.dir.join(PULLS),
            // Without the file nothing is taken for written in this boot.
            boot: boot.unwrap_or_default(),
        })
    }

    fn failed<E: Into<io::Error>>(
        &self,
        step: &'static str,
        name: &str,
    ) -> impl Fn(E) -> PullError + use<E> {
        let path = self.path.join(name);
        move |source| PullError::Staging {
            step,
            path: path.clone(),
            source: source.into(),
        }
    }

    /// A layer that is complete, if it is.
    pub fn finished(&self, diff_id: &str) -> Option<Layer> {
        let name = done(diff_id)?;
        let text = std::fs::read(self.path.join(format!("{name}.json"))).ok()?;
        let done: Done = serde_json::from_slice(&text).ok()?;
        let there = fs::statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        (there && !done.boot.is_empty() && done.boot == self.boot).then(|| Layer {
            diff_id: diff_id.to_owned(),
            size: done.size,
            opaque: done.opaque,
        })
    }

    /// Waits until no layer is on its way from here into the store. As long as
    /// the caller holds what it gets, none goes.
    pub async fn settled(&self) -> Result<OwnedFd, PullError> {
        let dir = self.again()?;
        let locked = match fs::flock(&dir, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => wait_for(dir, FlockOperation::LockShared).await,
            other => other.map(|()| dir).map_err(io::Error::from),
        };
        locked.map_err(self.failed("lock", ""))
    }

    /// Waits for the right to move layers from here into the store.
    pub fn moving(&self) -> Result<OwnedFd, PullError> {
        let dir = self.again()?;
        lock(&dir, FlockOperation::LockExclusive).map_err(self.failed("lock", ""))?;
        Ok(dir)
    }

    /// The directory, opened once more: a lock belongs to an opening.
    fn again(&self) -> Result<OwnedFd, PullError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        fs::openat(&self.dir, ".", flags, Mode::empty()).map_err(self.failed("open", ""))
    }

    /// Waits for the right to download a blob. `waiting` is called when
    /// somebody else has it at this moment.
    pub async fn lock(&self, digest: &str, waiting: impl Fn()) -> Result<Partial, PullError> {
        let hex = digest::hex(digest).unwrap_or_default().to_owned();
        let name = blob(&hex);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            let file = fs::openat(&self.dir, &name, flags, Mode::RUSR | Mode::WUSR)
                .map_err(self.failed("open", &name))?;
            let locked = match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => {
                    waiting();
                    wait_for(file, FlockOperation::LockExclusive).await
                }
                other => other.map(|()| file).map_err(io::Error::from),
            };
            let file = locked.map_err(self.failed("lock", &name))?;
            // Whoever was done with it has removed it.
            let there = fs::statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW);
            let ours = fs::fstat(&file).map_err(self.failed("open", &name))?;
            if there.is_ok_and(|there| (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)) {
                let file = File::from(file);
                return Ok(Partial { file, hex });
            }
        }
    }

    /// An empty directory to unpack a blob to, with the mode of a root directory.
    pub fn directory(&self, partial: &Partial) -> Result<OwnedFd, PullError> {
        let name = unpacking(&partial.hex);
        let make = || -> rustix::io::Result<OwnedFd> {
            discard(self.dir.as_fd(), OsStr::new(&name))?;
            fs::mkdirat(&self.dir, &name, Mode::RWXU)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = fs::openat(&self.dir, &name, flags, Mode::empty())?;
            fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
            Ok(made)
        };
        make().map_err(self.failed("make", &name))
    }

    /// Marks an unpacked blob as a complete layer, and forgets the blob.
    pub fn finish(&self, partial: Partial, layer: &Layer) -> Result<(), PullError> {
        let from = unpacking(&partial.hex);
        let name = done(&layer.diff_id).unwrap_or_default();
        if self.finished(&layer.diff_id).is_none() {
            discard(self.dir.as_fd(), OsStr::new(&name)).map_err(self.failed("delete", &name))?;
            match fs::renameat_with(&self.dir, &from, &self.dir, &name, RenameFlags::NOREPLACE) {
                // Another blob with the same content was faster.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.failed("make", &name)(errno)),
            }
            let marked = Done {
                size: layer.size,
                opaque: layer.opaque,
                boot: self.boot.clone(),
            };
            let mark = format!("{name}.json");
            let text = serde_json::to_vec(&marked).map_err(io::Error::from);
            text.and_then(|text| std::fs::write(self.path.join(&mark), text))
                .map_err(self.failed("write", &mark))?;
        }
        self.forget(partial)
    }

    /// Removes a blob, and what was unpacked of it.
    pub fn forget(&self, partial: Partial) -> Result<(), PullError> {
        for name in [unpacking(&partial.hex), blob(&partial.hex)] {
            discard(self.dir.as_fd(), OsStr::new(&name)).map_err(self.failed("delete", &name))?;
        }
        Ok(())
    }

    /// Moves a complete layer to a directory of the store, under another name.
    pub fn hand_over(&self, diff_id: &str, to: &OwnedFd, name: &str) -> Result<(), PullError> {
        let from = done(diff_id).unwrap_or_default();
        fs::renameat(&self.dir, &from, to, name).map_err(self.failed("move", &from))?;
        let mark = format!("{from}.json");
        discard(self.dir.as_fd(), OsStr::new(&mark)).map_err(self.failed("delete", &mark))
    }
}

/// Waits for a lock that somebody else holds, without holding up this thread.
async fn wait_for(file: OwnedFd, operation: FlockOperation) -> io::Result<OwnedFd> {
    let waiting = tokio::task::spawn_blocking(move || lock(&file, operation).map(|()| file));
    Ok(waiting.await.map_err(io::Error::other)??)
}

fn lock(file: &OwnedFd, operation: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match fs::flock(file, operation) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Removes what was begun to be pulled long ago and that nobody works on. The
/// caller holds the right to write to the store.
pub(in crate::image) fn clean(store: &ImageStore) -> Result<(), ImageError> {
    let dir = match store.open_dir(PULLS) {
        Ok(dir) => dir,
        Err(ImageError::Store { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let failed = |step| store.failed(step, PULLS);
    for entry in Dir::read_from(&dir).map_err(failed("read"))? {
        let entry = entry.map_err(failed("read"))?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if matches!(name, "." | "..") || !is_old(&dir, name) {
            continue;
        }
        let hex = name.strip_prefix("blob-").or(name.strip_prefix("unpack-"));
        let Some(hex) = hex else {
            discard(dir.as_fd(), OsStr::new(name)).map_err(failed("clear"))?;
            continue;
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(&dir, blob(hex), flags, Mode::RUSR | Mode::WUSR);
        let file = file.map_err(failed("open"))?;
        if fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            for name in [unpacking(hex), blob(hex)] {
                discard(dir.as_fd(), OsStr::new(&name)).map_err(failed("clear"))?;
            }
        }
    }
    Ok(())
}

/// Whether nobody went on with something for long. The times of a layer's
/// directory are the image's: what lies beside it tells its age.
fn is_old(dir: &OwnedFd, name: &str) -> bool {
    let stat = |name: &str| fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok();
    let beside = match (name.strip_prefix("unpack-"), name.strip_prefix("done-")) {
        (Some(hex), _) => Some(blob(hex)),
        (_, Some(rest)) if !rest.ends_with(".json") => Some(format!("{name}.json")),
        _ => None,
    };
    let changed = match &beside {
        None => stat(name).map(|stat| stat.st_mtime),
        Some(beside) => match stat(beside) {
            Some(stat) => Some(stat.st_mtime),
            None => stat(name).map(|stat| stat.st_ctime),
        },
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    // A clock that was set back makes nothing old.
    changed.is_some_and(|changed| {
        let changed = u64::try_from(changed).unwrap_or(0);
        now.saturating_sub(changed) > KEPT.as_secs()
    })
}

fn blob(hex: &str) -> String {
    format!("blob-{hex}")
}

fn unpacking(hex: &str) -> String {
    format!("unpack-{hex}")
}

fn done(diff_id: &str) -> Option<String> {
    digest::hex(diff_id).map(|hex| format!("done-{hex}"))
}
