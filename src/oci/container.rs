//! One container's life: create, start, exec, kill, delete.
//!
//! [`create`] and [`exec`] clone the calling process, so it must have a single
//! thread. Whatever fails on the way is taken back: no control group, no
//! directory and no process of a container remain that could not be created.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use libcontainer::hooks::run_hooks;
use oci_spec::runtime::{Hook, LinuxBuilder, LinuxNamespaceType, Process, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::adapt::{adapt, add_home, make_working_directory};
use super::cgroup::Cgroup;
use super::config::{self, FILE};
use super::devices;
use super::error::{OciError, sentence};
use super::launch::{Join, Launch, Launched, Streams, hook_state, launch};
use super::limits;
use super::seccomp::Filter;
use super::state::{Entry, Record, START_SOCKET, Status, start_time};
use super::systemd::{Placeholder, Scope};
use super::users;
use crate::sys::file_user::with_files_for;
use crate::sys::pidfd;

/// How long a killed init may take to die before giving up on it.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// A container to be created.
#[derive(Debug)]
pub struct Create<'a> {
    /// Its id: a plain file name, unique below `state_root`.
    pub id: &'a str,
    /// Its bundle, an absolute path; relative paths in `spec` begin there.
    pub bundle: &'a Path,
    /// Its configuration; `config.json` is not read again.
    pub spec: &'a Spec,
    /// The directory below which its record is kept.
    pub state_root: &'a Path,
    /// Its standard input; the caller's own without one.
    pub stdin: Option<OwnedFd>,
    /// Its standard output; the caller's own without one.
    pub stdout: Option<OwnedFd>,
    /// Its standard error; the caller's own without one.
    pub stderr: Option<OwnedFd>,
    /// The socket that receives its terminal's master, if it has a terminal.
    pub console_socket: Option<PathBuf>,
    /// Make its init a child of the caller's parent.
    pub as_sibling: bool,
}

/// What few callers of [`create_with`] need.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// How many descriptors from 3 on the program inherits.
    pub preserve_fds: u32,
    /// Move the root instead of pivoting to it: for roots on a ramfs.
    pub no_pivot: bool,
    /// Have systemd make the control group.
    pub systemd_cgroup: bool,
}

/// A process to be run in a container.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The directory below which its record is kept.
    pub state_root: &'a Path,
    /// What to run and as whom.
    pub process: &'a Process,
    /// Its standard input; the caller's own without one.
    pub stdin: Option<OwnedFd>,
    /// Its standard output; the caller's own without one.
    pub stdout: Option<OwnedFd>,
    /// Its standard error; the caller's own without one.
    pub stderr: Option<OwnedFd>,
    /// The socket that receives its terminal's master, if it has a terminal.
    pub console_socket: Option<PathBuf>,
    /// Make it a child of the caller's parent.
    pub as_sibling: bool,
}

/// A process in a container.
#[derive(Debug)]
pub struct Created {
    /// Its process id as the caller sees it.
    pub pid: i32,
    /// A descriptor for it.
    pub pidfd: OwnedFd,
    /// The reading end of a pipe. It ends as soon as the program has been
    /// executed (or the process died before that); if it could not be executed,
    /// one sentence comes first that says why.
    pub exec_failure: OwnedFd,
}

impl From<Launched> for Created {
    fn from(launched: Launched) -> Self {
        Self {
            pid: launched.process.pid,
            pidfd: launched.process.pidfd,
            exec_failure: launched.failure,
        }
    }
}

/// Creates a container: its process is there, in its own world, and waits for
/// [`start`].
///
/// # Errors
/// One sentence that names the field, path or program at fault. With
/// `as_sibling` an [`OciError::Init`] names the process for the caller's parent
/// to reap.
pub fn create(container: Create<'_>) -> Result<Created, OciError> {
    create_with(container, Options::default())
}

/// [`create`] with all options.
///
/// # Errors
/// As [`create`].
pub fn create_with(container: Create<'_>, options: Options) -> Result<Created, OciError> {
    let config_file = container.bundle.join(FILE);
    config::check(container.spec, &config_file)?;
    let process = container.spec.process().as_ref();
    let terminal = process.and_then(Process::terminal).unwrap_or(false);
    check_console(terminal, container.console_socket.as_deref())?;
    let root = container.spec.root().as_ref();
    let path = container
        .bundle
        .join(root.map_or(Path::new(""), |root| root.path()));
    let rootfs = path.canonicalize().map_err(|error| OciError::Config {
        path: config_file,
        reason: format!("field \"root.path\": {path:?}: {}", sentence(&error)),
    })?;
    let linux = container.spec.linux().as_ref();
    let group = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let scope = match options.systemd_cgroup {
        true => Some(Scope::parse(group, container.id)?),
        false => None,
    };
    let place = scope.as_ref().map(Scope::path);
    let cgroup = Cgroup::locate(place.as_deref().or(group), container.id)?;

    let seccomp = linux.and_then(|linux| linux.seccomp().as_ref());
    let filter = seccomp.map(Filter::compile).transpose()?;

    let entry = Entry::new(container.state_root, container.id)?;
    entry.claim()?;
    let record = Record {
        oci_version: container.spec.version().clone(),
        id: container.id.to_owned(),
        pid: 0,
        start_time: 0,
        bundle: container.bundle.to_owned(),
        rootfs,
        created: Timestamp::now(),
        annotations: container.spec.annotations().clone().unwrap_or_default(),
        namespaces: linux
            .and_then(|linux| linux.namespaces().as_ref())
            .map(|all| all.iter().map(|namespace| namespace.typ()).collect())
            .unwrap_or_default(),
        cgroup,
        scope,
        hooks: container.spec.hooks().clone(),
    };
    let placeholder = hold(&container, &entry, &record).inspect_err(|_| {
        // Nothing else has been made: a scope that was there is somebody else's. The
        // first failure is the one to report.
        let _ = entry.remove();
    })?;
    let created = build(container, options, filter, &entry, &record);
    drop(placeholder);
    if created.is_err() {
        let _ = remove_group(&record);
        let _ = entry.remove();
    }
    created
}

/// Writes the record, and has systemd make the scope if there is to be one.
fn hold(
    container: &Create<'_>,
    entry: &Entry,
    record: &Record,
) -> Result<Option<Placeholder>, OciError> {
    entry.save(record)?;
    let Some(scope) = &record.scope else {
        return Ok(None);
    };
    let linux = container.spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    scope
        .start(container.id, &record.cgroup, resources)
        .map(Some)
}

fn build(
    container: Create<'_>,
    options: Options,
    filter: Option<Filter>,
    entry: &Entry,
    record: &Record,
) -> Result<Created, OciError> {
    if let Some(filter) = &filter {
        filter.save(&entry.directory)?;
    }
    record.cgroup.create()?;
    let linux = container.spec.linux().as_ref();
    if let Some(resources) = linux.and_then(|linux| linux.resources().as_ref()) {
        limits::apply(&record.cgroup, resources)?;
        devices::apply(
            &record.cgroup,
            resources.devices().as_deref().unwrap_or_default(),
        )?;
    }
    let spec = adapt(container.spec, &record.cgroup, &record.rootfs);
    let make = || make_working_directory(&spec, &record.rootfs);
    match users::mapped_root(&spec) {
        None => make(),
        Some((user, group)) => {
            with_files_for(user, group, make).map_err(OciError::step::<io::Error>(
                "make the working directory for the container's root",
            ))?
        }
    }
    let launched = launch(Launch {
        id: container.id,
        spec,
        rootfs: record.rootfs.clone(),
        bundle: container.bundle,
        start_socket: entry.directory.join(START_SOCKET),
        entrance: record.cgroup.entrance()?,
        streams: Streams {
            stdin: container.stdin,
            stdout: container.stdout,
            stderr: container.stderr,
        },
        console: container
            .console_socket
            .as_deref()
            .map(connect_to)
            .transpose()?,
        preserve_fds: i32::try_from(options.preserve_fds).unwrap_or(i32::MAX),
        no_pivot: options.no_pivot,
        sibling: container.as_sibling,
        join: None,
        filter,
    })?;
    let saved = start_time(launched.process.pid)
        .ok_or(OciError::NotRunning)
        .and_then(|started| {
            entry.save(&Record {
                pid: launched.process.pid,
                start_time: started,
                ..record.clone()
            })
        });
    match saved {
        Ok(()) => Ok(launched.into()),
        Err(error) => {
            // It may be dead already; nothing else can be wrong with our child.
            let _ = pidfd::send_signal(&launched.process.pidfd, 9);
            if !container.as_sibling {
                let _ = pidfd::wait(&launched.process.pidfd);
            }
            Err(error)
        }
    }
}

fn check_console(terminal: bool, socket: Option<&Path>) -> Result<(), OciError> {
    match (terminal, socket) {
        (true, None) => Err(OciError::Unsupported(
            "process.terminal is true, but nobody is there to take the terminal: give a console socket (--console-socket)".into(),
        )),
        (false, Some(socket)) => Err(OciError::Unsupported(format!(
            "a console socket was given ({socket:?}), but process.terminal is not true"
        ))),
        _ => Ok(()),
    }
}

/// Connects to a unix socket, also where its path is too long for an address.
fn connect_to(path: &Path) -> Result<OwnedFd, OciError> {
    let attempt = || -> io::Result<OwnedFd> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let (directory, name) = path
            .parent()
            .zip(path.file_name())
            .ok_or(io::ErrorKind::InvalidInput)?;
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        let directory = std::fs::File::open(directory)?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&directory);
        let short = Path::new("/proc/self/fd").join(fd.to_string()).join(name);
        connect(&socket, &SocketAddrUnix::new(&short)?)?;
        Ok(socket)
    };
    attempt().map_err(OciError::step::<io::Error>(format!("connect to {path:?}")))
}

/// Lets a created container execute its program, and runs its poststart hooks.
///
/// # Errors
/// [`OciError::Status`] when it is not waiting for that; whether the program
/// could be executed is told by [`Created::exec_failure`] alone.
pub fn start(state_root: &Path, id: &str) -> Result<(), OciError> {
    let entry = Entry::new(state_root, id)?;
    let record = entry.load()?;
    let status = entry.status(&record);
    if status != Status::Created {
        return Err(OciError::Status {
            action: "start",
            id: id.to_owned(),
            status: status.to_string(),
        });
    }
    release(&entry.directory.join(START_SOCKET))?;
    let hooks = record
        .hooks
        .as_ref()
        .and_then(|hooks| hooks.poststart().as_ref());
    let run = run_recorded_hooks("poststart", hooks, &record);
    if run.is_err() {
        // The hook's failure is the one to report; the program may be done.
        let _ = kill(state_root, id, 9, false);
    }
    run
}

/// Wakes the process that waits at `socket`.
fn release(socket: &Path) -> Result<(), OciError> {
    drop(connect_to(socket)?);
    std::fs::remove_file(socket).map_err(OciError::step::<io::Error>(format!("remove {socket:?}")))
}

fn run_recorded_hooks(
    name: &str,
    hooks: Option<&Vec<Hook>>,
    record: &Record,
) -> Result<(), OciError> {
    if hooks.is_none() {
        return Ok(());
    }
    let mut state = hook_state(
        &record.id,
        &Spec::default(),
        &record.bundle,
        Some(record.pid),
    )
    .state;
    state.annotations = Some(record.annotations.clone());
    state.status = match name {
        "poststart" => libcontainer::container::ContainerStatus::Running,
        _ => libcontainer::container::ContainerStatus::Stopped,
    };
    run_hooks(hooks, Some(&state), Some(&record.bundle), None, None)
        .map_err(|error| OciError::Unsupported(format!("{name} hook failed: {}", sentence(&error))))
}

/// Runs one more process in a container that runs.
///
/// # Errors
/// [`OciError::NotRunning`], or one sentence that names what is at fault.
pub fn exec(exec: Exec<'_>) -> Result<Created, OciError> {
    config::check_process(exec.process).map_err(|reason| {
        OciError::Unsupported(format!("the process to run: field \"process.{reason}"))
    })?;
    check_console(
        exec.process.terminal().unwrap_or(false),
        exec.console_socket.as_deref(),
    )?;
    let entry = Entry::new(exec.state_root, exec.id)?;
    let record = entry.load()?;
    let init = record.open_init()?;
    let filter = Filter::saved(&entry.directory)?;
    let mut linux = LinuxBuilder::default()
        .namespaces(Vec::new())
        .build()
        .map_err(|error| OciError::Unsupported(sentence(&error)))?;
    if record.namespaces.contains(&LinuxNamespaceType::User) {
        let users = users::mapping_of(record.pid).map_err(OciError::step::<io::Error>(
            "read the users of the container",
        ))?;
        linux.set_uid_mappings(Some(users));
    }
    let mut process = exec.process.clone();
    add_home(&mut process, &record.rootfs);
    let mut spec = Spec::default();
    spec.set_process(Some(process))
        .set_linux(Some(linux))
        .set_hooks(None);
    let start_socket = entry
        .directory
        .join(format!("exec-{}.sock", std::process::id()));
    let launched = launch(Launch {
        id: exec.id,
        spec,
        rootfs: record.rootfs.clone(),
        bundle: &record.bundle,
        start_socket: start_socket.clone(),
        entrance: record.cgroup.entrance()?,
        streams: Streams {
            stdin: exec.stdin,
            stdout: exec.stdout,
            stderr: exec.stderr,
        },
        console: exec.console_socket.as_deref().map(connect_to).transpose()?,
        preserve_fds: 0,
        no_pivot: false,
        sibling: exec.as_sibling,
        join: Some(Join {
            init: &init,
            namespaces: &record.namespaces,
        }),
        filter,
    });
    if launched.is_err() {
        // It may not have been made yet.
        let _ = std::fs::remove_file(&start_socket);
    }
    let launched = launched?;
    release(&start_socket)?;
    Ok(launched.into())
}

/// Looks up a container and asks the kernel what it is doing.
///
/// # Errors
/// [`OciError::NotFound`].
pub fn state(state_root: &Path, id: &str) -> Result<(Record, Status), OciError> {
    let entry = Entry::new(state_root, id)?;
    let record = entry.load()?;
    let status = entry.status(&record);
    Ok((record, status))
}

/// Sends a signal (1 to 64) to a container's init, or to `all` of its processes.
///
/// # Errors
/// [`OciError::NotRunning`] when the init has ended and `all` is not set.
pub fn kill(state_root: &Path, id: &str, signal: i32, all: bool) -> Result<(), OciError> {
    let record = Entry::new(state_root, id)?.load()?;
    let step = format!("send signal {signal} to container {id:?}");
    if all {
        return record
            .cgroup
            .signal(signal)
            .map_err(OciError::step::<io::Error>(step));
    }
    let init = record.open_init()?;
    pidfd::send_signal(init, signal).map_err(OciError::step::<io::Error>(step))
}

/// Deletes a container that has ended or was never started, or any with
/// `force`: every process, control group and file of it, then its poststop
/// hooks run.
///
/// # Errors
/// [`OciError::NotFound`]; [`OciError::Status`] when it runs and `force` is not
/// set. Calling again after a failure carries on with what is left.
pub fn delete(state_root: &Path, id: &str, force: bool) -> Result<(), OciError> {
    let entry = Entry::new(state_root, id)?;
    let record = match entry.load() {
        Ok(record) => record,
        // The id was claimed and nothing was made yet when its creator died.
        Err(OciError::NotFound { .. }) if force && entry.directory.exists() => {
            return entry.remove();
        }
        Err(error) => return Err(error),
    };
    let status = entry.status(&record);
    if !force && matches!(status, Status::Running | Status::Creating) {
        return Err(OciError::Status {
            action: "delete",
            id: id.to_owned(),
            status: status.to_string(),
        });
    }
    if let Ok(init) = record.open_init() {
        // Its death is what is waited for, whoever brings it about.
        let _ = pidfd::send_signal(&init, 9);
        await_end(&init, id)?;
    }
    remove_group(&record)?;
    let hooks = record
        .hooks
        .as_ref()
        .and_then(|hooks| hooks.poststop().as_ref());
    let run = run_recorded_hooks("poststop", hooks, &record);
    entry.remove()?;
    run
}

/// Removes a container's control group with what is left in it.
fn remove_group(record: &Record) -> Result<(), OciError> {
    record.cgroup.remove()?;
    record.scope.as_ref().map_or(Ok(()), Scope::stop)
}

fn await_end(process: impl AsFd, id: &str) -> Result<(), OciError> {
    let mut ends = [PollFd::new(&process, PollFlags::IN)];
    match poll(&mut ends, Some(&PATIENCE)) {
        Ok(0) => Err(OciError::Step {
            step: format!("end container {id:?}"),
            source: io::Error::other(format!(
                "its process still lives {:?} after SIGKILL: it waits for a device or a server",
                Duration::from_secs(PATIENCE.tv_sec as u64)
            )),
        }),
        _ => Ok(()),
    }
}
