//! The start of a container, done in a worker.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use oci_spec::runtime::Spec;

use super::exec::Console;
use super::sandbox::Sandbox;
use super::users::Users;
use super::{Started, app_armor, termination};
use crate::oci;
use crate::pod::home::Home;
use crate::pod::protocol::{ContainerOrder, Failure, FailureKind, files};
use crate::pod::spec;
use crate::volume::sub_path::SubPathError;

/// Makes and starts a container. `stdio` are its stdout, its stderr and, if it
/// has one, its stdin; with a terminal there are none, and the terminal's other
/// side is returned.
pub(super) fn start(
    home: &Home,
    sandbox: &Sandbox,
    order: &ContainerOrder,
    rootfs: &OwnedFd,
    stdio: Vec<OwnedFd>,
) -> Result<Started, Failure> {
    let spec = specification(home, sandbox, order, rootfs)
        .map_err(|error| Failure::new(FailureKind::Config, &error))?;
    let bundle = home.bundle(&order.name);
    write_bundle(&bundle, &spec).map_err(|error| Failure::new(FailureKind::Create, &error))?;

    let create = |error| Failure::new(FailureKind::Create, &error);
    let terminal = spec
        .process()
        .as_ref()
        .is_some_and(|process| process.terminal() == Some(true));
    let console = terminal
        .then(|| Console::listen(home))
        .transpose()
        .map_err(create)?;
    let mut stdio = stdio.into_iter();
    let (stdout, stderr, stdin) = (stdio.next(), stdio.next(), stdio.next());
    let created = oci::container::create(oci::container::Create {
        id: &order.id,
        bundle: &bundle,
        spec: &spec,
        state_root: &home.state(),
        stdin: Some(stdin.map_or_else(nothing, Ok).map_err(create)?),
        stdout,
        stderr,
        console_socket: console.as_ref().map(|console| console.path.clone()),
        as_sibling: true,
    });
    let created =
        created.map_err(|error| Failure::new(FailureKind::Start, &anyhow::Error::from(error)))?;
    oci::container::start(&home.state(), &order.id)
        .map_err(|error| Failure::new(FailureKind::Start, &anyhow::Error::from(error)))?;
    let mut descriptors = vec![created.exec_failure];
    if let Some(console) = console {
        descriptors.push(console.terminal().map_err(create)?);
    }
    Ok((created.pid, descriptors))
}

fn specification(
    home: &Home,
    sandbox: &Sandbox,
    order: &ContainerOrder,
    rootfs: &OwnedFd,
) -> Result<Spec> {
    let pod_spec = sandbox.pod.spec.as_ref();
    let init = pod_spec.and_then(|spec| spec.init_containers.as_ref());
    let proper = pod_spec.map(|spec| &spec.containers);
    let container = init
        .into_iter()
        .chain(proper)
        .flatten()
        .find(|container| container.name == order.name);
    let container =
        container.ok_or_else(|| anyhow!("the pod has no container {:?}", order.name))?;
    let mounts = home.mounts();
    let sub_paths = sandbox.sub_paths(&order.name);
    let [hosts, resolv_conf, hostname_file] = files(&home.run());
    let place = spec::Sandbox {
        rootfs: &mounts.join("rootfs").join(&order.name),
        volumes: &mounts.join("volumes"),
        sub_paths: &mounts.join(&sub_paths),
        shm: &mounts.join("shm"),
        hosts: &hosts,
        resolv_conf: &resolv_conf,
        hostname_file: &hostname_file,
        hostname: &sandbox.hostname,
        cgroup_parent: &home.cgroup(),
        cgroup_v2: sandbox.cgroup_v2,
        controllers: sandbox.controllers,
        pid_namespace: sandbox.pid_namespace(),
        node_name: &sandbox.node_name,
        host_ip: &sandbox.host_ip,
        cpu_capacity: sandbox.cpu_capacity,
        memory_capacity: sandbox.memory_capacity,
        oom_score_adj: oom_score_adj()?,
        capabilities: &sandbox.capabilities,
        host_devices: &sandbox.host_devices,
        references: &order.references,
        seccomp: &home.roots.seccomp(),
        users: sandbox.users.as_ref().map(Users::of_containers),
    };
    for part in spec::sub_path::all(&sandbox.pod, container, &place)? {
        sandbox
            .attach_sub_path(&sub_paths, part.index, part.volume, &part.path)
            .map_err(|error| {
                let cause = error.downcast_ref::<SubPathError>();
                let step = match cause.is_some_and(SubPathError::is_about_making) {
                    true => "create subPath directory",
                    false => "prepare subPath",
                };
                let (volume, container) = (part.volume, &container.name);
                error.context(format!(
                    "failed to {step} for volumeMount {volume:?} of container {container:?}"
                ))
            })?;
    }
    let mut spec = spec::container(
        &sandbox.pod,
        container,
        &order.defaults,
        &place,
        rootfs.as_fd(),
    )?;
    let process = spec.process().as_ref();
    if let Some(profile) = process.and_then(|process| process.apparmor_profile().as_deref()) {
        app_armor::provide(profile)?;
    }
    termination::mount(home, order, container, &mut spec)?;
    if let Some(linux) = spec.linux_mut() {
        // A group of its own for each start: the one before may still be going.
        linux.set_cgroups_path(Some(PathBuf::from(home.container_cgroup(&order.id))));
    }
    Ok(spec)
}

fn oom_score_adj() -> Result<i32> {
    let text = fs::read_to_string("/proc/self/oom_score_adj")
        .context("cannot read the launcher's own oom_score_adj")?;
    Ok(text.trim().parse()?)
}

fn write_bundle(bundle: &Path, spec: &Spec) -> Result<()> {
    fs::create_dir_all(bundle).context("cannot make the container's bundle")?;
    let config = serde_json::to_vec(spec)?;
    fs::write(bundle.join("config.json"), config).context("cannot write the container's bundle")
}

fn nothing() -> Result<OwnedFd> {
    Ok(fs::File::open("/dev/null")
        .context("cannot open /dev/null")?
        .into())
}
