//! From a container in a pod's manifest, and the configuration of its image,
//! to the OCI specification that the launcher runs.
//!
//! [`container`] reads two files of the image at most (`/etc/passwd` and
//! `/etc/group`) and changes nothing; the same manifest, image and sandbox
//! always give the same specification. The rules are those of a Kubernetes
//! node: the API reference for the fields, kubelet for what it decides itself
//! (and for the texts of its errors), the OCI runtime specification for what
//! comes out.
//!
//! The launcher is already inside the pod's network, IPC and UTS namespaces,
//! so the specification names none of them.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use oci_spec::runtime::{
    Capabilities, Linux, LinuxDevice, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace,
    LinuxNamespaceType, Root, Spec,
};

use crate::oci::defaults;
use crate::pod::users::COUNT;
use crate::sys::cgroup::Controllers;
use serde::{Deserialize, Serialize};

pub mod downward;
pub mod env;
mod error;
pub mod files;
pub mod labels;
pub mod mounts;
pub mod process;
pub mod resources;
mod seccomp;
pub mod security;
pub mod sub_path;
pub mod user;

#[cfg(test)]
pub(super) mod fixture;

pub use error::SpecError;

/// The version of the OCI runtime specification that is written for.
const OCI_VERSION: &str = "1.0.2";

/// What an image says about the process it wants to be run
/// (OCI image specification, `config`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDefaults {
    /// `Entrypoint`: the program and its first arguments.
    pub entrypoint: Vec<String>,
    /// `Cmd`: arguments of the entrypoint, or the command when there is none.
    pub cmd: Vec<String>,
    /// `Env`: `NAME=value` each.
    pub env: Vec<String>,
    /// `User`: empty, or `user[:group]`, names or numbers.
    pub user: String,
    /// `WorkingDir`: empty for `/`.
    pub working_dir: String,
}

/// The process namespace that a container runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PidNamespace {
    /// A new one for each container.
    Own,
    /// The machine's (`hostPID: true`).
    Host,
    /// An existing one (`shareProcessNamespace: true`): the path of its file,
    /// for example `/proc/<pid>/ns/pid`.
    Path(PathBuf),
}

/// Users of a pod's own, [`COUNT`] of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// The file of the user namespace.
    pub namespace: PathBuf,
    /// The machine's id of the first.
    pub first: u32,
}

/// The place that has been made ready for the container: paths are absolute,
/// as the launcher sees them in the pod's mount namespace.
#[derive(Clone, Debug)]
pub struct Sandbox<'a> {
    /// The container's own root file system.
    pub rootfs: &'a Path,
    /// The directory in which each volume is mounted under its name.
    pub volumes: &'a Path,
    /// The directory in which the parts of volumes that this container gets
    /// (`subPath`) are mounted, each under the number of its volume mount.
    pub sub_paths: &'a Path,
    /// What becomes `/dev/shm`: the pod's, or the machine's with `hostIPC`.
    pub shm: &'a Path,
    /// The file that becomes `/etc/hosts` (see [`files::hosts`]).
    pub hosts: &'a Path,
    /// The file that becomes `/etc/resolv.conf` (see [`files::resolv_conf`]).
    pub resolv_conf: &'a Path,
    /// The file that becomes `/etc/hostname`.
    pub hostname_file: &'a Path,
    /// The host name in the pod's UTS namespace: the value of `HOSTNAME`.
    pub hostname: &'a str,
    /// The pod's cgroup, relative to the root of each hierarchy, for example
    /// `/orlop/pod<uid>`; the container's own lies in it under its name.
    pub cgroup_parent: &'a str,
    /// Whether the machine has the unified hierarchy alone.
    pub cgroup_v2: bool,
    /// What the control groups of containers can limit.
    pub controllers: Controllers,
    /// The process namespace to run in.
    pub pid_namespace: PidNamespace,
    /// The name of this node, for `spec.nodeName` in the environment.
    pub node_name: &'a str,
    /// The address of this node; also the pod's with `hostNetwork`.
    pub host_ip: &'a str,
    /// Processors of this node, in thousandths.
    pub cpu_capacity: u64,
    /// Memory of this node, in bytes.
    pub memory_capacity: u64,
    /// The launcher's own `oom_score_adj`: without `CAP_SYS_RESOURCE` no lower
    /// one can be given to a child.
    pub oom_score_adj: i32,
    /// The launcher's bounding set (see [`security::bounding`]): what there is
    /// to give away.
    pub capabilities: &'a Capabilities,
    /// The device nodes that privileged containers get (see
    /// [`security::host_devices`]). May be empty when none is privileged.
    pub host_devices: &'a [LinuxDevice],
    /// What the container's variables come from.
    pub references: &'a env::References,
    /// The directory of this machine's seccomp profiles.
    pub seccomp: &'a Path,
    /// The pod's own users (`hostUsers: false`).
    pub users: Option<Users>,
}

/// The specification of `container` of `pod`.
///
/// `image` is what the container's image asks for, `sandbox` the place made
/// ready for it, and `rootfs` an open descriptor of [`Sandbox::rootfs`], used
/// to look up users and groups.
///
/// # Errors
/// A manifest that this image or machine cannot satisfy. On a node this is
/// reported as `CreateContainerConfigError`, with the error's text as message.
pub fn container(
    pod: &Pod,
    container: &Container,
    image: &ImageDefaults,
    sandbox: &Sandbox,
    rootfs: BorrowedFd,
) -> Result<Spec, SpecError> {
    let pod_spec = pod_spec(pod)?;
    if !is_plain(&container.name) {
        return Err(SpecError::ContainerName(container.name.clone()));
    }
    let context = container.security_context.as_ref();
    let privileged = context.and_then(|c| c.privileged).unwrap_or(false);
    let read_only = context
        .and_then(|c| c.read_only_root_filesystem)
        .unwrap_or(false);

    let mut root = Root::default();
    root.set_path(sandbox.rootfs.to_path_buf())
        .set_readonly(Some(read_only));

    let mounts = mounts::mounts(pod_spec, container, sandbox, privileged, read_only)?;
    let unmasked = privileged
        || context.and_then(|c| c.proc_mount.as_deref()) == Some(security::UNMASKED_PROC);
    let (masked, protected) = if unmasked {
        (Vec::new(), Vec::new())
    } else {
        (defaults::masked_paths(), defaults::readonly_paths())
    };

    labels::se_linux(pod_spec, container)?;
    let process = process::process(pod, pod_spec, container, image, sandbox, rootfs)?;
    let bounding = process.capabilities().as_ref();
    let bounding = bounding.and_then(|sets| sets.bounding().as_ref());

    let mut linux = Linux::default();
    linux
        .set_seccomp(seccomp::profile(
            pod_spec,
            container,
            bounding,
            sandbox.seccomp,
        )?)
        .set_namespaces(Some(namespaces(sandbox, privileged)))
        .set_uid_mappings(sandbox.users.as_ref().map(mappings))
        .set_gid_mappings(sandbox.users.as_ref().map(mappings))
        .set_cgroups_path(Some(Path::new(sandbox.cgroup_parent).join(&container.name)))
        .set_resources(Some(resources::container(
            container,
            privileged,
            sandbox.cgroup_v2,
            sandbox.controllers,
        )))
        .set_devices(privileged.then(|| sandbox.host_devices.to_vec()))
        .set_rootfs_propagation(mounts::root_propagation(container).map(str::to_owned))
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(protected));

    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_hostname(None)
        .set_root(Some(root))
        .set_mounts(Some(mounts))
        .set_process(Some(process))
        .set_linux(Some(linux));
    Ok(spec)
}

/// Whether `name` can be the name of one file or directory.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

fn pod_spec(pod: &Pod) -> Result<&PodSpec, SpecError> {
    pod.spec.as_ref().ok_or(SpecError::NoPodSpec)
}

/// Which users of the machine are whose of the pod; groups are the same.
fn mappings(users: &Users) -> Vec<LinuxIdMapping> {
    let mapping = LinuxIdMappingBuilder::default()
        .container_id(0_u32)
        .host_id(users.first)
        .size(COUNT);
    let mapping = mapping.build();
    vec![mapping.unwrap_or_else(|_| unreachable!("every field is given"))]
}

/// The namespaces of one container beyond those the launcher already is in. A
/// privileged container sees the whole cgroup tree; so does every container
/// on cgroup v1, where the runtime binds the container's own part instead.
fn namespaces(sandbox: &Sandbox, privileged: bool) -> Vec<LinuxNamespace> {
    let namespace = |kind, path| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path);
        namespace
    };
    let mut namespaces = vec![namespace(LinuxNamespaceType::Mount, None)];
    if let Some(users) = &sandbox.users {
        let path = Some(users.namespace.clone());
        namespaces.push(namespace(LinuxNamespaceType::User, path));
    }
    match &sandbox.pid_namespace {
        PidNamespace::Own => namespaces.push(namespace(LinuxNamespaceType::Pid, None)),
        PidNamespace::Path(path) => {
            namespaces.push(namespace(LinuxNamespaceType::Pid, Some(path.clone())));
        }
        PidNamespace::Host => {}
    }
    if sandbox.cgroup_v2 && !privileged {
        namespaces.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    namespaces
}

#[cfg(test)]
mod tests;
