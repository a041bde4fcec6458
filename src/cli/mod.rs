//! The command line of `orlop`: kubectl's verbs, flags, words and exit codes,
//! and a few of its own. One file for every verb.
//!
//! Before anything else a command finishes what an earlier one was interrupted
//! in ([`crate::pod::repair`]); only `version` and `doctor` touch nothing.

pub mod apply;
pub mod attach;
mod change;
mod claim_row;
pub mod completion;
mod config_row;
pub mod cp;
pub mod create;
pub mod delete;
pub mod describe;
pub mod df;
pub mod doctor;
pub mod edit;
pub mod events;
pub mod exec;
pub mod explain;
pub mod get;
pub mod get_watch;
pub mod image;
mod image_pull;
pub mod label;
pub mod logs;
pub mod output;
pub mod patch;
pub mod pod_row;
pub mod print;
pub mod reclaim;
pub mod reconcile;
pub mod release;
pub mod replace;
pub mod run;
pub mod select;
mod session;
pub mod tree;
pub mod volumes;
pub mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::kube::kind::Kind;
use crate::kube::manifest::Object;
use crate::pod::home::Home;
use crate::pod::repair::{self, Scope};
use crate::storage::roots::Roots;
use crate::storage::store::{Durability, Store, StoreError};

/// The annotation that says which container is meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Runs pods on this machine, and owns their volumes from mount to clean-up.
#[derive(Debug, Parser)]
#[command(name = "orlop", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    places: Places,
    #[command(subcommand)]
    verb: Verb,
}

/// Where orlop keeps things.
#[derive(Debug, Args)]
#[command(next_help_heading = "Places")]
struct Places {
    /// Durable data: volumes, images, objects [default: /var/lib/orlop]
    #[arg(
        long,
        env = "ORLOP_ROOT",
        global = true,
        value_name = "DIR",
        hide_env_values = true
    )]
    root: Option<PathBuf>,
    /// What ends with the machine's uptime [default: /run/orlop]
    #[arg(
        long,
        env = "ORLOP_RUN",
        global = true,
        value_name = "DIR",
        hide_env_values = true
    )]
    run: Option<PathBuf>,
    /// Logs of containers [default: /var/log/pods, or DIR/logs with --root DIR]
    #[arg(
        long,
        env = "ORLOP_LOG_ROOT",
        global = true,
        value_name = "DIR",
        hide_env_values = true
    )]
    log_root: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make what manifests declare, or change it to what they declare now
    Apply(apply::ApplyArgs),
    /// Make what manifests declare, if it is not there
    Create(create::CreateArgs),
    /// Give objects the form that manifests declare
    Replace(replace::ReplaceArgs),
    /// Change fields of objects
    Patch(patch::PatchArgs),
    /// Change an object in an editor
    Edit(edit::EditArgs),
    /// Set labels of objects
    Label(label::LabelArgs),
    /// Set annotations of objects
    Annotate(label::LabelArgs),
    /// Show objects
    Get(get::GetArgs),
    /// Show all about objects, with their events
    Describe(describe::DescribeArgs),
    /// Show what happened
    Events(events::EventsArgs),
    /// Wait until objects are as is said
    Wait(wait::WaitArgs),
    /// Stop and remove what manifests declare, or pods by name
    Delete(delete::DeleteArgs),
    /// Show what a container has written
    Logs(logs::LogsArgs),
    /// Run a command in a container
    Exec(exec::ExecArgs),
    /// Draw pods with their containers, and what each has mounted from where
    Tree(volumes::VolumesArgs),
    /// Show what volumes take, and what they may take
    Df(volumes::VolumesArgs),
    /// Join the standard streams of a running container
    Attach(attach::AttachArgs),
    /// Copy files into containers and out of them
    Cp(cp::CpArgs),
    /// Run an image as a pod
    Run(Box<run::RunArgs>),
    /// Pull, import, list and remove images
    Image(image::ImageArgs),
    /// Tell of every volume why a claim does or does not get it
    ExplainBinding(explain::ExplainArgs),
    /// Empty or delete volumes whose claims are gone, or tell what that would take away
    Reclaim(reclaim::ReclaimArgs),
    /// Make volumes available again whose claims are gone
    Release(release::ReleaseArgs),
    /// Finish whatever was interrupted, and start pods again after a reboot
    Reconcile,
    /// Tell what this machine has and lacks, and what to do about it
    Doctor,
    /// Print the script that completes command lines in a shell
    Completion(completion::CompletionArgs),
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man(completion::ManArgs),
    /// Tell which orlop this is
    Version,
}

/// Does what the command line asks for. What goes wrong is said on standard
/// error.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that has gone away has nothing to be told.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            };
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            print::note(format_args!("{}", print::error_line(&error)));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let Places {
        root,
        run,
        log_root,
    } = cli.places;
    let roots = Roots::new(root.as_deref(), run.as_deref(), log_root.as_deref())?;
    let machine = || Machine::open(&roots);
    match cli.verb {
        Verb::Apply(args) => apply::run(args, &roots),
        Verb::Create(args) => create::run(&args, &roots),
        Verb::Replace(args) => replace::run(&args, &roots),
        Verb::Patch(args) => patch::run(&args, &machine()?),
        Verb::Edit(args) => edit::run(&args, &machine()?),
        Verb::Label(args) => label::run(&args, label::Metadata::Labels, &machine()?),
        Verb::Annotate(args) => label::run(&args, label::Metadata::Annotations, &machine()?),
        Verb::Get(args) => get::run(args, &machine()?.store, Timestamp::now()),
        Verb::Describe(args) => describe::run(args, &machine()?, Timestamp::now()),
        Verb::Events(args) => events::run(&args, &machine()?.store),
        Verb::Wait(args) => wait::run(&args, &machine()?.store),
        Verb::Delete(args) => delete::run(args, &machine()?),
        Verb::Logs(args) => logs::run(&args, &machine()?),
        Verb::Exec(args) => exec::run(args, &machine()?),
        Verb::Tree(args) => tree::run(&args, &machine()?),
        Verb::Df(args) => df::run(&args, &machine()?),
        Verb::Attach(args) => attach::run(&args, &machine()?),
        Verb::Cp(args) => cp::run(&args, &machine()?),
        Verb::Run(args) => run::run(&args, &roots),
        Verb::Image(args) => {
            needs_root()?;
            roots.create()?;
            image::run(&args, &roots.images())
        }
        Verb::ExplainBinding(args) => explain::run(&args, &machine()?),
        Verb::Reclaim(args) => reclaim::run(&args, &machine()?),
        Verb::Release(args) => release::run(&args, &machine()?),
        Verb::Reconcile => reconcile::run(&roots),
        Verb::Doctor => doctor::run(&roots),
        Verb::Completion(args) => completion::run(&args, &mut Cli::command()),
        Verb::Man(args) => completion::man(&args, Cli::command()),
        Verb::Version => {
            print::say(format_args!("orlop {}\n", env!("CARGO_PKG_VERSION")))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The store of this machine, after everything that was interrupted has been
/// finished.
pub struct Machine {
    roots: Roots,
    store: Store,
}

impl Machine {
    fn open(roots: &Roots) -> Result<Self> {
        let machine = Self::open_as_it_is(roots)?;
        let report = repair::repair(&machine.roots, &machine.store, Scope::Interrupted)?;
        for failure in report.failures {
            print::note(format_args!("warning: {failure:#}"));
        }
        if crate::pod::cleanup::has_trash(roots)? {
            repair::start_sweeper(roots)?;
        }
        repair::start_worker_if_due(roots, &machine.store)?;
        Ok(machine)
    }

    fn open_as_it_is(roots: &Roots) -> Result<Self> {
        needs_root()?;
        crate::pod::scope::is_wanted()?;
        roots.create()?;
        let store = Store::open(roots, Durability::Full)?;
        Ok(Self {
            roots: roots.clone(),
            store,
        })
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Pod> {
        let pod = self.store.pod(namespace, name)?;
        let missing = || StoreError::NotFound {
            resource: "pods",
            name: name.to_owned(),
        };
        Ok(pod.ok_or_else(missing)?)
    }

    fn object(&self, kind: Kind, namespace: &str, name: &str) -> Result<Object> {
        let missing = || StoreError::NotFound {
            resource: kind.resource(),
            name: name.to_owned(),
        };
        let object = self.store.find(kind, namespace, name)?;
        Ok(object.ok_or_else(missing)?)
    }

    fn home(&self, pod: &Pod) -> Home {
        Home::new(&self.roots, pod.metadata.uid.as_deref().unwrap_or_default())
    }
}

fn needs_root() -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    is_root
        .then_some(())
        .context("orlop must be run as root: try sudo")
}

/// The name in `NAME` or `pod/NAME`.
fn pod_name(typed: &str) -> Result<&str> {
    match typed.split_once('/') {
        None => Ok(typed),
        Some((kind, name)) => {
            print::Resource::parse(kind)?.only_pods(kind)?;
            Ok(name)
        }
    }
}

fn is_init_container(pod: &Pod, name: &str) -> bool {
    let init = pod.spec.iter().flat_map(|spec| &spec.init_containers);
    init.flatten().any(|container| container.name == name)
}

/// The container that a command means: the one it names, or the pod's own
/// choice, or its first.
fn choose_container(pod: &Pod, wanted: Option<&str>) -> Result<String> {
    let names: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .map(|container| container.name.as_str())
        .collect();
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    match wanted {
        Some(wanted) if names.contains(&wanted) => Ok(wanted.to_owned()),
        Some(wanted) if is_init_container(pod, wanted) => Ok(wanted.to_owned()),
        Some(wanted) => {
            anyhow::bail!("container {wanted} is not valid for pod {pod_name}")
        }
        None => {
            let annotations = pod.metadata.annotations.as_ref();
            let preferred = annotations.and_then(|map| map.get(DEFAULT_CONTAINER));
            if let Some(preferred) = preferred.filter(|name| names.contains(&name.as_str())) {
                return Ok(preferred.clone());
            }
            let first = names.first().context("the pod has no containers")?;
            if names.len() > 1 {
                print::note(format_args!(
                    "Defaulted container {first:?} out of: {}",
                    names.join(", ")
                ));
            }
            Ok((*first).to_owned())
        }
    }
}
