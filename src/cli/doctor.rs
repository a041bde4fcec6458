//! `orlop doctor`: what this machine has and lacks.

use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Result;
use rustix::fs::statfs;
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountAttrFlags, fsopen};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use rustix::thread::ThreadNameSpaceType;

use super::print;
use crate::pod::users;
use crate::storage::roots::Roots;
use crate::sys::cgroup::Cgroups;
use crate::sys::{idmap, loop_device, mount, project_quota, user_namespace};
use crate::volume::empty_dir;

/// What a look at one thing found.
enum Finding {
    Fine(String),
    /// Something does not work without it; the sentence says what to do.
    Lacking(String),
    /// Pods do not run without it; the sentence says what to do.
    Broken(String),
}

use Finding::{Broken, Fine, Lacking};

/// Prints one line for each thing that pods need. Fails when pods cannot run at
/// all.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(roots: &Roots) -> Result<ExitCode> {
    let checks: [(&str, Finding); 11] = [
        ("user", user()),
        ("kernel", kernel()),
        ("mount API", mount_api()),
        ("process descriptors", pidfd()),
        ("control groups", control_groups()),
        (
            "overlayfs",
            file_system("overlay", "modprobe overlay", Broken),
        ),
        (
            "NFS client",
            file_system(
                "nfs4",
                "modprobe nfsv4 (and nfsv3), or run a kernel built with CONFIG_NFS_V4; pods with NFS volumes do not start without",
                Lacking,
            ),
        ),
        ("data root", data_root(roots)),
        ("limits of emptyDirs", empty_dir_limits(roots)),
        ("users of pods", users_of_pods(roots)),
        ("limits of resources", resource_capability()),
    ];
    let mut code = ExitCode::SUCCESS;
    for (name, finding) in checks {
        let (mark, text) = match finding {
            Fine(text) => ("ok", text),
            Lacking(text) => ("lacks", text),
            Broken(text) => {
                code = ExitCode::FAILURE;
                ("BROKEN", text)
            }
        };
        print::say(format_args!("{mark:<6}  {name:<20}  {text}\n"))?;
    }
    Ok(code)
}

fn user() -> Finding {
    match rustix::process::geteuid().is_root() {
        true => Fine("root".to_owned()),
        false => Broken("not root: run orlop with sudo".to_owned()),
    }
}

fn kernel() -> Finding {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version >= (5, 12) {
        true => Fine(format!("Linux {release}")),
        false => Broken(format!(
            "Linux {release} is too old: orlop needs 5.12 or newer"
        )),
    }
}

fn mount_api() -> Finding {
    let mount = mount::tmpfs(&[], MountAttrFlags::empty());
    match mount.and_then(|mount| mount::make_private(mount.as_fd())) {
        Ok(()) => Fine("fsopen, open_tree, move_mount, mount_setattr".to_owned()),
        Err(error) => Broken(format!(
            "{error}: orlop needs CAP_SYS_ADMIN and no seccomp filter"
        )),
    }
}

fn pidfd() -> Finding {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Fine("pidfd_open".to_owned()),
        Err(error) => Broken(format!("pidfd_open: {error}")),
    }
}

fn control_groups() -> Finding {
    match Cgroups::detect() {
        Ok(groups) if groups.is_unified() => Fine("version 2".to_owned()),
        Ok(_) => Fine("version 1".to_owned()),
        Err(error) => Broken(format!("{error}: mount cgroup2 on /sys/fs/cgroup")),
    }
}

fn file_system(name: &str, remedy: &str, lacking: fn(String) -> Finding) -> Finding {
    match fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Fine(format!("{name} in the kernel")),
        Err(Errno::NODEV) => lacking(format!("this kernel has no {name}: {remedy}")),
        Err(error) => lacking(format!("{name}: {error}")),
    }
}

fn data_root(roots: &Roots) -> Finding {
    let existing = roots.data.ancestors().find(|path| path.exists());
    let Some(existing) = existing else {
        return Broken("no such directory".to_owned());
    };
    match statfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_bsize.unsigned_abs()) >> 30;
            Fine(format!("{}: {free} GiB free", roots.data.display()))
        }
        Err(error) => Broken(format!("{}: {error}", roots.data.display())),
    }
}

/// Whether pods can have users of their own, with images and volumes on the data root.
fn users_of_pods(roots: &Roots) -> Finding {
    let existing = roots.data.ancestors().find(|path| path.exists());
    let mounted = || -> std::io::Result<()> {
        let first = users::DEFAULT.start;
        let namespace = user_namespace::make(first, users::COUNT, ThreadNameSpaceType::empty())?;
        let directory = std::fs::File::open(existing.unwrap_or("/".as_ref()))?;
        let tree = mount::clone_at(directory.as_fd(), "".as_ref(), false)?;
        idmap::map_users(tree.as_fd(), namespace.as_fd(), false)
    };
    match mounted() {
        Ok(()) => Fine("user namespaces and ID-mapped mounts of the data root".to_owned()),
        Err(error) => Lacking(format!(
            "{error}: pods with hostUsers: false do not start; they take Linux 5.19, user namespaces and \
             a data root on ext4, xfs, btrfs, or tmpfs from 6.3"
        )),
    }
}

/// What makes the `sizeLimit` of an emptyDir on disk a limit.
fn empty_dir_limits(roots: &Roots) -> Finding {
    let existing = roots.data.ancestors().find(|path| path.exists());
    let directory = existing.and_then(|path| std::fs::File::open(path).ok());
    if directory.is_some_and(|directory| project_quota::is_enforced(directory.as_fd())) {
        return Fine("project quotas of the data root's file system".to_owned());
    }
    let mut missing = empty_dir::missing_programs();
    if !loop_device::is_available() {
        missing.push("loop devices (modprobe loop)");
    }
    match missing.is_empty() {
        true => Fine("file systems in files, through loop devices".to_owned()),
        false => Lacking(format!(
            "{}: pods with a sizeLimit on disk do not start",
            missing.join(", ")
        )),
    }
}

fn resource_capability() -> Finding {
    match crate::sys::capability::has_bounding(crate::sys::capability::SYS_RESOURCE) {
        true => Fine("CAP_SYS_RESOURCE".to_owned()),
        false => Lacking(
            "no CAP_SYS_RESOURCE: the OOM killer's preferences between pods cannot be set"
                .to_owned(),
        ),
    }
}
