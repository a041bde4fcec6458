//! From a checked configuration to a process that waits for its start.
//!
//! The container's process is cloned straight into its PID namespace and its
//! control group, and makes the rest of its world itself: the other namespaces
//! and the root, then, with libcontainer's init, the user and the capabilities.
//! There is no process in between.
//!
//! The caller's process must have one thread. Nothing of it is changed that is
//! not changed back, so it may create several containers one after the other.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::container::{Container, ContainerStatus, State};
use libcontainer::hooks::run_hooks;
use libcontainer::notify_socket::NotifyListener;
use libcontainer::process::args::{ContainerArgs, ContainerType};
use libcontainer::process::channel::{self, InitReceiver, InitSender, MainReceiver, MainSender};
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::user_ns::UserNamespaceConfig;
use oci_spec::runtime::{Hooks, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, Spec};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Uid;

use super::cgroup::Entrance;
use super::child::{Beginning, become_container};
use super::confinement::Confinement;
use super::error::{OciError, sentence};
use super::executor::Execute;
use super::seccomp::Filter;
use super::users;
use crate::sys::clone::{CloneOptions, Cloned, clone_process};
use crate::sys::namespace::ForChildren;
use crate::sys::pidfd;

/// Standard streams of a container's process; `None` is the caller's own.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// An existing container that the process joins.
#[derive(Debug)]
pub(crate) struct Join<'a> {
    /// The container's init.
    pub init: &'a OwnedFd,
    /// The namespaces in which that differs from the caller.
    pub namespaces: &'a [LinuxNamespaceType],
}

/// Everything that a process needs to know to become a container's.
pub(crate) struct Launch<'a> {
    pub id: &'a str,
    pub spec: Spec,
    pub rootfs: PathBuf,
    /// Where relative paths of the configuration begin.
    pub bundle: &'a Path,
    /// Where to make the socket on which the process waits for its start.
    pub start_socket: PathBuf,
    pub entrance: Entrance,
    pub streams: Streams,
    /// A connection over which the terminal's master is sent.
    pub console: Option<OwnedFd>,
    pub preserve_fds: i32,
    pub no_pivot: bool,
    pub sibling: bool,
    pub join: Option<Join<'a>>,
    /// What decides over the program's system calls.
    pub filter: Option<Filter>,
}

/// A process that waits for its start.
#[derive(Debug)]
pub(crate) struct Launched {
    pub process: Cloned,
    /// Ends when the program has been executed, with the reason if it could
    /// not be.
    pub failure: OwnedFd,
}

/// What the two sides talk through; each closes the ends that it does not use.
pub(crate) struct Pipes {
    pub main_sender: MainSender,
    main_receiver: MainReceiver,
    pub init_sender: InitSender,
    pub init_receiver: InitReceiver,
    failure: OwnedFd,
    pub execute: Execute,
    /// Says that the user mappings have been made.
    pub mapped: (OwnedFd, Option<OwnedFd>),
}

/// Starts the process and waits until it is ready.
///
/// # Errors
/// [`OciError::Init`] with the process's own reason, [`OciError::Step`] for
/// what failed on this side. The process has ended then, and has been reaped
/// unless it is a sibling.
pub(crate) fn launch(launch: Launch<'_>) -> Result<Launched, OciError> {
    let without = callers_descriptors(&launch).map_err(OciError::step::<rustix::io::Errno>(
        "list the open descriptors",
    ))?;
    let linux = launch.spec.linux().as_ref();
    let namespaces = linux
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default();
    let find = |kind| {
        namespaces
            .iter()
            .find(|ns: &&LinuxNamespace| ns.typ() == kind)
    };
    let new = |kind| find(kind).is_some_and(|namespace| namespace.path().is_none());
    let new_user = new(LinuxNamespaceType::User);
    let new_pid = new(LinuxNamespaceType::Pid);

    let mut births = Vec::new();
    if let Some(path) = find(LinuxNamespaceType::Pid).and_then(|ns| ns.path().as_ref()) {
        births.push(
            ForChildren::join_pid(path).map_err(OciError::step::<io::Error>(format!(
                "join the PID namespace {path:?}"
            )))?,
        );
    }
    if let Some(join) = &launch.join
        && join.namespaces.contains(&LinuxNamespaceType::Pid)
    {
        births.push(
            ForChildren::join_pid_of(join.init).map_err(OciError::step::<io::Error>(
                "join the container's PID namespace",
            ))?,
        );
    }
    if new(LinuxNamespaceType::Time) {
        births.push(
            ForChildren::new_time(&time_offsets(&launch.spec)).map_err(OciError::step::<
                io::Error,
            >(
                "make a time namespace",
            ))?,
        );
    }

    let user_mappings = if new_user {
        let config = UserNamespaceConfig::new(&launch.spec).map_err(|error| {
            OciError::Unsupported(format!("linux.uidMappings: {}", sentence(&error)))
        })?;
        config.map(|config| (config, id_maps(&launch.spec)))
    } else {
        None
    };
    let streams = Streams {
        stdin: above_standard(launch.streams.stdin)?,
        stdout: above_standard(launch.streams.stdout)?,
        stderr: above_standard(launch.streams.stderr)?,
    };
    hand_over(&launch.spec, &streams);
    let mut pipes = Pipes::new()?;
    let listener = NotifyListener::new(&launch.start_socket).map_err(|error| {
        let socket = &launch.start_socket;
        OciError::step::<io::Error>(format!("make {socket:?}"))(io::Error::other(sentence(&error)))
    })?;
    let raw = |fd: &Option<OwnedFd>| fd.as_ref().map(|fd| fd.as_raw_fd());
    let state = hook_state(launch.id, &launch.spec, launch.bundle, None);
    let new = launch.join.is_none();
    if new {
        pipes.execute.first_of(&launch.spec, &state.state);
    }
    let mut rest = remainder(&launch.spec);
    if let (Some(filter), Some(process)) = (launch.filter, rest.process_mut()) {
        pipes.execute.confine(Confinement::new(filter, process));
    }
    let args = ContainerArgs {
        // The namespaces and the root are there when libcontainer takes over,
        // as they are for a process that joins a container.
        container_type: ContainerType::TenantContainer { exec_notify_fd: -1 },
        syscall: SyscallType::Linux,
        spec: Rc::new(rest),
        rootfs: launch.rootfs,
        console_socket: raw(&launch.console).filter(|_| !new),
        notify_listener: listener,
        preserve_fds: launch.preserve_fds,
        container: Some(state),
        user_ns_config: user_mappings.as_ref().map(|(config, _)| config.clone()),
        // libcontainer's own cgroup code is not used.
        cgroup_config: libcgroups::common::CgroupConfig {
            cgroup_path: PathBuf::new(),
            systemd_cgroup: false,
            container_name: launch.id.to_owned(),
        },
        detached: true,
        executor: Box::new(pipes.execute.clone()),
        no_pivot: launch.no_pivot,
        stdin: None,
        stdout: None,
        stderr: None,
        as_sibling: launch.sibling,
        pid_file: None,
    };

    let options = CloneOptions {
        new_user,
        new_pid,
        sibling: launch.sibling,
        cgroup: match &launch.entrance {
            Entrance::Birth(directory) => Some(directory.as_fd()),
            Entrance::Moves(_) => None,
        },
        without: &without,
    };
    // The streams go with it: this side has no use for them.
    let child = || {
        become_container(
            Beginning {
                args: &args,
                spec: &launch.spec,
                entrance: &launch.entrance,
                bundle: launch.bundle,
                join: launch.join.as_ref(),
                new_user,
                streams,
                console: launch.console.as_ref(),
            },
            &mut pipes,
        )
    };
    let process = clone_process(options, child)
        .map_err(OciError::step::<io::Error>("start the container's process"))?;
    drop(births);

    let outcome = accompany(
        &mut pipes,
        launch.id,
        launch
            .spec
            .hooks()
            .as_ref()
            .filter(|_| new)
            .map(|hooks| (hooks, &launch.spec)),
        &process,
        launch.bundle,
        user_mappings.map(|(_, maps)| maps),
    );
    // It holds the failure pipe's writing end: the last one on this side goes
    // before anybody waits for the pipe to end.
    drop(args);
    pipes.conclude(outcome, process, launch.sibling)
}

/// This side of the conversation, up to the process's readiness.
fn accompany(
    pipes: &mut Pipes,
    id: &str,
    hooks: Option<(&Hooks, &Spec)>,
    process: &Cloned,
    bundle: &Path,
    maps: Option<[(&'static str, String); 2]>,
) -> Result<(), Trouble> {
    let broken = |_| Trouble::Theirs;
    pipes.main_sender.close().map_err(broken)?;
    if let Some(maps) = maps {
        for (file, map) in maps {
            let path = format!("/proc/{}/{file}", process.pid);
            fs::write(&path, map).map_err(|error| {
                Trouble::Ours(format!("cannot write {path}: {}", sentence(&error)))
            })?;
        }
        if let Some(ours) = pipes.mapped.1.take() {
            rustix::io::write(ours, b"0").map_err(|error| Trouble::Ours(sentence(&error)))?;
        }
    }
    if let Some((hooks, spec)) = hooks {
        pipes
            .main_receiver
            .wait_for_hook_request()
            .map_err(broken)?;
        let state = hook_state(id, spec, bundle, Some(process.pid)).state;
        for (name, hooks) in [
            ("prestart", hooks.prestart().as_ref()),
            ("createRuntime", hooks.create_runtime().as_ref()),
        ] {
            run_hooks(hooks, Some(&state), None, None, None).map_err(|error| {
                Trouble::Ours(format!("{name} hook failed: {}", sentence(&error)))
            })?;
        }
        pipes.init_sender.hook_done().map_err(broken)?;
    }
    pipes.main_receiver.wait_for_init_ready().map_err(broken)
}

/// Whose reason is the one to report.
enum Trouble {
    Ours(String),
    Theirs,
}

impl Pipes {
    fn new() -> Result<Self, OciError> {
        let pipe = || {
            pipe_with(PipeFlags::CLOEXEC)
                .map_err(OciError::step::<rustix::io::Errno>("make a pipe"))
        };
        let channel = |error| {
            OciError::step::<io::Error>("make a socket pair")(io::Error::other(sentence(&error)))
        };
        let (main_sender, main_receiver) = channel::main_channel().map_err(channel)?;
        let (init_sender, init_receiver) = channel::init_channel().map_err(channel)?;
        let (failure, write) = pipe()?;
        let (mapped, map) = pipe()?;
        Ok(Self {
            main_sender,
            main_receiver,
            init_sender,
            init_receiver,
            failure,
            execute: Execute::new(write),
            mapped: (mapped, Some(map)),
        })
    }

    /// Closes this side's ends and turns the outcome into a result.
    fn conclude(
        self,
        outcome: Result<(), Trouble>,
        process: Cloned,
        sibling: bool,
    ) -> Result<Launched, OciError> {
        // These were open; closing them cannot fail in a way that matters.
        let _ = self.main_receiver.close();
        let _ = self.init_sender.close();
        let _ = self.init_receiver.close();
        drop(self.execute);
        let failure = self.failure;
        let Err(trouble) = outcome else {
            return Ok(Launched { process, failure });
        };
        if let Trouble::Ours(_) = trouble {
            // It may have ended by itself.
            let _ = pidfd::send_signal(&process.pidfd, 9);
        }
        let mut theirs = String::new();
        // What cannot be read is as good as not written.
        let _ = fs::File::from(failure).read_to_string(&mut theirs);
        let reason = match trouble {
            Trouble::Ours(reason) => reason,
            Trouble::Theirs if theirs.is_empty() => {
                "the container's process was killed while it was being set up".into()
            }
            Trouble::Theirs => theirs,
        };
        if !sibling {
            // As our child it cannot have been reaped by anybody else.
            let _ = pidfd::wait(&process.pidfd);
        }
        Err(OciError::Init {
            reason,
            sibling: sibling.then_some(process.pid),
        })
    }
}

/// The descriptors of the caller that are none of the container's business. All
/// of them would close when the program is executed, but until then the process
/// may wait for its start for a long time.
fn callers_descriptors(launch: &Launch<'_>) -> rustix::io::Result<Vec<RawFd>> {
    let given = |fd: &Option<OwnedFd>| fd.as_ref().map(AsRawFd::as_raw_fd);
    let entrance: Vec<RawFd> = match &launch.entrance {
        Entrance::Birth(directory) => vec![directory.as_raw_fd()],
        Entrance::Moves(files) => files.iter().map(AsRawFd::as_raw_fd).collect(),
    };
    let streams = &launch.streams;
    let needed: Vec<RawFd> = [
        &streams.stdin,
        &streams.stdout,
        &streams.stderr,
        &launch.console,
    ]
    .into_iter()
    .filter_map(given)
    .chain(entrance)
    .chain(launch.join.as_ref().map(|join| join.init.as_raw_fd()))
    .collect();
    // Sockets handed over by a service manager come first (sd_listen_fds(3)).
    let listen = std::env::var("LISTEN_FDS").ok();
    let listen = listen.and_then(|count| count.parse().ok()).unwrap_or(0);
    let preserved = 3..3_i32
        .saturating_add(launch.preserve_fds)
        .saturating_add(listen);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listing = Dir::new(rustix::fs::open("/proc/self/fd", flags, Mode::empty())?)?;
    let own = listing.fd()?.as_raw_fd();
    let mut open = Vec::new();
    for entry in listing {
        let number = entry?.file_name().to_string_lossy().parse().unwrap_or(0);
        let used = preserved.contains(&number) || needed.contains(&number);
        if number > 2 && number != own && !used {
            open.push(number);
        }
    }
    Ok(open)
}

/// Descriptors 0 to 2 are about to be replaced: keep the given ones clear.
fn above_standard(fd: Option<OwnedFd>) -> Result<Option<OwnedFd>, OciError> {
    match fd {
        Some(fd) if fd.as_raw_fd() < 3 => rustix::io::fcntl_dupfd_cloexec(&fd, 3)
            .map(Some)
            .map_err(OciError::step::<rustix::io::Errno>(
                "duplicate a standard stream",
            )),
        fd => Ok(fd),
    }
}

/// Gives the pipes among the streams to the container's user, who otherwise
/// could not open `/dev/stdout`.
fn hand_over(spec: &Spec, streams: &Streams) {
    let Some(user) = spec.process().as_ref().map(|process| process.user()) else {
        return;
    };
    // Nobody whom the machine knows cannot be given anything.
    let Some(owner) = users::on_host(spec, user.uid()).filter(|owner| *owner != 0) else {
        return;
    };
    let stream = |given: &Option<OwnedFd>, own: &dyn AsFd| {
        let fd = given.as_ref().map_or(own.as_fd(), AsFd::as_fd);
        let is_pipe = rustix::fs::fstat(fd)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if is_pipe {
            // A pipe on a read-only file system stays as it is.
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(owner)), None);
        }
    };
    stream(&streams.stdin, &io::stdin());
    stream(&streams.stdout, &io::stdout());
    stream(&streams.stderr, &io::stderr());
}

/// What libcontainer is left to do: everything that is about the process.
fn remainder(spec: &Spec) -> Spec {
    let mut rest = spec.clone();
    rest.set_mounts(None).set_hooks(None);
    if let Some(linux) = rest.linux_mut() {
        linux.set_namespaces(None).set_seccomp(None);
    }
    rest
}

pub(crate) fn hook_state(id: &str, spec: &Spec, bundle: &Path, pid: Option<i32>) -> Container {
    let mut state = State::new(id, ContainerStatus::Creating, pid, bundle.to_owned());
    state.annotations = spec.annotations().clone();
    Container {
        state,
        root: PathBuf::new(),
    }
}

fn id_maps(spec: &Spec) -> [(&'static str, String); 2] {
    let lines = |maps: &Option<Vec<LinuxIdMapping>>| -> String {
        maps.iter()
            .flatten()
            .map(|map| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size()))
            .collect()
    };
    let linux = spec.linux().as_ref();
    let uid = linux.map(|linux| lines(linux.uid_mappings()));
    let gid = linux.map(|linux| lines(linux.gid_mappings()));
    [
        ("uid_map", uid.unwrap_or_default()),
        ("gid_map", gid.unwrap_or_default()),
    ]
}

fn time_offsets(spec: &Spec) -> String {
    let offsets = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.time_offsets().as_ref());
    offsets
        .into_iter()
        .flatten()
        .map(|(clock, offset)| {
            let (seconds, nanos) = (offset.secs(), offset.nanosecs());
            format!("{clock} {} {}\n", seconds.unwrap_or(0), nanos.unwrap_or(0))
        })
        .collect()
}
