//! `orlop apply`: makes what manifests declare.

use std::ffi::OsString;
use std::io::{PipeReader, Read};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::{Machine, change, print};
use crate::kube::manifest::{Object, Source, load_into};
use crate::pod::control::{Client, Reply, Request};
use crate::pod::{claims, repair};
use crate::storage::apply::Applied;
use crate::storage::roots::Roots;

/// `orlop apply` on the command line.
#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// A manifest, a directory of manifests, or - for standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    filenames: Vec<OsString>,
    /// Namespace of the objects that name none
    #[arg(short, long)]
    namespace: Option<String>,
    /// Wait until all containers are ready, or have ended
    #[arg(long)]
    wait: bool,
    /// How many seconds to wait at most
    #[arg(long, default_value_t = 300, requires = "wait", value_name = "SECONDS")]
    timeout: u64,
}

/// Applies the manifests. All of them are read and checked before anything is
/// changed.
///
/// # Errors
/// One sentence about what is wrong with a manifest, or with the machine.
pub fn run(args: ApplyArgs, roots: &Roots) -> Result<ExitCode> {
    let sources: Vec<Source> = args
        .filenames
        .iter()
        .map(|name| Source::from(name.as_os_str()))
        .collect();
    let documents = load_into(&sources, args.namespace.as_deref())?;
    let mut objects: Vec<Object> = Vec::with_capacity(documents.len());
    for document in documents {
        objects.push(change::place(document.object));
    }
    let machine = Machine::open(roots)?;
    let mut started = Vec::with_capacity(objects.len());
    // What cannot be told must not keep the next pod from being started.
    let mut told = Ok(());
    let all = machine.store.apply(objects)?;
    for applied in &all {
        let Object::Pod(pod) = applied.object() else {
            told = told.and(say(applied));
            continue;
        };
        let ready = match applied {
            Applied::Created(_) => {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                Some(repair::start_keeper(&machine.roots, uid)?)
            }
            Applied::Configured(_) => {
                if let Some(keeper) = Client::connect(&machine.home(pod))? {
                    keeper.send(&Request::Reload, &[])?;
                }
                None
            }
            Applied::Unchanged(_) => None,
        };
        told = told.and(say(applied));
        started.push((pod.clone(), ready));
    }
    claims::follow_up(&machine.roots, &machine.store)?;
    told?;
    if args.wait {
        let deadline = Instant::now() + Duration::from_secs(args.timeout);
        for (pod, ready) in started {
            wait(&machine, &pod, ready, deadline)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say(applied: &Applied<Object>) -> Result<()> {
    let object = applied.object();
    print::say(format_args!(
        "{}/{} {}\n",
        object.kind().qualified(),
        object.name(),
        applied.word()
    ))
}

/// Waits until every container of the pod is ready, or has ended for good.
fn wait(machine: &Machine, pod: &Pod, ready: Option<PipeReader>, deadline: Instant) -> Result<()> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(mut ready) = ready {
        // Closed by the keeper once it listens, or by its end.
        ready.read_to_end(&mut Vec::new())?;
    }
    let progress = ProgressBar::new_spinner().with_prefix(name.to_owned());
    progress.enable_steady_tick(Duration::from_millis(120));
    let mut last = None;
    if let Some(keeper) = Client::connect(&machine.home(pod))? {
        keeper.send(&Request::Watch, &[])?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match keeper.receive_within(left) {
                Ok(Some((Reply::Status(status), _))) => {
                    progress.set_message(format!("pod/{name}: {}", summary(&status)));
                    let settled = is_settled(&status);
                    last = Some(*status);
                    if settled {
                        progress.finish_and_clear();
                        return Ok(());
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    progress.finish_and_clear();
                    let state = last.as_ref().map_or_else(String::new, summary);
                    bail!("timed out waiting for pod {name:?} to run: {state}");
                }
                Err(error) => return Err(error).context("cannot talk to the pod's keeper"),
            }
        }
    }
    progress.finish_and_clear();
    // The keeper has ended: the pod is over, or somebody removed it.
    let status = machine.pod(namespace, name)?.status.unwrap_or_default();
    match status.phase.as_deref() {
        Some("Succeeded" | "Failed") => Ok(()),
        _ => bail!("the keeper of pod {name:?} has ended: see `orlop describe pod {name}`"),
    }
}

fn is_settled(status: &PodStatus) -> bool {
    let mut containers = status.container_statuses.iter().flatten();
    containers.all(|container| {
        let state = container.state.as_ref();
        container.ready || state.is_some_and(|state| state.terminated.is_some())
    })
}

/// One line such as `1/2 ready; consumer: ErrImagePull`.
fn summary(status: &PodStatus) -> String {
    let init = status.init_container_statuses.iter().flatten();
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let ready = containers
        .iter()
        .filter(|container| container.ready)
        .count();
    let mut summary = format!("{ready}/{} ready", containers.len());
    for container in init.chain(containers) {
        let waiting = container
            .state
            .as_ref()
            .and_then(|state| state.waiting.as_ref());
        if let Some(reason) = waiting.and_then(|waiting| waiting.reason.as_ref()) {
            summary.push_str(&format!("; {}: {reason}", container.name));
        }
    }
    summary
}
