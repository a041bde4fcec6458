//! A pod's user namespace (`hostUsers: false`): who its users are on the machine, and
//! how volumes and images show themselves to them.
//!
//! Network, IPC and host name belong to the namespace, so that the pod's root has its
//! capabilities over them. The mounts do not: the launcher makes them with the
//! machine's rights, as it does for every pod, and what is on a disk is mounted anew
//! with the pod's users in the place of the machine's (ID-mapped mounts). What orlop
//! makes in memory for this pod alone is given to its users instead.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::Volume;
use rustix::fs::{AtFlags, Gid, Uid, chownat, fchown, fstat, fstatfs};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::sandbox::{beneath, make_directory};
use crate::pod::home::Home;
use crate::pod::spec;
use crate::pod::users::{self, COUNT};
use crate::sys::idmap::map_users;
use crate::sys::mount::{attach, clone_at, detach};
use crate::sys::user_namespace;
use crate::volume::sub_path;
use crate::volume::written::Written;

/// Where layers are mounted for as long as it takes to mount an image.
const LAYERS: &str = "layers";

/// The users of a pod.
pub(super) struct Users {
    namespace: OwnedFd,
    /// The machine's id of the pod's root.
    first: u32,
}

impl Users {
    /// Makes the pod's user namespace with a network, an IPC and a UTS namespace that
    /// belong to it, and moves the calling process into those three.
    pub(super) fn make(home: &Home) -> Result<Self> {
        let first = users::claim(home)?;
        let kinds = ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
        let namespace = user_namespace::make(first, COUNT, kinds).context(
            "cannot make the pod's user namespace (hostUsers: false); \
             /proc/sys/user/max_user_namespaces may say that there shall be none",
        )?;
        Ok(Self { namespace, first })
    }

    /// The machine's id of the pod's user or group 0.
    pub(super) fn root(&self) -> u32 {
        self.first
    }

    /// What containers need to join.
    pub(super) fn of_containers(&self) -> spec::Users {
        spec::Users {
            namespace: PathBuf::from(format!(
                "/proc/{}/fd/{}",
                rustix::process::getpid().as_raw_nonzero(),
                self.namespace.as_raw_fd()
            )),
            first: self.first,
        }
    }

    /// Moves the calling process into the user namespace, as its root.
    pub(super) fn enter(&self) -> rustix::io::Result<()> {
        move_into_thread_name_spaces(self.namespace.as_fd(), ThreadNameSpaceType::USER)?;
        user_namespace::become_root()
    }

    /// Gives a file to the pod's root.
    pub(super) fn give(&self, file: impl AsFd) -> rustix::io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.first), Gid::from_raw(self.first));
        fchown(file, Some(uid), Some(gid))
    }

    /// Makes what is missing on the way to `path` in `volume`, one whose files are given
    /// to the pod's users, and gives it to the pod's root.
    pub(super) fn give_way(&self, volume: BorrowedFd, path: &str) -> Result<()> {
        drop(sub_path::open(volume, path)?);
        let device = fstat(volume)?.st_dev;
        let mut way = PathBuf::new();
        for name in Path::new(path).components() {
            way.push(name);
            let place = sub_path::open(volume, &way.to_string_lossy())?;
            let stat = fstat(&place)?;
            // Nothing that a container made belongs to the machine's root.
            if stat.st_uid == 0 && stat.st_dev == device {
                let uid = Some(Uid::from_raw(self.first));
                // The group may be the volume's.
                let gid = (stat.st_gid == 0).then(|| Gid::from_raw(self.first));
                chownat(&place, "", uid, gid, AtFlags::EMPTY_PATH)?;
            }
        }
        Ok(())
    }

    /// A copy of the mounts at `tree`, attached nowhere, that shows them to the pod.
    /// Mounts in it whose file systems cannot do that stay as they are.
    pub(super) fn show(&self, tree: BorrowedFd) -> Result<OwnedFd> {
        let namespace = self.namespace.as_fd();
        let copy = || clone_at(tree, "".as_ref(), true);
        let shown = copy()?;
        match map_users(shown.as_fd(), namespace, true) {
            Ok(()) => return Ok(shown),
            // Some of it may have been changed.
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                return Err(refused(tree, error));
            }
            Err(_) => {}
        }
        let shown = copy()?;
        map_users(shown.as_fd(), namespace, false).map_err(|error| refused(tree, error))?;
        Ok(shown)
    }

    /// The layers of an image as the pod's users see them. They are mounted below
    /// `mounts` until the result is dropped, which is of no matter to an overlay that
    /// was made of them.
    pub(super) fn layers(&self, mounts: BorrowedFd, layers: &[OwnedFd]) -> Result<Layers> {
        let mut shown = Layers {
            directory: make_directory(mounts, LAYERS)?,
            roots: Vec::new(),
        };
        for (index, layer) in layers.iter().enumerate() {
            let name = index.to_string();
            let tree = self
                .show(layer.as_fd())
                .context("cannot show the image to the pod's users")?;
            let place = make_directory(shown.directory.as_fd(), &name)?;
            attach(tree.as_fd(), place.as_fd())?;
            let root = beneath(shown.directory.as_fd(), &name)?;
            shown.roots.push(root);
        }
        Ok(shown)
    }
}

/// Layers of an image, mounted for a moment.
pub(super) struct Layers {
    directory: OwnedFd,
    /// Their roots, from the topmost to the lowest.
    pub(super) roots: Vec<OwnedFd>,
}

impl Drop for Layers {
    fn drop(&mut self) {
        for index in 0..self.roots.len() {
            // What stays is covered by the next one, and ends with the namespace.
            let _ = detach(self.directory.as_fd(), &index.to_string());
        }
    }
}

/// Whether orlop makes the files of `volume` itself, for this pod alone: they are given
/// to the pod's users as they are.
pub(super) fn are_given(volume: &Volume) -> bool {
    let medium = volume
        .empty_dir
        .as_ref()
        .and_then(|source| source.medium.as_deref());
    Written::of(volume).is_some() || medium.is_some_and(|medium| !medium.is_empty())
}

/// Why something cannot be shown to other users than the machine's.
fn refused(tree: BorrowedFd, error: io::Error) -> anyhow::Error {
    let kind = fstatfs(tree).map(|stat| kind(stat.f_type as u64));
    match (error.raw_os_error(), kind) {
        (Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP), Ok(kind)) => anyhow!(
            "this kernel cannot mount {kind} with the users of a pod (ID-mapped mounts): \
             use another file system, or leave out hostUsers: false"
        ),
        _ => anyhow!(error).context("cannot mount it with the users of the pod"),
    }
}

/// The name of a file system by its number in linux/magic.h.
fn kind(magic: u64) -> String {
    let name = match magic {
        0x0102_1994 => "tmpfs",
        0x0102_1997 => "9p",
        0x0027_e0eb => "cgroup",
        0x6367_7270 => "cgroup2",
        0x6969 => "nfs",
        0x9fa0 => "proc",
        0x6265_6572 => "sysfs",
        0x6573_5546 => "fuse",
        0x794c_7630 => "overlay",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        0x00c0_ffee => "hostfs",
        other => return format!("a file system of type {other:#x}"),
    };
    format!("a file system of type {name:?}")
}
