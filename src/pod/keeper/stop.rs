//! The end of a pod: every container gets its signal, some time, and SIGKILL.

use std::time::{Duration, Instant};

use super::container::State;
use super::life::never_ran;
use super::serve::Connection;
use super::{KILL_LIMIT, Keeper};
use crate::oci::signal::{self, KILL, TERM};
use crate::storage::events::EventType;
use crate::sys::pidfd;

/// How long until a process that does not react to SIGKILL is killed again.
const AGAIN: Duration = Duration::from_secs(10);

/// A pod that is being stopped.
pub(super) struct Stopping {
    /// When patience ends.
    deadline: Instant,
    /// Who wants to know that the pod is gone.
    pub(super) clients: Vec<Connection>,
}

impl Stopping {
    pub(super) fn next_due(&self) -> Option<Instant> {
        Some(self.deadline)
    }
}

impl Keeper {
    /// Stops all containers and gives them `grace` to end by themselves. A
    /// second call may only shorten the time.
    pub(super) fn stop(&mut self, grace: Duration, client: Option<Connection>) {
        let deadline = Instant::now() + grace;
        if let Some(stopping) = &mut self.stopping {
            stopping.deadline = stopping.deadline.min(deadline);
            stopping.clients.extend(client);
            return;
        }
        let clients = client.into_iter().collect();
        self.stopping = Some(Stopping { deadline, clients });
        self.pod.metadata.deletion_timestamp.get_or_insert_with(|| {
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now())
        });
        for index in 0..self.containers.len() {
            let container = &mut self.containers[index];
            if matches!(container.state, State::Waiting { .. }) {
                let ended = container.last.clone();
                container.state = State::Ended(ended.unwrap_or_else(|| never_ran(&container.name)));
            }
            if let Some(pull) = &self.containers[index].pull {
                pull.give_up();
            }
            self.signal_stop(index);
        }
    }

    /// Asks one running container to end.
    pub(super) fn signal_stop(&self, index: usize) {
        let container = &self.containers[index];
        let State::Running(running) = &container.state else {
            return;
        };
        let wanted = container.stop_signal.as_deref().and_then(signal::parse);
        // One that has ended meanwhile needs no signal.
        let _ = pidfd::send_signal(&*running.pidfd, wanted.unwrap_or(TERM));
        let path = format!("spec.containers{{{}}}", container.name);
        let message = format!("Stopping container {}", container.name);
        self.happened(EventType::Normal, &path, "Killing", message);
    }

    /// Kills what still runs once the time is over.
    pub(super) fn press(&mut self) {
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        if stopping.deadline > Instant::now() {
            return;
        }
        stopping.deadline = Instant::now() + AGAIN;
        for container in &self.containers {
            if let State::Running(running) = &container.state {
                let _ = pidfd::send_signal(&*running.pidfd, KILL);
            }
        }
        debug_assert!(
            AGAIN >= KILL_LIMIT,
            "one round of killing ends before the next"
        );
    }
}
