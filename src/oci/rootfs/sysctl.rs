//! Kernel parameters of a container's namespaces (config-linux.md, "Sysctl").

use std::io;
use std::path::Path;

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags, ResolveFlags, fstatfs, open, openat2};
use rustix::io::Errno;

use super::error::RootfsError;

/// `PROC_SUPER_MAGIC` of the kernel's linux/magic.h.
const PROCFS: u64 = 0x9fa0;

/// Writes the parameters through the host's procfs, before the root changes:
/// the files speak of the writer's namespaces, and no image can be in the way.
///
/// # Errors
/// The parameter at fault.
pub(super) fn apply(spec: &Spec) -> Result<(), RootfsError> {
    let linux = spec.linux().as_ref();
    let parameters = linux.and_then(|linux| linux.sysctl().as_ref());
    let Some(parameters) = parameters.filter(|all| !all.is_empty()) else {
        return Ok(());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open("/proc/sys", flags, Mode::empty())
        .map_err(RootfsError::step::<Errno>("open \"/proc/sys\""))?;
    if !fstatfs(&directory).is_ok_and(|stat| stat.f_type as u64 == PROCFS) {
        return Err(RootfsError::Refused(
            "cannot set linux.sysctl: \"/proc/sys\" is not the kernel's".into(),
        ));
    }
    for (name, value) in parameters {
        let write = || -> io::Result<()> {
            let path = name.replace('.', "/");
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            let file = openat2(&directory, Path::new(&path), flags, Mode::empty(), resolve)?;
            rustix::io::write(&file, value.as_bytes())?;
            Ok(())
        };
        write().map_err(RootfsError::step::<io::Error>(format!(
            "set linux.sysctl {name:?} to {value:?}"
        )))?;
    }
    Ok(())
}
