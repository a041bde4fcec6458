//! Places in a container's root file system.
//!
//! An image may hold any link, and another container may rename directories of
//! a shared volume at any time. So a path is resolved once, by the kernel and
//! with the container's root as its end of the world (openat2(2),
//! `RESOLVE_IN_ROOT`); what is done is done to the descriptor that came out.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

/// Links to missing directories that are followed in one path.
const MAX_LINKS: usize = 16;

/// How often a path is resolved again: a mount or a rename anywhere on the machine
/// makes the kernel give a path with `..` up (`EAGAIN`), lest it lead outside.
const MAX_TRIES: u32 = 1000;

/// What to make of a place that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Directory,
    File,
}

/// Opens what is at `path` in `root` for use as a place (`O_PATH`).
///
/// # Errors
/// What openat2(2) says.
pub(super) fn find(
    root: BorrowedFd,
    path: &Path,
    extra: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | extra;
    for _ in 1..MAX_TRIES {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            found => return found,
        }
    }
    openat2(root, path, flags, Mode::empty(), resolve)
}

/// The same, making the directories that are missing on the way, and at its end
/// what `missing` says.
///
/// # Errors
/// What openat2(2), mkdirat(2) or openat(2) say.
pub(super) fn find_or_make(root: BorrowedFd, path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    match find(root, path, ResolveFlags::empty()) {
        Err(Errno::NOENT) => Ok(make(root, path, missing, MAX_LINKS)?),
        found => Ok(found?),
    }
}

fn make(
    root: BorrowedFd,
    path: &Path,
    missing: Missing,
    links: usize,
) -> rustix::io::Result<OwnedFd> {
    let (mut place, known) = deepest(root, path)?;
    let names: Vec<&OsStr> = path
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .map(Component::as_os_str)
        .collect();
    for (index, &name) in names.iter().enumerate().skip(known) {
        if name == ".." {
            // Up from what is not there yet: only a link can say such a thing.
            return Err(Errno::NOENT);
        }
        let last = index + 1 == names.len();
        let made = if last && missing == Missing::File {
            make_file(place.as_fd(), name)
        } else {
            make_directory(place.as_fd(), name)
        };
        place = match made {
            // A link to something missing: make what it points to instead.
            Err(Errno::LOOP) if links > 0 => {
                let target = readlinkat(&place, name, Vec::new())?;
                let target =
                    Path::new(OsStr::new(target.to_str().map_err(|_| Errno::ILSEQ)?)).to_owned();
                let before: PathBuf = names[..index].iter().collect();
                let rest: PathBuf = names[index + 1..].iter().collect();
                let next = before.join(target).join(rest);
                return match find(root, &next, ResolveFlags::empty()) {
                    Err(Errno::NOENT) => make(root, &next, missing, links - 1),
                    found => found,
                };
            }
            made => made?,
        };
    }
    Ok(place)
}

/// The deepest directory of `path` that is there, and how many names lead to it.
fn deepest(root: BorrowedFd, path: &Path) -> rustix::io::Result<(OwnedFd, usize)> {
    let relative: PathBuf = path
        .components()
        .filter(|part| !matches!(part, Component::RootDir | Component::CurDir))
        .collect();
    for ancestor in relative.ancestors().skip(1) {
        let name = if ancestor.as_os_str().is_empty() {
            Path::new(".")
        } else {
            ancestor
        };
        match find(root, name, ResolveFlags::empty()) {
            Ok(place) => return Ok((place, ancestor.components().count())),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::NOENT)
}

fn make_directory(at: BorrowedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    match mkdirat(at, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(at, name, flags, Mode::empty(), resolve)
}

fn make_file(at: BorrowedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(at, name, flags, Mode::from_raw_mode(0o644)) {
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            openat2(at, name, flags, Mode::empty(), resolve)
        }
        made => made,
    }
}
