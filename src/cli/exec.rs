//! `orlop exec`: a command in a running container.
//!
//! The process gets pipes or a terminal of its own, never the descriptors of the
//! user: through those it could reopen files of the host, or type into the
//! user's terminal.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::isatty;

use super::{Machine, choose_container, pod_name, print};
use crate::pod::control::{Client, Exec, Reply, Request};
use crate::sys::terminal::{self, RawMode};

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
    let code = if interactive {
        with_terminal(&keeper, &request, args.stdin)?
    } else {
        with_pipes(&keeper, &request, args.stdin)?
    };
    if code != 0 {
        print::note(format_args!("command terminated with exit code {code}"));
    }
    // An exit code has eight bits.
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

fn with_pipes(keeper: &Client, request: &Request, pass_stdin: bool) -> Result<i32> {
    let (stdin, to_stdin) = io::pipe()?;
    let (from_stdout, stdout) = io::pipe()?;
    let (from_stderr, stderr) = io::pipe()?;
    keeper.send(request, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
    drop((stdin, stdout, stderr));
    started(keeper)?;
    if pass_stdin {
        // Ends with the process: nobody waits for input that never comes.
        std::thread::spawn(move || copy(io::stdin(), to_stdin));
    } else {
        drop(to_stdin);
    }
    let readers: [JoinHandle<_>; 2] = [
        std::thread::spawn(move || copy(from_stdout, io::stdout())),
        std::thread::spawn(move || copy(from_stderr, io::stderr())),
    ];
    let code = ended(keeper)?;
    for reader in readers {
        // A reader of ours that has gone away is no concern of the command.
        let _ = reader.join();
    }
    Ok(code)
}

fn with_terminal(keeper: &Client, request: &Request, pass_stdin: bool) -> Result<i32> {
    let changes = terminal::size_changes()?;
    keeper.send(request, &[])?;
    let master = started(keeper)?
        .pop()
        .context("the keeper sent no terminal")?;
    terminal::copy_size(io::stdin(), &master)?;
    let stdin = io::stdin();
    let raw = RawMode::enter(stdin.as_fd())?;
    if pass_stdin {
        let to = File::from(master.try_clone()?);
        std::thread::spawn(move || copy(io::stdin(), to));
    }
    let from = File::from(master.try_clone()?);
    let reader = std::thread::spawn(move || copy(from, io::stdout()));
    let code = follow_size(keeper, &changes, &master);
    // The terminal's last words; it reports EIO at its end.
    let _ = reader.join();
    drop(raw);
    code
}

/// Waits for the end of the process, and hands changes of the window's size on.
fn follow_size(keeper: &Client, changes: &OwnedFd, master: &OwnedFd) -> Result<i32> {
    loop {
        let mut interest = [
            PollFd::new(changes, PollFlags::IN),
            PollFd::from_borrowed_fd(keeper.as_fd(), PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut interest, None))?;
        let [resized, told] = interest.map(|fd| !fd.revents().is_empty());
        if resized {
            rustix::io::read(changes, &mut [0_u8; 512])?;
            terminal::copy_size(io::stdin(), master)?;
        }
        if told {
            return ended(keeper);
        }
    }
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

fn ended(keeper: &Client) -> Result<i32> {
    match keeper.receive()? {
        Some((Reply::Exited(code), _)) => Ok(code),
        Some((Reply::Failed(reason), _)) => bail!("{reason}"),
        _ => bail!("the pod was stopped while the command ran"),
    }
}

/// Copies until the end, or until nobody takes it any more.
fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => {
                to.write_all(&buffer[..count])?;
                to.flush()?;
            }
        }
    }
}
