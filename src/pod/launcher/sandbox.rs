//! The pod's namespaces, and the tree of mounts that its containers draw from.
//!
//! Below the pod's `mounts` directory, in the launcher's namespace only:
//! `volumes/<name>`, `rootfs/<container>`, `bundles/<container>`,
//! `subpaths/<container>/<number>` and `shm`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, PodSpec, Sysctl};
use oci_spec::runtime::{Capabilities, LinuxDevice};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2,
    unlinkat,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::group::{self, Group};
use super::propagation::Host;
use super::server_volume::HostNetwork;
use super::users::{Layers, Users};
use crate::pod::home::Home;
use crate::pod::protocol::{SandboxOrder, files};
use crate::pod::spec::files::Names;
use crate::pod::spec::{self, PidNamespace, security};
use crate::sys::cgroup::Controllers;
use crate::sys::sysctl::Parameters;
use crate::sys::{mount, namespace, network, process};
use crate::volume::Persistent;
use crate::volume::sub_path;
use crate::volume::usage::{self, Usage};

/// Bytes of the pod's `/dev/shm`, as with containerd.
const SHM_BYTES: &str = "67108864";

/// Bytes of the tmpfs below which the pod's mounts hang: the containers' bundles are
/// in it, and the kernel takes some 6 MiB of variables at most (execve(2)).
const MOUNTS_BYTES: &str = "33554432";

/// Where volumes are mounted as the machine's users see them, below the pod's `mounts`,
/// when the pod has users of its own.
const MACHINES: &str = "machines";

/// Where parts of volumes are mounted, below the pod's `mounts`.
const SUB_PATHS: &str = "subpaths";

/// What the launcher knows of its pod once the sandbox stands.
pub(super) struct Sandbox {
    pub(super) pod: Pod,
    /// What PersistentVolumes say of its volumes, by the name of the volume.
    pub(super) persistent: BTreeMap<String, Persistent>,
    pub(super) hostname: String,
    pub(super) node_name: String,
    pub(super) host_ip: String,
    pub(super) cgroup_v2: bool,
    pub(super) controllers: Controllers,
    pub(super) cpu_capacity: u64,
    pub(super) memory_capacity: u64,
    pub(super) capabilities: Capabilities,
    pub(super) host_devices: Vec<LinuxDevice>,
    pub(super) volumes_on_disk: OwnedFd,
    /// The first process of the PID namespace that the containers share.
    shared_init: Option<Pid>,
    pub(super) host: Host,
    /// The pod's own users, if it has any.
    pub(super) users: Option<Users>,
    pub(super) network: HostNetwork,
    mounts: OwnedFd,
}

impl Sandbox {
    /// Makes the pod's control group and namespaces, and moves the calling process
    /// into the latter. Says also what the pod asks for and does without.
    pub(super) fn build(home: &Home, order: SandboxOrder) -> Result<(Self, Vec<String>)> {
        let SandboxOrder {
            pod,
            persistent,
            node_name,
            host_ip,
        } = order;
        let spec = pod.spec.clone().unwrap_or_default();
        let names = spec::files::names(&pod, &node_name)?;
        let Group {
            unified,
            controllers,
            lacks,
        } = group::make(home, &pod.metadata, &spec)
            .context("cannot make the pod's control group")?;

        let host = Host::remember(&spec)?;
        let network = HostNetwork::remember(&spec)?;
        let users = (spec.host_users == Some(false))
            .then(|| Users::make(home))
            .transpose()?;
        let namespaces = match users {
            // The others are there, and belong to the pod's users.
            Some(_) => UnshareFlags::NEWNS,
            None => namespaces(&spec),
        };
        namespace::leave(namespaces).context("cannot make the pod's namespaces")?;
        if !on(spec.host_network) {
            network::loopback_up().context("cannot bring the pod's loopback interface up")?;
            rustix::system::sethostname(names.kernel.as_bytes())
                .context("cannot set the pod's host name")?;
        }
        set_parameters(&spec)?;
        let mounts = mounts(home).context("cannot make the place for the pod's mounts")?;
        shm(&spec, mounts.as_fd()).context("cannot mount the pod's /dev/shm")?;
        write_files(home, &pod, &names, users.as_ref())
            .context("cannot write the pod's /etc/hosts and its like")?;
        let shared_init = (on(spec.share_process_namespace) && !on(spec.host_pid))
            .then(|| {
                process::spawn(process::Kind::Init, || {
                    match users.as_ref().map_or(Ok(()), Users::enter) {
                        Ok(()) => process::hold_namespace(),
                        Err(_) => 1,
                    }
                })
            })
            .transpose()
            .context("cannot make the pod's process namespace")?;
        let init = spec.init_containers.iter().flatten();
        let any_privileged = init.chain(&spec.containers).any(|container| {
            container
                .security_context
                .as_ref()
                .is_some_and(|context| on(context.privileged))
        });
        let host_devices = if any_privileged {
            let dev = open_directory("/dev").context("cannot open /dev")?;
            security::host_devices(dev.as_fd()).context("cannot list the devices of /dev")?
        } else {
            Vec::new()
        };
        let sandbox = Self {
            hostname: names.kernel,
            node_name,
            host_ip: host_ip.unwrap_or_default(),
            cgroup_v2: unified,
            controllers,
            cpu_capacity: std::thread::available_parallelism()
                .map_or(1000, |count| count.get() as u64 * 1000),
            memory_capacity: memory_capacity(),
            capabilities: capabilities()?,
            host_devices,
            volumes_on_disk: volumes_on_disk(home)
                .context("cannot open the directory of the pod's volumes")?,
            shared_init,
            host,
            users,
            network,
            mounts,
            persistent,
            pod,
        };
        Ok((sandbox, lacks))
    }

    /// Where containers find their process namespace.
    pub(super) fn pid_namespace(&self) -> PidNamespace {
        match self.shared_init {
            Some(pid) => PidNamespace::Path(PathBuf::from(format!(
                "/proc/{}/ns/pid",
                pid.as_raw_nonzero()
            ))),
            None if self.pod.spec.as_ref().is_some_and(|spec| on(spec.host_pid)) => {
                PidNamespace::Host
            }
            None => PidNamespace::Own,
        }
    }

    /// Attaches the mount `tree` where containers look for the volume `name`.
    pub(super) fn attach_volume(&self, name: &str, tree: OwnedFd) -> Result<()> {
        let volumes = beneath(self.mounts.as_fd(), "volumes")?;
        attach(tree.as_fd(), volumes.as_fd(), name)
            .with_context(|| format!("cannot attach volume {name:?}"))
    }

    /// [`Sandbox::attach_volume`] for a pod with users of its own, as they are to see it.
    /// What belongs to the machine's users stays at hand for what the launcher makes in it.
    pub(super) fn attach_shown(&self, name: &str, tree: OwnedFd, users: &Users) -> Result<()> {
        let failed = || format!("cannot attach volume {name:?}");
        let machines = make_directory(self.mounts.as_fd(), MACHINES).with_context(failed)?;
        clear(machines.as_fd(), name).with_context(failed)?;
        attach(tree.as_fd(), machines.as_fd(), name).with_context(failed)?;
        let place = self.machines_own(name)?.with_context(failed)?;
        let shown = users
            .show(place.as_fd())
            .with_context(|| format!("cannot show volume {name:?} to the pod's users"))?;
        self.attach_anew(name, shown)
    }

    /// The volume `name` as the machine's users see it, if it is mounted for both.
    fn machines_own(&self, name: &str) -> rustix::io::Result<Option<OwnedFd>> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path = Path::new(MACHINES).join(name);
        match openat2(&self.mounts, &path, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// The layers of an image as the pod sees them; `None` when that is as they are.
    pub(super) fn shown(&self, layers: &[OwnedFd]) -> Result<Option<Layers>> {
        let users = self.users.as_ref();
        let shown = users.map(|users| users.layers(self.mounts.as_fd(), layers));
        shown.transpose()
    }

    /// The directory on which the volume `name` is mounted, or what is mounted there.
    pub(super) fn volume(&self, name: &str) -> Result<OwnedFd> {
        let volumes = beneath(self.mounts.as_fd(), "volumes")?;
        Ok(make_directory(volumes.as_fd(), name)?)
    }

    /// A directory of the launcher's own beside the pod's mounts.
    pub(super) fn directory(&self, name: &str) -> Result<OwnedFd> {
        Ok(make_directory(self.mounts.as_fd(), name)?)
    }

    /// Where the parts of volumes are mounted that a container gets, relative to
    /// the pod's `mounts`.
    pub(super) fn sub_paths(&self, container: &str) -> PathBuf {
        Path::new(SUB_PATHS).join(container)
    }

    /// Attaches the part of `volume` at `path` as `directory/index`, in the place
    /// of what an earlier start left there.
    pub(super) fn attach_sub_path(
        &self,
        directory: &Path,
        index: usize,
        volume: &str,
        path: &str,
    ) -> Result<()> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let name = volume;
        let volumes = beneath(self.mounts.as_fd(), "volumes")?;
        let volume = openat2(&volumes, name, flags, Mode::empty(), resolve)?;
        if let Some(users) = &self.users {
            match self.machines_own(name)? {
                // On the other mount the launcher is nobody who could make anything.
                Some(machines) => drop(sub_path::open(machines.as_fd(), path)?),
                None => users.give_way(volume.as_fd(), path)?,
            }
        }
        let tree = sub_path::clone(volume.as_fd(), path)?;
        let mut place = self.mounts.as_fd().try_clone_to_owned()?;
        for name in directory.iter().filter_map(|name| name.to_str()) {
            place = make_directory(place.as_fd(), name)?;
        }
        let name = index.to_string();
        clear(place.as_fd(), &name)?;
        Ok(attach(tree.as_fd(), place.as_fd(), &name)?)
    }

    /// Takes the parts of volumes away that a container had.
    pub(super) fn detach_sub_paths(&self, container: &str) -> Result<()> {
        let all = beneath(self.mounts.as_fd(), SUB_PATHS)?;
        let directory = match beneath(all.as_fd(), container) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened?,
        };
        for entry in Dir::read_from(&directory)? {
            let name = entry?.file_name().to_str()?.to_owned();
            if !matches!(name.as_str(), "." | "..") {
                clear(directory.as_fd(), &name).with_context(|| {
                    format!("cannot unmount what {container:?} has of a volume")
                })?;
            }
        }
        Ok(unlinkat(&all, container, AtFlags::REMOVEDIR)?)
    }

    /// Whether the volume `name` has a place among the mounts. Nothing that is
    /// mounted there is asked.
    pub(super) fn has_volume(&self, name: &str) -> bool {
        let names = beneath(self.mounts.as_fd(), "volumes").and_then(Dir::read_from);
        let mut names = names.into_iter().flatten().flatten();
        names.any(|entry| entry.file_name().to_bytes() == name.as_bytes())
    }

    /// Attaches `tree` as the volume `name`, in the place of what an attempt that was
    /// killed may have left there.
    pub(super) fn attach_anew(&self, name: &str, tree: OwnedFd) -> Result<()> {
        let volumes = beneath(self.mounts.as_fd(), "volumes")?;
        clear(volumes.as_fd(), name)
            .with_context(|| format!("cannot take away what was mounted as volume {name:?}"))?;
        self.attach_volume(name, tree)
    }

    /// What the file system of the volume `name` tells; `None` when it is not
    /// mounted.
    pub(super) fn usage(&self, name: &str) -> Result<Option<Usage>> {
        let directory = beneath(self.mounts.as_fd(), "volumes")?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(&directory, name, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT) => Ok(None),
            root => Ok(Some(usage::of_file_system(root?.as_fd())?)),
        }
    }

    /// The directory on which the root file system of a container is mounted.
    pub(super) fn rootfs(&self, container: &str) -> Result<OwnedFd> {
        let directory = beneath(self.mounts.as_fd(), "rootfs")?;
        Ok(make_directory(directory.as_fd(), container)?)
    }

    /// Takes the root file system of a container away.
    pub(super) fn detach_rootfs(&self, container: &str) -> Result<()> {
        let directory = beneath(self.mounts.as_fd(), "rootfs")?;
        mount::detach(directory.as_fd(), container)
            .with_context(|| format!("cannot unmount the root file system of {container:?}"))
    }
}

/// Attaches `tree` at `name` in `directory`, of which nothing but orlop knows; the
/// file or directory for it is made.
fn attach(tree: BorrowedFd, directory: BorrowedFd, name: &str) -> io::Result<()> {
    let root = FileType::from_raw_mode(fstat(tree)?.st_mode);
    let target = if root == FileType::Directory {
        make_directory(directory, name)?
    } else {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(directory, name, flags, Mode::RUSR)?
    };
    mount::attach(tree, target.as_fd())
}

/// Takes away what is mounted at `name`, and the mount point with it.
fn clear(directory: BorrowedFd, name: &str) -> io::Result<()> {
    match mount::detach(directory, name) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Nothing is mounted there: whoever was about to was interrupted.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
        Err(error) => return Err(error),
    }
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?),
        done => Ok(done?),
    }
}

fn on(field: Option<bool>) -> bool {
    field.unwrap_or(false)
}

fn namespaces(spec: &PodSpec) -> UnshareFlags {
    let mut flags = UnshareFlags::NEWNS;
    if !on(spec.host_network) {
        flags |= UnshareFlags::NEWNET | UnshareFlags::NEWUTS;
    }
    if !on(spec.host_ipc) {
        flags |= UnshareFlags::NEWIPC;
    }
    flags
}

/// Sets the kernel parameters of the pod's namespaces.
fn set_parameters(spec: &PodSpec) -> Result<()> {
    let context = spec.security_context.as_ref();
    let wanted = context.and_then(|context| context.sysctls.as_deref());
    let wanted = wanted.unwrap_or_default();
    if wanted.is_empty() {
        return Ok(());
    }
    let parameters = Parameters::open().context("cannot open the kernel's parameters")?;
    for Sysctl { name, value } in wanted {
        parameters
            .set(name, value)
            .with_context(|| format!("cannot set sysctl {name:?} to {value:?}"))?;
    }
    Ok(())
}

/// Mounts a tmpfs on the pod's `mounts` directory, seen in this namespace only.
///
/// The mount that the run directory lies on stops to propagate, in this
/// namespace; every other mount keeps its peers, so that what appears on the
/// host still appears in volumes that ask for it.
fn mounts(home: &Home) -> Result<OwnedFd> {
    let place = home.mounts();
    fs::create_dir_all(&place)?;
    let below = open_directory(&place)?;
    mount::stop_propagation(below.as_fd())?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let tree = mount::tmpfs_without_swap(&[("mode", "0711"), ("size", MOUNTS_BYTES)], flags)?;
    mount::attach(tree.as_fd(), below.as_fd())?;
    let mounts = open_directory(&place)?;
    for name in ["volumes", "rootfs", "shm", "subpaths"] {
        make_directory(mounts.as_fd(), name)?;
    }
    Ok(mounts)
}

fn shm(spec: &PodSpec, mounts: BorrowedFd) -> Result<()> {
    let target = beneath(mounts, "shm")?;
    let tree = if on(spec.host_ipc) {
        mount::clone_tree(open_directory("/dev/shm")?.as_fd())?
    } else {
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        mount::tmpfs(&[("mode", "1777"), ("size", SHM_BYTES)], flags)?
    };
    mount::make_private(tree.as_fd())?;
    Ok(mount::attach(tree.as_fd(), target.as_fd())?)
}

fn write_files(home: &Home, pod: &Pod, names: &Names, users: Option<&Users>) -> Result<()> {
    let [hosts, resolv_conf, hostname_file] = files(&home.run());
    if let Some(directory) = hosts.parent() {
        fs::create_dir_all(directory)?;
    }
    let of_the_node = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    fs::write(
        &hosts,
        spec::files::hosts(pod, names, &of_the_node("/etc/hosts")),
    )?;
    fs::write(
        &resolv_conf,
        spec::files::resolv_conf(&spec, &of_the_node("/etc/resolv.conf")),
    )?;
    fs::write(&hostname_file, format!("{}\n", names.kernel))?;
    if let Some(users) = users {
        for path in [hosts, resolv_conf, hostname_file] {
            users.give(fs::File::open(path)?)?;
        }
    }
    Ok(())
}

fn volumes_on_disk(home: &Home) -> Result<OwnedFd> {
    fs::create_dir_all(home.volumes())?;
    Ok(open_directory(home.volumes())?)
}

/// What the launcher may give away: its bounding set.
fn capabilities() -> Result<Capabilities> {
    let status = fs::read_to_string("/proc/self/status")?;
    security::bounding(&status).context("/proc/self/status tells no bounding set")
}

fn memory_capacity() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

fn open_directory(path: impl AsRef<Path>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path.as_ref(), flags, Mode::empty())
}

/// Opens a directory in `parent`, never through a symbolic link.
pub(super) fn beneath(parent: BorrowedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(parent, path, flags, Mode::empty(), resolve)
}

/// Opens a directory in `parent`, which is made when missing.
pub(super) fn make_directory(parent: BorrowedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => beneath(parent, name),
        Err(error) => Err(error),
    }
}
