//! What the keeper knows of one container: its state, and what follows when
//! the state changes.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::Backoff;
use super::pull::Pull;
use crate::pod::status::{self, BACK_OFF};

/// How long the error of a pull is shown before the waiting for the next one.
const ERROR_SHOWN: Duration = Duration::from_secs(3);

/// A container's place in its life.
pub(super) enum State {
    /// It waits, for its turn or for `due`.
    Waiting {
        reason: &'static str,
        message: Option<String>,
        due: Option<Instant>,
    },
    /// A task is starting it.
    Starting,
    /// It runs.
    Running(Running),
    /// It has ended and will not be started again.
    Ended(ContainerStateTerminated),
}

/// A container that runs.
pub(super) struct Running {
    pub(super) pidfd: Rc<OwnedFd>,
    pub(super) since: Timestamp,
    pub(super) clock: Instant,
}

/// One container of the pod.
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) image_id: String,
    /// The id of its present or last start.
    pub(super) id: Option<String>,
    pub(super) state: State,
    pub(super) last: Option<ContainerStateTerminated>,
    pub(super) restarts: u32,
    pub(super) stop_signal: Option<String>,
    /// True when it is stopped only to be started with another image.
    pub(super) replace: bool,
    /// True once the keeper has begun to start it for the first time.
    pub(super) begun: bool,
    /// True when its next start is a restart that was not counted yet.
    restarting: bool,
    restart_backoff: Backoff,
    image_backoff: Backoff,
    /// When its image is to be pulled again, until it shows that it waits for that.
    image_retry: Option<Instant>,
    /// The pull of its image, while there is one.
    pub(super) pull: Option<Pull>,
}

impl Container {
    /// A container that has never run.
    pub(super) fn new(name: &str, image: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: image.to_owned(),
            image_id: String::new(),
            id: None,
            state: State::Waiting {
                reason: "ContainerCreating",
                message: None,
                due: None,
            },
            last: None,
            restarts: 0,
            stop_signal: None,
            begun: false,
            replace: false,
            restarting: false,
            restart_backoff: Backoff::restarts(),
            image_backoff: Backoff::images(),
            image_retry: None,
            pull: None,
        }
    }

    /// Takes up what an earlier keeper recorded. `interrupted` says that a start
    /// was under way which nobody saw end.
    pub(super) fn resume(&mut self, recorded: &ContainerStatus, interrupted: bool, policy: &str) {
        self.restarts = recorded.restart_count.try_into().unwrap_or(0);
        self.image_id.clone_from(&recorded.image_id);
        self.last = recorded
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.clone());
        let state = recorded.state.clone().unwrap_or_default();
        if let Some(ended) = state.terminated {
            self.begun = true;
            self.state = State::Ended(ended);
        } else if interrupted || state.running.is_some() {
            let ended = ContainerStateTerminated {
                container_id: recorded.container_id.clone(),
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some("the container was running when its keeper ended".to_owned()),
                started_at: state.running.and_then(|running| running.started_at),
                finished_at: Some(Time(Timestamp::now())),
                signal: None,
            };
            if policy == "Never" {
                self.begun = true;
                self.state = State::Ended(ended);
            } else {
                self.last = Some(ended);
                self.restarting = true;
            }
        } else if let Some(waiting) = state.waiting {
            self.restarting = waiting.reason.as_deref() == Some(BACK_OFF);
        }
    }

    /// Its next start begins, under this id. A restart counts from here on: a
    /// container that waits for one has not been restarted yet.
    pub(super) fn begin(&mut self, id: String) {
        self.begun = true;
        self.state = State::Starting;
        self.id = Some(id);
        self.restarts += u32::from(std::mem::take(&mut self.restarting));
    }

    /// When the container wants to be started, if it waits for a time.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { due, .. } => due,
            _ => None,
        }
    }

    /// The container has ended. Decides whether it will be started again, and
    /// returns the delay for the event that says so, when there is one.
    pub(super) fn ended(
        &mut self,
        pod: &Pod,
        ended: ContainerStateTerminated,
        stopping: bool,
    ) -> Option<Duration> {
        let run = match &self.state {
            State::Running(running) => running.clock.elapsed(),
            _ => Duration::ZERO,
        };
        let again = match restart_policy(pod) {
            "Never" => false,
            "OnFailure" => ended.exit_code != 0,
            _ => true,
        };
        let replace = std::mem::take(&mut self.replace);
        if stopping || !(again || replace) {
            self.state = State::Ended(ended);
            return None;
        }
        self.last = Some(ended);
        self.restarting = true;
        if replace || self.restart_backoff.recovered_after(run) {
            self.restart_backoff = Backoff::restarts();
        }
        let delay = self.restart_backoff.next();
        let due = Some(Instant::now() + delay);
        if delay.is_zero() {
            self.state = State::Waiting {
                reason: "ContainerCreating",
                message: None,
                due,
            };
            return None;
        }
        let message = Some(format!(
            "back-off {} restarting failed container={} pod={}",
            go_duration(delay),
            self.name,
            full_name(pod)
        ));
        self.state = State::Waiting {
            reason: BACK_OFF,
            message,
            due,
        };
        Some(delay)
    }

    /// The image is not there: it is looked for again after a while.
    pub(super) fn image_missing(&mut self, reason: &'static str, message: String) {
        let now = Instant::now();
        let retry = now + self.image_backoff.next();
        let pulled = reason == "ErrImagePull";
        self.image_retry = pulled.then_some(retry);
        self.state = State::Waiting {
            reason,
            message: Some(message),
            due: Some(if pulled { now + ERROR_SHOWN } else { retry }),
        };
    }

    /// Passes from the error of a pull to the waiting for the next one. Returns
    /// false when there is nothing to wait for.
    pub(super) fn image_backs_off(&mut self) -> bool {
        let Some(retry) = self.image_retry.take() else {
            return false;
        };
        if let State::Waiting {
            reason,
            message: Some(message),
            due,
        } = &mut self.state
        {
            let image = &self.image;
            *message = format!("Back-off pulling image \"{image}\": {reason}: {message}");
            *reason = "ImagePullBackOff";
            *due = Some(retry);
        }
        true
    }

    /// Whatever the container waits for, it is tried now.
    pub(super) fn wait_no_longer(&mut self) {
        self.image_retry = None;
        if let State::Waiting { due: Some(due), .. } = &mut self.state {
            *due = Instant::now();
        }
    }

    /// A start was given up that shall be begun once more.
    pub(super) fn start_anew(&mut self) {
        self.forget_image_failures();
        self.state = State::Waiting {
            reason: "ContainerCreating",
            message: None,
            due: Some(Instant::now()),
        };
    }

    /// Whatever went wrong with images before counts no more.
    pub(super) fn forget_image_failures(&mut self) {
        self.image_backoff = Backoff::images();
    }

    /// Its status in the API's terms.
    pub(super) fn status(&self) -> ContainerStatus {
        let is_running = matches!(self.state, State::Running(_));
        ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            image_id: self.image_id.clone(),
            container_id: self.id.as_ref().map(|id| format!("orlop://{id}")),
            ready: is_running,
            started: Some(is_running),
            restart_count: self.restarts.try_into().unwrap_or(i32::MAX),
            state: Some(match &self.state {
                State::Waiting {
                    reason, message, ..
                } => status::waiting(reason, message.clone()),
                State::Starting => status::waiting("ContainerCreating", None),
                State::Running(running) => status::running(running.since),
                State::Ended(ended) => status::terminated(ended.clone()),
            }),
            last_state: Some(
                self.last
                    .clone()
                    .map_or_else(ContainerState::default, status::terminated),
            ),
            ..ContainerStatus::default()
        }
    }
}

/// A pod's restart policy.
pub(super) fn restart_policy(pod: &Pod) -> &str {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.restart_policy.as_deref())
        .unwrap_or("Always")
}

/// A pod as kubelet names it in messages: `name_namespace(uid)`.
pub(super) fn full_name(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    format!(
        "{}_{}({})",
        metadata.name.as_deref().unwrap_or_default(),
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.uid.as_deref().unwrap_or_default()
    )
}

/// A whole number of seconds in kubelet's way: `40s`, `2m40s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}
