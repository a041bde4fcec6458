//! Owner, mode, times and extended attributes of an unpacked file.
//!
//! The order matters to the kernel: chown(2) clears setuid bits and file
//! capabilities, so it comes first; a default ACL would be inherited by
//! everything made later, so a directory's ACLs and times come last.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use super::entries::Entry;

/// What only overlayfs itself may write: an archive could otherwise redirect
/// a directory of one image to another place of its lower layers.
const OVERLAYS_OWN: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
const ACL: &[u8] = b"system.posix_acl_";
const CAPABILITY: &[u8] = b"security.capability";

/// Sets owner, mode and plain attributes of an open file or directory.
pub(super) fn early(file: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    fs::fchown(
        file,
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )?;
    fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
    set(entry, false, |name, value| {
        fs::fsetxattr(file, name, value, XattrFlags::empty())
    })
}

/// Sets ACLs and times of an open file or directory, once all else is done.
pub(super) fn late(file: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    set(entry, true, |name, value| {
        fs::fsetxattr(file, name, value, XattrFlags::empty())
    })?;
    fs::futimens(file, &times(entry))
}

/// Sets everything of a file that cannot be opened: a symbolic link, a
/// device or a fifo, by its name in its directory.
pub(super) fn special(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    is_link: bool,
    entry: &Entry,
) -> Result<()> {
    fs::chownat(
        parent,
        name,
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )?;
    if !is_link {
        // Just made by us, and no link: chmod has nothing to follow.
        fs::chmodat(
            parent,
            name,
            Mode::from_raw_mode(entry.mode),
            AtFlags::empty(),
        )?;
    }
    if !entry.xattrs.is_empty() {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags, Mode::empty())?;
        // The way to set attributes through an O_PATH descriptor before Linux 6.13.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        for acls in [false, true] {
            set(entry, acls, |name, value| {
                fs::setxattr(&path, name, value, XattrFlags::empty())
            })?;
        }
    }
    fs::utimensat(parent, name, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets the attributes that are ACLs, or those that are not. What the file
/// system or the kind of file has no room for is left out, except a
/// program's capabilities: without them it would fail in strange ways.
fn set(entry: &Entry, acls: bool, set: impl Fn(&OsStr, &[u8]) -> Result<()>) -> Result<()> {
    for (name, value) in &entry.xattrs {
        let forbidden = OVERLAYS_OWN.iter().any(|own| name.starts_with(own));
        if forbidden || name.starts_with(ACL) != acls {
            continue;
        }
        match set(OsStr::from_bytes(name), value) {
            Err(Errno::OPNOTSUPP) if name != CAPABILITY => {}
            // The kernel keeps "user." attributes off links and devices.
            Err(Errno::PERM) if name.starts_with(b"user.") => {}
            other => other?,
        }
    }
    Ok(())
}

fn times(entry: &Entry) -> Timestamps {
    let (tv_sec, nanoseconds) = entry.mtime;
    let time = Timespec {
        tv_sec,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
