//! The mount API by descriptor (mount_setattr(2), fsopen(2), open_tree(2),
//! move_mount(2)): mounts are made detached, and attached where a descriptor
//! points, so that no path is ever resolved a second time.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount, mount_change, move_mount, open_tree, unmount,
};

/// A new tmpfs that is attached nowhere yet.
///
/// `options` are those of tmpfs(5), such as `("size", "67108864")`.
///
/// # Errors
/// What fsopen(2), fsconfig(2) or fsmount(2) say.
pub fn tmpfs(options: &[(&str, &str)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    make_tmpfs(options, attributes, true)
}

/// [`tmpfs`] whose pages never go to a swap device, where the kernel has that
/// (`noswap`, Linux 6.4).
///
/// # Errors
/// As [`tmpfs`].
pub fn tmpfs_without_swap(
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    make_tmpfs(options, attributes, false)
}

fn make_tmpfs(
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
    swap: bool,
) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "tmpfs")?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    if !swap {
        match fsconfig_set_flag(context.as_fd(), "noswap") {
            // An older kernel does not know it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// A new hugetlbfs that is attached nowhere yet. `options` are those of
/// Documentation/admin-guide/mm/hugetlbpage.rst of the kernel.
///
/// # Errors
/// What fsopen(2), fsconfig(2) or fsmount(2) say.
pub fn hugetlbfs(options: &[(&str, String)]) -> io::Result<OwnedFd> {
    let context = fsopen("hugetlbfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, value)?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?)
}

/// The ext4 file system on the block device at `device`, attached nowhere yet.
///
/// Blocks that are no longer used are given back to what is below the device, and
/// inode tables are left as they are: for a device that begins with nothing but
/// zeros.
///
/// # Errors
/// `ENODEV` when the kernel has no ext4; else what fsopen(2), fsconfig(2) or
/// fsmount(2) say.
pub fn ext4(device: &Path) -> io::Result<OwnedFd> {
    let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", device)?;
    fsconfig_set_flag(context.as_fd(), "discard")?;
    fsconfig_set_flag(context.as_fd(), "noinit_itable")?;
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?)
}

/// Where something is mounted below `directory`, or on it, in the caller's mount
/// namespace (proc_pid_mountinfo(5)). A directory that is not there has none.
///
/// # Errors
/// What realpath(3) or read(2) say.
pub fn points_beneath(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let directory = match directory.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        directory => directory?,
    };
    let table = std::fs::read("/proc/self/mountinfo")?;
    let points = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|point| PathBuf::from(OsString::from_vec(unescape(point))));
    Ok(points
        .filter(|point| point.starts_with(&directory))
        .collect())
}

/// A path of mountinfo, in which `\040` stands for a space.
pub(super) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                path.push(byte);
                rest = &after[3..];
            }
            None => {
                path.push(first);
                rest = after;
            }
        }
    }
    path
}

/// A detached copy of the tree of mounts at `source`, submounts included: what
/// a recursive bind mount shows.
///
/// # Errors
/// What open_tree(2) says.
pub fn clone_tree(source: BorrowedFd) -> io::Result<OwnedFd> {
    clone_at(source, Path::new(""), true)
}

/// A detached copy of the mount at `path`, relative to `directory`, which may be
/// empty for that itself; with `recursive` of all below it as well.
///
/// # Errors
/// What open_tree(2) says: `EINVAL` when mounts below it are there to hide
/// something and `recursive` is not set.
pub fn clone_at(directory: BorrowedFd, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(open_tree(directory, path, flags)?)
}

/// Attaches a detached mount at `target`, a descriptor of a directory, or of a
/// file for a mount of a file.
///
/// # Errors
/// What move_mount(2) says.
pub fn attach(tree: BorrowedFd, target: BorrowedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(tree, "", target, "", flags)?)
}

/// Takes the mount that covers `name` in the directory `at` away; processes that
/// still use it keep it until they are done.
///
/// # Errors
/// `EINVAL` when nothing is mounted there; otherwise what umount2(2) says.
pub fn detach(at: BorrowedFd, name: &str) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}/{name}", at.as_raw_fd());
    Ok(unmount(
        path,
        UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
    )?)
}

/// Makes a tree of mounts private: nothing that is mounted within it shows
/// elsewhere, nor the other way round.
///
/// # Errors
/// What mount_setattr(2) says.
pub fn make_private(tree: BorrowedFd) -> io::Result<()> {
    Change {
        propagation: MountPropagationFlags::PRIVATE,
        ..Change::default()
    }
    .apply(tree, true)
}

/// What is to become of a mount (mount_setattr(2)). Restrictions are only ever
/// added to those that the mount has, unless `clear` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Attributes to be set.
    pub set: MountAttrFlags,
    /// Attributes to be cleared first.
    pub clear: MountAttrFlags,
    /// The type of propagation; empty to leave it.
    pub propagation: MountPropagationFlags,
}

impl Default for Change {
    fn default() -> Self {
        Self {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
            propagation: MountPropagationFlags::empty(),
        }
    }
}

impl Change {
    /// Applies it to the mount whose root is `mount`, and with `recursive` to
    /// all below it; a change of nothing costs nothing.
    ///
    /// # Errors
    /// What mount_setattr(2) says: `EINVAL` when `mount` is not the root of a
    /// mount, `EPERM` for attributes locked by a more privileged namespace.
    pub fn apply(self, mount: BorrowedFd, recursive: bool) -> io::Result<()> {
        if self == Self::default() {
            return Ok(());
        }
        let attributes = libc::mount_attr {
            attr_set: u64::from(self.set.bits()),
            attr_clr: u64::from(self.clear.bits()),
            propagation: u64::from(self.propagation.bits()),
            userns_fd: 0,
        };
        let depth = if recursive { libc::AT_RECURSIVE } else { 0 };
        // SAFETY: the path is a literal with its end mark, `attributes` lives
        // across the call and its size is given.
        let result = unsafe {
            libc::syscall(
                libc::SYS_mount_setattr,
                mount.as_raw_fd(),
                c"".as_ptr(),
                libc::AT_EMPTY_PATH | depth,
                &attributes,
                size_of::<libc::mount_attr>(),
            )
        };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Mounts an overlay at `target` (overlayfs, Documentation/filesystems/overlayfs.rst
/// of the kernel): `layers` from the topmost to the lowest, changes go to
/// `upper`.
///
/// Directories are named by descriptor, so that no length of path or number of
/// layers meets the limits of a mount's options before about 200 layers.
/// `volatile` leaves out every sync: right for an upper directory which never
/// outlives its container.
///
/// # Errors
/// What mount(2) says.
pub fn overlay(
    target: BorrowedFd,
    layers: &[OwnedFd],
    upper: BorrowedFd,
    work: BorrowedFd,
) -> io::Result<()> {
    let name = |fd: BorrowedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let lower: Vec<String> = layers.iter().map(|layer| name(layer.as_fd())).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},volatile",
        lower.join(":"),
        name(upper),
        name(work)
    );
    let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
    Ok(mount(
        "overlay",
        name(target),
        "overlay",
        MountFlags::empty(),
        Some(options.as_c_str()),
    )?)
}

/// Mounts an overlay at `target` that nothing can be written to: two `layers` at
/// least, from the topmost to the lowest, each named by descriptor.
///
/// # Errors
/// What mount(2) says.
pub fn overlay_read_only(target: BorrowedFd, layers: &[BorrowedFd]) -> io::Result<()> {
    let name = |fd: &BorrowedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let lower: Vec<String> = layers.iter().map(name).collect();
    let options = format!("lowerdir={}", lower.join(":"));
    let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount(
        "overlay",
        name(&target),
        "overlay",
        flags,
        Some(options.as_c_str()),
    )?)
}

/// The number of the mount that `fd` lies on (statx(2), `stx_mnt_id`).
///
/// # Errors
/// What statx(2) says.
pub fn mount_id(fd: impl AsFd) -> io::Result<u64> {
    Ok(statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Makes the one mount that `directory` lies on a slave in the caller's mount
/// namespace: mounts made on it from now on stay in this namespace, those made
/// elsewhere still arrive, and every other mount keeps its peers.
///
/// # Errors
/// What openat(2), statx(2) or mount(2) say.
pub fn stop_propagation(directory: BorrowedFd) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let id = mount_id(directory)?;
    let mut root = openat(directory, ".", flags, Mode::empty())?;
    loop {
        let parent = openat(&root, "..", flags, Mode::empty())?;
        if mount_id(&parent)? != id || same_directory(&parent, &root)? {
            break;
        }
        root = parent;
    }
    let path = format!("/proc/self/fd/{}", root.as_raw_fd());
    Ok(mount_change(path, MountPropagationFlags::DOWNSTREAM)?)
}

fn same_directory(one: &OwnedFd, other: &OwnedFd) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}
