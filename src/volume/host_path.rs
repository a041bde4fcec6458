//! hostPath: a file or directory of the host
//! (<https://kubernetes.io/docs/concepts/storage/volumes/#hostpath>).
//!
//! The path is opened once; its type is checked on that descriptor, and the
//! same descriptor is bound, so that what was checked is what is mounted. What
//! is there is never changed or deleted.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::HostPathVolumeSource;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

use super::{Place, Volume, VolumeError};
use crate::sys::mount;

/// One hostPath of a manifest.
pub struct HostPath<'a> {
    source: &'a HostPathVolumeSource,
}

/// What a type asks for: the kind of file, its name with article, and what is
/// made when nothing is there.
struct Check {
    expected: Option<(FileType, &'static str)>,
    create: Create,
}

#[derive(Clone, Copy)]
enum Create {
    Nothing,
    Directory,
    File,
}

/// Whether to look at the path may take for ever, because it leads to another file
/// system than the root's: that could be one on a server. This itself never waits.
#[must_use]
pub fn may_wait(source: &HostPathVolumeSource) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let path = source.path.as_str();
    match openat2(CWD, path, flags, Mode::empty(), resolve) {
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => false,
        Err(_) => true,
    }
}

impl<'a> HostPath<'a> {
    /// The hostPath that `source` describes.
    #[must_use]
    pub fn new(source: &'a HostPathVolumeSource) -> Self {
        Self { source }
    }

    fn check(&self) -> Result<Check, VolumeError> {
        let directory = Some((FileType::Directory, "a directory"));
        let file = Some((FileType::RegularFile, "a file"));
        let (expected, create) = match self.source.type_.as_deref().unwrap_or_default() {
            // kubelet leaves a missing path of no type to the runtime, and
            // containerd makes a directory of it.
            "" => (None, Create::Directory),
            "DirectoryOrCreate" => (directory, Create::Directory),
            "Directory" => (directory, Create::Nothing),
            "FileOrCreate" => (file, Create::File),
            "File" => (file, Create::Nothing),
            "Socket" => (Some((FileType::Socket, "a socket file")), Create::Nothing),
            "CharDevice" => (
                Some((FileType::CharacterDevice, "a character device")),
                Create::Nothing,
            ),
            "BlockDevice" => (
                Some((FileType::BlockDevice, "a block device")),
                Create::Nothing,
            ),
            other => return Err(VolumeError::HostPathUnknownType(other.to_owned())),
        };
        Ok(Check { expected, create })
    }

    fn open(&self) -> rustix::io::Result<OwnedFd> {
        openat(
            CWD,
            &self.source.path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    fn create(&self, create: Create) -> Result<(), VolumeError> {
        let path = self.source.path.as_str();
        match create {
            Create::Nothing => Ok(()),
            Create::Directory => std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(path)
                .map_err(VolumeError::step("create the directory", path)),
            Create::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                match openat(CWD, path, flags, Mode::from_raw_mode(0o644)) {
                    Ok(_) | Err(Errno::EXIST) => Ok(()),
                    Err(error) => Err(VolumeError::step("create the file", path)(error)),
                }
            }
        }
    }
}

impl Volume for HostPath<'_> {
    fn set_up(&self, place: Place) -> Result<OwnedFd, VolumeError> {
        let path = self.source.path.as_str();
        let check = self.check()?;
        if Path::new(path)
            .components()
            .any(|part| part == Component::ParentDir)
        {
            return Err(VolumeError::Climbs(path.to_owned()));
        }
        let mismatch = |expected| VolumeError::HostPathType {
            path: path.to_owned(),
            expected,
        };
        let is_local = place.persistent.is_some_and(|volume| volume.is_local);
        let opened = match (self.open(), check.create, check.expected) {
            (Err(Errno::NOENT), ..) if is_local => {
                return Err(VolumeError::NoLocalPath(path.to_owned()));
            }
            (Err(Errno::NOENT), Create::Nothing, Some((_, expected))) => {
                return Err(mismatch(expected));
            }
            (Err(Errno::NOENT), create, _) => {
                self.create(create)?;
                self.open()
            }
            (opened, _, _) => opened,
        };
        let opened = opened.map_err(VolumeError::step("open", path))?;
        if let Some((wanted, expected)) = check.expected {
            let stat = fstat(&opened).map_err(VolumeError::step("look at", path))?;
            if FileType::from_raw_mode(stat.st_mode) != wanted {
                return Err(mismatch(expected));
            }
        }
        mount::clone_tree(opened.as_fd()).map_err(VolumeError::step("bind", path))
    }
}
