//! The life of containers: started in turn, ended, and started again.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as api, ContainerStateTerminated};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::container::{Intent, Kind, Running, State, full_name};
use super::probes::Probes;
use super::pull::Wanting;
use super::resume::never_ran;
use super::start::{self, Start, StartError, Started};
use super::{Event, KILL_LIMIT, Keeper, orders, rest, stop};
use crate::pod::cleanup;
use crate::pod::protocol::{FailureKind, Order};
use crate::storage::events::EventType;

impl Keeper {
    /// Lets a task start a container.
    pub(super) fn start(&mut self, index: usize) {
        let Some(specification) = self.specification(index).cloned() else {
            return;
        };
        if self.backs_off(index) {
            return;
        }
        let references = self.references(&specification);
        let puller = self.puller(
            Wanting::Container(index),
            specification.image.clone(),
            specification.image_pull_policy.clone(),
        );
        let logs = self.log_directory();
        let container = &mut self.containers[index];
        let id = start::new_id();
        container.begin(id.clone());
        let start = Start {
            launcher: Rc::clone(&self.launcher),
            children: self.children.clone(),
            puller,
            hubs: self.watchers.hubs(),
            logs,
            container: specification,
            references,
            id,
            attempt: container.restarts,
        };
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let result = start.run().await;
            let _ = events.send(Event::Started { index, result });
        });
    }

    /// A container runs.
    pub(super) fn started(&mut self, index: usize, started: Started) {
        let nothing = api::Container::default();
        let specification = self.specification(index).unwrap_or(&nothing);
        let lifecycle = specification.lifecycle.as_ref();
        let stop_signal = lifecycle.and_then(|lifecycle| lifecycle.stop_signal.clone());
        let hook_pending = lifecycle.is_some_and(|lifecycle| lifecycle.post_start.is_some());
        let probes = Probes::new(specification);
        let container = &mut self.containers[index];
        container.forget_image_failures();
        container.image_id = started.image_id;
        container.stop_signal = stop_signal.or(started.stop_signal);
        container.state = State::Running(Running {
            pidfd: started.process.pidfd(),
            since: started.since,
            clock: Instant::now(),
            hook_pending,
            probes,
            ending: None,
        });
        let name = container.name.clone();
        let group = self
            .home
            .container_cgroup(container.id.as_deref().unwrap_or_default());
        let (path, kind) = (container.field_path(), container.kind);
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
            let code = start::end(started.process, started.readers, &started.hub).await;
            let _ = events.send(Event::Ended { index, code });
        });
        if hook_pending {
            self.post_start(index);
        } else {
            self.begin_probes(index);
        }
        if self.turn == Some(index) && kind == Kind::Init {
            // Its turn ends with it.
        } else if self.turn == Some(index)
            && self.containers.iter().any(|container| !container.begun)
        {
            let (cgroups, events) = (Rc::clone(&self.cgroups), self.events.clone());
            tokio::task::spawn_local(async move {
                // Without a timer the turn ends at once; the start itself was right.
                let _ = rest::wait(&cgroups, &group).await;
                let _ = events.send(Event::Rested { index });
            });
        } else {
            self.pass_turn(index);
        }
        if let Some(stopping) = &self.stopping {
            self.end_in_turn(index, stopping.left());
        }
    }

    /// A container could not be started.
    pub(super) async fn start_failed(&mut self, index: usize, error: StartError) {
        self.pass_turn(index);
        let container = &mut self.containers[index];
        let path = container.field_path();
        match error {
            StartError::Image { reason, message } => {
                container.image_missing(reason, message);
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
            StartError::Failed(failure) if failure.kind == FailureKind::Config => {
                self.not_configured(index, failure.message).await;
            }
            StartError::GivenUp => match self.stopping {
                Some(_) => container.state = State::Ended(never_ran(&container.name)),
                None => container.start_anew(),
            },
            StartError::Failed(failure) => {
                let reason = match failure.kind {
                    FailureKind::Start => "StartError",
                    _ => "CreateContainerError",
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

    /// A container has ended with this code.
    pub(super) async fn ended(&mut self, index: usize, code: io::Result<i32>) {
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
        let group = container
            .id
            .as_ref()
            .map(|id| self.home.container_cgroup(id));
        // A group that tells nothing leaves the exit code to speak for itself.
        let out_of_memory =
            group.is_some_and(|group| self.cgroups.ran_out_of_memory(&group).unwrap_or(false));
        let reason = match exit_code {
            _ if out_of_memory => "OOMKilled",
            0 => "Completed",
            _ => "Error",
        };
        let mut ended = ContainerStateTerminated {
            container_id: container.id.as_ref().map(|id| format!("orlop://{id}")),
            exit_code,
            reason: Some(reason.to_owned()),
            message,
            started_at: since,
            finished_at: Some(Time(Timestamp::now())),
            signal: None,
        };
        self.add_message(index, &mut ended);
        self.conclude(index, ended).await;
    }

    /// Clears away what is left of a start, and decides what comes next.
    async fn conclude(&mut self, index: usize, ended: ContainerStateTerminated) {
        let name = self.containers[index].name.clone();
        let path = self.containers[index].field_path();
        self.clear_start(index).await;
        let stopping = self.stopping.is_some();
        let delay = self.containers[index].ended(&self.pod, ended, stopping);
        if delay.is_some() {
            let message = format!(
                "Back-off restarting failed container {name} in pod {}",
                full_name(&self.pod)
            );
            self.happened(EventType::Warning, &path, "BackOff", message);
        }
    }

    /// Clears away what is left of a start.
    pub(super) async fn clear_start(&mut self, index: usize) {
        let name = self.containers[index].name.clone();
        if let Some(id) = self.containers[index].id.clone()
            && let Err(error) = self.clear(index, &id).await
        {
            let path = self.containers[index].field_path();
            let message = format!("cannot clear container {name} away: {error:#}");
            self.happened(EventType::Warning, &path, "FailedKillPod", message);
        }
    }

    async fn clear(&mut self, index: usize, id: &str) -> Result<()> {
        let container = &self.containers[index];
        let deadline = Instant::now() + KILL_LIMIT;
        let group = self.home.container_cgroup(id);
        // With a process namespace of its own nothing outlives the first
        // process; in a shared one, everything else still runs.
        self.cgroups.kill(&group, None, deadline)?;
        self.children.reap_strays();
        self.cgroups.remove(&group, deadline)?;
        let order = Order::Discard(container.name.clone());
        // Nothing is mounted when the start failed early.
        let _ = orders::order(self.launcher.as_fd(), &order, &[]).await;
        cleanup::discard_start(&self.home, &container.name, container.restarts, id)?;
        self.sweepers.start(&self.home.roots);
        Ok(())
    }

    /// Takes a changed manifest in, and what the pod draws from: containers whose
    /// image is another one now are replaced.
    pub(super) fn reload(&mut self) -> Result<()> {
        let Some(pod) = self.store.pod_by_uid(&self.home.uid)? else {
            return Ok(());
        };
        let limit = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.active_deadline_seconds);
        if self.gate.is_open() {
            self.deadline = stop::deadline(self.started, limit);
        }
        let before = std::mem::replace(&mut self.pod, pod);
        self.refresh(&before);
        let grace = self.grace();
        for index in 0..self.containers.len() {
            let wanted = self.specification(index);
            let image = wanted.and_then(|wanted| wanted.image.clone());
            let image = image.unwrap_or_default();
            let container = &mut self.containers[index];
            if container.image == image {
                continue;
            }
            container.image = image;
            match &container.state {
                // An init container that runs ends by itself.
                State::Running(_) if container.kind == Kind::Init => {}
                State::Running(_) => {
                    container.intent = Intent::Replace;
                    let name = &container.name;
                    let message = format!("Container {name} definition changed, will be restarted");
                    self.end(index, grace, message, false);
                }
                State::Waiting { .. } => {
                    container.forget_image_failures();
                    container.wait_no_longer();
                }
                State::Starting => {
                    if let Some(pull) = &container.pull {
                        pull.give_up();
                    }
                }
                State::Ended(_) => {}
            }
        }
        Ok(())
    }

    /// Where the pod's logs are.
    pub(super) fn log_directory(&self) -> PathBuf {
        let metadata = &self.pod.metadata;
        self.home.roots.pod_logs(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
            &self.home.uid,
        )
    }

    /// Lets the next container have its turn, if it was this one's.
    pub(super) fn pass_turn(&mut self, index: usize) {
        if self.turn == Some(index) {
            self.turn = None;
        }
    }
}
