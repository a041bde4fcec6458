//! A container's root file system, made by the container's first process in its
//! own mount namespace (OCI runtime specification, config.md and
//! config-linux.md).
//!
//! Everything is done through descriptors below one descriptor of the root, so
//! neither an image's links nor another container's renames can lead out of it.
//! No table of mounts is ever read: the time taken does not depend on what else
//! is mounted on the machine.

mod console;
mod devices;
mod error;
mod lent;
mod mask;
mod mounts;
mod options;
mod place;
mod sysctl;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Spec;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, makedev};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount,
    unmount,
};
use rustix::process::{chdir, chroot, fchdir, pivot_root, umask};

use super::adapt::is_bind;
pub(super) use error::RootfsError;
pub(super) use lent::Lent;

use crate::sys::mount::{Change, attach, clone_at, stop_propagation};

/// The root of a container that is being made.
pub(super) struct Root<'a> {
    spec: &'a Spec,
    /// The root of the mount that will be `/`.
    top: OwnedFd,
}

impl<'a> Root<'a> {
    /// Mounts the root and everything in it, and makes the devices. `lent` is for a
    /// process that has joined a user namespace.
    ///
    /// # Errors
    /// The step and path at fault.
    pub(super) fn build(
        spec: &'a Spec,
        rootfs: &Path,
        lent: Option<Lent>,
    ) -> Result<Self, RootfsError> {
        // Files get the modes that are given here, not what a caller left over.
        let caller = umask(Mode::empty());
        let root = Self::build_unmasked(spec, rootfs, lent);
        umask(caller);
        root
    }

    fn build_unmasked(
        spec: &'a Spec,
        rootfs: &Path,
        lent: Option<Lent>,
    ) -> Result<Self, RootfsError> {
        let (tree, lent) = lent.map(|lent| (lent.root, lent.mounts)).unzip();
        let mut root = Self {
            spec,
            top: mount_root(spec, rootfs, tree)?,
        };
        let label = label(spec);
        let mut lent = lent.into_iter().flatten();
        for mount in spec.mounts().iter().flatten() {
            let made = lent.next().flatten();
            if let Some(top) = mounts::add(root.top.as_fd(), mount, label, made)? {
                root.top = top;
            }
        }
        if root.owns_dev() {
            devices::make(root.top.as_fd(), spec)?;
        }
        Ok(root)
    }

    /// A `/dev` that is somebody else's directory is used as it is: making or
    /// replacing devices in it would happen on the host.
    fn owns_dev(&self) -> bool {
        let mut mounts = self.spec.mounts().iter().flatten();
        !mounts.any(|mount| mount.destination() == Path::new("/dev") && is_bind(mount))
    }

    /// Makes the container's terminal; see [`console::make`].
    ///
    /// # Errors
    /// The step at fault.
    pub(super) fn make_console(&self, socket: BorrowedFd) -> Result<(), RootfsError> {
        console::make(self.top.as_fd(), socket)
    }

    /// Takes the last rights away that only the preparation needed, makes the
    /// root `/`, and lets go of everything that was there before.
    ///
    /// # Errors
    /// The step and path at fault.
    pub(super) fn enter(self, no_pivot: bool) -> Result<(), RootfsError> {
        let top = self.top.as_fd();
        sysctl::apply(self.spec)?;
        self.use_own_null()?;
        self.make_dev_read_only()?;
        mask::apply(top, self.spec)?;
        let root = self.spec.root().as_ref();
        if root.and_then(|root| root.readonly()).unwrap_or(false) {
            Change {
                set: MountAttrFlags::MOUNT_ATTR_RDONLY,
                ..Change::default()
            }
            .apply(top, false)
            .map_err(RootfsError::step::<io::Error>("make the root read-only"))?;
        }
        let propagation = self.propagation();
        if no_pivot {
            move_over(top)?;
        } else {
            pivot(top, propagation == Some("shared"))?;
        }
        let last = match propagation {
            Some("shared") => MountPropagationFlags::SHARED,
            Some("unbindable") => MountPropagationFlags::UNBINDABLE,
            _ => return Ok(()),
        };
        Change {
            propagation: last,
            ..Change::default()
        }
        .apply(top, false)
        .map_err(RootfsError::step::<io::Error>(
            "set the propagation of the root",
        ))
    }

    fn propagation(&self) -> Option<&str> {
        let linux = self.spec.linux().as_ref();
        linux.and_then(|linux| linux.rootfs_propagation().as_deref())
    }

    /// A standard stream that is the host's null device keeps the host's file
    /// system in use and its inode within reach.
    fn use_own_null(&self) -> Result<(), RootfsError> {
        let is_null = |fd: BorrowedFd| {
            fstat(fd).is_ok_and(|stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                    && stat.st_rdev == makedev(1, 3)
            })
        };
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].map(is_null);
        if streams == [false; 3] {
            return Ok(());
        }
        let null = devices::null_device(self.top.as_fd(), OFlags::RDWR)?;
        let replace = || -> rustix::io::Result<()> {
            if streams[0] {
                rustix::stdio::dup2_stdin(&null)?;
            }
            if streams[1] {
                rustix::stdio::dup2_stdout(&null)?;
            }
            if streams[2] {
                rustix::stdio::dup2_stderr(&null)?;
            }
            Ok(())
        };
        replace().map_err(RootfsError::step::<Errno>("reopen \"/dev/null\""))
    }

    fn make_dev_read_only(&self) -> Result<(), RootfsError> {
        let dev = Path::new("/dev");
        let mut mounts = self.spec.mounts().iter().flatten();
        let asked = mounts.any(|mount| {
            mount.destination() == dev
                && options::parse(mount)
                    .here
                    .set
                    .contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
        });
        if !asked {
            return Ok(());
        }
        let make = || -> io::Result<()> {
            let mounted = place::find(self.top.as_fd(), dev, ResolveFlags::empty())?;
            Change {
                set: MountAttrFlags::MOUNT_ATTR_RDONLY,
                ..Change::default()
            }
            .apply(mounted.as_fd(), false)
        };
        make().map_err(RootfsError::step::<io::Error>("make \"/dev\" read-only"))
    }
}

/// The context for file systems, on machines with SELinux.
fn label(spec: &Spec) -> Option<&str> {
    let linux = spec.linux().as_ref();
    linux
        .and_then(|linux| linux.mount_label().as_deref())
        .filter(|_| Path::new("/sys/fs/selinux").exists())
}

/// Makes the root a mount of its own, as pivot_root(2) wants it, attached where
/// it was found; one that was lent is attached over everything else.
fn mount_root(spec: &Spec, rootfs: &Path, lent: Option<OwnedFd>) -> Result<OwnedFd, RootfsError> {
    let linux = spec.linux().as_ref();
    let asked = linux.and_then(|linux| linux.rootfs_propagation().as_deref());
    let kind = match asked {
        Some("shared") => MountPropagationFlags::SHARED,
        Some("private") => MountPropagationFlags::PRIVATE,
        None | Some("slave" | "unbindable") => MountPropagationFlags::DOWNSTREAM,
        Some(other) => {
            return Err(RootfsError::Refused(format!(
                "linux.rootfsPropagation {other:?} is not known: use \"shared\", \"slave\", \"private\" or \"unbindable\""
            )));
        }
    };
    // Unless asked for, nothing that is mounted here may show on the host.
    mount_change("/", kind | MountPropagationFlags::REC).map_err(RootfsError::step::<Errno>(
        "set the propagation of the mount namespace",
    ))?;
    let step = || format!("mount the root {rootfs:?}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let found = match lent {
        Some(_) => Path::new("/"),
        None => rootfs,
    };
    let place = rustix::fs::open(found, flags, Mode::empty())
        .map_err(RootfsError::step::<Errno>(step()))?;
    let mount = || -> io::Result<OwnedFd> {
        let shared = asked == Some("shared");
        if shared {
            // The kernel pivots only to a root whose parent is not shared.
            stop_propagation(place.as_fd())?;
        }
        let tree = match lent {
            Some(tree) => tree,
            None => clone_at(place.as_fd(), Path::new(""), true)?,
        };
        if shared {
            Change {
                propagation: MountPropagationFlags::PRIVATE,
                ..Change::default()
            }
            .apply(tree.as_fd(), false)?;
        }
        attach(tree.as_fd(), place.as_fd())?;
        Ok(tree)
    };
    mount().map_err(RootfsError::step::<io::Error>(step()))
}

/// The new root goes where the old one is, the old one on top of it, and away.
fn pivot(top: BorrowedFd, shared: bool) -> Result<(), RootfsError> {
    let failed = |step: &'static str| RootfsError::step::<Errno>(step);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old =
        rustix::fs::open("/", flags, Mode::empty()).map_err(failed("open the host's root"))?;
    fchdir(top).map_err(failed("change to the root"))?;
    pivot_root(".", ".").map_err(failed("pivot to the root"))?;
    fchdir(&old).map_err(failed("change to the host's root"))?;
    if shared {
        // The host must not lose its mounts with us.
        mount_change(
            ".",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        )
        .map_err(failed("leave the host's mounts"))?;
    }
    unmount(".", UnmountFlags::DETACH).map_err(failed("take the host's root away"))?;
    chdir("/").map_err(failed("change to the root"))
}

/// For a machine whose `/` cannot be pivoted away, such as a ramfs.
fn move_over(top: BorrowedFd) -> Result<(), RootfsError> {
    let failed = |step: &'static str| RootfsError::step::<Errno>(step);
    // Without a pivot the old root stays mounted below: what tells about the
    // host must not stay with it.
    for path in ["/sys", "/proc"] {
        match unmount(path, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => {
                return Err(RootfsError::step::<Errno>(format!(
                    "take the host's {path:?} away"
                ))(error));
            }
        }
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(top, "", CWD, "/", flags).map_err(failed("move the root to \"/\""))?;
    fchdir(top).map_err(failed("change to the root"))?;
    chroot(".").map_err(failed("change the root"))?;
    chdir("/").map_err(failed("change to the root"))
}
