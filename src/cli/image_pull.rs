//! `orlop image pull`: an image from its registry into the store.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::image::{short, size};
use super::print;
use crate::image::pull::hosts::HOSTS_DIR;
use crate::image::pull::{self, Patience, Platform, PullError, Pulled, Report, Request};
use crate::image::{ImageStore, Reference};
use crate::pod::puller::{Answer, Question};

/// How long a pod that has an image waits to hear whether it is still the same.
const CURIOSITY: Duration = Duration::from_secs(8);

/// Memory that a pull may take, in bytes; four layers of zstd's largest window
/// are half a gigabyte.
const MOST_MEMORY: u64 = 2 << 30;

/// The arguments of `orlop image pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The image, such as busybox, registry.k8s.io/pause:3.9 or localhost:5000/tool@sha256:…
    image: String,
    /// Pull for another platform than this machine's, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Print the image's ID alone
    #[arg(long, short)]
    quiet: bool,
    /// Where registries have their hosts.toml, as containerd has it
    #[arg(
        long,
        env = "ORLOP_HOSTS_DIR",
        value_name = "DIR",
        default_value = HOSTS_DIR,
        hide_env_values = true
    )]
    hosts_dir: PathBuf,
    /// Answer to a pod's keeper, which asks on standard input
    #[arg(long, hide = true)]
    for_pod: bool,
}

/// Pulls an image and says what became of it.
///
/// # Errors
/// Why there is no image now.
pub(super) fn run(store: &ImageStore, args: &PullArgs, out: &mut impl Write) -> anyhow::Result<()> {
    // A server that says more than anybody can keep ends this process alone.
    let mut limit = getrlimit(Resource::Data);
    limit.current = Some(limit.current.unwrap_or(MOST_MEMORY).min(MOST_MEMORY));
    setrlimit(Resource::Data, limit).context("cannot limit the memory of a pull")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let outcome = match args.for_pod {
        true => runtime.block_on(for_pod(store, args, out)),
        false => runtime.block_on(for_person(store, args, out)),
    };
    // A thread that looks a name up may take longer than anybody waits.
    runtime.shutdown_background();
    outcome
}

fn request(args: &PullArgs) -> Result<Request, anyhow::Error> {
    let reference: Reference = args.image.parse()?;
    let platform = args.platform.as_deref().map(str::parse::<Platform>);
    Ok(Request {
        reference,
        platform: platform.transpose()?,
        hosts_dir: args.hosts_dir.clone(),
        secrets: Vec::new(),
        patience: Patience::LONG,
    })
}

async fn for_person(
    store: &ImageStore,
    args: &PullArgs,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let request = request(args)?;
    let name = request.reference.familiar();
    let progress = Progress::new(args.quiet);
    let pulled = pull::pull(store, &request, &|report| progress.show(report)).await;
    progress.finish();
    let Pulled { image, is_new } = pulled.map_err(|error| {
        anyhow::anyhow!("cannot pull image {name:?}: {}", explained(&name, error))
    })?;
    if args.quiet {
        writeln!(out, "{}", image.id)?;
        return Ok(());
    }
    let (id, size) = (short(&image.id), size(image.size));
    let layers = match image.layers.len() {
        1 => "1 layer".to_owned(),
        count => format!("{count} layers"),
    };
    match is_new {
        true => writeln!(out, "image/{name} pulled (sha256:{id}, {layers}, {size})")?,
        false => writeln!(
            out,
            "image/{name} is up to date (sha256:{id}, {layers}, {size})"
        )?,
    }
    Ok(())
}

fn explained(name: &str, error: PullError) -> String {
    let hint = match error.is_no_answer() {
        true => format!("; an image in a file is imported with `orlop image import FILE {name}`"),
        false => String::new(),
    };
    format!("{:#}{hint}", anyhow::Error::from(error))
}

async fn for_pod(store: &ImageStore, args: &PullArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let question: Question = serde_json::from_str(&text).context("cannot read the question")?;
    let mut request = request(args)?;
    request.secrets = question.secrets;
    let answer = answer(store, request).await;
    serde_json::to_writer(&mut *out, &answer)?;
    writeln!(out)?;
    Ok(())
}

async fn answer(store: &ImageStore, mut request: Request) -> Answer {
    let name = request.reference.familiar();
    let failed = |error: PullError| Answer::Failed {
        reason: explained(&name, error),
    };
    match store.resolve(&request.reference.to_string()) {
        Ok(None) => {}
        Err(error) => return failed(error.into()),
        Ok(Some(image)) => {
            request.patience = Patience::SHORT;
            let asked = pull::is_current(store, &request);
            match tokio::time::timeout(CURIOSITY, asked).await {
                Ok(Ok(true)) => {
                    return Answer::Pulled {
                        size: image.size,
                        waited: Duration::ZERO,
                    };
                }
                Ok(Ok(false)) => request.patience = Patience::LONG,
                Ok(Err(error)) if error.is_no_answer() => {
                    let reason = error.to_string();
                    return Answer::Kept { reason };
                }
                Ok(Err(error)) => return failed(error),
                Err(_) => {
                    let seconds = CURIOSITY.as_secs();
                    let reason = format!("no registry answers within {seconds} s");
                    return Answer::Kept { reason };
                }
            }
        }
    }
    // Layers are fetched side by side: what counts is the time in which
    // nothing else went on.
    let since: Cell<Option<Instant>> = Cell::new(None);
    let waited = Cell::new(Duration::ZERO);
    let watch = |report: Report<'_>| match report {
        Report::Waiting { .. } => since.set(since.get().or_else(|| Some(Instant::now()))),
        _ => {
            if let Some(start) = since.take() {
                waited.set(waited.get() + start.elapsed());
            }
        }
    };
    match pull::pull(store, &request, &watch).await {
        Ok(pulled) => Answer::Pulled {
            size: pulled.image.size,
            waited: waited.get(),
        },
        Err(error) => failed(error),
    }
}

/// What is shown while an image is pulled: bars on a terminal, lines elsewhere.
struct Progress {
    kind: Kind,
    layers: RefCell<Vec<String>>,
}

enum Kind {
    Nothing,
    /// With the layers that were begun.
    Lines(RefCell<BTreeSet<usize>>),
    Bars(MultiProgress, RefCell<BTreeMap<usize, ProgressBar>>),
}

impl Progress {
    fn new(quiet: bool) -> Self {
        let kind = if quiet {
            Kind::Nothing
        } else if std::io::stderr().is_terminal() {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            Kind::Bars(bars, RefCell::default())
        } else {
            Kind::Lines(RefCell::default())
        };
        Self {
            kind,
            layers: RefCell::default(),
        }
    }

    fn show(&self, report: Report<'_>) {
        if let Report::Resolved { layers } = report {
            *self.layers.borrow_mut() = layers.to_vec();
        }
        match &self.kind {
            Kind::Nothing => {}
            Kind::Lines(begun) => self.line(report, &mut begun.borrow_mut()),
            Kind::Bars(all, bars) => self.bar(report, all, &mut bars.borrow_mut()),
        }
    }

    /// `layer 1/3 5f70bf18a086`
    fn label(&self, number: usize) -> String {
        let layers = self.layers.borrow();
        let digest = layers.get(number.saturating_sub(1));
        let digest = digest.map_or("", |digest| short(digest));
        format!("layer {number}/{} {digest}", layers.len())
    }

    fn line(&self, report: Report<'_>, begun: &mut BTreeSet<usize>) {
        let say = |number: usize, what: &str| {
            print::note(format_args!("{}: {what}", self.label(number)));
        };
        match report {
            Report::Resolved { .. } => {}
            Report::Present { number } => say(number, "already here"),
            Report::Waiting { number } => say(number, "waiting for another pull"),
            Report::Done { number } => say(number, "done"),
            Report::Downloading {
                number,
                at,
                size: all,
            } => {
                if begun.insert(number) {
                    let what = match at {
                        0 => format!("downloading {}", size(all)),
                        at => format!("downloading {} more of {}", size(all - at), size(all)),
                    };
                    say(number, &what);
                }
            }
        }
    }

    fn bar(
        &self,
        report: Report<'_>,
        all: &MultiProgress,
        bars: &mut BTreeMap<usize, ProgressBar>,
    ) {
        let number = match report {
            Report::Resolved { .. } => return,
            Report::Present { number }
            | Report::Waiting { number }
            | Report::Done { number }
            | Report::Downloading { number, .. } => number,
        };
        let bar = bars.entry(number).or_insert_with(|| {
            let bar = all.add(ProgressBar::new(0));
            let template = "{prefix} {wide_bar} {bytes}/{total_bytes} {msg}";
            // A template that is a constant either always parses or never does.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_prefix(self.label(number));
            bar
        });
        match report {
            Report::Resolved { .. } => {}
            Report::Waiting { .. } => bar.set_message("waiting for another pull"),
            Report::Present { .. } => {
                bar.set_length(1);
                bar.finish_with_message("already here");
            }
            Report::Done { .. } => bar.finish_with_message("done"),
            Report::Downloading { at, size, .. } => {
                bar.set_length(size);
                bar.set_position(at);
                bar.set_message(match at == size {
                    true => "unpacking",
                    false => "",
                });
            }
        }
    }

    fn finish(&self) {
        if let Kind::Bars(_, bars) = &self.kind {
            for bar in bars.borrow().values().filter(|bar| !bar.is_finished()) {
                bar.abandon();
            }
        }
    }
}
