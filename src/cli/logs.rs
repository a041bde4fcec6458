//! `orlop logs`: what a container has written.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

use super::{Machine, choose_container, pod_name, print};
use crate::pod::control::{Client, Reply, Request};
use crate::pod::logs;
use crate::pod::status::BACK_OFF;

/// `orlop logs` on the command line.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// POD or pod/POD
    #[arg(value_name = "POD")]
    pod: String,
    /// The container; the pod's first if none is named
    #[arg(value_name = "CONTAINER", conflicts_with = "container")]
    second: Option<String>,
    /// The container, by flag
    #[arg(short, long)]
    container: Option<String>,
    /// Namespace of the pod
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Go on with what is written from now on, until the container ends
    #[arg(short, long)]
    follow: bool,
}

/// Prints a container's log.
///
/// # Errors
/// A pod or container that is not there, or a container that never started.
pub fn run(args: &LogsArgs, machine: &Machine) -> Result<ExitCode> {
    let name = pod_name(&args.pod)?;
    let pod = machine.pod(&args.namespace, name)?;
    let wanted = args.container.as_deref().or(args.second.as_deref());
    let container = choose_container(&pod, wanted)?;
    let home = machine.home(&pod);
    let directory = machine.roots.pod_logs(&args.namespace, name, &home.uid);
    let Some((attempt, file)) = open(&pod, &directory, &container)? else {
        let waits = status(&pod, &container)
            .and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
        let reason = waits.unwrap_or_else(|| "ContainerCreating".to_owned());
        print::note(format_args!(
            "Error from server (BadRequest): container {container:?} in pod {name:?} is waiting \
             to start: {reason}"
        ));
        return Ok(ExitCode::FAILURE);
    };
    let mut printer = Printer {
        from: BufReader::new(file),
        line: Vec::new(),
    };
    let printed = if args.follow {
        follow(machine, &pod, &container, attempt, &directory, &mut printer)
    } else {
        printer.print()
    };
    match printed {
        // A reader that has gone away (`orlop logs x | head`) is no error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        result => {
            result.context("cannot print the log")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    statuses(pod.status.as_ref()?).find(|status| status.name == container)
}

fn statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten())
}

/// The log of the container's present start, or of the last one that has any.
fn open(pod: &Pod, directory: &Path, container: &str) -> Result<Option<(u32, File)>> {
    let restarts = status(pod, container).map_or(0, |status| status.restart_count);
    let restarts = u32::try_from(restarts).unwrap_or(0);
    for attempt in [Some(restarts), restarts.checked_sub(1)]
        .into_iter()
        .flatten()
    {
        match File::open(logs::file(directory, container, attempt)) {
            Ok(file) => return Ok(Some((attempt, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("cannot open the container's log"),
        }
    }
    Ok(None)
}

struct Printer {
    from: BufReader<File>,
    line: Vec<u8>,
}

impl Printer {
    /// Prints all complete entries that are there.
    fn print(&mut self) -> io::Result<()> {
        let mut output = io::stdout().lock();
        while self.from.read_until(b'\n', &mut self.line)? > 0 {
            if self.line.last() != Some(&b'\n') {
                break;
            }
            if let Some(entry) = logs::parse(&self.line) {
                output.write_all(entry.text)?;
            }
            self.line.clear();
        }
        output.flush()
    }
}

/// Prints what is written until the start numbered `attempt` has ended.
fn follow(
    machine: &Machine,
    pod: &Pod,
    container: &str,
    attempt: u32,
    directory: &Path,
    printer: &mut Printer,
) -> io::Result<()> {
    let changes = watch(&logs::file(directory, container, attempt))?;
    let keeper = Client::connect(&machine.home(pod))?;
    let Some(keeper) = keeper else {
        return printer.print();
    };
    keeper.send(&Request::Watch, &[])?;
    loop {
        printer.print()?;
        let mut interest = [
            PollFd::new(&changes, PollFlags::IN),
            PollFd::from_borrowed_fd(keeper.as_fd(), PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut interest, None))?;
        let [written, told] = interest.map(|fd| !fd.revents().is_empty());
        if written {
            // What changed is read from the file itself.
            rustix::io::read(&changes, &mut [0_u8; 4096])?;
        }
        if told {
            let ended = match keeper.receive()? {
                Some((Reply::Status(status), _)) => {
                    let status = statuses(&status).find(|status| status.name == container);
                    status.is_none_or(|status| has_ended(status, attempt))
                }
                Some(_) => false,
                None => true,
            };
            if ended {
                return printer.print();
            }
        }
    }
}

fn has_ended(status: &ContainerStatus, attempt: u32) -> bool {
    let ended = status.state.as_ref().is_some_and(|state| {
        let waiting = state.waiting.as_ref();
        let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
        state.terminated.is_some() || reason == Some(BACK_OFF)
    });
    ended || u32::try_from(status.restart_count).is_ok_and(|count| count > attempt)
}

fn watch(file: &Path) -> io::Result<OwnedFd> {
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&changes, file, inotify::WatchFlags::MODIFY)?;
    Ok(changes)
}
