//! Kernel parameters (sysctl(8), proc_sys(5)). Those of namespaces are those of the
//! namespaces that the calling process is in.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, fstatfs, open, openat2};

/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROCFS: u64 = 0x9fa0;

/// The kernel's parameters, `/proc/sys`.
#[derive(Debug)]
pub struct Parameters(OwnedFd);

impl Parameters {
    /// Opens them.
    ///
    /// # Errors
    /// When there is no `/proc/sys`, or it is not the kernel's.
    pub fn open() -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open("/proc/sys", flags, Mode::empty())?;
        match fstatfs(&directory)?.f_type as u64 {
            PROCFS => Ok(Self(directory)),
            _ => Err(io::Error::other("\"/proc/sys\" is not the kernel's")),
        }
    }

    /// Sets a parameter, named as in `net.ipv4.ip_forward` or `net/ipv4/ip_forward`:
    /// where dots separate, a slash is a dot of the name, and the other way round
    /// (sysctl(8)).
    ///
    /// # Errors
    /// What opening or writing its file says.
    pub fn set(&self, name: &str, value: &str) -> io::Result<()> {
        let path: String = match name.find(['.', '/']) {
            Some(first) if name.as_bytes()[first] == b'.' => name
                .chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    other => other,
                })
                .collect(),
            _ => name.to_owned(),
        };
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let file = openat2(&self.0, path, flags, Mode::empty(), resolve)?;
        rustix::io::write(&file, value.as_bytes())?;
        Ok(())
    }
}
