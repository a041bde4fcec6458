//! `orlop attach`: the standard streams of a container's own process.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use rustix::termios::{isatty, tcgetwinsize, tcsetwinsize};

use super::exec::signalled;
use super::session::{self, End, Session};
use super::{Machine, choose_container, pod_name, print};
use crate::kube::go_duration;
use crate::pod::control::{Attach, Client, Reply, Request};
use crate::pod::log_files::Directory;
use crate::pod::logs;
use crate::sys::terminal::Signals;

/// Bytes that a pipe holds while its reader is busy.
const PIPE: usize = 1 << 20;

/// `orlop attach` on the command line.
#[derive(Args, Debug)]
pub struct AttachArgs {
    /// POD or pod/POD
    #[arg(value_name = "POD")]
    pod: String,
    /// The container; the pod's first if none is named
    #[arg(short, long)]
    container: Option<String>,
    /// Namespace of the pod
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Standard input is a terminal, and so is the container's
    #[arg(short = 't', long)]
    tty: bool,
    /// Say nothing but what the container says
    #[arg(short, long)]
    quiet: bool,
    /// Keys that leave the container alone again, as in ctrl-p,ctrl-q
    #[arg(long, default_value = "", value_name = "KEYS")]
    detach_keys: String,
    /// How long to wait for the container to run, as in 5s, 2m or 3h
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = go_duration::parse)]
    pod_running_timeout: Duration,
}

/// What attaching is asked for.
pub(super) struct Wish<'a> {
    pub(super) pod: &'a Pod,
    pub(super) container: &'a Container,
    pub(super) stdin: bool,
    /// Whether the user's terminal and the container's become one.
    pub(super) tty: bool,
    pub(super) quiet: bool,
    pub(super) detach: Vec<u8>,
    /// Whether to begin with what was written before.
    pub(super) replay: bool,
}

/// Attaches to a container until it ends or the user leaves.
///
/// # Errors
/// A pod or container that is not there or does not run.
pub fn run(args: &AttachArgs, machine: &Machine) -> Result<ExitCode> {
    let detach = session::detach_keys(&args.detach_keys).map_err(anyhow::Error::msg)?;
    let name = pod_name(&args.pod)?;
    let pod = machine.pod(&args.namespace, name)?;
    let chosen = choose_container(&pod, args.container.as_deref())?;
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if let Some(phase @ ("Succeeded" | "Failed")) = phase {
        bail!("cannot attach a container in a completed pod; current phase is {phase}");
    }
    let container = container(&pod, &chosen)?;
    let mut tty = args.tty;
    if tty && container.tty != Some(true) {
        tty = false;
        print::note(format_args!(
            "error: Unable to use a TTY - container {chosen} did not allocate one"
        ));
    }
    let wish = Wish {
        pod: &pod,
        container,
        stdin: args.stdin,
        tty: tty && has_terminal(),
        quiet: args.quiet,
        detach,
        replay: false,
    };
    let signals = wish.tty.then(session::signals).transpose()?;
    let deadline = Instant::now() + args.pod_running_timeout;
    if let Awaited::Ended = wait_until_running(machine, &pod, &chosen, deadline)? {
        bail!("container {chosen:?} is not running");
    }
    let end = match attach(machine, &wish, signals.as_ref())? {
        Attached::Over(end) => end,
        Attached::NotRunning(reason) => bail!("{reason}"),
    };
    if wish.tty && wish.stdin && !wish.quiet {
        print::note(format_args!(
            "Session ended, resume using 'orlop attach {name} -c {chosen} -i -t' command when the pod is running"
        ));
    }
    match end {
        End::Signal(number) => Ok(signalled(number)),
        End::Exited(_) | End::Detached => Ok(ExitCode::SUCCESS),
    }
}

/// Whether standard input is a terminal; says so when it is not.
pub(super) fn has_terminal() -> bool {
    let is = isatty(io::stdin());
    if !is {
        print::note(format_args!(
            "Unable to use a TTY - input is not a terminal or the right kind of file"
        ));
    }
    is
}

/// The container of this name as the pod's manifest has it.
///
/// # Errors
/// That there is none.
pub(super) fn container<'p>(pod: &'p Pod, name: &str) -> Result<&'p Container> {
    let spec = pod.spec.as_ref().context("the pod has no spec")?;
    let mut all = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let found = all.find(|container| container.name == name);
    found.with_context(|| format!("the pod has no container {name:?}"))
}

/// What became of a container that was waited for.
pub(super) enum Awaited {
    /// It runs.
    Running,
    /// It has ended, or waits to be started again.
    Ended,
}

/// Waits until a container runs or has run.
///
/// # Errors
/// That it takes too long.
pub(super) fn wait_until_running(
    machine: &Machine,
    pod: &Pod,
    container: &str,
    deadline: Instant,
) -> Result<Awaited> {
    let changes = machine.store.changes()?;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    loop {
        let pod = machine
            .store
            .pod_by_uid(uid)?
            .context("the pod was removed")?;
        let status = pod.status.unwrap_or_default();
        let init = status.init_container_statuses.iter().flatten();
        let mut all = init.chain(status.container_statuses.iter().flatten());
        let found = all.find(|status| status.name == container);
        if let Some(state) = found.and_then(|status| status.state.as_ref()) {
            if state.running.is_some() {
                return Ok(Awaited::Running);
            }
            if state.terminated.is_some() || found.is_some_and(has_run) {
                return Ok(Awaited::Ended);
            }
        }
        if !changes.wait(Some(deadline))? {
            let waiting = found.and_then(|status| status.state.as_ref()?.waiting.as_ref());
            let reason = waiting.and_then(|waiting| waiting.reason.clone());
            let message = waiting.and_then(|waiting| waiting.message.clone());
            let why: Vec<String> = reason.into_iter().chain(message).collect();
            bail!(
                "timed out waiting for container {container:?} to run: {}",
                why.join(": ")
            );
        }
    }
}

fn has_run(status: &ContainerStatus) -> bool {
    status
        .last_state
        .as_ref()
        .is_some_and(|last| last.terminated.is_some())
}

/// What came of attaching.
pub(super) enum Attached {
    /// A session, which is over.
    Over(End),
    /// Nothing, for this reason.
    NotRunning(String),
}

/// Attaches to a running container.
///
/// # Errors
/// That the terminal cannot be used, or that the pod does not run.
pub(super) fn attach(
    machine: &Machine,
    wish: &Wish,
    signals: Option<&Signals>,
) -> Result<Attached> {
    let home = machine.home(wish.pod);
    let Some(keeper) = Client::connect(&home)? else {
        return Ok(Attached::NotRunning("the pod does not run".to_owned()));
    };
    let (from_stdout, stdout) = roomy_pipe()?;
    let (from_stderr, stderr) = roomy_pipe()?;
    let request = Request::Attach(Attach {
        container: wish.container.name.clone(),
        stdin: wish.stdin,
    });
    // With its last container the keeper ends.
    let ended = || "the pod's keeper ended before the container was attached".to_owned();
    match keeper.send(&request, &[stdout.as_fd(), stderr.as_fd()]) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(Attached::NotRunning(ended()));
        }
        sent => sent?,
    }
    drop((stdout, stderr));
    let (attempt, written, pending, input) = match keeper.receive()? {
        Some((
            Reply::Attached {
                attempt,
                written,
                pending,
                ..
            },
            mut given,
        )) => (attempt, written, pending, given.pop()),
        Some((Reply::Failed(reason), _)) => return Ok(Attached::NotRunning(reason)),
        _ => return Ok(Attached::NotRunning(ended())),
    };
    if !wish.quiet && wish.tty {
        print::note(format_args!(
            "All commands and output from this session will be recorded in container logs, including credentials \
             and sensitive information passed through the command prompt.\n\
             If you don't see a command prompt, try pressing enter."
        ));
    }
    if wish.replay {
        replay(machine, wish, attempt, written, &pending)?;
    }
    let terminal = match (&input, wish.tty) {
        (Some(master), true) => Some(master.try_clone()?),
        _ => None,
    };
    if let Some(terminal) = &terminal {
        // A size that differs for a moment lets full-screen programs draw anew.
        let mut size = tcgetwinsize(io::stdin())?;
        size.ws_col += 1;
        tcsetwinsize(terminal, size)?;
    }
    let session = Session {
        input,
        outputs: vec![(from_stdout, false), (from_stderr, true)],
        terminal,
        detach: wish.detach.clone(),
        tell_end: true,
    };
    session.run(&keeper, signals).map(Attached::Over)
}

fn roomy_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = io::pipe()?;
    // As large as it is otherwise where a user's pipes are limited.
    let _ = rustix::pipe::fcntl_setpipe_size(&read, PIPE);
    Ok((read.into(), write.into()))
}

/// Prints what a container wrote before, up to the byte of its log at which it
/// was attached.
fn replay(
    machine: &Machine,
    wish: &Wish,
    attempt: u32,
    written: u64,
    pending: &[Vec<u8>; 2],
) -> Result<()> {
    print_log(
        machine,
        wish.pod,
        &wish.container.name,
        Some(attempt),
        written,
    )?;
    let [stdout, stderr] = pending;
    io::stdout().write_all(stdout)?;
    io::stdout().flush()?;
    io::stderr().write_all(stderr)?;
    Ok(())
}

/// Prints the log of a start, or of the first that has one, each stream where it
/// belongs.
///
/// # Errors
/// What reading or writing say.
pub(super) fn print_log(
    machine: &Machine,
    pod: &Pod,
    container: &str,
    attempt: Option<u32>,
    limit: u64,
) -> Result<()> {
    let metadata = &pod.metadata;
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let logs = machine
        .roots
        .pod_logs(namespace.unwrap_or_default(), name.unwrap_or_default(), uid);
    let Some(directory) = Directory::open(&logs, container)? else {
        return Ok(());
    };
    let mut left = limit;
    for segment in directory.segments(attempt.unwrap_or(0), None)? {
        let mut lines = BufReader::new(segment.into_reader().take(left));
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            left -= line.len() as u64;
            if let Some(entry) = logs::parse(&line) {
                match entry.stderr {
                    true => io::stderr().write_all(entry.text)?,
                    false => io::stdout().write_all(entry.text)?,
                }
            }
            line.clear();
        }
    }
    Ok(io::stdout().flush()?)
}
