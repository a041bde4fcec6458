//! One layer: downloaded and unpacked at the same time, and checked.

use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;

use super::arriving::{Sender, arriving};
use super::manifest::Wanted;
use super::source::Source;
use super::staging::{Partial, Staging};
use super::{PullError, Report, commit};
use crate::image::Layer;
use crate::image::digest::Hashing;
use crate::image::import::unpack_stream;
use crate::image::store::ImageStore;
use crate::image::unpack::{UnpackError, Unpacked};

/// How often a download that does not come on is tried again, and how long
/// before the first time; each pause is twice as long as the one before.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// How many bytes pass between two reports.
const REPORT_EVERY: u64 = 256 << 10;

/// One layer's place among those of its image, and what it takes to fetch it.
pub(super) struct Fetch<'a> {
    pub store: &'a ImageStore,
    pub staging: &'a Staging,
    pub sources: &'a [Rc<Source>],
    pub wanted: &'a Wanted,
    /// From 1 at the bottom.
    pub number: usize,
    pub of: usize,
    pub report: &'a dyn Fn(Report<'_>),
}

/// What an unpacking thread found.
struct Found {
    unpacked: Result<(Unpacked, String), UnpackError>,
    /// The digest of what was downloaded, when it all came.
    digest: std::io::Result<String>,
}

impl Fetch<'_> {
    /// Brings the layer among those that are complete.
    pub async fn run(&self) -> Result<(), PullError> {
        let digest = &self.wanted.digest;
        let waiting = || {
            (self.report)(Report::Waiting {
                number: self.number,
            })
        };
        let mut partial = self.staging.lock(digest, waiting).await?;
        if self.is_there().await? {
            (self.report)(Report::Present {
                number: self.number,
            });
            return self.staging.forget(partial);
        }
        let mut there = self.length(&partial)?;
        if there > self.wanted.size {
            there = 0;
        }
        loop {
            let resumed = there > 0;
            match self.once(&partial, there).await {
                Ok(layer) => {
                    self.staging.finish(partial, &layer)?;
                    (self.report)(Report::Done {
                        number: self.number,
                    });
                    return Ok(());
                }
                // What lay there before may have been damaged: only all of it
                // anew tells whether the registry's is.
                Err(PullError::Digest { .. }) if resumed => there = 0,
                Err(error) => {
                    if !error.is_passing() {
                        self.staging.forget(partial)?;
                    }
                    return Err(error);
                }
            }
            partial = Partial::emptied(partial).map_err(self.unusable("empty"))?;
        }
    }

    /// Whether somebody else has brought the layer in the meantime.
    async fn is_there(&self) -> Result<bool, PullError> {
        let _settled = self.staging.settled().await?;
        let diff_id = &self.wanted.diff_id;
        Ok(self.staging.finished(diff_id).is_some() || commit::has(self.store, diff_id)?)
    }

    fn unusable(&self, step: &'static str) -> impl Fn(std::io::Error) -> PullError {
        let path = self.wanted.digest.clone().into();
        move |source| PullError::Staging {
            step,
            path: std::path::PathBuf::clone(&path),
            source,
        }
    }

    fn length(&self, partial: &Partial) -> Result<u64, PullError> {
        let stat = partial.file.metadata();
        Ok(stat.map_err(self.unusable("look at"))?.len())
    }

    /// Downloads what is missing behind the first `there` bytes while a thread
    /// unpacks from the beginning.
    async fn once(&self, partial: &Partial, there: u64) -> Result<Layer, PullError> {
        let directory = self.staging.directory(partial)?;
        let file = || partial.file.try_clone().map_err(self.unusable("read"));
        let (sender, reader) = arriving(file()?, there);
        let unpacking = tokio::task::spawn_blocking(move || {
            let mut blob = Hashing::new(reader);
            let unpacked = unpack_stream(&mut blob, directory);
            let digest = blob.finish();
            Found { unpacked, digest }
        });
        let downloaded = self.download(partial, sender, there).await;
        let found = unpacking
            .await
            .map_err(|error| self.unusable("unpack")(std::io::Error::other(error.to_string())))?;
        downloaded?;
        // A wrong digest says more than the trouble that it leads to.
        let actual = found.digest.map_err(self.unusable("read"))?;
        self.same("layer", &self.wanted.digest, &actual)?;
        let (number, of) = (self.number, self.of);
        let (unpacked, diff_id) =
            found
                .unpacked
                .map_err(|source| PullError::Unpack { number, of, source })?;
        self.same("the content of layer", &self.wanted.diff_id, &diff_id)?;
        Ok(Layer {
            diff_id,
            size: unpacked.size,
            opaque: unpacked.opaque,
        })
    }

    fn same(&self, what: &str, expected: &str, actual: &str) -> Result<(), PullError> {
        match expected == actual {
            true => Ok(()),
            false => Err(PullError::Digest {
                what: format!("{what} {} of {}", self.number, self.of),
                expected: expected.to_owned(),
                actual: actual.to_owned(),
            }),
        }
    }

    async fn download(
        &self,
        partial: &Partial,
        sender: Sender,
        there: u64,
    ) -> Result<(), PullError> {
        let mut at = there;
        self.tell(at);
        for (place, source) in self.sources.iter().enumerate() {
            let mut tries = 0;
            while at < self.wanted.size {
                let before = at;
                let Err(error) = self.stretch(source, partial, &sender, &mut at).await else {
                    continue;
                };
                tries = if at > before { 1 } else { tries + 1 };
                let last = place + 1 == self.sources.len();
                if error.is_passing() && tries < TRIES {
                    tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(tries - 1)).await;
                } else if last {
                    return Err(error);
                } else {
                    break;
                }
            }
        }
        if at < self.wanted.size {
            return Err(PullError::Client {
                host: format!("for layer {} of {}", self.number, self.of),
                reason: "no host is configured with the capability \"pull\"".to_owned(),
            });
        }
        sender.complete();
        Ok(())
    }

    /// Downloads as much as one answer brings, from `at` on.
    async fn stretch(
        &self,
        source: &Source,
        partial: &Partial,
        sender: &Sender,
        at: &mut u64,
    ) -> Result<(), PullError> {
        let size = self.wanted.size;
        let wrong = |sent: String| PullError::Size {
            what: format!("layer {} of {}", self.number, self.of),
            host: source.host().to_owned(),
            announced: size,
            sent,
        };
        let (from_there, mut stream) = source.blob(&self.wanted.digest, *at).await?;
        // What a server that knows no ranges sends again is passed over.
        let mut again = if from_there { 0 } else { *at };
        let announced = stream.content_length.map(|length| *at - again + length);
        if let Some(sent) = announced.filter(|sent| *sent != size) {
            return Err(wrong(sent.to_string()));
        }
        let mut reported = *at;
        while let Some(piece) = stream.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                // All has come; whether it is right is looked at elsewhere.
                Err(_) if *at == size => break,
                Err(error) => return Err(PullError::stream(source.host(), &error)),
            };
            let skipped = piece
                .len()
                .min(usize::try_from(again).unwrap_or(usize::MAX));
            again -= skipped as u64;
            let piece = &piece[skipped..];
            if *at + piece.len() as u64 > size {
                return Err(wrong("more".to_owned()));
            }
            partial
                .file
                .write_all_at(piece, *at)
                .map_err(self.unusable("write"))?;
            *at += piece.len() as u64;
            sender.came(*at);
            if *at - reported >= REPORT_EVERY || *at == size {
                reported = *at;
                self.tell(*at);
            }
        }
        match *at == size {
            true => Ok(()),
            false => Err(PullError::NoAnswer {
                host: source.host().to_owned(),
                reason: format!(
                    "the connection ended after {} of {size} bytes of a layer",
                    *at
                ),
            }),
        }
    }

    fn tell(&self, at: u64) {
        (self.report)(Report::Downloading {
            number: self.number,
            at,
            size: self.wanted.size,
        });
    }
}

impl Partial {
    fn emptied(self) -> std::io::Result<Self> {
        self.file.set_len(0)?;
        Ok(self)
    }
}
