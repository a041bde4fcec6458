//! Making files inside a layer's directory, and nowhere else.
//!
//! Every name from an archive is looked up by `openat2(2)` with
//! `RESOLVE_IN_ROOT`, so that the kernel itself takes the layer's directory
//! for the root: `..`, absolute names and symbolic links, also those that the
//! archive brought along, end inside it. Only the parent is looked up that
//! way; the last part of a name is never followed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::{Errno, Result};

/// The mark of a directory that hides what lower layers have in its place
/// (kernel documentation, `filesystems/overlayfs.rst`).
pub(super) const OPAQUE: &str = "trusted.overlay.opaque";

/// How many symbolic links a missing parent's name may lead through, as in path_resolution(7).
const MOST_LINKS: usize = 40;

/// A layer's directory, seen as the root of all names.
pub(super) struct Inside {
    root: OwnedFd,
    /// The parent that was looked up last: archives list a directory's files in a row.
    last: Option<(PathBuf, OwnedFd)>,
}

/// The parent directory of an entry and the entry's name in it.
pub(super) struct Place<'a> {
    pub parent: BorrowedFd<'a>,
    pub name: &'a OsStr,
}

impl Inside {
    /// Takes an open directory as the root.
    pub fn new(root: OwnedFd) -> Self {
        Inside { root, last: None }
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Forgets the parent that was looked up last, because something it went
    /// through may be gone.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// Where a cleaned, non-empty name belongs. Missing parents are made with
    /// mode 0755 for root, as other runtimes do.
    pub fn place<'a>(&'a mut self, path: &'a Path) -> Result<Place<'a>> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.last.as_ref().is_none_or(|(last, _)| last != parent) {
            let found = match self.open_dir(parent) {
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    self.make_parents(parent, 0)?;
                    self.open_dir(parent)?
                }
                other => other?,
            };
            self.last = Some((parent.to_owned(), found));
        }
        let (_, parent) = self.last.as_ref().ok_or(Errno::INVAL)?;
        Ok(Place {
            parent: parent.as_fd(),
            name,
        })
    }

    /// Where a cleaned, non-empty name is, if its parent exists.
    pub fn find(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = self.open_dir(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, PathBuf::from(name)))
    }

    fn open_dir(&self, path: &Path) -> Result<OwnedFd> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        // A rename elsewhere on the machine may disturb the kernel's check of
        // "..", which it then reports as EAGAIN.
        for _ in 0..64 {
            match fs::openat2(
                &self.root,
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
            ) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Makes each directory of a path that is missing. A dangling symbolic
    /// link on the way is followed inside the root.
    fn make_parents(&mut self, path: &Path, links: usize) -> Result<()> {
        let mut done = PathBuf::new();
        // The directory at `done`, while it is known to be new and empty.
        let mut made: Option<OwnedFd> = None;
        for part in path.components() {
            let parent = done.clone();
            done.push(part);
            let Component::Normal(name) = part else {
                made = None;
                self.open_dir(&done)?;
                continue;
            };
            if let Some(above) = made.take() {
                made = Some(make_dir(above.as_fd(), name)?);
                continue;
            }
            match self.open_dir(&done) {
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                other => {
                    other?;
                    continue;
                }
            }
            let directory = self.open_dir(&parent)?;
            made = match make_dir(directory.as_fd(), name) {
                Err(Errno::EXIST) => None,
                other => Some(other?),
            };
            if made.is_some() {
                continue;
            }
            let found = fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if is_whiteout(&found) {
                self.replace_whiteout(directory.as_fd(), name)?;
            } else if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
                if links == MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = fs::readlinkat(&directory, name, Vec::new())?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                let target = match target.strip_prefix("/") {
                    Ok(inside) => inside.to_owned(),
                    Err(_) => parent.join(target),
                };
                self.make_parents(&target, links + 1)?;
            } else {
                return Err(Errno::NOTDIR);
            }
        }
        Ok(())
    }

    /// Puts an opaque directory where a whiteout was: this layer deletes a
    /// name of the layers below and puts a directory of its own there.
    pub fn replace_whiteout(&mut self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        fs::unlinkat(parent, name, AtFlags::empty())?;
        set_opaque(make_dir(parent, name)?.as_fd())
    }
}

/// Makes and opens a directory that everybody may enter, whatever the umask.
fn make_dir(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    fs::mkdirat(parent, name, Mode::RWXU)?;
    let made = open_child_dir(parent, name)?;
    fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    Ok(made)
}

/// Opens a directory by its name in another, following nothing.
pub(super) fn open_child_dir(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    fs::openat2(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}

/// Whether a file is overlayfs's mark of a deleted name.
pub(super) fn is_whiteout(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0
}

/// Marks a directory as hiding what lower layers have in its place.
pub(super) fn set_opaque(directory: BorrowedFd<'_>) -> Result<()> {
    fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())
}

/// Whether a directory hides what lower layers have in its place.
pub(super) fn is_opaque(directory: BorrowedFd<'_>) -> Result<bool> {
    let mut value = [0_u8; 1];
    match fs::fgetxattr(directory, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(length == 1 && value[0] == b'y'),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}
