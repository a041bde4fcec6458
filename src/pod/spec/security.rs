//! Capabilities and devices.
//!
//! Permitted, effective and bounding set are always the same; the inheritable
//! and the ambient set are always empty (an inheritable capability would come
//! back through file capabilities of any program in the image). For a user
//! other than root that means: the kernel empties permitted and effective set
//! at execve, and the bounding set alone remains, as the limit for set-user-id
//! programs. See capabilities(7).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::SecurityContext;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxDevice, LinuxDeviceType,
};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::SpecError;
use crate::oci::defaults;

/// `procMount` of a container that may see all of `/proc`.
pub(super) const UNMASKED_PROC: &str = "Unmasked";

const EVERY: &str = "ALL";

/// Capabilities by their number in `<linux/capability.h>`.
const BY_NUMBER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The bounding set in `status`, the content of a `/proc/<pid>/status`
/// (proc_pid_status(5), `CapBnd`). None when it has no such line.
pub fn bounding(status: &str) -> Option<Capabilities> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    let set = BY_NUMBER.into_iter().enumerate();
    Some(
        set.filter(|(number, _)| mask & (1 << number) != 0)
            .map(|(_, capability)| capability)
            .collect(),
    )
}

/// The capabilities of a container with the security context `context`, out of
/// those `available`.
///
/// `drop: [ALL]` takes the default set away, `add: [ALL]` starts from the full
/// one; then single ones are added, then single ones dropped. Names are taken
/// in any case, with or without `CAP_`. What is in the default set or in `ALL`
/// and not available is left out; a privileged container gets what there is.
///
/// # Errors
/// An unknown name, or one added by name that is not available.
pub fn capabilities(
    context: Option<&SecurityContext>,
    available: &Capabilities,
) -> Result<LinuxCapabilities, SpecError> {
    let set = if context.and_then(|c| c.privileged) == Some(true) {
        available.clone()
    } else {
        let wanted = context.and_then(|c| c.capabilities.as_ref());
        let add = wanted.and_then(|w| w.add.as_deref()).unwrap_or_default();
        let drop = wanted.and_then(|w| w.drop.as_deref()).unwrap_or_default();
        chosen(add, drop, available)?
    };
    let mut result = LinuxCapabilities::default();
    result
        .set_effective(Some(set.clone()))
        .set_permitted(Some(set.clone()))
        .set_bounding(Some(set))
        .set_inheritable(Some(Capabilities::new()))
        .set_ambient(Some(Capabilities::new()));
    Ok(result)
}

fn chosen(
    add: &[String],
    drop: &[String],
    available: &Capabilities,
) -> Result<Capabilities, SpecError> {
    let every = |name: &String| name.eq_ignore_ascii_case(EVERY);
    let mut set = if drop.iter().any(every) {
        Capabilities::new()
    } else if add.iter().any(every) {
        available.clone()
    } else {
        &defaults::capabilities() & available
    };
    for name in add.iter().filter(|name| !every(name)) {
        let capability = by_name(name)?;
        if !available.contains(&capability) {
            return Err(SpecError::MissingCapability(name.clone()));
        }
        set.insert(capability);
    }
    for name in drop.iter().filter(|name| !every(name)) {
        set.remove(&by_name(name)?);
    }
    Ok(set)
}

fn by_name(name: &str) -> Result<Capability, SpecError> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    short
        .parse()
        .map_err(|_| SpecError::UnknownCapability(name.to_owned()))
}

/// Names in `/dev` that a container gets of its own and not from the machine.
const OWN_DEVICES: [&[u8]; 6] = [b"console", b"fd", b"mqueue", b"ptmx", b"pts", b"shm"];

/// How deep directories in `/dev` are searched.
const DEPTH: usize = 8;

/// The block and character devices in the directory `dev` (the machine's
/// `/dev`) and below, for privileged containers; their paths are under `/dev`.
///
/// Other file systems mounted below it, terminals of `pts`, and symbolic links
/// are left out, and so is what disappears meanwhile: devices come and go.
///
/// # Errors
/// A directory that cannot be read.
pub fn host_devices(dev: BorrowedFd) -> io::Result<Vec<LinuxDevice>> {
    let mut devices = Vec::new();
    collect_devices(dev, Path::new("/dev"), DEPTH, &mut devices)?;
    Ok(devices)
}

fn collect_devices(
    directory: BorrowedFd,
    path: &Path,
    depth: usize,
    devices: &mut Vec<LinuxDevice>,
) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") || OWN_DEVICES.contains(&name.to_bytes()) {
            continue;
        }
        let Ok(text) = name.to_str() else { continue };
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => {
                devices.push(device(path.join(text), LinuxDeviceType::B, &stat));
            }
            FileType::CharacterDevice => {
                devices.push(device(path.join(text), LinuxDeviceType::C, &stat));
            }
            FileType::Directory if depth > 0 => {
                if let Some(below) = open_directory(directory, name)? {
                    collect_devices(below.as_fd(), &path.join(text), depth - 1, devices)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Opens a directory in `parent`; none if it has gone, or is a mount point.
fn open_directory(parent: BorrowedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let opened = rustix::fs::openat2(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    );
    match opened {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::XDEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn device(path: PathBuf, kind: LinuxDeviceType, stat: &Stat) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device
        .set_path(path)
        .set_typ(kind)
        .set_major(i64::from(rustix::fs::major(stat.st_rdev)))
        .set_minor(i64::from(rustix::fs::minor(stat.st_rdev)))
        .set_file_mode(Some(stat.st_mode & 0o7777))
        .set_uid(Some(stat.st_uid))
        .set_gid(Some(stat.st_gid));
    device
}

#[cfg(test)]
mod tests;
