//! The keeper: one process that does for one pod what a kubelet does for its
//! node's pods.
//!
//! It has one thread and one loop. Whatever happens arrives as an event; the
//! loop takes it in, does what is due, and records the pod's status when it has
//! changed. A keeper that was killed leaves nothing that the next one does not
//! find: it starts by ending what is left of the former's processes.

mod attach;
mod backoff;
mod check;
mod children;
mod claims;
mod config;
mod container;
mod ending;
mod execute;
mod given_up;
mod hooks;
mod life;
mod message;
mod orders;
mod output;
mod probes;
mod pull;
mod record;
mod rest;
mod resume;
mod sequence;
mod serve;
mod setup;
mod start;
mod stop;
mod sweep;

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use self::children::Children;
use self::container::Container;
use self::probes::Probed;
use self::pull::{Pull, Wanting};
use self::serve::Watchers;
use self::setup::Attempt;
use self::start::{StartError, Started};
use self::stop::Stopping;
use self::sweep::Sweepers;
use super::claims::{follow_up, uses_some};
use super::home::Home;
use super::protocol::Failure;
use super::{cleanup, launcher, scope};
use crate::storage::events::EventType;
use crate::storage::roots::Roots;
use crate::storage::store::{Durability, Store, boot_id};
use crate::sys::cgroup::Cgroups;
use crate::sys::{memory, node, process};

/// How long processes that were killed may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// What the loop learns.
enum Event {
    /// There is something to say about the image of a container or a volume.
    Image {
        wanting: Wanting,
        kind: EventType,
        reason: &'static str,
        message: String,
    },
    /// An image is being pulled for a container or a volume, or none any more.
    Pulling {
        wanting: Wanting,
        pull: Option<Pull>,
    },
    /// A start has come to its end.
    Started {
        index: usize,
        result: Result<Started, StartError>,
    },
    /// A hook of the start `id` of a container is over.
    Hooked {
        index: usize,
        id: String,
        which: hooks::Hook,
        failed: bool,
    },
    /// A probe of the start `id` of a container has something to tell.
    Probed {
        index: usize,
        id: String,
        probed: Probed,
    },
    /// A container has had its turn.
    Rested { index: usize },
    /// A container has ended with this code.
    Ended { index: usize, code: io::Result<i32> },
    /// The launcher has answered for a volume.
    Mounted {
        index: usize,
        /// Its root, when its files are the keeper's to write.
        result: Result<Option<OwnedFd>, Failure>,
        /// What people should know of its server.
        warning: Option<String>,
    },
    /// What waited for servers of volumes that do not answer was ended.
    GaveUp(Result<Vec<String>, Failure>),
    /// The pod's manifest has changed in the store.
    Reload,
    /// The launcher has ended, unasked.
    LauncherEnded,
    /// Somebody wants the pod to be stopped and removed.
    Stop {
        grace: Duration,
        done: Option<serve::Connection>,
    },
}

struct Keeper {
    home: Home,
    pod: Pod,
    store: Store,
    boot: String,
    cgroups: Rc<Cgroups>,
    launcher: Rc<OwnedFd>,
    started: Timestamp,
    host_ip: Option<String>,
    sandbox: Attempt,
    /// Whether the pod's claims let it run.
    gate: claims::Gate,
    /// What the pod waits for before it may run.
    unplaced: Option<String>,
    volumes: Vec<(String, Attempt)>,
    /// The volumes whose files this keeper writes.
    written: config::Roots,
    /// All containers, in the order in which they start.
    containers: Vec<Container>,
    /// The container whose first start is under way.
    turn: Option<usize>,
    stopping: Option<Stopping>,
    /// When the pod's time is over.
    deadline: Option<Instant>,
    /// Why the pod as a whole has failed (reason and message), if it has.
    failure: Option<(String, String)>,
    watchers: Watchers,
    recorded: Option<PodStatus>,
    /// When to try again to record a status that could not be written.
    record_due: Option<Instant>,
    children: Children,
    sweepers: Sweepers,
    servers: given_up::Servers,
    events: mpsc::UnboundedSender<Event>,
}

/// Keeps the pod with this uid until it is over or removed. Returns at once
/// when another keeper has it. The caller must have one thread.
///
/// # Errors
/// What kept the keeper from taking the pod up; what goes wrong later becomes an
/// event of the pod.
pub fn run(roots: &Roots, uid: &str) -> Result<()> {
    let home = Home::new(roots, uid);
    let Some(lock) = resume::take_up(&home)? else {
        return Ok(());
    };
    let cgroups = Cgroups::detect().context("cannot use control groups")?;
    cleanup::release(&home, &cgroups).context("cannot end what is left of the pod")?;
    if scope::is_wanted()? {
        scope::enter(&home)?;
    }
    cgroups
        .join(&home.keeper_cgroup())
        .context("cannot make the pod's control group")?;
    std::fs::create_dir_all(home.run()).context("cannot make the pod's run directory")?;

    let (launcher_pid, launcher) = launcher::spawn(&home).context("cannot fork the launcher")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("cannot become the reaper of the pod's processes")?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, async {
        // From here on clients can connect. What was recorded before is read
        // after, so that no request falls between the two.
        let listener = serve::listen(&home).context("cannot listen on the keeper's socket")?;
        // Whoever started this keeper waits for its output to close.
        process::forget_standard_output()?;
        let store = Store::open(roots, Durability::Normal)?;
        let Some(pod) = store.pod_by_uid(uid)? else {
            return Ok(None);
        };
        let (events, inbox) = mpsc::unbounded_channel();
        let children = Children::default();
        let launcher_process = children::launcher(&children, launcher_pid)?;
        let launcher_ended =
            tokio::task::spawn_local(children::watch_launcher(launcher_process, events.clone()));
        let mut keeper = Keeper::new(
            home.clone(),
            pod,
            store,
            cgroups,
            launcher,
            children,
            events,
        )?;
        keeper.serve(listener);
        let end = keeper.keep(inbox).await?;
        if !matches!(end, End::LauncherLost) {
            // Tasks of clients may still hold the socket: it is shut, not closed.
            rustix::net::shutdown(&keeper.launcher, rustix::net::Shutdown::Both)?;
            // The mounts are gone once the last process of their namespace is.
            let _ = launcher_ended.await;
        }
        let Keeper {
            pod,
            store,
            cgroups,
            sweepers,
            ..
        } = keeper;
        Ok::<_, anyhow::Error>(Some((end, pod, store, cgroups, sweepers)))
    })?;
    // What is left to do blocks, and nobody but the clients that wait for the
    // end is interested in the meantime.
    drop(runtime);
    match outcome {
        None => Ok(cleanup::abandon(&home, lock)?),
        Some((End::LauncherLost, ..)) => {
            drop(lock);
            Err(process::execute_again().into())
        }
        Some((End::Completed, pod, store, cgroups, sweepers)) => {
            cleanup::release(&home, &cgroups)?;
            lock.remove()?;
            if uses_some(&pod) {
                store.pod_is_over(&pod)?;
                follow_up(roots, &store)?;
            }
            sweepers.finish(roots)
        }
        Some((End::Removed(clients, lost), pod, store, cgroups, sweepers)) => {
            cleanup::remove(&home, &pod, &store, &cgroups, lock)?;
            for client in clients {
                client.reply_gone(&lost);
            }
            sweepers.finish(roots)
        }
    }
}

/// How a keeper's work ends.
enum End {
    /// All containers have ended for good.
    Completed,
    /// The pod was stopped, to be removed. With it: who waits for that, and what
    /// they should know.
    Removed(Vec<serve::Connection>, Vec<String>),
    /// The launcher is gone, and with it the pod's mounts.
    LauncherLost,
}

impl Keeper {
    fn new(
        home: Home,
        pod: Pod,
        store: Store,
        cgroups: Cgroups,
        launcher: OwnedFd,
        children: Children,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self> {
        let spec = pod.spec.clone().unwrap_or_default();
        let recorded = pod
            .status
            .clone()
            .filter(|status| status.container_statuses.is_some());
        let statuses = recorded.iter().flat_map(|status| {
            let init = status.init_container_statuses.iter().flatten();
            init.chain(status.container_statuses.iter().flatten())
        });
        let mut containers: Vec<Container> = sequence::specifications(&spec)
            .map(|(container, is_init)| Container::new(&pod, container, is_init))
            .collect();
        for status in statuses {
            if let Some(container) = containers.iter_mut().find(|one| one.name == status.name) {
                let attempt = home
                    .container(&status.name)
                    .join(status.restart_count.to_string());
                container.resume(status, attempt.exists());
            }
        }
        let volumes = spec.volumes.unwrap_or_default();
        let started = recorded
            .as_ref()
            .and_then(|status| status.start_time.clone());
        let started = started.map_or_else(Timestamp::now, |time| time.0);
        let gate = claims::Gate::of(&pod);
        let mut keeper = Self {
            boot: boot_id().context("cannot read the machine's boot id")?,
            cgroups: Rc::new(cgroups),
            launcher: Rc::new(launcher),
            deadline: gate
                .is_open()
                .then(|| stop::deadline(started, spec.active_deadline_seconds))
                .flatten(),
            failure: None,
            started,
            host_ip: node::address(),
            sandbox: Attempt::new(),
            gate,
            unplaced: None,
            volumes: volumes
                .into_iter()
                .map(|volume| (volume.name, Attempt::new()))
                .collect(),
            written: config::Roots::default(),
            containers,
            turn: None,
            stopping: None,
            watchers: Watchers::default(),
            recorded,
            record_due: None,
            children,
            sweepers: Sweepers::default(),
            servers: given_up::Servers::default(),
            events,
            home,
            pod,
            store,
        };
        if !keeper.is_finished() {
            keeper.containers.iter_mut().for_each(Container::repeat);
        }
        if keeper.pod.metadata.deletion_timestamp.is_some() {
            let grace = keeper
                .pod
                .metadata
                .deletion_grace_period_seconds
                .unwrap_or(30);
            keeper.stop(Duration::from_secs(grace.try_into().unwrap_or(0)), None);
        }
        Ok(keeper)
    }

    async fn keep(&mut self, mut inbox: mpsc::UnboundedReceiver<Event>) -> Result<End> {
        let mut children = signal(SignalKind::child())?;
        // One that ended before is not signalled any more.
        self.children.reap_strays();
        if self.recorded.is_some() {
            // Recorded first: that a start was interrupted is known by what it left.
            self.record();
            if self.record_due.is_none() {
                cleanup::discard_starts(&self.home)
                    .context("cannot remove what containers wrote before")?;
                self.sweepers.start(&self.home.roots);
            }
        }
        loop {
            self.advance().await;
            // What was begun goes on while this writes: orders are given before.
            tokio::task::yield_now().await;
            self.record();
            if self.is_idle() {
                if let Some(stopping) = self.stopping.take_if(|stopping| stopping.removed) {
                    let lost = self.servers.lost();
                    return Ok(End::Removed(stopping.clients, lost));
                }
                if self.is_over() && self.record_due.is_none() {
                    return Ok(End::Completed);
                }
            }
            match self.next(&mut inbox, &mut children).await {
                Some(Event::LauncherEnded) => {
                    self.launcher_lost();
                    self.record();
                    return Ok(End::LauncherLost);
                }
                Some(event) => self.take_in(event).await,
                None => {}
            }
        }
    }

    /// Waits for the next event, or for the next thing to be due. Meanwhile it
    /// reaps processes that nobody waits for.
    async fn next(
        &self,
        inbox: &mut mpsc::UnboundedReceiver<Event>,
        children: &mut Signal,
    ) -> Option<Event> {
        let due = self.next_due();
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let quiet = async {
            tokio::time::sleep(launcher::QUIET).await;
            self.store.close();
            // What can't be given back is no reason to end a pod.
            let _ = memory::release_unused();
            std::future::pending::<()>().await
        };
        tokio::select! {
            biased;
            event = inbox.recv() => event,
            _ = children.recv() => {
                self.children.reap_strays();
                None
            }
            () = timer => None,
            () = quiet => None,
        }
    }

    /// Does everything that can be done now.
    async fn advance(&mut self) {
        if self.stopping.is_none() {
            self.stop_when_over();
        }
        self.press();
        if self.stopping.is_some() {
            return;
        }
        if !self.may_run() {
            return;
        }
        if !self.make_sandbox().await {
            return;
        }
        for index in 0..self.volumes.len() {
            if self.volumes[index].1.is_due(Instant::now()) {
                self.mount(index);
            }
        }
        if self.volumes.iter().any(|(_, attempt)| !attempt.is_done()) {
            return;
        }
        let now = Instant::now();
        for index in 0..self.containers.len() {
            let container = &self.containers[index];
            if container.begun && container.due().is_some_and(|due| due <= now) {
                self.start(index);
            }
        }
        if self.turn.is_none()
            && let Some(index) = self.next_to_start()
        {
            self.turn = Some(index);
            self.start(index);
        }
    }

    async fn take_in(&mut self, event: Event) {
        match event {
            Event::Image {
                wanting,
                kind,
                reason,
                message,
            } => self.image_said(wanting, kind, reason, message),
            Event::Pulling { wanting, pull } => self.pulling(wanting, pull),
            Event::Started {
                index,
                result: Ok(started),
            } => self.started(index, started),
            Event::Started {
                index,
                result: Err(error),
            } => self.start_failed(index, error).await,
            Event::Hooked {
                index,
                id,
                which,
                failed,
            } => self.hooked(index, &id, which, failed),
            Event::Probed { index, id, probed } => self.probed(index, &id, probed),
            Event::Rested { index } => self.pass_turn(index),
            Event::Ended { index, code } => self.ended(index, code).await,
            Event::Stop { grace, done } => self.stop(grace, done),
            Event::Mounted {
                index,
                result,
                warning,
            } => self.mounted(index, result, warning),
            Event::GaveUp(result) => self.gave_up(result),
            Event::Reload => {
                if let Err(error) = self.reload() {
                    let message = format!("cannot read the pod's manifest again: {error:#}");
                    self.happened(EventType::Warning, "", "FailedSync", message);
                }
            }
            Event::LauncherEnded => {}
        }
    }

    fn launcher_lost(&mut self) {
        let message = "the pod's launcher ended: its containers are started anew".to_owned();
        self.happened(EventType::Warning, "", "SandboxChanged", message);
    }
}
