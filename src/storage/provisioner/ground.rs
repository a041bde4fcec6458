//! Directories below a base, made and taken away by descriptor and one name at a
//! time: no link is followed, no mount crossed, nothing outside reached.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, Mode, fchmod, mkdirat, renameat, unlinkat};
use rustix::io::{Errno, Result};

use super::component::Component;
use crate::sys::dir::{self, entry_name};

/// The mode of directories on the way to a volume's.
const WAY: Mode = Mode::from_raw_mode(0o755);
/// How many archives of one name there may be.
const ARCHIVES: u32 = 1000;

/// Makes the directory `path` below `base`, and those above it. `mode` is given to
/// one that was not there or has nothing in it, or with `always` to any.
///
/// # Errors
/// What mkdirat(2), openat2(2) or fchmod(2) say.
pub(super) fn make(base: &OwnedFd, path: &[Component], mode: Mode, always: bool) -> Result<()> {
    let mut directory = dir::open(base, c".")?;
    for component in path {
        let name = c_name(component)?;
        match mkdirat(&directory, &name, WAY) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        directory = dir::open(&directory, &name)?;
    }
    if always || is_empty(&directory)? {
        fchmod(&directory, mode)?;
    }
    Ok(())
}

/// The directory that holds the last component of `path`, and that component; none
/// when it is not there.
///
/// # Errors
/// What openat2(2) says.
pub(super) fn parent(base: &OwnedFd, path: &[Component]) -> Result<Option<(OwnedFd, OsString)>> {
    let Some((last, way)) = path.split_last() else {
        return Err(Errno::INVAL);
    };
    let mut directory = dir::open(base, c".")?;
    for component in way {
        directory = match dir::open(&directory, &c_name(component)?) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
    }
    Ok(Some((directory, last.as_os_str().to_owned())))
}

/// Removes the directories on the way to the last component of `path`, from below,
/// as far as they are empty.
///
/// # Errors
/// What openat2(2) or unlinkat(2) say.
pub(super) fn prune(base: &OwnedFd, path: &[Component]) -> Result<()> {
    for end in (1..path.len()).rev() {
        if !remove_empty(base, &path[..end])? {
            break;
        }
    }
    Ok(())
}

/// Removes the directory `path` if it is empty; false when it is not.
///
/// # Errors
/// What openat2(2) or unlinkat(2) say.
pub(super) fn remove_empty(base: &OwnedFd, path: &[Component]) -> Result<bool> {
    let Some((parent, name)) = parent(base, path)? else {
        return Ok(true);
    };
    match unlinkat(&parent, &name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Renames the directory `path` to `archived-<its name>`, with a number behind when
/// there is one of that name. One that is not there has been archived before.
///
/// # Errors
/// What openat2(2) or renameat(2) say; `EXIST` when there are too many.
pub(super) fn archive(base: &OwnedFd, path: &[Component]) -> Result<()> {
    let Some((parent, name)) = parent(base, path)? else {
        return Ok(());
    };
    for number in 1..=ARCHIVES {
        let mut archived = OsString::from("archived-");
        archived.push(&name);
        if number > 1 {
            archived.push(format!("-{number}"));
        }
        let to = entry_name(&archived).ok_or(Errno::INVAL)?;
        match dir::status_of(&parent, &to) {
            Ok(_) => continue,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        return match renameat(&parent, &name, &parent, &archived) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        };
    }
    Err(Errno::EXIST)
}

fn is_empty(directory: &OwnedFd) -> Result<bool> {
    for entry in Dir::read_from(directory.as_fd())? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn c_name(component: &Component) -> Result<CString> {
    entry_name(component.as_os_str()).ok_or(Errno::INVAL)
}
