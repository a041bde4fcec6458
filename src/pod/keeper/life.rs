//! The life of containers: started in turn, ended, and started again.

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStateTerminated;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::container::{Running, State, full_name};
use super::pull::Puller;
use super::start::{self, Start, StartError, Started};
use super::{Event, KILL_LIMIT, Keeper, orders, rest};
use crate::oci::signal::KILL;
use crate::pod::cleanup;
use crate::pod::protocol::{FailureKind, Order};
use crate::storage::events::EventType;
use crate::sys::pidfd;

impl Keeper {
    /// Lets a task start a container.
    pub(super) fn start(&mut self, index: usize) {
        let Some(specification) = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.containers.get(index))
        else {
            return;
        };
        let specification = specification.clone();
        if self.backs_off(index) {
            return;
        }
        let container = &mut self.containers[index];
        let id = start::new_id();
        container.begin(id.clone());
        let metadata = &self.pod.metadata;
        let start = Start {
            launcher: Rc::clone(&self.launcher),
            children: self.children.clone(),
            puller: Puller {
                events: self.events.clone(),
                index,
                roots: self.home.roots.clone(),
                secrets: Vec::new(),
            },
            logs: self.home.roots.pod_logs(
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default(),
                &self.home.uid,
            ),
            container: specification,
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
        let container = &mut self.containers[index];
        container.forget_image_failures();
        container.image_id = started.image_id;
        container.stop_signal = started.stop_signal;
        container.state = State::Running(Running {
            pidfd: started.process.pidfd(),
            since: started.since,
            clock: Instant::now(),
        });
        let name = container.name.clone();
        let group = self
            .home
            .container_cgroup(container.id.as_deref().unwrap_or_default());
        let path = format!("spec.containers{{{name}}}");
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
            let code = start::end(started.process, started.readers).await;
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

    /// A container could not be started.
    pub(super) async fn start_failed(&mut self, index: usize, error: StartError) {
        self.pass_turn(index);
        let container = &mut self.containers[index];
        let path = format!("spec.containers{{{}}}", container.name);
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
            StartError::GivenUp => match self.stopping {
                Some(_) => container.state = State::Ended(never_ran(&container.name)),
                None => container.start_anew(),
            },
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
        let ended = ContainerStateTerminated {
            container_id: container.id.as_ref().map(|id| format!("orlop://{id}")),
            exit_code,
            reason: Some(reason.to_owned()),
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
        let delay = self.containers[index].ended(&self.pod, ended, stopping);
        if delay.is_some() {
            let message = format!(
                "Back-off restarting failed container {name} in pod {}",
                full_name(&self.pod)
            );
            self.happened(EventType::Warning, &path, "BackOff", message);
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

    /// Takes a changed manifest in: containers whose image is another one now are
    /// replaced.
    pub(super) fn reload(&mut self) -> Result<()> {
        let Some(pod) = self.store.pod_by_uid(&self.home.uid)? else {
            return Ok(());
        };
        let spec = pod.spec.clone().unwrap_or_default();
        let grace = spec
            .termination_grace_period_seconds
            .unwrap_or(30)
            .try_into()
            .unwrap_or(0);
        self.pod = pod;
        for index in 0..self.containers.len() {
            let container = &mut self.containers[index];
            let image = spec
                .containers
                .get(index)
                .and_then(|wanted| wanted.image.clone());
            let image = image.unwrap_or_default();
            if container.image == image {
                continue;
            }
            container.image = image;
            match &container.state {
                State::Running(running) => {
                    container.replace = true;
                    let pidfd = Rc::clone(&running.pidfd);
                    tokio::task::spawn_local(async move {
                        tokio::time::sleep(Duration::from_secs(grace)).await;
                        // Most have ended long before.
                        let _ = pidfd::send_signal(&*pidfd, KILL);
                    });
                    self.signal_stop(index);
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

    /// Lets the next container have its turn, if it was this one's.
    pub(super) fn pass_turn(&mut self, index: usize) {
        if self.turn == Some(index) {
            self.turn = None;
        }
    }
}

/// How a container ends that was stopped before it ever ran.
pub(super) fn never_ran(name: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some(format!("container {name} was never started")),
        finished_at: Some(Time(Timestamp::now())),
        ..ContainerStateTerminated::default()
    }
}
