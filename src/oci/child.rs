//! The new process's side of a launch: what it does between being cloned and
//! handing over to libcontainer's init, and the one sentence it leaves behind
//! when it fails.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use libcontainer::process::args::ContainerArgs;
use libcontainer::process::init::container_init_process;
use libcontainer::process::init::error::InitProcessError;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::process::{DumpableBehavior, Gid, Uid, set_dumpable_behavior};
use rustix::thread::{
    ThreadNameSpaceType, move_into_thread_name_spaces, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::adapt::is_bind;
use super::cgroup::Entrance;
use super::error::sentence;
use super::launch::{Join, Pipes};

/// The new process's side: ends in the user's program, or in a reason why not.
pub(crate) fn become_container(
    args: &ContainerArgs,
    pipes: &mut Pipes,
    entrance: &Entrance,
    bundle: &Path,
    join: Option<&Join<'_>>,
    new_user: bool,
) -> i32 {
    // If the creator dies, the wait for its mappings has to end.
    pipes.mapped.1 = None;
    let prepared = prepare(
        args,
        entrance,
        bundle,
        join,
        new_user.then_some(&pipes.mapped.0),
    );
    let failed = prepared.and_then(|()| {
        // Its own end: whoever is left holding the other must see it close.
        pipes
            .init_sender
            .close()
            .map_err(|error| sentence(&error))?;
        container_init_process(args, &mut pipes.main_sender, &mut pipes.init_receiver)
            .map_err(|error| describe(&error, &args.spec))
    });
    if let Err(reason) = failed {
        pipes.execute.report(&reason);
    }
    255
}

fn prepare(
    args: &ContainerArgs,
    entrance: &Entrance,
    bundle: &Path,
    join: Option<&Join<'_>>,
    mapped: Option<&OwnedFd>,
) -> Result<(), String> {
    let failed =
        |what: &'static str| move |error: io::Error| format!("cannot {what}: {}", sentence(&error));
    let errno = |what| move |error: rustix::io::Errno| failed(what)(error.into());
    entrance
        .walk_in()
        .map_err(failed("enter the container's cgroup"))?;
    if let Some(process) = args.spec.process() {
        if let Some(score) = process.oom_score_adj() {
            fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(|error| {
                format!(
                    "cannot set process.oomScoreAdj to {score}: {}",
                    sentence(&error)
                )
            })?;
        }
        let syscall = args.syscall.create_syscall();
        for limit in process.rlimits().iter().flatten() {
            syscall.set_rlimit(limit).map_err(|error| {
                format!(
                    "cannot set process.rlimits {:?}: {}",
                    limit.typ(),
                    sentence(&error)
                )
            })?;
        }
    }
    // From here on processes of the container may see this one: they must not
    // get at the host through it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(errno("make the process undumpable"))?;
    match join {
        Some(join) => enter(join)?,
        None => {
            std::env::set_current_dir(bundle).map_err(failed("change to the bundle"))?;
            check_sources(&args.spec)?;
        }
    }
    if let Some(mapped) = mapped {
        let mut answer = [0];
        let got = rustix::io::read(mapped, &mut answer).map_err(errno("wait for user mappings"))?;
        if got == 0 {
            return Err("no user mappings were made".into());
        }
    }
    let own_users = mapped.is_some()
        || join.is_some_and(|join| join.namespaces.contains(&LinuxNamespaceType::User));
    if own_users {
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(errno("become group 0"))?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(errno("become user 0"))?;
    }
    match set_thread_groups(&[]) {
        // Where groups may not be set, they may not be kept for use either.
        Err(rustix::io::Errno::PERM) if own_users => Ok(()),
        other => other.map_err(errno("drop the caller's groups")),
    }
}

fn enter(join: &Join<'_>) -> Result<(), String> {
    let flag = |kind: &LinuxNamespaceType| match kind {
        LinuxNamespaceType::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
        LinuxNamespaceType::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
        LinuxNamespaceType::Mount => ThreadNameSpaceType::MOUNT,
        LinuxNamespaceType::Network => ThreadNameSpaceType::NETWORK,
        LinuxNamespaceType::Time => ThreadNameSpaceType::TIME,
        LinuxNamespaceType::User => ThreadNameSpaceType::USER,
        LinuxNamespaceType::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
        // Entered by being born in it.
        LinuxNamespaceType::Pid => ThreadNameSpaceType::empty(),
    };
    let all: ThreadNameSpaceType = join.namespaces.iter().map(flag).collect();
    if all.is_empty() {
        return Ok(());
    }
    move_into_thread_name_spaces(join.init.as_fd(), all).map_err(|error| {
        format!(
            "cannot enter the container's namespaces: {}",
            sentence(&error)
        )
    })
}

/// A bind mount without a source is the commonest mistake: name it.
fn check_sources(spec: &Spec) -> Result<(), String> {
    for mount in spec
        .mounts()
        .iter()
        .flatten()
        .filter(|mount| is_bind(mount))
    {
        let destination = mount.destination();
        let Some(source) = mount.source() else {
            return Err(format!("mount of {destination:?} has no source"));
        };
        fs::metadata(source).map_err(|error| {
            format!(
                "mount source {source:?} for {destination:?}: {}",
                sentence(&error)
            )
        })?;
    }
    Ok(())
}

/// One sentence for what libcontainer's init reports.
fn describe(error: &InitProcessError, spec: &Spec) -> String {
    let process = spec.process().as_ref();
    match (error, process) {
        (InitProcessError::WorkloadValidation(_) | InitProcessError::Workload(_), _) => {
            sentence(error)
        }
        (InitProcessError::NixOther(cause), Some(process)) => {
            format!(
                "cannot change to the working directory {:?}: {}",
                process.cwd(),
                sentence(cause)
            )
        }
        (InitProcessError::InvalidCwd(cause), Some(process)) => {
            format!(
                "the working directory {:?} is outside the container: {}",
                process.cwd(),
                sentence(cause)
            )
        }
        (InitProcessError::RootFS(cause), _) => {
            format!("cannot set up the root file system: {}", sentence(cause))
        }
        (error, _) => sentence(error),
    }
}
