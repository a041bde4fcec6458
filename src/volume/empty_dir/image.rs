//! A file system of a given size in a sparse file, for emptyDirs whose `sizeLimit`
//! nothing else enforces.
//!
//! The file is `plugins/kubernetes.io~empty-dir/<name>` in the pod's directory. It
//! is formatted once, under another name, and mounted through a loop device in the
//! pod's mount namespace alone. The device frees itself with the mount, so that
//! nothing has to be undone but to delete the file.
//!
//! The file system has no journal, as it need not outlive the machine's uptime; but
//! it may: one that was not unmounted properly is checked before it is used again.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, fchmod, ftruncate, openat2, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use super::{EVERYBODY, PLUGIN, VolumeError, directory};
use crate::sys::{loop_device, mount};

mod geometry;

/// Where the programs of e2fsprogs are.
const PROGRAMS: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/bin"];
/// What is asked of the file system: only what makes it small, fast and safe.
const FEATURES: &str = "none,dir_index,extent,extra_isize,filetype,flex_bg,huge_file,large_file,metadata_csum,sparse_super";
/// Where the superblock is in the file, and what is read of it.
const SUPERBLOCK: u64 = 1024;
const STATE: usize = 0x3a;
const UUID: usize = 0x68;
/// `EXT4_VALID_FS`: it was unmounted properly.
const VALID: u16 = 1;
/// The inode of `lost+found` in a new file system.
const LOST_AND_FOUND: u64 = 11;

/// Why a volume's limit cannot be enforced by an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A program of e2fsprogs is missing.
    #[error(
        "a sizeLimit on this file system needs {0}, which is not installed: install e2fsprogs \
         (or mount the data root's file system with prjquota)"
    )]
    NoProgram(&'static str),
    /// The kernel has no loop devices.
    #[error(
        "a sizeLimit on this file system needs loop devices, and /dev/loop-control is missing: \
         modprobe loop (or mount the data root's file system with prjquota)"
    )]
    NoLoopDevices,
    /// The kernel has no ext4.
    #[error("a sizeLimit on this file system needs ext4, which this kernel does not have")]
    NoFileSystem,
    /// The limit is beyond what can be formatted.
    #[error("a sizeLimit of {0} bytes is more than orlop can enforce (16 TiB)")]
    TooLarge(u64),
    /// A program failed.
    #[error("{program} failed on the volume's image: {said}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it said.
        said: String,
    },
}

/// Whether the volume `name` of the pod whose directory is `pod` has an image.
pub(super) fn exists(pod: BorrowedFd, name: &str) -> bool {
    let path = Path::new("plugins").join(PLUGIN).join(name);
    statat(pod, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Mounts the image of the volume `name`, which is made for `bytes` of content when
/// it is missing. Returns the root of its file system, attached nowhere.
///
/// # Errors
/// What is missing on the machine, or the step that failed.
pub(super) fn set_up(pod: BorrowedFd, name: &str, bytes: u64) -> Result<OwnedFd, VolumeError> {
    let plugins = directory(pod, "plugins", Mode::RWXU)?;
    let images = directory(plugins.as_fd(), PLUGIN, Mode::RWXU)?;
    let image = match open(images.as_fd(), name, OFlags::empty()) {
        Err(Errno::NOENT) => make(images.as_fd(), name, bytes)?,
        opened => opened.map_err(VolumeError::step("open the image of", name))?,
    };
    let superblock = read(&image).map_err(VolumeError::step("read the image of", name))?;
    let label = format!("orlop:{}", superblock.uuid);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ImageError::NoLoopDevices.into(),
        _ => VolumeError::step("make a loop device for", name)(error),
    };
    let mut checked = false;
    // Two devices on one file would be two caches: whoever still uses the image
    // uses this device.
    let device = match loop_device::find(&label).map_err(failed)? {
        Some(device) => device,
        None => {
            if !superblock.valid {
                check(&image)?;
                checked = true;
            }
            loop_device::attach(image.as_fd(), &label).map_err(failed)?
        }
    };
    let tree = mount::ext4(&device.path).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => ImageError::NoFileSystem.into(),
        _ => VolumeError::step("mount the image of", name)(error),
    })?;
    let root = rustix::fs::openat(
        &tree,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(VolumeError::step("open the root of", name))?;
    fchmod(&root, EVERYBODY).map_err(VolumeError::step("set the mode of", name))?;
    forget_lost_and_found(root.as_fd(), checked).map_err(VolumeError::step("empty", name))?;
    drop(device);
    Ok(tree)
}

fn open(images: BorrowedFd, name: &str, flags: OFlags) -> rustix::io::Result<File> {
    let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let mode = match flags.contains(OFlags::CREATE) {
        true => Mode::RUSR | Mode::WUSR,
        false => Mode::empty(),
    };
    openat2(images, name, flags, mode, resolve).map(File::from)
}

/// Makes the image. Under its own name it is whole: before, it has another.
fn make(images: BorrowedFd, name: &str, bytes: u64) -> Result<File, VolumeError> {
    let geometry = geometry::of(bytes).ok_or(ImageError::TooLarge(bytes))?;
    let unfinished = format!("{name}.unfinished");
    let image = open(images, &unfinished, OFlags::CREATE | OFlags::TRUNC)
        .map_err(VolumeError::step("make the image of", name))?;
    ftruncate(&image, geometry.blocks * geometry.block_size)
        .map_err(VolumeError::step("make the image of", name))?;
    let arguments = [
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        FEATURES,
        "-m",
        "0",
        "-I",
        "256",
        "-E",
        "root_owner=0:0",
        "-b",
        &geometry.block_size.to_string(),
        "-N",
        &geometry.inodes.to_string(),
    ];
    execute("mke2fs", &arguments, &image, |code| code == 0)?;
    renameat(images, &unfinished, images, name)
        .map_err(VolumeError::step("name the image of", name))?;
    Ok(image)
}

/// Brings a file system in order that was in use when the machine stopped.
fn check(image: &File) -> Result<(), VolumeError> {
    // 1: errors were corrected.
    execute("e2fsck", &["-p"], image, |code| matches!(code, 0 | 1))
}

/// Executes a program on `image`, which is its standard input, too.
fn execute(
    program: &'static str,
    arguments: &[&str],
    image: &File,
    is_fine: impl Fn(i32) -> bool,
) -> Result<(), VolumeError> {
    let path = find(program).ok_or(ImageError::NoProgram(program))?;
    let ran = image.try_clone().and_then(|image| {
        Command::new(path)
            .args(arguments)
            .arg("/proc/self/fd/0")
            .env_clear()
            .stdin(Stdio::from(image))
            .output()
    });
    let output = ran.map_err(VolumeError::step("execute", program))?;
    if output.status.code().is_some_and(is_fine) {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let said: Vec<&str> = lines.collect();
    Err(ImageError::Program {
        program,
        said: format!("{} ({})", said.join("; "), output.status),
    }
    .into())
}

fn find(program: &str) -> Option<PathBuf> {
    let mut places = PROGRAMS
        .iter()
        .map(|directory| Path::new(directory).join(program));
    places.find(|path| path.exists())
}

/// The programs that limits need and this machine does not have, each with what
/// to do.
#[must_use]
pub fn missing_programs() -> Vec<&'static str> {
    let all = [
        ("mke2fs", "mke2fs (install e2fsprogs)"),
        ("e2fsck", "e2fsck (install e2fsprogs)"),
    ];
    let missing = all.into_iter().filter(|(name, _)| find(name).is_none());
    missing.map(|(_, text)| text).collect()
}

struct Superblock {
    uuid: uuid::Uuid,
    valid: bool,
}

fn read(image: &File) -> io::Result<Superblock> {
    let mut bytes = [0; UUID + 16];
    image.read_exact_at(&mut bytes, SUPERBLOCK)?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&bytes[UUID..]);
    Ok(Superblock {
        uuid: uuid::Uuid::from_bytes(uuid),
        valid: u16::from_le_bytes([bytes[STATE], bytes[STATE + 1]]) == VALID,
    })
}

/// An empty volume is empty: many a program refuses to begin in a directory that
/// holds something. `checked` says that the directory may be a new one.
fn forget_lost_and_found(root: BorrowedFd, checked: bool) -> rustix::io::Result<()> {
    let name = "lost+found";
    match statat(root, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if checked || stat.st_ino == LOST_AND_FOUND => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    match unlinkat(root, name, AtFlags::REMOVEDIR) {
        // A check of the file system saved something in it.
        Err(Errno::NOTEMPTY | Errno::NOTDIR) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What mke2fs makes of each size: room for the whole content, and for little
    /// more.
    #[test]
    fn an_image_takes_its_limit_and_little_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let images = File::open(directory.path()).expect("open");
        const MI: u64 = 1 << 20;
        let sizes = [
            1,
            64 << 10,
            MI,
            4 * MI - 1,
            4 * MI,
            16 * MI,
            100 * MI,
            119 * MI,
            120 * MI,
            121 * MI,
            124 * MI,
            128 * MI,
            250 * MI,
            1024 * MI,
            10_000 * MI,
            102_400 * MI,
        ];
        for bytes in sizes {
            let name = bytes.to_string();
            let image = make(images.as_fd(), &name, bytes)
                .unwrap_or_else(|error| panic!("{bytes}: {error}"));
            assert!(read(&image).expect("a superblock").valid);
            let mut superblock = [0; 1024];
            image
                .read_exact_at(&mut superblock, SUPERBLOCK)
                .expect("read");
            let field = |at: usize| {
                let bytes = superblock[at..at + 4].try_into().expect("four bytes");
                u64::from(u32::from_le_bytes(bytes))
            };
            let (blocks, free, block_size) = (field(0x4), field(0xc), 1024 << field(0x18));
            // The kernel keeps a part back.
            let room = (free - (blocks / 50).min(4096)) * block_size;
            assert!(room >= bytes, "{bytes}: {room}");
            let most = bytes.max(64 << 10) + bytes / 32 + 96 * block_size;
            assert!(room <= most, "{bytes}: {room} is more than {most}");
            check(&image).expect("in order");
            std::fs::remove_file(directory.path().join(&name)).expect("remove");
        }
        let left: Vec<_> = directory.path().read_dir().expect("list").collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn what_the_program_says_is_passed_on() {
        let file = tempfile::tempfile().expect("a file");
        let error = execute("e2fsck", &["-p"], &file, |code| code == 0).expect_err("no ext4");
        let said = error.to_string();
        assert!(
            said.starts_with("e2fsck failed on the volume's image: "),
            "{said}"
        );
        assert!(said.contains("short read"), "{said}");
    }
}
