//! The mounts of a configuration (config.md, "Mounts"): each is made detached,
//! gets its attributes, and is attached at a descriptor within the root.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use rustix::fs::{CWD, FileType, ResolveFlags, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount as mount_by_path,
};

use super::super::adapt::is_bind;
use super::super::namespaces::is_new;
use super::error::RootfsError;
use super::options::{self, Options};
use super::place::{Missing, find, find_or_make};
use crate::sys::mount::{Change, attach, clone_at};

/// `PROC_SUPER_MAGIC` of the kernel's linux/magic.h.
const PROCFS: u64 = 0x9fa0;

/// Longer values are refused by fsconfig(2).
const LONGEST_VALUE: usize = 255;

/// What containers are known to get in the place of files of procfs. Anything
/// else there could fake what security modules are told through it.
const MAY_COVER: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// A mount that is attached nowhere yet.
pub(super) struct Made {
    tree: OwnedFd,
    missing: Missing,
}

/// Makes `mount` in `root`, or takes what was `lent` for it; `label` is the context
/// for file systems on machines with SELinux. Returns the mount if it covers the root
/// itself, which it then replaces.
///
/// # Errors
/// The source, the destination or the option at fault.
pub(super) fn add(
    root: BorrowedFd,
    mount: &Mount,
    label: Option<&str>,
    lent: Option<Made>,
) -> Result<Option<OwnedFd>, RootfsError> {
    let destination = mount.destination().as_path();
    let kind = mount.typ().as_deref().unwrap_or_default();
    let options = options::parse(mount);
    if options.mapped {
        return Err(RootfsError::Refused(format!(
            "mount of {destination:?}: identity mapped mounts are not supported: remove \"idmap\""
        )));
    }
    if options.remount {
        return change_existing(root, destination, &options).map(|()| None);
    }
    let made = match lent.map_or_else(|| make(mount, &options, label, false), Ok) {
        // It is the kernel's private matter which file systems know the
        // newer interface's ways; mount(2) has fewer limits.
        Err(error) if error.needs_old_way => {
            return mount_the_old_way(root, mount, kind, &options).map(|()| None);
        }
        made => made.map_err(|not| not.error)?,
    };
    let Made { tree, missing } = made;
    let place = destination_for(root, destination, kind, tree.as_fd(), missing)?;
    attach(tree.as_fd(), place.as_fd()).map_err(RootfsError::step::<io::Error>(format!(
        "mount {destination:?}"
    )))?;
    let is_root = destination.components().count() <= 1;
    Ok(is_root.then_some(tree))
}

/// Makes what only a process can make that is not in the user namespace yet which it is
/// going to join: binds, whose sources it may not reach from there, and the file
/// systems of namespaces that do not belong to that one.
///
/// # Errors
/// As [`add`].
pub(super) fn lend(
    spec: &Spec,
    mount: &Mount,
    label: Option<&str>,
) -> Result<Option<Made>, RootfsError> {
    let options = options::parse(mount);
    let is_only_here = is_bind(mount)
        || match mount.typ().as_deref() {
            Some("proc") => true,
            Some("sysfs") => !is_new(spec, LinuxNamespaceType::Network),
            Some("mqueue") => !is_new(spec, LinuxNamespaceType::Ipc),
            _ => false,
        };
    if !is_only_here || options.mapped || options.remount {
        return Ok(None);
    }
    let made = make(mount, &options, label, true);
    made.map(Some).map_err(|not| not.error)
}

fn make(
    mount: &Mount,
    options: &Options,
    label: Option<&str>,
    lends: bool,
) -> Result<Made, NotMade> {
    let destination = mount.destination().as_path();
    let kind = mount.typ().as_deref().unwrap_or_default();
    let mut here = Change {
        set: from_the_start(destination, options),
        ..options.here
    };
    let (tree, missing) = if is_bind(mount) {
        bind(mount, options)?
    } else {
        let tree = match new_file_system(mount, kind, options, label) {
            // In some user namespaces a cgroup file system cannot be made; its
            // source is the container's own group, which shows the same.
            Err(error) if kind == "cgroup" && !error.needs_old_way => bind(mount, options)?.0,
            made => {
                here = Change {
                    propagation: here.propagation,
                    ..Change::default()
                };
                made?
            }
        };
        (tree, Missing::Directory)
    };
    if lends && !options.shares() {
        // As the mounts of a new namespace are: none shows on the host.
        let received = Change {
            propagation: MountPropagationFlags::DOWNSTREAM,
            ..Change::default()
        };
        let received = received.apply(tree.as_fd(), true);
        received.map_err(RootfsError::step::<io::Error>(format!(
            "separate the mount of {destination:?} from the host's"
        )))?;
    }
    settle(tree.as_fd(), destination, here, options)?;
    Ok(Made { tree, missing })
}

/// The attributes of a new mount. `/dev` becomes read-only only after the
/// devices have been made in it.
fn from_the_start(destination: &Path, options: &Options) -> MountAttrFlags {
    let mut attributes = options.here.set;
    if destination == Path::new("/dev") {
        attributes.remove(MountAttrFlags::MOUNT_ATTR_RDONLY);
    }
    attributes
}

fn settle(
    made: BorrowedFd,
    destination: &Path,
    here: Change,
    options: &Options,
) -> Result<(), RootfsError> {
    here.apply(made, false)
        .and_then(|()| options.tree.apply(made, true))
        .map_err(RootfsError::step::<io::Error>(format!(
            "set the options of the mount of {destination:?}"
        )))
}

fn bind(mount: &Mount, options: &Options) -> Result<(OwnedFd, Missing), RootfsError> {
    let destination = mount.destination();
    let Some(source) = mount.source() else {
        return Err(RootfsError::Refused(format!(
            "mount of {destination:?} has no source"
        )));
    };
    // One resolution of the path, which is a path of the host.
    let made = clone_at(CWD, source, options.recursive)
        .and_then(|tree| {
            let stat = fstat(&tree)?;
            Ok((tree, FileType::from_raw_mode(stat.st_mode)))
        })
        .map_err(|error| RootfsError::Source {
            path: source.clone(),
            destination: destination.clone(),
            source: error,
        })?;
    let missing = match made.1 {
        FileType::Directory => Missing::Directory,
        _ => Missing::File,
    };
    Ok((made.0, missing))
}

struct NotMade {
    needs_old_way: bool,
    error: RootfsError,
}

impl From<RootfsError> for NotMade {
    fn from(error: RootfsError) -> Self {
        Self {
            needs_old_way: false,
            error,
        }
    }
}

fn new_file_system(
    mount: &Mount,
    kind: &str,
    options: &Options,
    label: Option<&str>,
) -> Result<OwnedFd, NotMade> {
    let destination = mount.destination();
    let failed = |what: &str, error: Errno| NotMade {
        needs_old_way: false,
        error: RootfsError::Step {
            step: format!("mount {kind:?} at {destination:?}{what}"),
            source: error.into(),
        },
    };
    // What the specification calls a cgroup mount is the unified hierarchy by
    // now; version 1 has become bind mounts.
    let type_name = if kind == "cgroup" { "cgroup2" } else { kind };
    let context =
        fsopen(type_name, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| failed("", error))?;
    let source = mount.source().as_deref().filter(|_| kind != "cgroup");
    let source = source.unwrap_or(Path::new(kind));
    fsconfig_set_string(context.as_fd(), "source", source)
        .map_err(|error| failed(": its source", error))?;
    let context_option = label
        .filter(|_| kind != "proc" && kind != "sysfs")
        .map(|label| ("context", Some(label)));
    for (key, value) in options.data.iter().copied().chain(context_option) {
        if value.is_some_and(|value| value.len() > LONGEST_VALUE) {
            let mut not_made = failed("", Errno::INVAL);
            not_made.needs_old_way = true;
            return Err(not_made);
        }
        match value {
            Some(value) => fsconfig_set_string(context.as_fd(), key, value),
            None => fsconfig_set_flag(context.as_fd(), key),
        }
        .map_err(|error| failed(&format!(": option {key:?}"), error))?;
    }
    fsconfig_create(context.as_fd()).map_err(|error| failed("", error))?;
    // Given from the start: in a user namespace a procfs without them may not
    // be made at all.
    let attributes = from_the_start(destination, options);
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|error| failed("", error))
}

fn mount_the_old_way(
    root: BorrowedFd,
    mount: &Mount,
    kind: &str,
    options: &Options,
) -> Result<(), RootfsError> {
    let destination = mount.destination();
    let step = || format!("mount {kind:?} at {destination:?}");
    let place = find_or_make(root, destination, Missing::Directory)
        .map_err(RootfsError::step::<io::Error>(step()))?;
    let data: Vec<String> = options
        .data
        .iter()
        .map(|(key, value)| value.map_or((*key).to_owned(), |value| format!("{key}={value}")))
        .collect();
    let data = CString::new(data.join(","))
        .map_err(|error| RootfsError::step::<io::Error>(step())(io::Error::other(error)))?;
    let source = mount.source().as_deref().unwrap_or(Path::new(kind));
    let target = format!("/proc/self/fd/{}", place.as_raw_fd());
    mount_by_path(
        source,
        target,
        kind,
        MountFlags::empty(),
        Some(data.as_c_str()),
    )
    .map_err(RootfsError::step::<Errno>(step()))?;
    let made = find(root, destination, ResolveFlags::empty())
        .map_err(RootfsError::step::<Errno>(step()))?;
    settle(made.as_fd(), destination, options.here, options)
}

/// Where to attach a mount, once it is clear that it may be there.
fn destination_for(
    root: BorrowedFd,
    destination: &Path,
    kind: &str,
    made: BorrowedFd,
    missing: Missing,
) -> Result<OwnedFd, RootfsError> {
    let step = || format!("make the mount point {destination:?}");
    let magic = |fd: BorrowedFd| fstatfs(fd).map(|stat| stat.f_type as u64);
    let place =
        find_or_make(root, destination, missing).map_err(RootfsError::step::<io::Error>(step()))?;
    if kind == "proc" || kind == "sysfs" {
        // Through a link the container would see them elsewhere than where
        // their files are protected.
        find(root, destination, ResolveFlags::NO_SYMLINKS).map_err(|_| {
            RootfsError::Refused(format!(
                "{kind} must be mounted on an ordinary directory: {destination:?} leads through a symbolic link"
            ))
        })
        .and_then(|direct| {
            if place_of(&direct) == place_of(&place) {
                Ok(direct)
            } else {
                Err(RootfsError::Refused(format!(
                    "{destination:?} changed while {kind} was being mounted on it"
                )))
            }
        })
    } else if destination == Path::new("/proc") {
        if magic(made).map_err(RootfsError::step::<Errno>(step()))? != PROCFS {
            return Err(RootfsError::Refused(format!(
                "only procfs can be mounted at {destination:?}, not {kind:?}"
            )));
        }
        Ok(place)
    } else if magic(place.as_fd()).map_err(RootfsError::step::<Errno>(step()))? == PROCFS {
        let plain = find(root, destination, ResolveFlags::NO_SYMLINKS).is_ok();
        if !plain || !MAY_COVER.iter().any(|&path| destination == Path::new(path)) {
            return Err(RootfsError::Refused(format!(
                "nothing can be mounted at {destination:?}: it is inside procfs"
            )));
        }
        Ok(place)
    } else {
        Ok(place)
    }
}

fn place_of(fd: &OwnedFd) -> Option<(u64, u64)> {
    fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

fn change_existing(
    root: BorrowedFd,
    destination: &Path,
    options: &Options,
) -> Result<(), RootfsError> {
    let step = || format!("remount {destination:?}");
    let place = find(root, destination, ResolveFlags::empty())
        .map_err(RootfsError::step::<Errno>(step()))?;
    let all: [(Change, bool); 2] = [(options.here, false), (options.tree, true)];
    for (change, recursive) in all {
        change
            .apply(place.as_fd(), recursive)
            .map_err(RootfsError::step::<io::Error>(step()))?;
    }
    Ok(())
}
