//! The store's list of images: one small JSON file, replaced as a whole.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::discard::discard;
use super::reference::{Reference, is_hex};
use super::{Image, ImageError};

pub(super) const FILE: &str = "index.json";
const NEXT: &str = "index.json.next";

/// All images of a store.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    pub images: Vec<Image>,
}

/// How a text led to an image; the number is its place in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// By one of its names, in full.
    Name(usize, String),
    /// By the digest of a repository's image: `docker.io/library/busybox`.
    Digest(usize, String),
    /// By its ID or the beginning of it.
    Id(usize),
}

impl Found {
    pub fn place(&self) -> usize {
        match *self {
            Found::Name(place, _) | Found::Digest(place, _) | Found::Id(place) => place,
        }
    }
}

impl Index {
    /// Reads the index of a store; a new store has none yet.
    pub fn load(store: &OwnedFd, dir: &Path) -> Result<Index, ImageError> {
        let failed = |source: io::Error| ImageError::Store {
            step: "read",
            path: dir.join(FILE),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match fs::openat(store, FILE, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Index::default()),
            other => other.map_err(|errno| failed(errno.into()))?,
        };
        let mut text = Vec::new();
        File::from(file).read_to_end(&mut text).map_err(failed)?;
        serde_json::from_slice(&text).map_err(|source| ImageError::Index {
            path: dir.join(FILE),
            source,
        })
    }

    /// Replaces the index of a store, all or nothing, also on power loss.
    pub fn save(&self, store: &OwnedFd, dir: &Path) -> Result<(), ImageError> {
        let write = || -> io::Result<()> {
            discard(store.as_fd(), OsStr::new(NEXT))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut next = File::from(fs::openat(store, NEXT, flags, Mode::RUSR | Mode::WUSR)?);
            next.write_all(&serde_json::to_vec(self)?)?;
            next.sync_all()?;
            fs::renameat(store, NEXT, store, FILE)?;
            fs::fsync(store)?;
            Ok(())
        };
        write().map_err(|source| ImageError::Store {
            step: "write",
            path: dir.join(FILE),
            source,
        })
    }

    /// Adds an image, or new names to one that is known. A name belongs to
    /// one image: others lose it. Gives the image as it is known now.
    pub fn add(&mut self, image: Image) -> Image {
        for other in &mut self.images {
            other.names.retain(|name| !image.names.contains(name));
            other.pulled.retain(|name, _| !image.names.contains(name));
        }
        let place = match self.images.iter().position(|known| known.id == image.id) {
            Some(place) => {
                let known = &mut self.images[place];
                known.names.extend(image.names);
                known.layers = image.layers;
                known.pulled.extend(image.pulled);
                known.platform = image.platform.or(known.platform.take());
                known.digest = image.digest.or(known.digest.take());
                known.manifest = image.manifest.or(known.manifest.take());
                place
            }
            None => {
                self.images.push(image);
                self.images.len() - 1
            }
        };
        let known = &mut self.images[place];
        known.names.sort();
        known.names.dedup();
        known.clone()
    }

    /// Finds the image that a text means: a name first, then an ID.
    pub fn find(&self, text: &str) -> Result<Option<Found>, ImageError> {
        if let Some(hex) = text.strip_prefix("sha256:")
            && !hex.is_empty()
            && is_hex(hex)
        {
            return self.by_id(text, hex);
        }
        let reference = match text.parse::<Reference>() {
            Ok(reference) => reference,
            Err(_) if !text.is_empty() && text.len() <= 64 && is_hex(text) => {
                return self.by_id(text, text);
            }
            Err(error) => return Err(error.into()),
        };
        let found = match reference.digest() {
            Some(digest) => self
                .by_name(&format!("{}@{digest}", reference.name()))
                .or_else(|| self.by_digest(&reference, digest)),
            None => self.by_name(&reference.to_string()),
        };
        match found {
            None if is_hex(text) => self.by_id(text, text),
            found => Ok(found),
        }
    }

    fn by_name(&self, name: &str) -> Option<Found> {
        let has = |image: &Image| image.names.iter().any(|known| known == name);
        let place = self.images.iter().position(has)?;
        Some(Found::Name(place, name.to_owned()))
    }

    fn by_digest(&self, reference: &Reference, digest: &str) -> Option<Found> {
        let repository = reference.name();
        let place = self.images.iter().position(|image| {
            let known = [&image.digest, &image.manifest];
            known.into_iter().flatten().any(|known| known == digest)
                && image
                    .names
                    .iter()
                    .any(|name| in_repository(name, &repository))
        })?;
        Some(Found::Digest(place, repository))
    }

    fn by_id(&self, text: &str, prefix: &str) -> Result<Option<Found>, ImageError> {
        let fits = |image: &Image| {
            image
                .id
                .strip_prefix("sha256:")
                .is_some_and(|id| id.starts_with(prefix))
        };
        let mut places = (0..self.images.len()).filter(|place| fits(&self.images[*place]));
        let first = places.next();
        match places.count() {
            0 => Ok(first.map(Found::Id)),
            more => Err(ImageError::Ambiguous {
                prefix: text.to_owned(),
                count: more + 1,
            }),
        }
    }
}

/// Whether a full name, which has a tag or a digest, belongs to a repository.
pub(super) fn in_repository(name: &str, repository: &str) -> bool {
    name.strip_prefix(repository)
        .is_some_and(|rest| rest.starts_with([':', '@']))
}
