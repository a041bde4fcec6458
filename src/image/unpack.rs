//! Unpacking one layer into its directory, in the form that overlayfs mounts.
//!
//! Follows the OCI image-spec (`layer.md`): a later entry replaces an earlier
//! one, `.wh.NAME` becomes a character device 0:0 named `NAME`, and
//! `.wh..wh..opq` marks its directory opaque. Ownership, modes, times,
//! extended attributes, hard links, devices, fifos and sparse files come out
//! as they went in. Nothing outside the directory is ever read or written,
//! whatever the archive says: see [`super::inside`].

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tar::EntryType;

use super::attributes;
use super::discard::discard;
use super::entries::{Entries, Entry};
use super::inside::{Inside, Place, is_opaque, is_whiteout, open_child_dir, set_opaque};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
const BUFFER: usize = 128 << 10;

/// What unpacking a layer found.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// Bytes of file data, holes not counted.
    pub size: u64,
    /// Whether the layer hides everything below it.
    pub opaque: bool,
    /// Whether the archive carried its end mark.
    pub ended: bool,
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream is no tar archive, is damaged, or ends early.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// A name leads out of the image.
    #[error("entry {entry:?} leads out of the image's root directory")]
    Outside {
        /// The name in the archive.
        entry: String,
    },
    /// A hard link names a file that the layer doesn't have.
    #[error("entry {entry:?} is a hard link to {target:?}, which is no earlier file of its layer")]
    HardLink {
        /// The name in the archive.
        entry: String,
        /// The name that it links to.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A whiteout deletes nothing that can be named.
    #[error("entry {entry:?} is a whiteout without a name to delete")]
    Whiteout {
        /// The name in the archive.
        entry: String,
    },
    /// A kind of entry that no layer can hold.
    #[error("entry {entry:?} is of kind {kind:?}, which a layer cannot hold")]
    Kind {
        /// The name in the archive.
        entry: String,
        /// The letter of its kind in the tar format.
        kind: char,
    },
    /// The file could not be made.
    #[error("cannot {step} {entry:?}")]
    Make {
        /// What was being done.
        step: &'static str,
        /// The name in the archive.
        entry: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Unpacks a tar stream, uncompressed, into an empty directory.
pub(super) fn unpack(input: impl Read, root: OwnedFd) -> Result<Unpacked, UnpackError> {
    let mut entries = Entries::new(input);
    let mut layer = Unpacker {
        inside: Inside::new(root),
        directories: Vec::new(),
        size: 0,
        buffer: vec![0; BUFFER],
    };
    while let Some(entry) = entries.next().map_err(UnpackError::Read)? {
        layer.entry(&entry, &mut entries)?;
    }
    layer.finish()?;
    let opaque = is_opaque(layer.inside.root()).map_err(|errno| UnpackError::Make {
        step: "read the attributes of",
        entry: "/".to_owned(),
        source: errno.into(),
    })?;
    Ok(Unpacked {
        size: layer.size,
        opaque,
        ended: entries.ended(),
    })
}

struct Unpacker {
    inside: Inside,
    /// Directories whose times must wait until nothing changes in them any more.
    directories: Vec<(PathBuf, Entry)>,
    size: u64,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &Entry, data: &mut Entries<R>) -> Result<(), UnpackError> {
        let path = clean(&entry.path).ok_or_else(|| UnpackError::Outside {
            entry: text(&entry.path),
        })?;
        let Some(name) = path.file_name() else {
            return self.root_entry(entry);
        };
        if name.as_bytes() == WHITEOUT_OPAQUE {
            return self.opaque(&path).map_err(failed("mark", entry));
        }
        if path
            .iter()
            .any(|part| part.as_bytes().starts_with(WHITEOUT_META))
        {
            // What AUFS kept for itself; it means nothing to anybody else.
            return Ok(());
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(UnpackError::Whiteout {
                    entry: text(&entry.path),
                });
            }
            let hidden = path.with_file_name(OsStr::from_bytes(hidden));
            return self.whiteout(&hidden).map_err(failed("mark", entry));
        }
        match entry.kind {
            EntryType::Directory => self.directory(path, entry),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(&path, entry, data)
            }
            EntryType::Link => self.hard_link(&path, entry),
            EntryType::Symlink | EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.special(&path, entry)
            }
            // The label of a GNU archive.
            kind if kind.as_byte() == b'V' => Ok(()),
            kind => Err(UnpackError::Kind {
                entry: text(&entry.path),
                kind: char::from(kind.as_byte()),
            }),
        }
    }

    /// An entry for the layer's own top directory, usually `./`.
    fn root_entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != EntryType::Directory {
            return Err(UnpackError::Outside {
                entry: text(&entry.path),
            });
        }
        self.describe_directory(PathBuf::new(), entry)
    }

    fn directory(&mut self, path: PathBuf, entry: &Entry) -> Result<(), UnpackError> {
        let make = |place: &Place<'_>| {
            match fs::mkdirat(place.parent, place.name, Mode::RWXU) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
            let found = fs::statat(place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => Ok(()),
                _ => Err(Errno::EXIST),
            }
        };
        let step = "make the directory";
        let place = self.inside.place(&path).map_err(failed(step, entry))?;
        let found = fs::statat(place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|found| is_whiteout(&found)) {
            let (parent, name) = self.inside.find(&path).map_err(failed(step, entry))?;
            self.inside
                .replace_whiteout(parent.as_fd(), name.as_os_str())
                .map_err(failed(step, entry))?;
        } else {
            self.make(&path, make).map_err(failed(step, entry))?;
        }
        self.describe_directory(path, entry)
    }

    fn describe_directory(&mut self, path: PathBuf, entry: &Entry) -> Result<(), UnpackError> {
        let opened = self.open_directory(&path);
        opened
            .and_then(|directory| attributes::early(directory.as_fd(), entry))
            .map_err(failed("describe the directory", entry))?;
        self.directories.push((path, entry.attributes_only()));
        Ok(())
    }

    fn open_directory(&mut self, path: &Path) -> rustix::io::Result<OwnedFd> {
        if path.as_os_str().is_empty() {
            return open_child_dir(self.inside.root(), OsStr::new("."));
        }
        let (parent, name) = self.inside.find(path)?;
        open_child_dir(parent.as_fd(), name.as_os_str())
    }

    fn file<R: Read>(
        &mut self,
        path: &Path,
        entry: &Entry,
        data: &mut Entries<R>,
    ) -> Result<(), UnpackError> {
        let made = self.make(path, |place| {
            fs::openat2(
                place.parent,
                place.name,
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            )
        });
        let mut file = File::from(made.map_err(failed("make", entry))?);
        if let Some(segments) = &entry.segments {
            fs::ftruncate(&file, entry.size).map_err(failed("write", entry))?;
            for &(offset, length) in segments {
                let mut at = offset;
                self.copy(entry, &mut data.take(length), |chunk| {
                    file.write_all_at(chunk, at)?;
                    at += chunk.len() as u64;
                    Ok(())
                })?;
            }
        } else {
            self.copy(entry, data, |chunk| file.write_all(chunk))?;
        }
        attributes::early(file.as_fd(), entry)
            .and_then(|()| attributes::late(file.as_fd(), entry))
            .map_err(failed("describe", entry))
    }

    fn copy(
        &mut self,
        entry: &Entry,
        from: &mut dyn Read,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), UnpackError> {
        loop {
            let read = match from.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(UnpackError::Read(error)),
            };
            write(&self.buffer[..read]).map_err(|source| UnpackError::Make {
                step: "write",
                entry: text(&entry.path),
                source,
            })?;
            self.size += read as u64;
        }
    }

    /// Links to a file that this layer brought before. A link to a symbolic
    /// link is a second name for that link: its target is not looked at.
    fn hard_link(&mut self, path: &Path, entry: &Entry) -> Result<(), UnpackError> {
        let target = clean(&entry.link)
            .filter(|target| target.file_name().is_some())
            .ok_or_else(|| UnpackError::Outside {
                entry: text(&entry.link),
            })?;
        let missing = |errno: Errno| UnpackError::HardLink {
            entry: text(&entry.path),
            target: text(&entry.link),
            source: errno.into(),
        };
        let (from, name) = self.inside.find(&target).map_err(missing)?;
        let found = fs::statat(&from, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(missing)?;
        let linked = self.make(path, |place| {
            match fs::linkat(&from, &name, place.parent, place.name, AtFlags::empty()) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
            // Two names for one file already: nothing must be replaced.
            let there = fs::statat(place.parent, place.name, AtFlags::SYMLINK_NOFOLLOW)?;
            match (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino) {
                true => Ok(()),
                false => Err(Errno::EXIST),
            }
        });
        linked.map_err(missing)
    }

    fn special(&mut self, path: &Path, entry: &Entry) -> Result<(), UnpackError> {
        let kind = match entry.kind {
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            EntryType::Fifo => FileType::Fifo,
            _ => FileType::Symlink,
        };
        let (major, minor) = entry.device;
        let made = self.make(path, |place| match kind {
            FileType::Symlink => {
                fs::symlinkat(OsStr::from_bytes(&entry.link), place.parent, place.name)
            }
            _ => fs::mknodat(
                place.parent,
                place.name,
                kind,
                Mode::RUSR | Mode::WUSR,
                fs::makedev(major, minor),
            ),
        });
        made.map_err(failed("make", entry))?;
        let place = self.inside.place(path).map_err(failed("make", entry))?;
        attributes::special(place.parent, place.name, kind == FileType::Symlink, entry)
            .map_err(failed("describe", entry))
    }

    fn whiteout(&mut self, hidden: &Path) -> rustix::io::Result<()> {
        let place = self.inside.place(hidden)?;
        let (kind, mode) = (FileType::CharacterDevice, Mode::empty());
        match fs::mknodat(place.parent, place.name, kind, mode, 0) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
        // What this layer itself brings under that name stays. A file hides
        // the layers below anyway; a directory has to be told to.
        match open_child_dir(place.parent, place.name) {
            Ok(directory) => set_opaque(directory.as_fd()),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Marks the directory that an opaque whiteout lies in.
    fn opaque(&mut self, marker: &Path) -> rustix::io::Result<()> {
        let place = self.inside.place(marker)?;
        set_opaque(open_child_dir(place.parent, OsStr::new("."))?.as_fd())
    }

    /// Makes something under a name; what an earlier entry put there goes.
    fn make<T>(
        &mut self,
        path: &Path,
        make: impl Fn(&Place<'_>) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let place = self.inside.place(path)?;
        match make(&place) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
        discard(place.parent, place.name)?;
        self.inside.forget();
        make(&self.inside.place(path)?)
    }

    /// Sets what had to wait until all files were there.
    fn finish(&mut self) -> Result<(), UnpackError> {
        for (path, entry) in std::mem::take(&mut self.directories).into_iter().rev() {
            let directory = match self.open_directory(&path) {
                // A later entry has replaced this directory, or one above it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                other => other.map_err(failed("describe the directory", &entry))?,
            };
            attributes::late(directory.as_fd(), &entry)
                .map_err(failed("describe the directory", &entry))?;
        }
        Ok(())
    }
}

/// An archive's name as a relative path without `.`, `..` and double slashes;
/// none when it climbs above its root.
fn clean(name: &[u8]) -> Option<PathBuf> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(PathBuf::from(OsString::from(OsStr::from_bytes(
        &parts.join(&b'/'),
    ))))
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn failed(step: &'static str, entry: &Entry) -> impl Fn(Errno) -> UnpackError {
    let entry = text(&entry.path);
    move |errno| UnpackError::Make {
        step,
        entry: entry.clone(),
        source: errno.into(),
    }
}
