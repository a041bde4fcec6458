//! The image store: looking up, using and removing images.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::discard::discard;
use super::index::{Found, Index, in_repository};
use super::{Image, ImageError, Layer, digest, familiar};

pub(super) const LAYERS: &str = "layers/sha256";
pub(super) const BLOBS: &str = "blobs/sha256";
const TMP: &str = "tmp";
const LOCK: &str = "lock";

/// A store of images in one directory.
#[derive(Debug)]
pub struct ImageStore {
    pub(super) dir: PathBuf,
    pub(super) fd: OwnedFd,
}

/// What [`ImageStore::remove`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The full names that were taken away.
    pub names: Vec<String>,
    /// The ID of the image, if it had no other name and is gone.
    pub image: Option<String>,
}

/// The right to change the store. The directory `tmp` is empty at first and
/// belongs to the holder alone.
pub(super) struct Writing {
    pub tmp: OwnedFd,
    _lock: OwnedFd,
}

impl Writing {
    fn clear(&self) -> rustix::io::Result<()> {
        for name in names(&self.tmp)? {
            discard(self.tmp.as_fd(), OsStr::new(&name))?;
        }
        Ok(())
    }
}

impl Drop for Writing {
    /// What can't be cleared away here the next writer tries to clear, and
    /// reports.
    fn drop(&mut self) {
        let _ = self.clear();
    }
}

impl ImageStore {
    /// Opens the store in a directory, which is made if it is missing, and is
    /// for root alone: images bring setuid programs along.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`] when the directory cannot be made or opened.
    pub fn open(dir: &Path) -> Result<ImageStore, ImageError> {
        let failed = |step| {
            move |source| ImageError::Store {
                step,
                path: dir.to_owned(),
                source,
            }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match fs::open(dir, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(dir)
                    .map_err(failed("make"))?;
                fs::open(dir, flags, Mode::empty())
            }
            other => other,
        };
        let fd = fd.map_err(|errno| failed("open")(errno.into()))?;
        let mode = fs::fstat(&fd).map_err(|errno| failed("open")(errno.into()))?;
        if mode.st_mode & 0o077 != 0 {
            fs::fchmod(&fd, Mode::RWXU).map_err(|errno| failed("close to others")(errno.into()))?;
        }
        Ok(ImageStore {
            dir: dir.to_owned(),
            fd,
        })
    }

    /// All images, sorted by their names.
    ///
    /// # Errors
    ///
    /// [`ImageError::Store`] and [`ImageError::Index`] when the index cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let mut images = Index::load(&self.fd, &self.dir)?.images;
        images.sort_by(|a, b| (a.names.first(), &a.id).cmp(&(b.names.first(), &b.id)));
        Ok(images)
    }

    /// Finds the image that a manifest means by `reference`: a name in any
    /// form (`busybox` is `docker.io/library/busybox:latest`), a name with a
    /// digest, an image ID, or the beginning of one.
    ///
    /// # Errors
    ///
    /// [`ImageError::Reference`] when it can name no image,
    /// [`ImageError::Ambiguous`] when it begins several IDs, and those of [`Self::list`].
    pub fn resolve(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let mut index = Index::load(&self.fd, &self.dir)?;
        let found = index.find(reference)?;
        Ok(found.map(|found| index.images.swap_remove(found.place())))
    }

    /// Takes a name away from an image, or all of them when it is given by its
    /// ID. An image without a name goes, and so do the layers that no other
    /// image has.
    ///
    /// # Errors
    ///
    /// [`ImageError::InUse`] when a running container uses what would go; then
    /// nothing was changed. [`ImageError::NotFound`], those of
    /// [`Self::resolve`], and [`ImageError::Store`].
    pub fn remove(&self, reference: &str) -> Result<Removed, ImageError> {
        let writing = self.write()?;
        let mut index = Index::load(&self.fd, &self.dir)?;
        let found = index.find(reference)?.ok_or_else(|| ImageError::NotFound {
            reference: reference.to_owned(),
        })?;
        let image = &mut index.images[found.place()];
        let goes = |name: &String| match &found {
            Found::Name(_, known) => name == known,
            Found::Digest(_, repository) => in_repository(name, repository),
            Found::Id(_) => true,
        };
        let names: Vec<String> = image.names.extract_if(.., |name| goes(name)).collect();
        image.pulled.retain(|name, _| !names.contains(name));
        let mut removed = Removed { names, image: None };
        let mut held = Vec::new();
        if image.names.is_empty() {
            let image = index.images.swap_remove(found.place());
            held = self
                .hold_unshared(&image, &index)?
                .ok_or_else(|| ImageError::InUse {
                    image: removed
                        .names
                        .first()
                        .map_or(image.id.clone(), |n| familiar(n)),
                })?;
            removed.image = Some(image.id);
        }
        index.save(&self.fd, &self.dir)?;
        drop(held);
        self.sweep(&index, &writing)?;
        Ok(removed)
    }

    /// Opens a layer for use, with a shared lock.
    pub(super) fn use_layer(&self, image: &Image, layer: &Layer) -> Result<OwnedFd, ImageError> {
        let missing = || ImageError::LayerMissing {
            layer: layer.diff_id.clone(),
            image: image.familiar(),
        };
        let name = digest::hex(&layer.diff_id).ok_or_else(missing)?;
        let opened = self.open_layer(name)?.ok_or_else(missing)?;
        match fs::flock(&opened, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(ImageError::BeingRemoved {
                    image: image.familiar(),
                });
            }
            Err(errno) => return Err(self.failed("lock", &format!("{LAYERS}/{name}"))(errno)),
        }
        // It may have been removed between opening and locking.
        match self.layer_is(name, &opened)? {
            true => Ok(opened),
            false => Err(missing()),
        }
    }

    /// A layer's directory, if it is there.
    pub(super) fn open_layer(&self, name: &str) -> Result<Option<OwnedFd>, ImageError> {
        let path = format!("{LAYERS}/{name}");
        match fs::openat2(
            &self.fd,
            &path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        ) {
            Ok(opened) => Ok(Some(opened)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed("open", &path)(errno)),
        }
    }

    fn layer_is(&self, name: &str, opened: &OwnedFd) -> Result<bool, ImageError> {
        let path = format!("{LAYERS}/{name}");
        let there = match fs::statat(&self.fd, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(self.failed("open", &path))?,
        };
        let ours = fs::fstat(opened).map_err(self.failed("open", &path))?;
        Ok((there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino))
    }

    /// Locks the layers that only this image has, against use; none when one is in use.
    fn hold_unshared(
        &self,
        image: &Image,
        others: &Index,
    ) -> Result<Option<Vec<OwnedFd>>, ImageError> {
        let shared = layer_names(others);
        let own = image.layers.iter().filter_map(|l| digest::hex(&l.diff_id));
        let own: HashSet<&str> = own.filter(|name| !shared.contains(name)).collect();
        let mut held = Vec::new();
        for name in own {
            match self.hold(name)? {
                Hold::Held(layer) => held.push(layer),
                Hold::Missing => {}
                Hold::InUse => return Ok(None),
            }
        }
        Ok(Some(held))
    }

    fn hold(&self, name: &str) -> Result<Hold, ImageError> {
        let Some(layer) = self.open_layer(name)? else {
            return Ok(Hold::Missing);
        };
        match fs::flock(&layer, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Hold::Held(layer)),
            Err(Errno::WOULDBLOCK) => Ok(Hold::InUse),
            Err(errno) => Err(self.failed("lock", &format!("{LAYERS}/{name}"))(errno)),
        }
    }

    /// Waits for the right to write, and clears away what an interrupted
    /// writer left behind.
    pub(super) fn write(&self) -> Result<Writing, ImageError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = fs::openat(&self.fd, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map_err(self.failed("open", LOCK))?;
        loop {
            match fs::flock(&lock, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                other => break other.map_err(self.failed("lock", LOCK))?,
            }
        }
        for dir in ["layers", LAYERS, "blobs", BLOBS, TMP] {
            match fs::mkdirat(&self.fd, dir, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.failed("make", dir)(errno)),
            }
        }
        let writing = Writing {
            tmp: self.open_dir(TMP)?,
            _lock: lock,
        };
        writing.clear().map_err(self.failed("clear", TMP))?;
        Ok(writing)
    }

    /// Drops images that have no name and no user, then every layer and blob
    /// that no image has and nobody uses.
    pub(super) fn clear_unused(&self, index: &mut Index, to: &Writing) -> Result<(), ImageError> {
        let mut held = Vec::new();
        let before = index.images.len();
        for place in (0..before).rev() {
            if !index.images[place].names.is_empty() {
                continue;
            }
            let image = index.images.swap_remove(place);
            match self.hold_unshared(&image, index)? {
                Some(layers) => held.extend(layers),
                None => index.images.push(image),
            }
        }
        if index.images.len() < before {
            index.save(&self.fd, &self.dir)?;
        }
        drop(held);
        self.sweep(index, to)
    }

    /// Deletes layers and blobs that no image has. They leave their place
    /// first, in one step, so that none is ever seen half deleted.
    pub(super) fn sweep(&self, index: &Index, writing: &Writing) -> Result<(), ImageError> {
        super::pull::staging::clean(self)?;
        let wanted = layer_names(index);
        let layers = self.open_dir(LAYERS)?;
        for name in names(&layers).map_err(self.failed("read", LAYERS))? {
            if wanted.contains(name.as_str()) {
                continue;
            }
            let path = format!("{LAYERS}/{name}");
            let _held = match self.hold(&name)? {
                Hold::InUse => continue,
                other => other,
            };
            fs::renameat(&layers, &name, &writing.tmp, &name)
                .map_err(self.failed("move", &path))?;
            discard(writing.tmp.as_fd(), OsStr::new(&name))
                .map_err(self.failed("delete", &path))?;
        }
        let images = index.images.iter();
        let wanted: HashSet<&str> = images
            .flat_map(|image| [Some(&image.id), image.manifest.as_ref()])
            .flatten()
            .filter_map(|id| digest::hex(id))
            .collect();
        let blobs = self.open_dir(BLOBS)?;
        for name in names(&blobs).map_err(self.failed("read", BLOBS))? {
            if !wanted.contains(name.as_str()) {
                let path = format!("{BLOBS}/{name}");
                discard(blobs.as_fd(), OsStr::new(&name)).map_err(self.failed("delete", &path))?;
            }
        }
        Ok(())
    }

    pub(super) fn open_dir(&self, path: &str) -> Result<OwnedFd, ImageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        fs::openat2(&self.fd, path, flags, Mode::empty(), resolve)
            .map_err(self.failed("open", path))
    }

    /// Makes the error for a step on a file of the store.
    pub(super) fn failed(&self, step: &'static str, path: &str) -> impl Fn(Errno) -> ImageError {
        let path = self.dir.join(path);
        move |errno| ImageError::Store {
            step,
            path: path.clone(),
            source: errno.into(),
        }
    }
}

/// What became of the attempt to lock a layer against use.
enum Hold {
    Held(OwnedFd),
    Missing,
    InUse,
}

fn layer_names(index: &Index) -> HashSet<&str> {
    let layers = index.images.iter().flat_map(|image| &image.layers);
    layers
        .filter_map(|layer| digest::hex(&layer.diff_id))
        .collect()
}

fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}
