//! The keeper: one process that does for one pod what a kubelet does for its
//! node's pods.
//!
//! It has one thread and one loop. Whatever happens arrives as an [`Event`]; the
//! loop takes it in, does what is due, and records the pod's status when it has
//! changed. A keeper that was killed leaves nothing that the next one does not
//! find: it starts by ending what is left of the former's processes.

mod backoff;
mod container;
mod orders;
mod output;
mod rest;
mod serve;
mod start;
mod stop;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use self::backoff::Backoff;
use self::container::{Container, Running, State, full_name, restart_policy};
use self::serve::Watchers;
use self::start::{Start, StartError, Started};
use self::stop::Stopping;
use super::control::Client;
use super::home::Home;
use super::lock::Lock;
use super::protocol::{FailureKind, Order, SandboxOrder};
use super::status::{Facts, status};
use super::{cleanup, launcher, repair};
use crate::storage::events::{Event as Happening, EventType};
use crate::storage::roots::Roots;
use crate::storage::store::{Durability, Store, boot_id};
use crate::sys::cgroup::Cgroups;
use crate::sys::{pidfd, process};

/// How long processes that were killed may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How long a keeper that finds its pod taken waits before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What the loop learns.
enum Event {
    /// A start has come to its end.
    Started {
        index: usize,
        result: Result<Started, StartError>,
    },
    /// A container has had its turn.
    Rested { index: usize },
    /// A container has ended with this code.
    Ended { index: usize, code: io::Result<i32> },
    /// The launcher has ended, unasked.
    LauncherEnded,
    /// Somebody wants the pod to be stopped and removed.
    Stop {
        grace: Duration,
        done: Option<serve::Connection>,
    },
}

/// Something that is tried until it works.
struct Attempt {
    done: bool,
    due: Instant,
    backoff: Backoff,
}

impl Attempt {
    fn new() -> Self {
        Self {
            done: false,
            due: Instant::now(),
            backoff: Backoff::volumes(),
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.done && self.due <= now
    }

    fn failed(&mut self) {
        self.due = Instant::now() + self.backoff.next();
    }
}

struct Keeper {
    home: Home,
    pod: Pod,
    store: Store,
    boot: String,
    cgroups: Rc<Cgroups>,
    launcher: Rc<OwnedFd>,
    started: Timestamp,
    sandbox: Attempt,
    volumes: Vec<(String, Attempt)>,
    containers: Vec<Container>,
    /// The container whose first start is under way.
    turn: Option<usize>,
    stopping: Option<Stopping>,
    watchers: Watchers,
    recorded: Option<PodStatus>,
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
    let Some(lock) = take_up(&home)? else {
        return Ok(());
    };
    let cgroups = Cgroups::detect().context("cannot use control groups")?;
    cleanup::release(&home, &cgroups).context("cannot end what is left of the pod")?;
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
        let launcher_ended =
            tokio::task::spawn_local(watch_launcher(launcher_pid, events.clone())?);
        let mut keeper = Keeper::new(home.clone(), pod, store, cgroups, launcher, events)?;
        keeper.serve(listener);
        process::release_unused_memory();
        let end = keeper.keep(inbox).await?;
        if !matches!(end, End::LauncherLost) {
            // Tasks of clients may still hold the socket: it is shut, not closed.
            rustix::net::shutdown(&keeper.launcher, rustix::net::Shutdown::Both)?;
            // The mounts are gone once the last process of their namespace is.
            let _ = launcher_ended.await;
        }
        Ok::<_, anyhow::Error>(Some((end, keeper.pod, keeper.store, keeper.cgroups)))
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
        Some((End::Completed, _, _, cgroups)) => {
            cleanup::release(&home, &cgroups)?;
            Ok(lock.remove()?)
        }
        Some((End::Removed(clients), pod, store, cgroups)) => {
            cleanup::remove(&home, &pod, &store, &cgroups, lock)?;
            for client in clients {
                client.reply_gone();
            }
            cleanup::sweep(roots)
        }
    }
}

/// Takes the pod's lock, or returns `None` when another keeper has it and
/// listens. Somebody else who has it only looks at the pod, or cleans up after
/// it, and is waited for: nobody but this keeper may come to start the pod.
fn take_up(home: &Home) -> Result<Option<Lock>> {
    loop {
        if let Some(lock) = Lock::try_take(home).context("cannot take the pod's lock")? {
            return Ok(Some(lock));
        }
        if Client::connect(home)
            .context("cannot reach the pod's other keeper")?
            .is_some()
        {
            return Ok(None);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// How a keeper's work ends.
enum End {
    /// All containers have ended for good.
    Completed,
    /// The pod was stopped, to be removed.
    Removed(Vec<serve::Connection>),
    /// The launcher is gone, and with it the pod's mounts.
    LauncherLost,
}

/// A task that tells when the launcher has ended.
fn watch_launcher(
    pid: rustix::process::Pid,
    events: mpsc::UnboundedSender<Event>,
) -> io::Result<impl Future<Output = ()>> {
    let pidfd = pidfd::open(pid.as_raw_nonzero().get())?;
    Ok(async move {
        // Whatever the reason why it can't be watched: without it nothing goes on.
        let _ = start::exit_code(pidfd).await;
        let _ = events.send(Event::LauncherEnded);
    })
}

impl Keeper {
    fn new(
        home: Home,
        pod: Pod,
        store: Store,
        cgroups: Cgroups,
        launcher: OwnedFd,
        events: mpsc::UnboundedSender<Event>,
    ) -> Result<Self> {
        let spec = pod.spec.clone().unwrap_or_default();
        let recorded = pod
            .status
            .clone()
            .filter(|status| status.container_statuses.is_some());
        let statuses = recorded
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        let mut containers: Vec<Container> = spec
            .containers
            .iter()
            .map(|container| {
                Container::new(
                    &container.name,
                    container.image.as_deref().unwrap_or_default(),
                )
            })
            .collect();
        let policy = restart_policy(&pod);
        for status in statuses {
            if let Some(container) = containers.iter_mut().find(|one| one.name == status.name) {
                let attempt = home
                    .container(&status.name)
                    .join(status.restart_count.to_string());
                container.resume(status, attempt.exists(), policy);
            }
        }
        let volumes = spec.volumes.unwrap_or_default();
        let started = recorded
            .as_ref()
            .and_then(|status| status.start_time.clone());
        let mut keeper = Self {
            boot: boot_id().context("cannot read the machine's boot id")?,
            cgroups: Rc::new(cgroups),
            launcher: Rc::new(launcher),
            started: started.map_or_else(Timestamp::now, |time| time.0),
            sandbox: Attempt::new(),
            volumes: volumes
                .into_iter()
                .map(|volume| (volume.name, Attempt::new()))
                .collect(),
            containers,
            turn: None,
            stopping: None,
            watchers: Watchers::default(),
            recorded,
            events,
            home,
            pod,
            store,
        };
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
        if self.recorded.is_some() {
            // Recorded first: what was interrupted is known by what it left.
            self.record()?;
            for container in &self.containers {
                cleanup::discard_starts(&self.home, &container.name)
                    .context("cannot clear what an earlier keeper left away")?;
            }
            self.sweep();
        }
        loop {
            self.advance().await;
            self.record()?;
            if self.is_idle() {
                if let Some(stopping) = self.stopping.take() {
                    return Ok(End::Removed(stopping.clients));
                }
                if self.is_over() {
                    return Ok(End::Completed);
                }
            }
            match self.next(&mut inbox, &mut children).await {
                Some(Event::LauncherEnded) => {
                    self.launcher_lost();
                    self.record()?;
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
        tokio::select! {
            biased;
            event = inbox.recv() => event,
            _ = children.recv() => {
                self.reap_strays();
                None
            }
            () = timer => None,
        }
    }

    fn next_due(&self) -> Option<Instant> {
        if let Some(stopping) = &self.stopping {
            return stopping.next_due();
        }
        if !self.sandbox.done {
            return Some(self.sandbox.due);
        }
        let volumes = self.volumes.iter().filter(|(_, attempt)| !attempt.done);
        let containers = self.containers.iter().filter_map(Container::due);
        volumes
            .map(|(_, attempt)| attempt.due)
            .chain(containers)
            .min()
    }

    /// Does everything that can be done now.
    async fn advance(&mut self) {
        if self.stopping.is_some() {
            self.press();
            return;
        }
        if !self.sandbox.done && !self.make_sandbox().await {
            return;
        }
        for index in 0..self.volumes.len() {
            if self.volumes[index].1.is_due(Instant::now()) {
                self.mount(index).await;
            }
        }
        if self.volumes.iter().any(|(_, attempt)| !attempt.done) {
            return;
        }
        let now = Instant::now();
        for index in 0..self.containers.len() {
            let container = &self.containers[index];
            if container.begun && container.due().is_some_and(|due| due <= now) {
                self.start(index);
            }
        }
        if self.turn.is_none() {
            let next = self
                .containers
                .iter()
                .position(|container| !container.begun);
            if let Some(index) = next {
                self.turn = Some(index);
                self.start(index);
            }
        }
    }

    async fn make_sandbox(&mut self) -> bool {
        if !self.sandbox.is_due(Instant::now()) {
            return false;
        }
        let order = Order::Sandbox(Box::new(SandboxOrder {
            pod: self.pod.clone(),
            node_name: crate::sys::node::name(),
            host_ip: crate::sys::node::address(),
        }));
        match orders::order(self.launcher.as_fd(), &order, &[]).await {
            Ok(_) => {
                self.sandbox.done = true;
                self.happened(
                    EventType::Normal,
                    "",
                    "Scheduled",
                    format!(
                        "Successfully assigned {} to {}",
                        self.qualified_name(),
                        crate::sys::node::name()
                    ),
                );
            }
            Err(failure) => {
                let message = format!("Failed to create pod sandbox: {failure}");
                self.happened(EventType::Warning, "", "FailedCreatePodSandBox", message);
                self.sandbox.failed();
            }
        }
        self.sandbox.done
    }

    async fn mount(&mut self, index: usize) {
        let name = self.volumes[index].0.clone();
        let answer = orders::order(self.launcher.as_fd(), &Order::Volume(name.clone()), &[]).await;
        match answer {
            Ok(_) => self.volumes[index].1.done = true,
            Err(failure) => {
                let message = format!("MountVolume.SetUp failed for volume \"{name}\" : {failure}");
                self.happened(EventType::Warning, "", "FailedMount", message);
                self.volumes[index].1.failed();
            }
        }
    }

    /// Lets a task start a container.
    fn start(&mut self, index: usize) {
        let Some(specification) = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.containers.get(index))
        else {
            return;
        };
        let container = &mut self.containers[index];
        container.begun = true;
        container.state = State::Starting;
        let id = start::new_id();
        container.id = Some(id.clone());
        let metadata = &self.pod.metadata;
        let start = Start {
            launcher: Rc::clone(&self.launcher),
            images: self.home.roots.images(),
            logs: self.home.roots.pod_logs(
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default(),
                &self.home.uid,
            ),
            container: specification.clone(),
            id,
            attempt: container.restarts,
        };
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let result = start.run().await;
            let _ = events.send(Event::Started { index, result });
        });
    }

    async fn take_in(&mut self, event: Event) {
        match event {
            Event::Started {
                index,
                result: Ok(started),
            } => self.started(index, started),
            Event::Started {
                index,
                result: Err(error),
            } => self.start_failed(index, error).await,
            Event::Rested { index } => self.pass_turn(index),
            Event::Ended { index, code } => self.ended(index, code).await,
            Event::Stop { grace, done } => self.stop(grace, done),
            Event::LauncherEnded => {}
        }
    }

    fn started(&mut self, index: usize, started: Started) {
        let container = &mut self.containers[index];
        container.image_found();
        container.image_id = started.image_id;
        container.stop_signal = started.stop_signal;
        container.state = State::Running(Running {
            pid: started.pid,
            pidfd: Rc::clone(&started.pidfd),
            since: started.since,
            clock: Instant::now(),
        });
        let (name, image) = (container.name.clone(), container.image.clone());
        let group = self
            .home
            .container_cgroup(container.id.as_deref().unwrap_or_default());
        let path = format!("spec.containers{{{name}}}");
        let pulled = format!("Container image \"{image}\" already present on machine");
        self.happened(EventType::Normal, &path, "Pulled", pulled);
        self.happened(
            EventType::Normal,
            &path,
            "Created",
            format!("Created container: {name}"),
        );
        self.happened(
            EventType::Normal,
            &path,
            "Started",
            format!("Started container {name}"),
        );

        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let code = start::end(started.pidfd, started.readers).await;
            let _ = events.send(Event::Ended { index, code });
        });
        if self.turn == Some(index) && self.containers.iter().any(|container| !container.begun) {
            let (cgroups, events) = (Rc::clone(&self.cgroups), self.events.clone());
            tokio::task::spawn_local(async move {
                rest::wait(&cgroups, &group).await;
                let _ = events.send(Event::Rested { index });
            });
        } else {
            self.pass_turn(index);
        }
        if self.stopping.is_some() {
            self.signal_stop(index);
        }
    }

    async fn start_failed(&mut self, index: usize, error: StartError) {
        self.pass_turn(index);
        let container = &mut self.containers[index];
        let path = format!("spec.containers{{{}}}", container.name);
        match error {
            StartError::Image { reason, message } => {
                container.image_missing(reason, message.clone());
                self.happened(EventType::Warning, &path, "Failed", message);
                self.happened(
                    EventType::Warning,
                    &path,
                    "Failed",
                    format!("Error: {reason}"),
                );
                if self.stopping.is_some() {
                    let name = self.containers[index].name.clone();
                    self.containers[index].state = State::Ended(never_ran(&name));
                }
            }
            StartError::Failed(failure) => {
                let reason = match failure.kind {
                    FailureKind::Config => "CreateContainerConfigError",
                    FailureKind::Create | FailureKind::Other => "CreateContainerError",
                    FailureKind::Start => "StartError",
                };
                let message = failure.message;
                self.happened(
                    EventType::Warning,
                    &path,
                    "Failed",
                    format!("Error: {message}"),
                );
                let now = Time(Timestamp::now());
                let ended = ContainerStateTerminated {
                    exit_code: 128,
                    reason: Some(reason.to_owned()),
                    message: Some(message),
                    finished_at: Some(now),
                    started_at: Some(Time(Timestamp::UNIX_EPOCH)),
                    ..ContainerStateTerminated::default()
                };
                self.conclude(index, ended).await;
            }
        }
    }

    async fn ended(&mut self, index: usize, code: io::Result<i32>) {
        self.pass_turn(index);
        let container = &self.containers[index];
        let since = match &container.state {
            State::Running(running) => Some(Time(running.since)),
            _ => None,
        };
        let (exit_code, message) = match code {
            Ok(code) => (code, None),
            Err(error) => (
                255,
                Some(format!("cannot tell how the container ended: {error}")),
            ),
        };
        let ended = ContainerStateTerminated {
            container_id: container.id.as_ref().map(|id| format!("orlop://{id}")),
            exit_code,
            reason: Some(if exit_code == 0 { "Completed" } else { "Error" }.to_owned()),
            message,
            started_at: since,
            finished_at: Some(Time(Timestamp::now())),
            signal: None,
        };
        self.conclude(index, ended).await;
    }

    /// Clears away what is left of a start, and decides what comes next.
    async fn conclude(&mut self, index: usize, ended: ContainerStateTerminated) {
        let name = self.containers[index].name.clone();
        let path = format!("spec.containers{{{name}}}");
        if let Some(id) = self.containers[index].id.clone()
            && let Err(error) = self.clear(index, &id).await
        {
            let message = format!("cannot clear container {name} away: {error:#}");
            self.happened(EventType::Warning, &path, "FailedKillPod", message);
        }
        let stopping = self.stopping.is_some();
        if !stopping {
            self.sweep();
        }
        let delay = self.containers[index].ended(&self.pod, ended, stopping);
        if delay.is_some() {
            let message = format!(
                "Back-off restarting failed container {name} in pod {}",
                full_name(&self.pod)
            );
            self.happened(EventType::Warning, &path, "BackOff", message);
        }
    }

    async fn clear(&self, index: usize, id: &str) -> Result<()> {
        let container = &self.containers[index];
        let deadline = Instant::now() + KILL_LIMIT;
        let group = self.home.container_cgroup(id);
        // With a process namespace of its own nothing outlives the first
        // process; in a shared one, everything else still runs.
        self.cgroups.kill(&group, None, deadline)?;
        self.reap_strays();
        self.cgroups.remove(&group, deadline)?;
        let order = Order::Discard(container.name.clone());
        // Nothing is mounted when the start failed early.
        let _ = orders::order(self.launcher.as_fd(), &order, &[]).await;
        cleanup::discard_start(&self.home, &container.name, container.restarts, id)
    }

    /// Lets what containers left be deleted behind the keeper's back. What can't
    /// be deleted now stays in the trash, where the next command finds it.
    fn sweep(&self) {
        let roots = &self.home.roots;
        if cleanup::has_trash(roots).is_ok_and(|has_trash| has_trash) {
            let _ = repair::start_sweeper(roots);
        }
    }

    fn pass_turn(&mut self, index: usize) {
        if self.turn == Some(index) {
            self.turn = None;
        }
    }

    fn is_idle(&self) -> bool {
        self.containers
            .iter()
            .all(|container| !matches!(container.state, State::Running(_) | State::Starting))
    }

    fn is_over(&self) -> bool {
        self.containers
            .iter()
            .all(|container| matches!(container.state, State::Ended(_)))
    }

    fn launcher_lost(&mut self) {
        let message = "the pod's launcher ended: its containers are started anew".to_owned();
        self.happened(EventType::Warning, "", "SandboxChanged", message);
    }

    /// Reaps children that nobody waits for: workers, and processes that
    /// containers left behind.
    fn reap_strays(&self) {
        let starting = self
            .containers
            .iter()
            .any(|c| matches!(c.state, State::Starting));
        if starting || self.watchers.has_processes() {
            // The child may be one that is about to be waited for.
            return;
        }
        while let Ok(Some(pid)) = process::ended_child() {
            let is_container = self
                .containers
                .iter()
                .any(|container| match &container.state {
                    State::Running(running) => running.pid == pid.as_raw_nonzero().get(),
                    _ => false,
                });
            if is_container || process::reap(pid).is_err() {
                return;
            }
        }
    }

    /// Writes the pod's status down, when it has changed.
    fn record(&mut self) -> Result<()> {
        let facts = Facts {
            containers: self.containers.iter().map(Container::status).collect(),
            over: self.is_over(),
            sandbox: self.sandbox.done,
            started: self.started,
            host_ip: crate::sys::node::address(),
        };
        let status = status(&self.pod, facts, self.recorded.as_ref(), Timestamp::now());
        if self.recorded.as_ref() == Some(&status) {
            return Ok(());
        }
        self.store
            .set_pod_status(&self.home.uid, &status, &self.boot)?;
        self.publish();
        self.watchers.tell(&status);
        self.recorded = Some(status);
        Ok(())
    }

    /// Records an event of the pod. One that can't be recorded is lost: the pod
    /// itself must go on.
    fn happened(&self, kind: EventType, field_path: &str, reason: &str, message: String) {
        let metadata = &self.pod.metadata;
        let _ = self.store.record(&Happening {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            kind: "Pod".to_owned(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: self.home.uid.clone(),
            field_path: field_path.to_owned(),
            type_: kind,
            reason: reason.to_owned(),
            message,
            source: "orlop".to_owned(),
        });
    }

    fn qualified_name(&self) -> String {
        let metadata = &self.pod.metadata;
        format!(
            "{}/{}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default()
        )
    }
}

fn never_ran(name: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some(format!("container {name} was never started")),
        finished_at: Some(Time(Timestamp::now())),
        ..ContainerStateTerminated::default()
    }
}
