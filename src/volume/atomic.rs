//! Files that change all at once: what configMap, secret, downwardAPI and
//! projected volumes show.
//!
//! The layout is that of every Kubernetes node, and programs rely on it:
//!
//! ```text
//! ..2026_11_21_05_39_13.123456789/   the files, in directories where they have some
//! ..data -> ..2026_…                 which of them count
//! colour -> ..data/colour            one link for each first part of a path
//! ```
//!
//! A change writes a new directory and renames a new `..data` over the old one:
//! whoever looks through `..data` once sees all of the old files or all of the new
//! ones. Whatever a change was interrupted in, the next one makes good, also when
//! it has nothing else to do.
//!
//! Paths are hostile, and so is what may stand in the directory: each step goes
//! by descriptor (openat2(2), `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`), and
//! nothing is followed or overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use jiff::tz::TimeZone;
use jiff::{Timestamp, fmt::strtime};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat2,
    readlinkat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::ownership::Ownership;
use super::remove::{self, remove_tree};

/// The link that says which files count.
const DATA: &str = "..data";
/// The same while it is made.
const NEXT: &str = "..data_tmp";
/// The most bytes of a path (path_resolution(7), with the NUL behind it).
const LONGEST_PATH: usize = 4095;
/// The most bytes of one name (path_resolution(7)).
const LONGEST_NAME: usize = 255;

const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its permission bits.
    pub mode: u32,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Files by their path below the volume's root: `a/b`, never `/a`.
pub type Files = BTreeMap<String, File>;

/// Why files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A path that leads out of the volume, or to orlop's own entries.
    #[error("the path {path:?} {reason}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A step failed.
    #[error("cannot {step} {name:?}: {source}")]
    Step {
        /// What was tried, as in `create the file`.
        step: &'static str,
        /// On which entry.
        name: String,
        /// Why it failed.
        source: io::Error,
    },
}

fn step<E: Into<io::Error>>(step: &'static str, name: &str) -> impl FnOnce(E) -> WriteError {
    let name = name.to_owned();
    move |source| WriteError::Step {
        step,
        name,
        source: source.into(),
    }
}

/// Says what keeps `path` from being the path of a file in a volume.
///
/// # Errors
/// The reason, to stand behind the path.
pub fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("must not be empty");
    }
    if path.starts_with('/') {
        return Err("must be a relative path");
    }
    if path.contains('\0') {
        return Err("must not contain a NUL character");
    }
    if path.len() > LONGEST_PATH {
        return Err("must be no more than 4095 bytes");
    }
    for part in path.split('/') {
        match part {
            ".." => return Err("must not contain '..'"),
            "" | "." => return Err("must have a name between any two slashes and no '.'"),
            _ if part.len() > LONGEST_NAME => return Err("must have names of 255 bytes at most"),
            _ => {}
        }
    }
    match path.starts_with("..") {
        true => Err("must not start with '..'"),
        false => Ok(()),
    }
}

/// [`write()`] for a volume that belongs to somebody: a group that shares it may read
/// every file.
///
/// # Errors
/// As [`write()`].
pub fn write_for(
    root: BorrowedFd,
    mut files: Files,
    ownership: Option<Ownership>,
) -> Result<bool, WriteError> {
    if ownership.is_some_and(|ownership| ownership.is_shared) {
        for file in files.values_mut() {
            file.mode |= 0o440;
        }
    }
    write_all(root, &files, ownership)
}

/// Makes the directory `root` show these files and no others. Says whether that
/// changed anything. Entries of other kinds that stand in `root` stay there:
/// places at which other volumes are mounted.
///
/// # Errors
/// A path that leads elsewhere, before anything is changed; or the step that
/// failed, after which either the old files are shown or the new ones.
pub fn write(root: BorrowedFd, files: &Files) -> Result<bool, WriteError> {
    write_all(root, files, None)
}

fn write_all(
    root: BorrowedFd,
    files: &Files,
    ownership: Option<Ownership>,
) -> Result<bool, WriteError> {
    for path in files.keys() {
        check_path(path).map_err(|reason| WriteError::Path {
            path: path.clone(),
            reason,
        })?;
    }
    let present = present(root)?;
    let is_same = match &present {
        Some(name) => holds(root, name, files),
        None => false,
    };
    let shown = match present {
        Some(name) if is_same => name,
        _ => {
            let name = fill_new(root, files)?;
            if let Some(ownership) = ownership {
                open_directory(root, &name)
                    .map_err(io::Error::from)
                    .and_then(|directory| ownership.give(directory.as_fd()))
                    .map_err(step("change the owner of", &name))?;
            }
            point(root, &name)?;
            name
        }
    };
    let firsts: BTreeSet<&str> = files.keys().map(|path| first_of(path)).collect();
    link(root, &firsts)?;
    clear(root, &shown, &firsts)?;
    Ok(!is_same)
}

/// Makes a directory at `path` below `root` and those above it, where they are
/// missing: a place for another volume to be mounted at.
///
/// # Errors
/// As [`write()`].
pub fn make_place(root: BorrowedFd, path: &str) -> Result<(), WriteError> {
    check_path(path).map_err(|reason| WriteError::Path {
        path: path.to_owned(),
        reason,
    })?;
    // Where a file of the volume stands there is nothing to be made: what is
    // wrong with that the mount will say.
    let in_the_way = [Errno::NOTDIR, Errno::LOOP].map(|errno| Some(errno.raw_os_error()));
    match directories(root, path) {
        Err(WriteError::Step { source, .. }) if in_the_way.contains(&source.raw_os_error()) => {
            Ok(())
        }
        made => made.map(drop),
    }
}

fn first_of(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// The name of the directory that counts now.
fn present(root: BorrowedFd) -> Result<Option<String>, WriteError> {
    match readlinkat(root, DATA, Vec::new()) {
        Ok(target) => Ok(target.into_string().ok().filter(|name| is_version(name))),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(error) => Err(step("read the link", DATA)(error)),
    }
}

/// Whether a name can be that of a directory of files.
fn is_version(name: &str) -> bool {
    name.starts_with("..") && name.len() > 2 && !name.contains('/') && name != DATA && name != NEXT
}

/// Whether the directory holds just these files, with their modes. One that
/// cannot be read does not.
fn holds(root: BorrowedFd, name: &str, files: &Files) -> bool {
    let Ok(directory) = open_directory(root, name) else {
        return false;
    };
    let has = |path: &str, file: &File| -> io::Result<bool> {
        let opened = open_file(directory.as_fd(), path)?;
        let status = fstat(&opened)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile
            || status.st_mode & 0o7777 != file.mode
            || u64::try_from(status.st_size).ok() != Some(file.bytes.len() as u64)
        {
            return Ok(false);
        }
        let mut bytes = Vec::with_capacity(file.bytes.len());
        let limit = file.bytes.len() as u64 + 1;
        let mut opened = std::fs::File::from(opened).take(limit);
        opened.read_to_end(&mut bytes)?;
        Ok(bytes == file.bytes)
    };
    let same = |(path, file): (&String, &File)| has(path, file).unwrap_or(false);
    files.iter().all(same) && entries(directory.as_fd(), files) == Some(expected(files))
}

/// How many files and directories `files` makes.
fn expected(files: &Files) -> usize {
    let mut directories = BTreeSet::new();
    for path in files.keys() {
        let ends = path.match_indices('/').map(|(at, _)| &path[..at]);
        directories.extend(ends);
    }
    files.len() + directories.len()
}

/// How many entries there are in the directory and in those that `files` makes
/// in it.
fn entries(directory: BorrowedFd, files: &Files) -> Option<usize> {
    let mut all = BTreeSet::from([""]);
    for path in files.keys() {
        all.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
    }
    let mut count = 0;
    for path in all {
        let opened = match path {
            "" => open_directory(directory, "."),
            path => open_directory(directory, path),
        };
        count += names(opened.ok()?.as_fd()).ok()?.len();
    }
    Some(count)
}

/// Writes the files into a new directory and returns its name.
fn fill_new(root: BorrowedFd, files: &Files) -> Result<String, WriteError> {
    let name = loop {
        let name = version_name(Timestamp::now());
        match mkdirat(root, &name, DIRECTORY) {
            Ok(()) => break name,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(step("create the directory", &name)(error)),
        }
    };
    let directory = open_directory(root, &name).map_err(step("open the directory", &name))?;
    // The mode given to mkdir(2) is cut by the umask.
    fchmod(&directory, DIRECTORY).map_err(step("set the mode of", &name))?;
    for (path, file) in files {
        create(directory.as_fd(), path, file)?;
    }
    Ok(name)
}

fn create(directory: BorrowedFd, path: &str, file: &File) -> Result<(), WriteError> {
    let parent;
    let (place, name) = match path.rsplit_once('/') {
        None => (directory, path),
        Some((above, name)) => {
            parent = directories(directory, above)?;
            (parent.as_fd(), name)
        }
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat2(place, name, flags, Mode::RUSR | Mode::WUSR, inside())
        .map_err(step("create the file", path))?;
    let mut opened = std::fs::File::from(opened);
    opened
        .write_all(&file.bytes)
        .map_err(step("write the file", path))?;
    settle(&opened, file.mode).map_err(step("set the mode of", path))
}

/// Gives a file its mode. It is root's own; the volume's owner comes when all is
/// there.
fn settle(file: &std::fs::File, mode: u32) -> rustix::io::Result<()> {
    fchmod(file, Mode::from_raw_mode(mode))
}

/// Opens the directory `path`, which is made where it is missing.
fn directories(root: BorrowedFd, path: &str) -> Result<OwnedFd, WriteError> {
    let mut above = open_directory(root, ".").map_err(step("open the directory", path))?;
    for part in path.split('/') {
        match mkdirat(&above, part, DIRECTORY) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(step("create the directory", path)(error)),
        }
        above = open_directory(above.as_fd(), part).map_err(step("open the directory", path))?;
    }
    Ok(above)
}

/// Makes `..data` lead to the directory `name`: the one step that everybody sees.
fn point(root: BorrowedFd, name: &str) -> Result<(), WriteError> {
    match unlinkat(root, NEXT, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(step("remove the link", NEXT)(error)),
    }
    symlinkat(name, root, NEXT).map_err(step("create the link", NEXT))?;
    renameat(root, NEXT, root, DATA).map_err(step("rename the link", NEXT))
}

/// Makes the links that users see.
fn link(root: BorrowedFd, firsts: &BTreeSet<&str>) -> Result<(), WriteError> {
    for name in firsts {
        let target = format!("{DATA}/{name}");
        match readlinkat(root, *name, Vec::new()) {
            Ok(found) if found.as_bytes() == target.as_bytes() => continue,
            Ok(_) => {
                unlinkat(root, *name, AtFlags::empty()).map_err(step("remove the link", name))?;
            }
            Err(_) => {}
        }
        symlinkat(&target, root, *name).map_err(step("create the link", name))?;
    }
    Ok(())
}

/// Removes links to what is shown no more, and all files but those of `shown`.
fn clear(root: BorrowedFd, shown: &str, firsts: &BTreeSet<&str>) -> Result<(), WriteError> {
    for name in names(root).map_err(step("read the directory", "."))? {
        let text = name.to_string_lossy().into_owned();
        if text == DATA || text == shown || firsts.contains(text.as_str()) {
            continue;
        }
        if text.starts_with("..") {
            let options = remove::Options {
                threads: Some(NonZeroUsize::MIN),
                ..remove::Options::default()
            };
            let name = OsStr::from_bytes(name.to_bytes());
            remove_tree(root, name, options)
                .map_err(|error| step("remove the old files in", &text)(io::Error::other(error)))?;
        } else if is_ours(root, &name) {
            unlinkat(root, &name, AtFlags::empty()).map_err(step("remove the link", &text))?;
        }
    }
    Ok(())
}

/// Whether an entry is a link such as users see.
fn is_ours(root: BorrowedFd, name: &CStr) -> bool {
    readlinkat(root, name, Vec::new()).is_ok_and(|target| target.to_bytes().starts_with(b"..data/"))
}

fn names(directory: BorrowedFd) -> rustix::io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn inside() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV
}

fn open_directory(at: BorrowedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(at, path, flags, Mode::empty(), inside())
}

fn open_file(at: BorrowedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    // A fifo in a file's place must not block.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(at, path, flags, Mode::empty(), inside())
}

/// `..2026_11_21_05_39_13.123456789`.
fn version_name(time: Timestamp) -> String {
    let broken_down = strtime::BrokenDownTime::from(&time.to_zoned(TimeZone::UTC));
    let seconds = broken_down.to_string("%Y_%m_%d_%H_%M_%S");
    // The format has nothing in it that a moment in a time zone lacks.
    let seconds = seconds.unwrap_or_else(|_| time.as_second().to_string());
    format!("..{seconds}.{:09}", time.subsec_nanosecond())
}

#[cfg(test)]
#[path = "atomic_tests.rs"]
mod tests;
