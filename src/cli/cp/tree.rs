//! Copying a tree from one directory to another, by descriptors alone. Names are
//! those of single entries; no symbolic link is followed on either side.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, fchmod, fchown,
    fstat, fstatfs, futimens, mkdirat, open, openat, readlinkat, symlinkat, unlinkat,
};
use rustix::io::Errno;

/// How deep directories may be nested; each level holds descriptors open.
const DEEPEST: usize = 200;

/// File systems of the kernel's own, in which no tree ends (linux/magic.h):
/// proc, sysfs, cgroup and cgroup2.
const KERNELS_OWN: [u64; 4] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270];

/// What is copied: a handle (`O_PATH`) on it, and its name.
pub(super) struct Source {
    pub(super) handle: OwnedFd,
    pub(super) name: CString,
    pub(super) shown: PathBuf,
}

impl Source {
    pub(super) fn is_directory(&self) -> Result<bool> {
        let stat = fstat(&self.handle)?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }
}

/// Where it is copied to: an entry of a directory, `.` for the directory itself.
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: CString,
    pub(super) shown: PathBuf,
}

/// What becomes of symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    /// They are copied as they are.
    Copy,
    /// They are left out, and a note says so.
    LeaveOut,
}

/// A copy in progress.
pub(super) struct Copier {
    preserve: bool,
    pub(super) links: Links,
    /// The bits of modes that are kept.
    pub(super) modes: u32,
    /// Who owns the copies; whoever runs this, when nobody is named.
    pub(super) owner: Option<(u32, u32)>,
    /// What was left out.
    pub(super) notes: Vec<String>,
}

impl Copier {
    pub(super) fn new(preserve: bool) -> Self {
        Self {
            preserve,
            links: Links::Copy,
            modes: 0o7777,
            owner: None,
            notes: Vec::new(),
        }
    }

    /// Copies a file or a directory with all that is in it.
    ///
    /// # Errors
    /// The first thing that cannot be read or written, by its name.
    pub(super) fn copy(&mut self, source: &Source, place: &Place) -> Result<()> {
        let to = place.directory.as_fd();
        self.entry(
            source.handle.as_fd(),
            &source.shown,
            to,
            &place.name,
            &place.shown,
            0,
        )
    }

    fn entry(
        &mut self,
        handle: BorrowedFd,
        from: &Path,
        directory: BorrowedFd,
        name: &CStr,
        to: &Path,
        depth: usize,
    ) -> Result<()> {
        let stat = fstat(handle).with_context(|| format!("cannot look at {from:?}"))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => self
                .file(handle, &stat, directory, name)
                .with_context(|| format!("cannot copy {from:?} to {to:?}")),
            FileType::Directory => self.directory(handle, &stat, from, directory, name, to, depth),
            FileType::Symlink if self.links == Links::Copy => self
                .link(handle, directory, name)
                .with_context(|| format!("cannot copy the symbolic link {from:?} to {to:?}")),
            FileType::Symlink => {
                let target = readlinkat(handle, c"", Vec::new()).unwrap_or_default();
                self.notes
                    .push(format!("skipping symlink: {from:?} -> {target:?}"));
                Ok(())
            }
            kind => {
                self.notes.push(format!(
                    "skipping {from:?}: it is neither a file nor a directory ({kind:?})"
                ));
                Ok(())
            }
        }
    }

    fn file(
        &self,
        handle: BorrowedFd,
        stat: &Stat,
        directory: BorrowedFd,
        name: &CStr,
    ) -> Result<()> {
        let from = File::from(reopen(handle, OFlags::RDONLY)?);
        let to = File::from(create(directory, name)?);
        // A file that grows meanwhile is copied as long as it was.
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        io::copy(&mut from.take(length), &mut &to)?;
        self.finish(to.as_fd(), stat, 0o666)
    }

    #[allow(clippy::too_many_arguments, reason = "two sides, each with its name")]
    fn directory(
        &mut self,
        handle: BorrowedFd,
        stat: &Stat,
        from: &Path,
        directory: BorrowedFd,
        name: &CStr,
        to: &Path,
        depth: usize,
    ) -> Result<()> {
        if depth > DEEPEST {
            bail!(
                "{from:?} is nested too deep: there are more than {DEEPEST} directories around it"
            );
        }
        let source = openat(
            handle,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .with_context(|| format!("cannot read the directory {from:?}"))?;
        if depth > 0
            && fstatfs(&source).is_ok_and(|kind| KERNELS_OWN.contains(&(kind.f_type as u64)))
        {
            self.notes
                .push(format!("skipping {from:?}: it belongs to the kernel"));
            return Ok(());
        }
        let target = make_directory(directory, name)
            .with_context(|| format!("cannot make the directory {to:?}"))?;
        for entry in Dir::read_from(&source)
            .with_context(|| format!("cannot read the directory {from:?}"))?
        {
            let entry = entry.with_context(|| format!("cannot read the directory {from:?}"))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let shown = OsStr::from_bytes(name.to_bytes());
            let from = from.join(shown);
            match openat(&source, name, flags, Mode::empty()) {
                Ok(handle) => {
                    self.entry(
                        handle.as_fd(),
                        &from,
                        target.as_fd(),
                        name,
                        &to.join(shown),
                        depth + 1,
                    )?;
                }
                // It has gone meanwhile.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).with_context(|| format!("cannot open {from:?}")),
            }
        }
        // The directory into which a whole tree goes keeps what it is.
        if name.to_bytes() == b"." {
            return Ok(());
        }
        self.finish(target.as_fd(), stat, 0o777)
            .with_context(|| format!("cannot give {to:?} its mode and times"))
    }

    fn link(&self, handle: BorrowedFd, directory: BorrowedFd, name: &CStr) -> Result<()> {
        let target = readlinkat(handle, c"", Vec::new())?;
        match symlinkat(&target, directory, name) {
            Err(Errno::EXIST) => {
                unlinkat(directory, name, AtFlags::empty())?;
                symlinkat(&target, directory, name)?;
            }
            made => made?,
        }
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Owner, mode and times of a copy, once its content is there.
    fn finish(&self, file: BorrowedFd, stat: &Stat, usual: u32) -> Result<()> {
        if let Some((uid, gid)) = self.owner {
            fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        if !self.preserve {
            let umask = rustix::process::umask(Mode::empty());
            rustix::process::umask(umask);
            fchmod(file, Mode::from_raw_mode(usual).difference(umask))?;
            return Ok(());
        }
        fchmod(file, Mode::from_raw_mode(stat.st_mode & self.modes))?;
        let time = |seconds, nanoseconds: u64| Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.cast_signed(),
        };
        let times = Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        Ok(futimens(file, &times)?)
    }
}

/// Opens what a handle stands for: this very file, whatever its name is by now.
fn reopen(handle: BorrowedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    open(
        path,
        flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Makes a new file in the place of whatever has its name.
fn create(directory: BorrowedFd, name: &CStr) -> Result<OwnedFd> {
    let flags =
        OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let new = || openat(directory, name, flags | OFlags::CREATE | OFlags::EXCL, mode);
    match new() {
        Err(Errno::EXIST) => {}
        made => return Ok(made?),
    }
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(new()?),
        // Something is mounted on it, as on a container's /etc/hosts.
        Err(Errno::BUSY) => {
            let file = openat(directory, name, flags, Mode::empty())?;
            if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
                bail!("there is something else in its place, and it cannot be removed");
            }
            rustix::fs::ftruncate(&file, 0)?;
            Ok(file)
        }
        Err(error) => Err(error.into()),
    }
}

fn make_directory(directory: BorrowedFd, name: &CStr) -> Result<OwnedFd> {
    if name.to_bytes() != b"." {
        match mkdirat(directory, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?)
}
