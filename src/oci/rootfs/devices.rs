//! `/dev` of a container: the devices that every container has (config-linux.md,
//! "Default Devices"), those of its configuration, and the links beside them.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, makedev, mknodat,
    openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::error::RootfsError;
use super::place::{Missing, find, find_or_make};
use crate::sys::mount::{attach, clone_at};

/// Name, major and minor number, all with mode 0666.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

struct Node {
    path: PathBuf,
    kind: FileType,
    number: u64,
    mode: u32,
    owner: (Option<u32>, Option<u32>),
}

/// Makes all devices and links; opened files get the modes asked for, so the
/// caller's umask must be 0.
///
/// # Errors
/// The device or link at fault.
pub(super) fn make(root: BorrowedFd, spec: &Spec) -> Result<(), RootfsError> {
    let directory =
        find_or_make(root, Path::new("/dev"), Missing::Directory).map_err(RootfsError::step::<
            io::Error,
        >(
            "make the directory \"/dev\"",
        ))?;
    let linux = spec.linux().as_ref();
    let own = linux
        .and_then(|linux| linux.devices().as_deref())
        .unwrap_or_default();
    for device in own {
        make_node(root, directory.as_fd(), &node(device)?)?;
    }
    for (name, major, minor) in DEFAULTS {
        let path = Path::new("/dev").join(name);
        if own.iter().any(|device| *device.path() == path) {
            continue;
        }
        let node = Node {
            path,
            kind: FileType::CharacterDevice,
            number: makedev(major, minor),
            mode: 0o666,
            owner: (None, None),
        };
        make_node(root, directory.as_fd(), &node)?;
    }
    for (target, name) in LINKS {
        link(directory.as_fd(), target, name)?;
    }
    if rustix::fs::access("/proc/kcore", rustix::fs::Access::EXISTS).is_ok() {
        link(directory.as_fd(), "/proc/kcore", "core")?;
    }
    // The multiplexer of the container's own devpts, whatever the image has.
    match unlinkat(&directory, "ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => {
            return Err(RootfsError::step::<Errno>("replace \"/dev/ptmx\"")(error));
        }
    }
    link(directory.as_fd(), "pts/ptmx", "ptmx")
}

fn link(directory: BorrowedFd, target: &str, name: &str) -> Result<(), RootfsError> {
    match symlinkat(target, directory, name) {
        // What the image brought along stays.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(RootfsError::step::<Errno>(format!(
            "make the link \"/dev/{name}\""
        ))(error)),
    }
}

fn node(device: &LinuxDevice) -> Result<Node, RootfsError> {
    let path = device.path();
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => {
            return Err(RootfsError::Refused(format!(
                "device {path:?}: type \"a\" is for rules, not for devices"
            )));
        }
    };
    let number = |what: &str, value: i64| {
        u32::try_from(value)
            .map_err(|_| RootfsError::Refused(format!("device {path:?}: {what} {value}")))
    };
    if !path.starts_with("/dev") || path.file_name().is_none() {
        return Err(RootfsError::Refused(format!(
            "device {path:?} must be below \"/dev\""
        )));
    }
    let number = match kind {
        FileType::Fifo => 0,
        _ => makedev(
            number("major number", device.major())?,
            number("minor number", device.minor())?,
        ),
    };
    Ok(Node {
        path: path.clone(),
        kind,
        number,
        mode: device.file_mode().unwrap_or(0o666),
        owner: (device.uid(), device.gid()),
    })
}

fn make_node(root: BorrowedFd, dev: BorrowedFd, node: &Node) -> Result<(), RootfsError> {
    let path = &node.path;
    let step = || format!("make the device {path:?}");
    let name = path.file_name().unwrap_or(OsStr::new("."));
    let elsewhere: Option<OwnedFd> = match path.parent() {
        Some(parent) if parent != Path::new("/dev") => Some(
            find_or_make(root, parent, Missing::Directory)
                .map_err(RootfsError::step::<io::Error>(step()))?,
        ),
        _ => None,
    };
    let directory = elsewhere.as_ref().map_or(dev, AsFd::as_fd);
    // The file type's own bits in a mode would be taken for another type.
    let mode = Mode::from_raw_mode(node.mode & 0o7777);
    match mknodat(directory, name, node.kind, mode, node.number) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let there = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(RootfsError::step::<Errno>(step()))?;
            if FileType::from_raw_mode(there.st_mode) != node.kind || there.st_rdev != node.number {
                return Err(RootfsError::Refused(format!(
                    "cannot make the device {path:?}: the image has something else there"
                )));
            }
            return Ok(());
        }
        // Where devices cannot be made, as in a user namespace, the host's are
        // lent.
        Err(Errno::PERM) => {
            return lend(directory, name, node).map_err(RootfsError::step::<io::Error>(step()));
        }
        Err(error) => return Err(RootfsError::step::<Errno>(step())(error)),
    }
    let (uid, gid) = node.owner;
    if uid.is_some() || gid.is_some() {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(RootfsError::step::<Errno>(step()))?;
    }
    Ok(())
}

fn lend(directory: BorrowedFd, name: &OsStr, node: &Node) -> io::Result<()> {
    let tree = clone_at(CWD, &node.path, false)?;
    let stat = fstat(&tree)?;
    if FileType::from_raw_mode(stat.st_mode) != node.kind || stat.st_rdev != node.number {
        return Err(io::Error::other("the host has another device of that name"));
    }
    let place = find_or_make(directory, Path::new(name), Missing::File)?;
    attach(tree.as_fd(), place.as_fd())
}

/// The container's null device: `O_PATH` without flags, checked to be what it
/// says.
///
/// # Errors
/// When it is something else, for which an image may have its reasons.
pub(super) fn null_device(root: BorrowedFd, flags: OFlags) -> Result<OwnedFd, RootfsError> {
    let step = || "open \"/dev/null\" of the container";
    let path = Path::new("dev/null");
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let found = find(root, path, resolve).map_err(RootfsError::step::<Errno>(step()))?;
    let is_null = |fd: &OwnedFd| {
        fstat(fd).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == makedev(1, 3)
        })
    };
    let wrong =
        || RootfsError::Refused("\"/dev/null\" of the container is not the null device".into());
    if !is_null(&found) {
        return Err(wrong());
    }
    if flags.is_empty() {
        return Ok(found);
    }
    let open = openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
        .map_err(RootfsError::step::<Errno>(step()))?;
    if is_null(&open) {
        Ok(open)
    } else {
        Err(wrong())
    }
}
