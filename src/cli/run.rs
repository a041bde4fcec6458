//! `orlop run`: one container of an image, as a pod.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::attach::{self, Attached, Awaited, Wish};
use super::create::DryRun;
use super::exec::signalled;
use super::output::{self, Output};
use super::select::to_value;
use super::session::{self, End};
use super::{Machine, change, delete, print};
use crate::kube::manifest::Object;
use crate::kube::{go_duration, manifest};
use crate::storage::roots::Roots;
use crate::sys::terminal::Signals;

/// `orlop run` on the command line.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Name of the pod and of its container
    #[arg(value_name = "NAME")]
    name: String,
    /// The image
    #[arg(long)]
    image: String,
    /// Remove the pod when it has ended or the user leaves it
    #[arg(long)]
    rm: bool,
    /// Keep the container's standard input open, and pass one's own on
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the container a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// Attach to the container; with -i unless it is false
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    attach: Option<bool>,
    /// Leave standard input open after the first who was attached has gone
    #[arg(long)]
    leave_stdin_open: bool,
    /// When the container is started again
    #[arg(long, value_enum, default_value = "Always", value_name = "POLICY")]
    restart: Restart,
    /// Environment, as NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A port that the container listens on
    #[arg(long, value_name = "PORT")]
    port: Option<i32>,
    /// Labels of the pod, as in a=b,c=d [default: run=NAME]
    #[arg(short = 'l', long, value_delimiter = ',', value_name = "LABELS")]
    labels: Vec<String>,
    /// Annotations of the pod, as KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// When to pull the image
    #[arg(long, value_name = "POLICY")]
    image_pull_policy: Option<String>,
    /// Give the container all rights
    #[arg(long)]
    privileged: bool,
    /// What stands after -- replaces the image's entrypoint, too
    #[arg(long)]
    command: bool,
    /// JSON that is merged into the pod (RFC 7386)
    #[arg(long, value_name = "JSON")]
    overrides: Option<String>,
    /// Namespace of the pod
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// client: print, but make nothing
    #[arg(long, value_enum, default_value = "none", value_name = "STRATEGY")]
    dry_run: DryRun,
    /// Print the pod: yaml, json, name, jsonpath=…
    #[arg(short, long, value_name = "FORM")]
    output: Option<Output>,
    /// Say nothing but what the container says
    #[arg(short, long)]
    quiet: bool,
    /// How long to wait for the container to run, as in 5s, 2m or 3h
    #[arg(long, default_value = "1m", value_name = "DURATION", value_parser = go_duration::parse)]
    pod_running_timeout: Duration,
    /// Keys that leave the container alone again, as in ctrl-p,ctrl-q
    #[arg(long, default_value = "", value_name = "KEYS")]
    detach_keys: String,
    /// Arguments of the image's entrypoint; with --command the whole command
    #[arg(value_name = "ARGUMENT", last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
        }
    }
}

/// Makes the pod, and attaches to it when that is asked for.
///
/// # Errors
/// Flags that contradict each other, a pod that is there already, or one that
/// does not come to run.
pub fn run(args: &RunArgs, roots: &Roots) -> Result<ExitCode> {
    let attached = args.attach.unwrap_or(args.stdin);
    if args.tty && !args.stdin {
        bail!("-i/--stdin is required for containers with -t/--tty=true");
    }
    if args.rm && !attached {
        bail!("--rm should only be used for attached containers");
    }
    if args.dry_run == DryRun::Client && attached && args.attach.is_some() {
        bail!(
            "--dry-run=client can't be used with attached containers options (--attach, --stdin, or --tty)"
        );
    }
    let detach = session::detach_keys(&args.detach_keys).map_err(anyhow::Error::msg)?;
    let Object::Pod(pod) = change::place(manifest::checked(&manifest(args)?)?) else {
        bail!("--overrides must leave a Pod");
    };
    if args.dry_run == DryRun::Client {
        show(args, &pod, " (dry run)")?;
        return Ok(ExitCode::SUCCESS);
    }
    let machine = Machine::open(roots)?;
    // Before there are threads, and before there is anything to be removed.
    let signals = attached.then(session::signals).transpose()?;
    let Object::Pod(pod) = change::create(&machine, Object::Pod(pod))? else {
        unreachable!("a pod was created")
    };
    let Some(signals) = signals else {
        show(args, &pod, "")?;
        return Ok(ExitCode::SUCCESS);
    };
    let end = accompany(args, &machine, &pod, detach, &signals);
    if args.rm {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some(pod) = machine.store.pod_by_uid(uid)? {
            let grace = matches!(end, Ok(Outcome::Over(_))).then_some(0);
            delete::remove(&machine, &pod, grace)?;
            if !args.quiet {
                print::say(format_args!(
                    "pod {:?} deleted from {} namespace\n",
                    args.name, args.namespace
                ))?;
            }
        }
    }
    Ok(match end? {
        Outcome::Over(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Outcome::Left => ExitCode::SUCCESS,
        Outcome::Signal(number) => signalled(number),
    })
}

/// How the user's part in it ends.
enum Outcome {
    /// The pod has ended, with this exit code.
    Over(i32),
    /// The user has left it, or it goes on by itself.
    Left,
    Signal(i32),
}

/// Stays with the pod until it has ended or the user leaves.
fn accompany(
    args: &RunArgs,
    machine: &Machine,
    pod: &Pod,
    detach: Vec<u8>,
    signals: &Signals,
) -> Result<Outcome> {
    let deadline = Instant::now() + args.pod_running_timeout;
    let container = attach::container(pod, container_name(pod)?)?;
    let wish = Wish {
        pod,
        container,
        stdin: args.stdin,
        tty: args.tty && attach::has_terminal(),
        quiet: args.quiet,
        detach,
        replay: true,
    };
    loop {
        // Before the look at what is there, so that no change falls in between.
        let changes = machine.store.changes()?;
        if let Awaited::Ended = attach::wait_until_running(machine, pod, &container.name, deadline)?
        {
            // It was too quick to be attached to; all that it said is in its log.
            attach::print_log(machine, pod, &container.name, None, u64::MAX)?;
            break;
        }
        match attach::attach(machine, &wish, Some(signals))? {
            Attached::Over(End::Exited(_)) => break,
            Attached::Over(End::Detached) => return Ok(Outcome::Left),
            Attached::Over(End::Signal(number)) => return Ok(Outcome::Signal(number)),
            // It ended a moment ago, which will be recorded.
            Attached::NotRunning(reason) => {
                if !changes.wait(Some(deadline))? {
                    bail!("{reason}");
                }
            }
        }
    }
    if args.restart == Restart::Always || args.leave_stdin_open {
        return Ok(Outcome::Left);
    }
    let changes = machine.store.changes()?;
    loop {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let now = machine
            .store
            .pod_by_uid(uid)?
            .context("the pod was removed")?;
        let status = now.status.unwrap_or_default();
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            let mut all = status.container_statuses.iter().flatten();
            let ended = all.find_map(|status| status.state.as_ref()?.terminated.as_ref());
            let code = ended.map_or(0, |ended| ended.exit_code);
            if code != 0 {
                let reason = ended
                    .and_then(|ended| ended.reason.clone())
                    .unwrap_or_default();
                print::note(format_args!(
                    "pod {}/{} terminated ({reason})",
                    args.namespace, args.name
                ));
            }
            return Ok(Outcome::Over(code));
        }
        changes.wait(None)?;
    }
}

fn container_name(pod: &Pod) -> Result<&str> {
    let spec = pod.spec.as_ref().context("the pod has no spec")?;
    let first = spec
        .containers
        .first()
        .context("the pod has no containers")?;
    Ok(&first.name)
}

fn show(args: &RunArgs, pod: &Pod, note: &str) -> Result<()> {
    match &args.output {
        Some(form) => {
            let text = output::render(form, &[to_value(pod)?], false, true)?;
            print::say(format_args!("{}", text.unwrap_or_default()))
        }
        None => print::say(format_args!("pod/{} created{note}\n", args.name)),
    }
}

/// The pod that the command line describes.
fn manifest(args: &RunArgs) -> Result<Value> {
    let pair = |text: &String, what: &str| {
        let (key, value) = text
            .split_once('=')
            .with_context(|| format!("invalid {what}: {text:?} is not of the form NAME=VALUE"))?;
        Ok::<_, anyhow::Error>((key.to_owned(), value.to_owned()))
    };
    let mut container = json!({"name": args.name, "image": args.image});
    if !args.env.is_empty() {
        let variables = args.env.iter().map(|text| pair(text, "env"));
        let variables: Vec<Value> = variables
            .map(|pair| pair.map(|(name, value)| json!({"name": name, "value": value})))
            .collect::<Result<_>>()?;
        container["env"] = Value::Array(variables);
    }
    if let Some(port) = args.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if let Some(policy) = &args.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    if args.privileged {
        container["securityContext"] = json!({"privileged": true});
    }
    if args.stdin {
        container["stdin"] = json!(true);
        container["stdinOnce"] = json!(!args.leave_stdin_open);
    }
    if args.tty {
        container["tty"] = json!(true);
    }
    if !args.arguments.is_empty() {
        let field = if args.command { "command" } else { "args" };
        container[field] = json!(args.arguments);
    }
    let map = |texts: &[String], what: &str| {
        let pairs = texts.iter().map(|text| pair(text, what));
        pairs.collect::<Result<std::collections::BTreeMap<_, _>>>()
    };
    let mut labels = map(&args.labels, "label")?;
    if labels.is_empty() {
        labels.insert("run".to_owned(), args.name.clone());
    }
    let mut metadata = json!({"name": args.name, "namespace": args.namespace, "labels": labels});
    if !args.annotations.is_empty() {
        metadata["annotations"] = json!(map(&args.annotations, "annotation")?);
    }
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"containers": [container], "restartPolicy": args.restart.name()},
    });
    if let Some(overrides) = &args.overrides {
        let overrides: Value = serde_json::from_str(overrides).context("--overrides is no JSON")?;
        json_patch::merge(&mut pod, &overrides);
    }
    Ok(pod)
}
