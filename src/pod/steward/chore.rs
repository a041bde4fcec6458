//! What a copy of the steward does, and what it says of it.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::PersistentVolume;
use serde::{Deserialize, Serialize};

use crate::storage::binder::facts::{PROVISIONED_BY, annotation, name};
use crate::storage::provisioner::{self, ProvisionError, Provisioner};
use crate::storage::reclaim::{self, ReclaimError};
use crate::storage::roots::Roots;
use crate::volume::remove::{Options, Progress};

/// How often it is told how far a deletion is.
const TELL: Duration = Duration::from_millis(500);
/// How long making a volume may take.
const MAKING: Duration = Duration::from_secs(60);
/// How long an export may take to be mounted, besides what is done in it.
const MOUNTING: Duration = Duration::from_secs(30);

/// A piece of work, with all that is to be known for it.
#[derive(Clone, Debug)]
pub(super) enum Chore {
    /// Delete everything in a volume.
    Recycle(Box<PersistentVolume>),
    /// Delete what a volume stands for.
    Delete(Box<PersistentVolume>),
    /// Make what this volume stands for.
    Make(Box<PersistentVolume>),
    /// Take away what was made for this volume, which nobody had.
    Unmake(Box<PersistentVolume>),
}

/// How a chore ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ending {
    /// It is done.
    Done,
    /// It is not.
    Failed {
        /// Why not.
        reason: String,
        /// Whether it is of no use to try again soon.
        lasting: bool,
    },
}

/// A line from the copy.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// So many files and directories are deleted.
    Deleted(u64, u64),
    /// It is over.
    Ended(Ending),
}

impl Chore {
    pub(super) fn volume(&self) -> &PersistentVolume {
        match self {
            Self::Recycle(volume)
            | Self::Delete(volume)
            | Self::Make(volume)
            | Self::Unmake(volume) => volume,
        }
    }

    /// How long it may take before it is killed.
    pub(super) fn limit(&self) -> Duration {
        match self {
            Self::Recycle(volume) | Self::Delete(volume) => reclaim::limit(volume) + MOUNTING,
            Self::Make(_) | Self::Unmake(_) => MAKING,
        }
    }
}

/// Does a chore and tells of it, to its end.
pub(super) fn perform(chore: &Chore, roots: &Roots, mut told: File) -> std::io::Result<()> {
    let progress = Progress::default();
    let (done, over) = channel::<()>();
    let mut tell = told.try_clone()?;
    let ending = std::thread::scope(|scope| {
        let progress = &progress;
        scope.spawn(move || {
            let mut before = 0;
            while over.recv_timeout(TELL) == Err(RecvTimeoutError::Timeout) {
                let now = progress.now();
                if now.files + now.directories == before {
                    continue;
                }
                before = now.files + now.directories;
                // Nobody listens any more: the end of this process is near.
                let _ = say(&mut tell, &Told::Deleted(now.files, now.directories));
            }
        });
        let ending = act(chore, roots, progress);
        drop(done);
        ending
    });
    say(&mut told, &Told::Ended(ending))
}

fn say(told: &mut File, what: &Told) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    told.write_all(&line)
}

fn act(chore: &Chore, roots: &Roots, progress: &Progress) -> Ending {
    let options = Options {
        deadline: Some(Instant::now() + reclaim::limit(chore.volume())),
        progress: Some(progress),
        ..Options::default()
    };
    match chore {
        Chore::Recycle(volume) => reclaimed(reclaim::recycle(volume, roots, options)),
        Chore::Delete(volume) => reclaimed(reclaim::delete(volume, roots, options)),
        Chore::Make(volume) => provisioned(maker(volume).and_then(|it| it.make(volume, roots))),
        Chore::Unmake(volume) => provisioned(maker(volume).and_then(|it| it.unmake(volume, roots))),
    }
}

fn maker(volume: &PersistentVolume) -> Result<&'static dyn Provisioner, ProvisionError> {
    let maker = annotation(volume, PROVISIONED_BY).and_then(provisioner::of);
    maker.ok_or_else(|| ProvisionError::Foreign(name(volume).to_owned()))
}

fn reclaimed<T>(done: Result<T, ReclaimError>) -> Ending {
    match done {
        Ok(_) => Ending::Done,
        Err(error) => Ending::Failed {
            lasting: error.is_lasting(),
            reason: words(&error.to_string()),
        },
    }
}

fn provisioned(done: Result<(), ProvisionError>) -> Ending {
    match done {
        Ok(()) => Ending::Done,
        Err(error) => Ending::Failed {
            lasting: error.is_lasting(),
            reason: words(&error.to_string()),
        },
    }
}

/// An error's text without the numbers of system errors, which mean nothing to people.
fn words(text: &str) -> String {
    let mut words = String::new();
    for (place, part) in text.split(" (os error ").enumerate() {
        let after_number = part.split_once(')').filter(|_| place > 0);
        words.push_str(after_number.map_or(part, |(_, rest)| rest));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn errors_have_no_numbers() {
        assert_eq!(
            words("cannot open \"/x\": Not a directory (os error 20)"),
            "cannot open \"/x\": Not a directory"
        );
        assert_eq!(words("a (os error 2) b (os error 13); c (d)"), "a b; c (d)");
        assert_eq!(words("plain"), "plain");
    }
}
