//! `orlop delete`: stops pods and removes all that belongs to them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;

use super::Machine;
use super::print::{self, Answer, Selection};
use super::select::Wanted;
use crate::kube::kind::Kind;
use crate::kube::manifest::{Document, Object, Source, load_into};
use crate::kube::selector::{FieldSelector, LabelSelector};
use crate::pod::cleanup;
use crate::pod::control::{Client, Reply, Request};
use crate::pod::lock::Lock;
use crate::pod::{claims, repair};
use crate::storage::store::{StoreError, boot_id};
use crate::sys::cgroup::Cgroups;

/// `orlop delete` on the command line.
#[derive(Args, Debug)]
pub struct DeleteArgs {
    /// TYPE NAME… or TYPE/NAME…
    #[arg(value_name = "TYPE NAME…", required_unless_present = "filenames")]
    resources: Vec<String>,
    /// A manifest, a directory of manifests, or - for standard input
    #[arg(
        short,
        long = "filename",
        value_name = "FILE",
        conflicts_with = "resources"
    )]
    filenames: Vec<OsString>,
    /// Namespace of the objects
    #[arg(short, long)]
    namespace: Option<String>,
    /// All objects of the type in the namespace
    #[arg(long)]
    all: bool,
    /// All objects of the type with these labels
    #[arg(short = 'l', long, conflicts_with_all = ["all", "filenames"])]
    selector: Option<LabelSelector>,
    /// All objects of the type with these fields, as in status.phase=Failed
    #[arg(long, value_name = "SELECTOR", conflicts_with_all = ["all", "filenames"])]
    field_selector: Option<FieldSelector>,
    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Seconds that containers have to end; less than 0 for what the pod says
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_name = "SECONDS")]
    grace_period: i64,
    /// Kill at once (needs --grace-period=0)
    #[arg(long)]
    force: bool,
    /// Signal for immediate end: the same as --grace-period=1
    #[arg(long, conflicts_with = "grace_period")]
    now: bool,
    /// Wait until everything is gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    wait: bool,
    /// A name that is not there is no error
    #[arg(long)]
    ignore_not_found: bool,
}

/// Deletes what is named. All names are looked up before the first pod is
/// stopped.
///
/// # Errors
/// One sentence about what is wrong with the arguments, or what could not be
/// removed. A name that is not there is told after the others are deleted.
pub fn run(args: DeleteArgs, machine: &Machine) -> Result<ExitCode> {
    let grace = grace(&args)?;
    let mut answer = Answer::default();
    let mut pods = Vec::new();
    let mut others = Vec::new();
    for (kind, namespace, name) in names(&args, machine)? {
        match machine.store.find(kind, &namespace, &name)? {
            Some(Object::Pod(pod)) => pods.push(*pod),
            Some(other) => others.push(other),
            None if args.ignore_not_found => {}
            None => answer.missing(kind.resource(), &name),
        }
    }
    if pods.is_empty() && others.is_empty() && !answer.failed {
        print::say(format_args!("No resources found\n"))?;
    }
    if args.force && !pods.is_empty() {
        print::note(format_args!(
            "Warning: Immediate deletion does not give the containers time to end by themselves."
        ));
    }
    let mut stopping = Vec::with_capacity(pods.len());
    // What cannot be told must not keep the next pod from being stopped.
    let mut told = Ok(());
    for pod in pods {
        let metadata = &pod.metadata;
        let keeper = match begin(machine, &pod, grace)? {
            Begun::Stopping(keeper) => keeper,
            Begun::Gone if args.ignore_not_found => continue,
            Begun::Gone => {
                answer.missing("pods", metadata.name.as_deref().unwrap_or_default());
                continue;
            }
        };
        told = told.and(say(&pod.clone().into(), args.force));
        stopping.push((pod, keeper));
    }
    for object in &others {
        told = told.and(forget(machine, object)?);
    }
    claims::follow_up(&machine.roots, &machine.store)?;
    if args.wait {
        for (pod, keeper) in stopping {
            finish(machine, &pod, keeper).with_context(|| {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                format!("cannot remove pod {name:?}")
            })?;
        }
        if cleanup::has_trash(&machine.roots)? {
            repair::start_sweeper(&machine.roots)?;
        }
        for object in &others {
            wait_until_gone(machine, object)?;
        }
    }
    told?;
    answer.say()
}

/// Removes an object that nothing runs for, or marks it for that. What could not be
/// told is returned.
fn forget(machine: &Machine, object: &Object) -> Result<Result<()>> {
    let (kind, namespace) = (object.kind(), object.namespace());
    machine.store.forget(kind, namespace, object.name())?;
    Ok(say(object, false))
}

/// Says that an object was deleted.
///
/// # Errors
/// When it cannot be said.
pub(super) fn say(object: &Object, force: bool) -> Result<()> {
    let kind = object.kind();
    let from = match kind.is_namespaced() {
        true => format!(" from {} namespace", object.namespace()),
        false => String::new(),
    };
    print::say(format_args!(
        "{} {:?} {}deleted{from}\n",
        kind.qualified(),
        object.name(),
        if force { "force " } else { "" },
    ))
}

/// Waits until nothing holds an object that is to go: a claim, until the last pod that
/// uses it is gone.
///
/// # Errors
/// The store's.
pub(super) fn wait_until_gone(machine: &Machine, object: &Object) -> Result<()> {
    let changes = machine.store.changes()?;
    loop {
        let now = machine
            .store
            .find(object.kind(), object.namespace(), object.name())?;
        if now.is_none_or(|now| now.metadata().uid != object.metadata().uid) {
            return Ok(());
        }
        changes.wait(None)?;
    }
}

fn grace(args: &DeleteArgs) -> Result<Option<u32>> {
    if args.force && args.grace_period > 0 {
        bail!("--force and --grace-period greater than 0 cannot be specified together");
    }
    let seconds = match args.grace_period {
        _ if args.now => Some(1),
        _ if args.force => Some(0),
        0 => Some(1),
        negative if negative < 0 => None,
        seconds => Some(seconds),
    };
    let seconds = seconds.map(u32::try_from).transpose();
    seconds.context("--grace-period is too long: it is a number of seconds")
}

/// Kind, namespace and name of everything that is to be deleted.
fn names(args: &DeleteArgs, machine: &Machine) -> Result<Vec<(Kind, String, String)>> {
    let namespace = args.namespace.as_deref();
    let here = namespace.unwrap_or("default").to_owned();
    if !args.filenames.is_empty() {
        let sources: Vec<Source> = args
            .filenames
            .iter()
            .map(|name| Source::from(name.as_os_str()))
            .collect();
        let documents = load_into(&sources, namespace)?;
        let identity = |document: Document| {
            let object = document.object;
            let namespace = object.namespace().to_owned();
            (object.kind(), namespace, object.name().to_owned())
        };
        return Ok(documents.into_iter().map(identity).collect());
    }
    let selections = Selection::parse_all("delete", &args.resources)?;
    let selects = args.selector.is_some() || args.field_selector.is_some();
    let mut seen = BTreeSet::new();
    let mut named = Vec::new();
    for selection in selections {
        let kind = selection.resource.kind();
        let found: Vec<_> = if selects || args.all {
            if selects && !selection.names.is_empty() {
                bail!("name cannot be provided when a selector is specified");
            }
            let wanted = Wanted::new(kind, args.selector.as_ref(), args.field_selector.as_ref())?;
            let namespace = (!args.all_namespaces).then_some(here.as_str());
            let found = wanted.of(&machine.store, kind, namespace, &boot_id()?)?;
            let place = |object: &Object| (object.namespace().to_owned(), object.name().to_owned());
            found.iter().map(place).collect()
        } else if selection.names.is_empty() {
            bail!("resource(s) were provided, but no name was specified")
        } else {
            let names = selection.names.into_iter();
            names.map(|name| (here.clone(), name)).collect()
        };
        for (namespace, name) in found {
            if seen.insert((kind, namespace.clone(), name.clone())) {
                named.push((kind, namespace, name));
            }
        }
    }
    Ok(named)
}

/// What became of the wish to delete a pod.
enum Begun {
    /// It is recorded, and the keeper knows, if there is one.
    Stopping(Option<Client>),
    /// Somebody else has removed the pod meanwhile.
    Gone,
}

/// Records the deletion, and tells the pod's keeper.
fn begin(machine: &Machine, pod: &Pod, grace: Option<u32>) -> Result<Begun> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let by_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    let grace = grace.unwrap_or_else(|| by_pod.unwrap_or(30).try_into().unwrap_or(0));
    match machine.store.mark_pod_deleted(uid, grace) {
        Err(StoreError::NotFound { .. }) => return Ok(Begun::Gone),
        marked => marked?,
    };
    let keeper = Client::connect(&machine.home(pod))?;
    if let Some(keeper) = &keeper {
        match keeper.send(&Request::Stop { grace, wait: true }, &[]) {
            // It is ending already; what it leaves is done in its place.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            result => result.context("cannot talk to the pod's keeper")?,
        }
    }
    Ok(Begun::Stopping(keeper))
}

/// Stops a pod and removes it, and waits until it is gone.
///
/// # Errors
/// What could not be removed.
pub(super) fn remove(machine: &Machine, pod: &Pod, grace: Option<u32>) -> Result<()> {
    if let Begun::Stopping(keeper) = begin(machine, pod, grace)? {
        finish(machine, pod, keeper)?;
    }
    if cleanup::has_trash(&machine.roots)? {
        repair::start_sweeper(&machine.roots)?;
    }
    Ok(())
}

/// Waits until the pod is gone; what its keeper does not do is done here.
fn finish(machine: &Machine, pod: &Pod, keeper: Option<Client>) -> Result<()> {
    if let Some(keeper) = keeper
        && let Some((Reply::Gone { left }, _)) = keeper.receive()?
    {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        for sentence in left {
            print::note(format_args!("warning: pod {name:?}: {sentence}"));
        }
        return Ok(());
    }
    let home = machine.home(pod);
    let lock = Lock::take(&home).context("cannot take the pod's lock")?;
    match machine.store.pod_by_uid(&home.uid)? {
        Some(pod) => cleanup::remove(&home, &pod, &machine.store, &Cgroups::detect()?, lock),
        None => Ok(lock.remove()?),
    }
}
