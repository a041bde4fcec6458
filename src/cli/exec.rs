//! `orlop exec`: a command in a running container.
//!
//! The process gets pipes or a terminal of its own, never the descriptors of the
//! user: through those it could reopen files of the host, or type into the
//! user's terminal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::termios::isatty;

use super::session::{self, End, Session};
use super::{Machine, choose_container, pod_name, print};
use crate::pod::control::{Client, Exec, Reply, Request};

/// `orlop exec` on the command line.
#[derive(Args, Debug)]
#[command(trailing_var_arg = true)]
pub struct ExecArgs {
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
    /// Standard input is a terminal, and the command gets one
    #[arg(short = 't', long)]
    tty: bool,
    /// The command with its arguments
    #[arg(value_name = "COMMAND", required = true, num_args = 1..)]
    command: Vec<String>,
}

/// Runs the command and ends as it ends.
///
/// # Errors
/// A pod or container that is not there or does not run, or a command that
/// cannot be started.
pub fn run(args: ExecArgs, machine: &Machine) -> Result<ExitCode> {
    let name = pod_name(&args.pod)?;
    let pod = machine.pod(&args.namespace, name)?;
    let container = choose_container(&pod, args.container.as_deref())?;
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if let Some(phase @ ("Succeeded" | "Failed")) = phase {
        bail!("cannot exec into a container in a completed pod; current phase is {phase}");
    }
    let keeper = Client::connect(&machine.home(&pod))?;
    let keeper = keeper.with_context(|| format!("pod {name:?} does not run: try again"))?;
    let interactive = args.tty && isatty(io::stdin());
    if args.tty && !interactive {
        print::note(format_args!(
            "Unable to use a TTY - input is not a terminal or the right kind of file"
        ));
    }
    let request = Request::Exec(Exec {
        container,
        command: args.command,
        terminal: interactive,
        term: std::env::var("TERM").ok(),
    });
    let end = if interactive {
        with_terminal(&keeper, &request, args.stdin)?
    } else {
        with_pipes(&keeper, &request, args.stdin)?
    };
    let code = match end {
        End::Exited(code) => code,
        End::Detached => return Ok(ExitCode::SUCCESS),
        End::Signal(number) => return Ok(signalled(number)),
    };
    if code != 0 {
        print::note(format_args!("command terminated with exit code {code}"));
    }
    // An exit code has eight bits.
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// The exit code of a program that a signal ended.
pub(super) fn signalled(number: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX))
}

fn with_pipes(keeper: &Client, request: &Request, pass_stdin: bool) -> Result<End> {
    let (stdin, to_stdin) = io::pipe()?;
    let (from_stdout, stdout) = io::pipe()?;
    let (from_stderr, stderr) = io::pipe()?;
    keeper.send(request, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
    drop((stdin, stdout, stderr));
    started(keeper)?;
    let session = Session {
        input: pass_stdin.then(|| to_stdin.into()),
        outputs: vec![(from_stdout.into(), false), (from_stderr.into(), true)],
        terminal: None,
        detach: Vec::new(),
        tell_end: false,
    };
    session.run(keeper, None)
}

fn with_terminal(keeper: &Client, request: &Request, pass_stdin: bool) -> Result<End> {
    let signals = session::signals()?;
    keeper.send(request, &[])?;
    let master = started(keeper)?
        .pop()
        .context("the keeper sent no terminal")?;
    let session = Session {
        input: pass_stdin.then(|| master.try_clone()).transpose()?,
        outputs: vec![(master.try_clone()?, false)],
        terminal: Some(master),
        detach: Vec::new(),
        tell_end: false,
    };
    session.run(keeper, Some(&signals))
}

fn started(keeper: &Client) -> Result<Vec<OwnedFd>> {
    match keeper.receive()? {
        Some((Reply::Started, descriptors)) => Ok(descriptors),
        Some((Reply::Failed(reason), _)) => {
            bail!("Internal error occurred: failed to exec in container: {reason}")
        }
        _ => bail!("the pod's keeper ended before the command was started"),
    }
}
