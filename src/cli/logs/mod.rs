//! `orlop logs`: what containers have written.
//!
//! All of a start's files are read, also those that were rotated out and
//! compressed: nothing that is still on disk is left out.

mod follow;
mod printer;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use self::printer::{Options, Printer};
use super::select::Wanted;
use super::{Machine, choose_container, pod_name, print};
use crate::kube::go_duration;
use crate::kube::selector::LabelSelector;
use crate::pod::log_files::Directory;
use crate::storage::store::StoreError;

/// Lines of each container that are shown with a selector, unless asked otherwise.
const SELECTED_LINES: i64 = 10;

/// `orlop logs` on the command line.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// POD or pod/POD
    #[arg(value_name = "POD", required_unless_present = "selector")]
    pod: Option<String>,
    /// The container; the pod's first if none is named
    #[arg(value_name = "CONTAINER", conflicts_with = "container")]
    second: Option<String>,
    /// The container, by flag
    #[arg(short, long)]
    container: Option<String>,
    /// Namespace of the pod
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Go on with what is written from now on, until the container ends for good or backs off
    #[arg(short, long)]
    follow: bool,
    /// The log of the start before the present one
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines; -1 for all [default: -1, or 10 with a selector]
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only what is not older, such as 5s, 2m or 3h
    #[arg(long, value_name = "DURATION", value_parser = go_duration::parse, conflicts_with = "since_time")]
    since: Option<Duration>,
    /// Only what was written at or after a time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since_time: Option<Timestamp>,
    /// Begin every line with the time when it was written
    #[arg(long)]
    timestamps: bool,
    /// All containers of the pod, init containers first
    #[arg(long, conflicts_with_all = ["container", "second"])]
    all_containers: bool,
    /// Begin every line with its pod and container
    #[arg(long)]
    prefix: bool,
    /// All pods with these labels, as in app=web,tier!=back
    #[arg(short = 'l', long, conflicts_with = "pod")]
    selector: Option<LabelSelector>,
    /// Bytes of each log at most
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
    /// Logs that are followed at once at most
    #[arg(long, default_value_t = 5, value_name = "LOGS")]
    max_log_requests: usize,
    /// Go on with the other logs when one cannot be read
    #[arg(long)]
    ignore_errors: bool,
}

/// One log to print.
struct Source {
    pod: Pod,
    container: String,
    directory: Directory,
    attempt: u32,
}

/// Prints the logs that are asked for.
///
/// # Errors
/// A pod or container that is not there, or a container that never started.
pub fn run(args: &LogsArgs, machine: &Machine) -> Result<ExitCode> {
    let pods = match (&args.pod, &args.selector) {
        (Some(pod), _) => vec![machine.pod(&args.namespace, pod_name(pod)?)?],
        (None, selector) => {
            let labels = selector.clone().unwrap_or_default();
            let wanted = Wanted {
                labels,
                ..Wanted::default()
            };
            let pods = wanted.pods(&machine.store, Some(&args.namespace))?;
            if pods.is_empty() {
                let nothing = print::Answer::nothing(Some(&args.namespace));
                return nothing.say();
            }
            pods
        }
    };
    let mut sources = Vec::new();
    for pod in pods {
        for container in containers(args, &pod)? {
            match source(machine, &pod, container, args.previous) {
                Ok(source) => sources.push(source),
                Err(error) if args.ignore_errors => {
                    print::note(format_args!("{}", print::error_line(&error)));
                }
                Err(error) => return Err(error),
            }
        }
    }
    if args.follow && sources.len() > args.max_log_requests {
        bail!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, \
             use --max-log-requests to increase the limit",
            sources.len(),
            args.max_log_requests
        );
    }
    let options = options(args)?;
    if args.follow && !args.previous {
        return follow_all(machine, sources, &options, args.prefix);
    }
    for source in &sources {
        let mut printer = Printer::new(options.clone(), prefix(args.prefix, source));
        if !goes_on(printer.print_all(&source.directory, source.attempt))? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn follow_all(
    machine: &Machine,
    sources: Vec<Source>,
    options: &Options,
    with_prefix: bool,
) -> Result<ExitCode> {
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for source in sources {
            let printer = Printer::new(options.clone(), prefix(with_prefix, &source));
            let home = machine.home(&source.pod);
            threads.push(scope.spawn(move || follow::follow(&home, &source, printer)));
        }
        for thread in threads {
            let result = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            goes_on(result)?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// A reader that has gone away (`orlop logs x | head`) is no error; there is just
/// nothing more to be printed.
fn goes_on(printed: io::Result<()>) -> Result<bool> {
    match printed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::new(error).context("cannot print the log")),
    }
}

fn options(args: &LogsArgs) -> Result<Options> {
    let tail = match (args.tail, &args.selector) {
        (Some(lines), _) => lines,
        (None, Some(_)) => SELECTED_LINES,
        (None, None) => -1,
    };
    if tail < -1 {
        bail!("--tail must be greater than or equal to -1");
    }
    let since = args
        .since
        .map(|ago| Timestamp::now().checked_sub(ago))
        .transpose();
    let since = since.map_err(|_| anyhow::anyhow!("--since is too long"))?;
    Ok(Options {
        tail: usize::try_from(tail).ok(),
        since: since.or(args.since_time),
        timestamps: args.timestamps,
        limit: args.limit_bytes,
    })
}

fn prefix(wanted: bool, source: &Source) -> Option<String> {
    let name = source.pod.metadata.name.as_deref().unwrap_or_default();
    wanted.then(|| format!("[pod/{name}/{}] ", source.container))
}

fn containers(args: &LogsArgs, pod: &Pod) -> Result<Vec<String>> {
    if args.all_containers {
        let spec = pod.spec.as_ref();
        let init = spec
            .and_then(|spec| spec.init_containers.as_deref())
            .unwrap_or_default();
        let all = init
            .iter()
            .chain(spec.map_or(&[][..], |spec| &spec.containers));
        return Ok(all.map(|container| container.name.clone()).collect());
    }
    let wanted = args.container.as_deref().or(args.second.as_deref());
    Ok(vec![choose_container(pod, wanted)?])
}

/// What is recorded of a container.
fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    let mut all = init.chain(status.container_statuses.iter().flatten());
    all.find(|status| status.name == container)
}

fn source(machine: &Machine, pod: &Pod, container: String, previous: bool) -> Result<Source> {
    let metadata = &pod.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let logs: PathBuf = machine
        .roots
        .pod_logs(namespace, name, &machine.home(pod).uid);
    let directory = Directory::open(&logs, &container)?;
    let status = status(pod, &container);
    let restarts = status.map_or(0, |status| status.restart_count);
    let present = u32::try_from(restarts).unwrap_or(0);
    let candidates = match previous {
        true => vec![status.and_then(|status| last_ended(status, present))],
        // The log of a start that is only just being made may not be there yet.
        false => vec![Some(present), present.checked_sub(1)],
    };
    if let Some(directory) = directory {
        for attempt in candidates.into_iter().flatten() {
            if directory.has(attempt)? {
                return Ok(Source {
                    pod: pod.clone(),
                    container,
                    directory,
                    attempt,
                });
            }
        }
    }
    if previous {
        return Err(bad_request(format!(
            "previous terminated container {container:?} in pod {name:?} not found"
        )));
    }
    let waits = status.and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let reason = waits.unwrap_or_else(|| "ContainerCreating".to_owned());
    Err(bad_request(format!(
        "container {container:?} in pod {name:?} is waiting to start: {reason}"
    )))
}

/// The start that ended last and is not the present one: a container that waits
/// for its restart has not begun the next.
fn last_ended(status: &ContainerStatus, present: u32) -> Option<u32> {
    let last = status.last_state.as_ref()?.terminated.as_ref()?;
    let waits = last.container_id.is_some() && last.container_id == status.container_id;
    if waits {
        Some(present)
    } else {
        present.checked_sub(1)
    }
}

fn bad_request(reason: String) -> anyhow::Error {
    StoreError::BadRequest { reason }.into()
}
