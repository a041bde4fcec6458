//! The file that the user imports: a tar archive, read at random.
//!
//! Archives come in any order (an OCI layout's index may be the last member),
//! so the members are listed once and then read from where they lie. A
//! compressed archive, or one from a pipe, is first spooled to a nameless
//! file of the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Mode, OFlags};

use super::ImageError;
use super::digest::{Compression, compression, decompressed};

/// The largest JSON document that is read from an archive.
const LARGEST_DOCUMENT: u64 = 8 << 20;
/// How many links may stand between a member's name and its content.
const MOST_LINKS: usize = 8;

/// An archive whose members are known.
pub(super) struct Archive {
    path: PathBuf,
    file: File,
    length: u64,
    members: BTreeMap<String, Member>,
}

enum Member {
    File { offset: u64, length: u64 },
    Link(String),
}

impl Archive {
    /// Opens a file (`-`: standard input) and lists its members. `scratch` is
    /// the directory for the copy of an archive that can't be read at random.
    pub fn open(path: &Path, scratch: BorrowedFd<'_>) -> Result<Archive, ImageError> {
        let failed = |step| {
            move |source| ImageError::Archive {
                step,
                archive: path.to_owned(),
                source,
            }
        };
        let source = match path == Path::new("-") {
            true => Path::new("/dev/stdin"),
            false => path,
        };
        let mut file = File::open(source).map_err(failed("open"))?;
        let kind = file.metadata().map_err(failed("open"))?;
        if kind.is_dir() {
            return Err(ImageError::NotAnArchive {
                archive: path.to_owned(),
                reason: "it is a directory; pack it with tar first".to_owned(),
            });
        }
        let mut head = [0; 8];
        let plain = kind.is_file() && {
            let read = file.read_at(&mut head, 0).map_err(failed("read"))?;
            compression(&head[..read]) == Compression::None
        };
        if plain {
            file.rewind().map_err(failed("read"))?;
        } else {
            file = spool(file, scratch).map_err(failed("decompress"))?;
        }
        let length = file.metadata().map_err(failed("read"))?.len();
        let mut archive = Archive {
            path: path.to_owned(),
            file,
            length,
            members: BTreeMap::new(),
        };
        archive.scan()?;
        Ok(archive)
    }

    /// The path that the user gave.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The archive itself as one stream.
    pub fn whole(&self) -> Section<'_> {
        Section {
            file: &self.file,
            at: 0,
            left: self.length,
        }
    }

    /// A member's content.
    pub fn member(&self, name: &str) -> Result<Section<'_>, ImageError> {
        let mut at = name;
        for _ in 0..MOST_LINKS {
            match self.members.get(at) {
                Some(Member::Link(target)) => at = target,
                Some(Member::File { offset, length }) => {
                    let end = offset.checked_add(*length);
                    if end.is_none_or(|end| end > self.length) {
                        return Err(self.damaged(name, "is cut off"));
                    }
                    return Ok(Section {
                        file: &self.file,
                        at: *offset,
                        left: *length,
                    });
                }
                None => break,
            }
        }
        Err(self.damaged(name, "is missing from the archive"))
    }

    /// A member of a few megabytes at most, in memory.
    pub fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let mut section = self.member(name)?;
        if section.left > LARGEST_DOCUMENT {
            return Err(self.damaged(name, "is larger than 8 MiB"));
        }
        let mut bytes = Vec::new();
        section
            .read_to_end(&mut bytes)
            .map_err(|source| ImageError::Archive {
                step: "read",
                archive: self.path.clone(),
                source,
            })?;
        Ok(bytes)
    }

    /// An error about a part of this archive.
    pub fn damaged(&self, what: &str, reason: impl Into<String>) -> ImageError {
        ImageError::Damaged {
            archive: self.path.clone(),
            what: what.to_owned(),
            reason: reason.into(),
        }
    }

    /// Lists the members that an image archive could mean; of a root file
    /// system's hundreds of thousands hardly any.
    fn scan(&mut self) -> Result<(), ImageError> {
        let mut first = true;
        let wrong = |first: bool, source: io::Error| match first {
            true => ImageError::NotAnArchive {
                archive: self.path.clone(),
                reason: "it is not a tar archive, whether plain or compressed by gzip or zstd"
                    .to_owned(),
            },
            false => ImageError::Archive {
                step: "read",
                archive: self.path.clone(),
                source,
            },
        };
        let mut members = BTreeMap::new();
        let mut tar = tar::Archive::new(&self.file);
        for entry in tar.entries_with_seek().map_err(|e| wrong(true, e))? {
            let entry = entry.map_err(|e| wrong(first, e))?;
            first = false;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Some(name) = joined("", &name) else {
                continue;
            };
            if !is_of_interest(&name) {
                continue;
            }
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let offset = entry.raw_file_position();
                let length = entry.size();
                members.insert(name, Member::File { offset, length });
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                let base = match name.rsplit_once('/') {
                    Some((base, _)) if kind.is_symlink() => base,
                    _ => "",
                };
                if let Some(target) = joined(base, &target) {
                    members.insert(name, Member::Link(target));
                }
            }
        }
        if first {
            return Err(ImageError::NotAnArchive {
                archive: self.path.clone(),
                reason: "there is nothing in it".to_owned(),
            });
        }
        self.members = members;
        Ok(())
    }
}

fn is_of_interest(name: &str) -> bool {
    let depth = name.matches('/').count();
    name.starts_with("blobs/")
        || name == "oci-layout"
        || (depth == 0 && name.ends_with(".json"))
        || (depth <= 1 && name.ends_with(".tar"))
}

/// A member's name relative to another's directory, without `.` and `..`.
fn joined(base: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn spool(input: File, scratch: BorrowedFd<'_>) -> io::Result<File> {
    const NAME: &str = "archive";
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let copy = fs::openat(scratch, NAME, flags, Mode::RUSR | Mode::WUSR)?;
    // Nameless from here on: it vanishes with this process.
    fs::unlinkat(scratch, NAME, AtFlags::empty())?;
    let mut copy = File::from(copy);
    let mut plain = decompressed(BufReader::with_capacity(64 << 10, input))?;
    io::copy(&mut plain, &mut copy)?;
    drop(plain);
    copy.rewind()?;
    Ok(copy)
}

/// A stretch of a file, read without touching the file's own position.
pub(super) struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Section<'_> {
    /// Bytes that were not read yet.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
