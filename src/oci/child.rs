//! The new process's side of a launch: what it does between being cloned and
//! handing over to libcontainer's init, and the one sentence it leaves behind
//! when it fails.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use libcontainer::hooks::run_hooks;
use libcontainer::process::args::ContainerArgs;
use libcontainer::process::init::container_init_process;
use libcontainer::process::init::error::InitProcessError;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::process::{DumpableBehavior, Uid, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces, set_thread_groups};

use super::cgroup::Entrance;
use super::error::sentence;
use super::launch::{Join, Pipes, Streams};
use super::namespaces;
use super::rootfs::{Lent, Root, RootfsError};
use super::users;

/// What the new process is told.
pub(crate) struct Beginning<'a> {
    /// For libcontainer, which does what is about the process alone.
    pub args: &'a ContainerArgs,
    pub spec: &'a Spec,
    pub entrance: &'a Entrance,
    pub bundle: &'a Path,
    pub join: Option<&'a Join<'a>>,
    pub new_user: bool,
    pub streams: Streams,
    pub console: Option<&'a OwnedFd>,
}

/// The new process's side: ends in the user's program, or in a reason why not.
pub(crate) fn become_container(mut beginning: Beginning<'_>, pipes: &mut Pipes) -> i32 {
    // If the creator dies, the wait for its mappings has to end.
    pipes.mapped.1 = None;
    let streams = std::mem::take(&mut beginning.streams);
    let begun = prepare(
        beginning.args,
        beginning.entrance,
        beginning.bundle,
        beginning.join,
        beginning.new_user.then_some(&pipes.mapped.0),
    )
    .and_then(|()| connect(streams))
    .and_then(|()| match beginning.join {
        Some(_) => Ok(()),
        None => settle(&beginning, pipes),
    });
    let args = beginning.args;
    let failed = begun.and_then(|()| {
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

fn connect(streams: Streams) -> Result<(), String> {
    let Streams {
        stdin,
        stdout,
        stderr,
    } = streams;
    stdin
        .map_or(Ok(()), rustix::stdio::dup2_stdin)
        .and_then(|()| stdout.map_or(Ok(()), rustix::stdio::dup2_stdout))
        .and_then(|()| stderr.map_or(Ok(()), rustix::stdio::dup2_stderr))
        .map_err(|error| format!("cannot connect the standard streams: {}", sentence(&error)))
}

/// Makes the container's namespaces and root, and moves in.
fn settle(beginning: &Beginning<'_>, pipes: &mut Pipes) -> Result<(), String> {
    let Beginning { spec, args, .. } = *beginning;
    let failed = |error: RootfsError| format!("cannot set up the root file system: {error}");
    let unbuilt = |error: RootfsError| match error {
        // Nothing about the root is wrong then.
        error @ RootfsError::Source { .. } => error.to_string(),
        error => failed(error),
    };
    namespaces::join(spec)?;
    let lent = match users::joined(spec) {
        Some(path) => {
            let lent = Lent::of(spec, &args.rootfs).map_err(unbuilt)?;
            users::enter(path)?;
            Some(lent)
        }
        None => None,
    };
    namespaces::make(spec)?;
    let root = Root::build(spec, &args.rootfs, lent).map_err(unbuilt)?;
    if let Some(hooks) = spec.hooks() {
        // The creator runs those that belong outside, then it is our turn.
        pipes
            .main_sender
            .hook_request()
            .map_err(|error| sentence(&error))?;
        pipes
            .init_receiver
            .wait_for_hook_request_done()
            .map_err(|error| sentence(&error))?;
        let state = args.container.as_ref().map(|container| &container.state);
        run_hooks(hooks.create_container().as_ref(), state, None, None, None)
            .map_err(|error| format!("createContainer hook failed: {}", sentence(&error)))?;
    }
    if let Some(socket) = beginning.console {
        root.make_console(socket.as_fd()).map_err(failed)?;
        let user = spec.process().as_ref().map(|process| process.user());
        if let Some(user) = user.filter(|user| user.uid() != 0) {
            // Without it a user that is not root could not open its own terminal.
            let owner = Some(Uid::from_raw(user.uid()));
            rustix::fs::fchown(rustix::stdio::stdin(), owner, None).map_err(|error| {
                format!("cannot give the terminal to its user: {}", sentence(&error))
            })?;
        }
    }
    root.enter(args.no_pivot).map_err(failed)
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
        return users::become_root();
    }
    set_thread_groups(&[]).map_err(errno("drop the caller's groups"))
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
        (error, _) => sentence(error),
    }
}
