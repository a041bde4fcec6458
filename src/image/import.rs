//! Importing an archive: from a file to images that pods can use.
//!
//! Everything is unpacked and written beside its final place first. Once all
//! of it is complete, checked and on the disk, it moves into place, and the
//! new index makes it known. An interruption leaves a directory under `tmp/`
//! or layers that nobody knows; the next writer deletes both.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{self, Mode, OFlags};

use super::archive::{Archive, Section};
use super::digest::{self, Hashing, decompressed};
use super::index::Index;
use super::layout::{self, LayerPlan, Plan};
use super::store::{BLOBS, ImageStore, LAYERS, Writing};
use super::unpack::{UnpackError, Unpacked, unpack};
use super::{Image, ImageConfig, ImageError, Layer, Reference, RootFsConfig};

/// How many bytes pass between two reports.
const REPORT_EVERY: u64 = 1 << 20;

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A layer is being unpacked.
    Unpacking {
        /// The layer's place in its image, from 1 at the bottom.
        number: usize,
        /// How many layers its image has.
        of: usize,
        /// Bytes of the archive read for this layer.
        read: u64,
        /// Bytes that the layer takes in the archive.
        size: u64,
    },
    /// A layer is in the store already.
    Present {
        /// The layer's place in its image, from 1 at the bottom.
        number: usize,
        /// How many layers its image has.
        of: usize,
    },
}

/// An import in progress; its files lie under `tmp/`.
struct Import<'a> {
    store: &'a ImageStore,
    writing: &'a Writing,
    archive: &'a Archive,
    progress: &'a dyn Fn(Progress),
    index: Index,
    /// Layers under `tmp/`, by their diffIDs, with their names there.
    layers: HashMap<String, (Layer, String)>,
    staged: Staged,
}

/// What lies under `tmp/` and shall move into place.
#[derive(Default)]
pub(super) struct Staged {
    /// DiffIDs of layers, with their names under `tmp/`.
    pub layers: Vec<(String, String)>,
    /// Names of blobs under `tmp/`, with their final names.
    blobs: Vec<(String, String)>,
}

/// One layer's place among those of its image, for reports.
#[derive(Clone, Copy)]
struct Place {
    number: usize,
    of: usize,
}

impl ImageStore {
    /// Imports all images of an archive: an OCI image layout in a tar file, an
    /// archive of `docker save`, or the tar file of a root file system, each
    /// plain or compressed by gzip or zstd. What it is, is found by looking
    /// inside. `-` means standard input.
    ///
    /// With `name` the image gets that name and no other. Without, it gets
    /// the names that the archive gives it.
    ///
    /// # Errors
    ///
    /// [`ImageError`] says what is wrong with the archive; nothing of it
    /// stays in the store then.
    pub fn import(
        &self,
        archive: &Path,
        name: Option<&str>,
        progress: &dyn Fn(Progress),
    ) -> Result<Vec<Image>, ImageError> {
        self.import_with(archive, name, &RootFsConfig::default(), progress)
    }

    /// Like [`Self::import`], with a command and an environment for the
    /// image that is made from a root file system.
    ///
    /// # Errors
    ///
    /// Those of [`Self::import`], and [`ImageError::HasConfig`] when the
    /// archive is an image and `config` is not empty.
    pub fn import_with(
        &self,
        archive: &Path,
        name: Option<&str>,
        config: &RootFsConfig,
        progress: &dyn Fn(Progress),
    ) -> Result<Vec<Image>, ImageError> {
        let name = name.map(parse_name).transpose()?;
        let writing = self.write()?;
        let archive = Archive::open(archive, writing.tmp.as_fd())?;
        let index = Index::load(&self.fd, &self.dir)?;
        self.sweep(&index, &writing)?;
        let mut import = Import {
            store: self,
            writing: &writing,
            archive: &archive,
            progress,
            index,
            layers: HashMap::new(),
            staged: Staged::default(),
        };
        let images = match layout::plans(&archive)? {
            Some(_) if !config.is_empty() => {
                return Err(ImageError::HasConfig {
                    archive: archive.path().to_owned(),
                });
            }
            Some(plans) => import.images(named(&archive, plans, name)?)?,
            None => vec![import.root_fs(name, config)?],
        };
        import.commit(images)
    }
}

fn parse_name(text: &str) -> Result<Reference, ImageError> {
    let name: Reference = text.parse()?;
    match name.digest() {
        None => Ok(name),
        Some(_) => Err(ImageError::NameWithDigest {
            name: text.to_owned(),
        }),
    }
}

fn named(
    archive: &Archive,
    mut plans: Vec<Plan>,
    name: Option<Reference>,
) -> Result<Vec<Plan>, ImageError> {
    match (name, plans.as_mut_slice()) {
        (None, _) => {}
        (Some(name), [only]) => only.names = vec![name],
        (Some(_), several) => {
            return Err(ImageError::OneName {
                archive: archive.path().to_owned(),
                count: several.len(),
            });
        }
    }
    match plans.iter().any(|plan| plan.names.is_empty()) {
        true => Err(ImageError::NameNeeded {
            archive: archive.path().to_owned(),
        }),
        false => Ok(plans),
    }
}

impl Import<'_> {
    fn images(&mut self, plans: Vec<Plan>) -> Result<Vec<Image>, ImageError> {
        let mut images = Vec::new();
        for plan in plans {
            let config = ImageConfig::new(&plan.configuration)
                .map_err(|reason| self.archive.damaged("the image's configuration", reason))?;
            let of = plan.layers.len();
            let mut layers = Vec::with_capacity(of);
            for (below, layer) in plan.layers.iter().enumerate() {
                let number = below + 1;
                layers.push(self.layer(layer, Place { number, of })?);
            }
            self.blob(&plan.id, &plan.config)?;
            if let Some((digest, text)) = &plan.manifest {
                self.blob(digest, text)?;
            }
            let created = plan.configuration.created().as_deref();
            images.push(Image {
                id: plan.id,
                names: plan.names.iter().map(Reference::to_string).collect(),
                config,
                size: layers.iter().map(|layer| layer.size).sum(),
                layers,
                created: created.and_then(|time| time.parse().ok()),
                imported: Timestamp::now(),
                digest: plan.digest,
                manifest: plan.manifest.map(|(digest, _)| digest),
                pulled: BTreeMap::new(),
                platform: None,
            });
        }
        Ok(images)
    }

    fn root_fs(
        &mut self,
        name: Option<Reference>,
        config: &RootFsConfig,
    ) -> Result<Image, ImageError> {
        let name = name.ok_or_else(|| ImageError::NameNeeded {
            archive: self.archive.path().to_owned(),
        })?;
        let place = Place { number: 1, of: 1 };
        let (directory, at) = self.new_directory()?;
        let whole = self.watch(self.archive.whole(), place);
        let (unpacked, diff_id) =
            unpack_stream(whole, directory).map_err(|error| self.unpack_failed(place, error))?;
        if !unpacked.ended {
            let reason = "ends without its end mark: it was probably cut short";
            return Err(self.archive.damaged("the archive", reason));
        }
        let layer = self.staged(diff_id.clone(), &unpacked, at)?;
        let configuration = config.configuration(&diff_id);
        let text = serde_json::to_vec(&configuration).map_err(|source| ImageError::Json {
            archive: self.archive.path().to_owned(),
            what: "the configuration made for it".to_owned(),
            source,
        })?;
        let id = digest::of(&text);
        self.blob(&id, &text)?;
        let config = ImageConfig::new(&configuration).map_err(|reason| {
            self.archive
                .damaged("the configuration made for it", reason)
        })?;
        Ok(Image {
            id,
            names: vec![name.to_string()],
            config,
            size: layer.size,
            layers: vec![layer],
            created: None,
            imported: Timestamp::now(),
            digest: None,
            manifest: None,
            pulled: BTreeMap::new(),
            platform: None,
        })
    }

    /// Brings one layer of an image under `tmp/`, unless it is known already.
    fn layer(&mut self, plan: &LayerPlan, place: Place) -> Result<Layer, ImageError> {
        if let Some(layer) = self.known(&plan.diff_id)? {
            let Place { number, of } = place;
            (self.progress)(Progress::Present { number, of });
            return Ok(layer);
        }
        let (directory, at) = self.new_directory()?;
        let section = self.archive.member(&plan.member)?;
        let mut blob = Hashing::new(self.watch(section, place));
        let unpacked = unpack_stream(&mut blob, directory);
        // A wrong digest says more than the trouble that it leads to.
        if let Some(expected) = &plan.digest {
            let actual = blob.finish().map_err(|source| self.unreadable(source))?;
            self.same(&plan.member, expected, &actual)?;
        }
        let (unpacked, diff_id) = unpacked.map_err(|error| self.unpack_failed(place, error))?;
        self.same(&plan.member, &plan.diff_id, &diff_id)?;
        self.staged(plan.diff_id.clone(), &unpacked, at)
    }

    fn same(&self, what: &str, expected: &str, actual: &str) -> Result<(), ImageError> {
        match actual == expected {
            true => Ok(()),
            false => Err(ImageError::Digest {
                archive: self.archive.path().to_owned(),
                what: what.to_owned(),
                expected: expected.to_owned(),
                actual: actual.to_owned(),
            }),
        }
    }

    /// A layer that this import or an earlier one has brought.
    fn known(&self, diff_id: &str) -> Result<Option<Layer>, ImageError> {
        if let Some((layer, _)) = self.layers.get(diff_id) {
            return Ok(Some(layer.clone()));
        }
        let there = match digest::hex(diff_id) {
            Some(name) => self.store.open_layer(name)?.is_some(),
            None => false,
        };
        if !there {
            return Ok(None);
        }
        let mut layers = self.index.images.iter().flat_map(|image| &image.layers);
        match layers.find(|layer| layer.diff_id == diff_id) {
            Some(layer) => Ok(Some(layer.clone())),
            None => Err(ImageError::StrayLayer {
                layer: diff_id.to_owned(),
            }),
        }
    }

    fn staged(
        &mut self,
        diff_id: String,
        unpacked: &Unpacked,
        at: String,
    ) -> Result<Layer, ImageError> {
        if let Some(layer) = self.known(&diff_id)? {
            return Ok(layer);
        }
        let layer = Layer {
            diff_id: diff_id.clone(),
            size: unpacked.size,
            opaque: unpacked.opaque,
        };
        self.layers.insert(diff_id, (layer.clone(), at));
        Ok(layer)
    }

    /// An empty directory under `tmp/` with the mode of a root directory.
    fn new_directory(&self) -> Result<(OwnedFd, String), ImageError> {
        let name = format!("layer-{}", self.layers.len());
        let failed = |errno| self.store.failed("make", "tmp")(errno);
        fs::mkdirat(&self.writing.tmp, &name, Mode::RWXU).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = fs::openat(&self.writing.tmp, &name, flags, Mode::empty()).map_err(failed)?;
        fs::fchmod(&made, Mode::from_raw_mode(0o755)).map_err(failed)?;
        Ok((made, name))
    }

    fn blob(&mut self, digest: &str, text: &[u8]) -> Result<(), ImageError> {
        stage_blob(self.store, self.writing, &mut self.staged, digest, text)
    }

    fn commit(mut self, images: Vec<Image>) -> Result<Vec<Image>, ImageError> {
        let layers = self.layers.into_values();
        let layers = layers.map(|(layer, at)| (layer.diff_id, at));
        self.staged.layers.extend(layers);
        publish(self.store, self.writing, self.index, self.staged, images)
    }

    fn watch<'s>(&'s self, section: Section<'s>, place: Place) -> Watched<'s> {
        Watched {
            size: section.left(),
            section,
            place,
            reported: 0,
            progress: self.progress,
        }
    }

    fn unpack_failed(&self, place: Place, source: UnpackError) -> ImageError {
        ImageError::Unpack {
            archive: self.archive.path().to_owned(),
            number: place.number,
            of: place.of,
            source,
        }
    }

    fn unreadable(&self, source: std::io::Error) -> ImageError {
        ImageError::Archive {
            step: "read",
            archive: self.archive.path().to_owned(),
            source,
        }
    }
}

/// Writes a blob under `tmp/`.
pub(super) fn stage_blob(
    store: &ImageStore,
    writing: &Writing,
    staged: &mut Staged,
    digest: &str,
    text: &[u8],
) -> Result<(), ImageError> {
    let Some(name) = digest::hex(digest) else {
        return Ok(());
    };
    let at = format!("blob-{}", staged.blobs.len());
    let path = format!("tmp/{at}");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = fs::openat(&writing.tmp, &at, flags, Mode::RUSR | Mode::WUSR)
        .map_err(store.failed("make", &path))?;
    File::from(file)
        .write_all(text)
        .map_err(|source| ImageError::Store {
            step: "write",
            path: store.dir.join(&path),
            source,
        })?;
    staged.blobs.push((at, name.to_owned()));
    Ok(())
}

/// Makes everything durable, moves it into place, and makes the images known.
pub(super) fn publish(
    store: &ImageStore,
    writing: &Writing,
    mut index: Index,
    staged: Staged,
    images: Vec<Image>,
) -> Result<Vec<Image>, ImageError> {
    let tmp = &writing.tmp;
    fs::syncfs(tmp).map_err(store.failed("sync", "tmp"))?;
    let layers = store.open_dir(LAYERS)?;
    for (diff_id, at) in &staged.layers {
        let name = digest::hex(diff_id).unwrap_or_default();
        let path = format!("{LAYERS}/{name}");
        fs::renameat(tmp, at, &layers, name).map_err(store.failed("make", &path))?;
    }
    fs::fsync(&layers).map_err(store.failed("sync", LAYERS))?;
    let blobs = store.open_dir(BLOBS)?;
    for (at, name) in &staged.blobs {
        let path = format!("{BLOBS}/{name}");
        fs::renameat(tmp, at, &blobs, name).map_err(store.failed("make", &path))?;
    }
    fs::fsync(&blobs).map_err(store.failed("sync", BLOBS))?;
    let images = images.into_iter().map(|image| index.add(image)).collect();
    index.save(&store.fd, &store.dir)?;
    store.clear_unused(&mut index, writing)?;
    Ok(images)
}

/// Unpacks a layer that may be compressed; gives its diffID, too.
pub(super) fn unpack_stream(
    input: impl Read,
    directory: OwnedFd,
) -> Result<(Unpacked, String), UnpackError> {
    let input = BufReader::with_capacity(64 << 10, input);
    let mut plain = Hashing::new(decompressed(input).map_err(UnpackError::Read)?);
    let unpacked = unpack(&mut plain, directory)?;
    Ok((unpacked, plain.finish().map_err(UnpackError::Read)?))
}

/// Reports how much of a layer was read.
struct Watched<'a> {
    section: Section<'a>,
    size: u64,
    place: Place,
    reported: u64,
    progress: &'a dyn Fn(Progress),
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.section.read(buffer)?;
        let read = self.size - self.section.left();
        if read >= self.reported + REPORT_EVERY || read == self.size && read > self.reported {
            self.reported = read;
            let Place { number, of } = self.place;
            (self.progress)(Progress::Unpacking {
                number,
                of,
                read,
                size: self.size,
            });
        }
        Ok(count)
    }
}
