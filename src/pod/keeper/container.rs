//! What the keeper knows of one container: its state, and what follows when
//! the state changes.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    self as api, ContainerState, ContainerStateTerminated, ContainerStatus, Pod,
};

use super::backoff::{Backoff, paced};
use super::ending::Ending;
use super::probes::Probes;
use super::pull::Pull;
use crate::pod::status::{self, BACK_OFF, CONFIG_ERROR, INITIALIZING};

/// How long the error of a pull is shown before the waiting for the next one.
const ERROR_SHOWN: Duration = Duration::from_secs(3);

/// What a container is for its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It ends before those after it begin.
    Init,
    /// It begins before those after it, runs as long as the pod, and is stopped
    /// after the containers proper.
    Sidecar,
    /// A container proper.
    App,
}

/// Whether a container that is being ended comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// As its restart policy says.
    Policy,
    /// It was not well, and is restarted unless it never is.
    Restart,
    /// It is only replaced by one with another image.
    Replace,
}

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
    /// True until its `postStart` hook is over.
    pub(super) hook_pending: bool,
    pub(super) probes: Probes,
    /// How far its end is, when it was asked to end.
    pub(super) ending: Option<Ending>,
}

impl Running {
    /// True once it has come up: after its hook and its startup probe.
    pub(super) fn is_started(&self) -> bool {
        !self.hook_pending && self.probes.started
    }

    fn is_ready(&self) -> bool {
        self.is_started() && self.probes.ready
    }
}

/// One container of the pod.
pub(super) struct Container {
    pub(super) kind: Kind,
    pub(super) policy: String,
    pub(super) name: String,
    pub(super) image: String,
    pub(super) image_id: String,
    /// The id of its present or last start.
    pub(super) id: Option<String>,
    pub(super) state: State,
    pub(super) last: Option<ContainerStateTerminated>,
    pub(super) restarts: u32,
    pub(super) stop_signal: Option<String>,
    pub(super) intent: Intent,
    /// True once the keeper has begun to start it for the first time.
    pub(super) begun: bool,
    /// True once it has come up at least once.
    pub(super) came_up: bool,
    /// Why it waits when there is nothing else to say.
    creating: &'static str,
    /// True when its next start is a restart that was not counted yet.
    pub(super) restarting: bool,
    restart_backoff: Backoff,
    image_backoff: Backoff,
    config_backoff: Backoff,
    /// True when something that the pod draws from has changed since its start began.
    outdated: bool,
    /// When its image is to be pulled again, until it shows that it waits for that.
    image_retry: Option<Instant>,
    /// The pull of its image, while there is one.
    pub(super) pull: Option<Pull>,
}

impl Container {
    /// The container `specification` of `pod`, which has never run.
    pub(super) fn new(pod: &Pod, specification: &api::Container, is_init: bool) -> Self {
        let kind = match is_init {
            true if status::is_sidecar(specification) => Kind::Sidecar,
            true => Kind::Init,
            false => Kind::App,
        };
        let own = specification.restart_policy.as_deref();
        let policy = match (own.unwrap_or_else(|| restart_policy(pod)), kind) {
            // An init container that has done its work is never done again.
            ("Always", Kind::Init) => "OnFailure",
            (policy, _) => policy,
        };
        let spec = pod.spec.as_ref();
        let init = spec.and_then(|spec| spec.init_containers.as_ref());
        let creating = match init.is_none_or(Vec::is_empty) {
            true => "ContainerCreating",
            false => INITIALIZING,
        };
        Self {
            kind,
            policy: policy.to_owned(),
            name: specification.name.clone(),
            image: specification.image.clone().unwrap_or_default(),
            image_id: String::new(),
            id: None,
            state: State::Waiting {
                reason: creating,
                message: None,
                due: None,
            },
            last: None,
            restarts: 0,
            stop_signal: None,
            begun: false,
            came_up: false,
            creating,
            intent: Intent::Policy,
            restarting: false,
            restart_backoff: Backoff::restarts(),
            image_backoff: Backoff::images(),
            config_backoff: Backoff::images(),
            outdated: false,
            image_retry: None,
            pull: None,
        }
    }

    pub(super) fn waiting_to_be_made(&self, due: Option<Instant>) -> State {
        State::Waiting {
            reason: self.creating,
            message: None,
            due,
        }
    }

    /// True when it has ended with success and will not be started again.
    pub(super) fn has_succeeded(&self) -> bool {
        matches!(&self.state, State::Ended(ended) if ended.exit_code == 0)
    }

    /// False for one that is never started a second time.
    pub(super) fn is_ever_restarted(&self) -> bool {
        self.policy != "Never"
    }

    /// True while something of it runs, or is about to.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, State::Running(_) | State::Starting)
    }

    /// The part of the pod that it is, as events name it.
    pub(super) fn field_path(&self) -> String {
        let list = match self.kind {
            Kind::App => "containers",
            Kind::Init | Kind::Sidecar => "initContainers",
        };
        format!("spec.{list}{{{}}}", self.name)
    }

    /// Its present start, if it runs and is the one with this id.
    pub(super) fn running(&mut self, id: &str) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) if self.id.as_deref() == Some(id) => Some(running),
            _ => None,
        }
    }

    /// Its next start begins, under this id. A restart counts from here on: a
    /// container that waits for one has not been restarted yet.
    pub(super) fn begin(&mut self, id: String) {
        self.begun = true;
        self.outdated = false;
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
        let intent = std::mem::replace(&mut self.intent, Intent::Policy);
        let again = match self.policy.as_str() {
            "Never" => false,
            "OnFailure" => ended.exit_code != 0 || intent == Intent::Restart,
            _ => true,
        };
        let replace = intent == Intent::Replace;
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
        let due = Some(Instant::now() + paced(delay));
        if delay.is_zero() {
            self.state = self.waiting_to_be_made(due);
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

    /// The manifest asks for what is not there: it is tried again after a while, or
    /// when something that the pod draws from has changed.
    pub(super) fn not_configured(&mut self, message: String) {
        let delay = match self.outdated {
            true => Duration::ZERO,
            false => self.config_backoff.next(),
        };
        self.state = State::Waiting {
            reason: CONFIG_ERROR,
            message: Some(message),
            due: Some(Instant::now() + delay),
        };
    }

    /// Something that the pod draws from has changed.
    pub(super) fn configuration_changed(&mut self) {
        self.outdated = true;
        if matches!(self.state, State::Waiting { reason, .. } if reason == CONFIG_ERROR) {
            self.wait_no_longer();
        }
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
        self.config_backoff = Backoff::images();
    }

    /// Its status in the API's terms.
    pub(super) fn status(&self) -> ContainerStatus {
        let (started, ready) = match &self.state {
            State::Running(running) => (running.is_started(), running.is_ready()),
            _ => (false, false),
        };
        ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            image_id: self.image_id.clone(),
            container_id: self.id.as_ref().map(|id| format!("orlop://{id}")),
            ready: match self.kind {
                Kind::Init => self.has_succeeded(),
                Kind::Sidecar | Kind::App => ready,
            },
            started: Some(started),
            restart_count: self.restarts.try_into().unwrap_or(i32::MAX),
            state: Some(match &self.state {
                State::Waiting {
                    reason, message, ..
                } => status::waiting(reason, message.clone()),
                State::Starting => status::waiting(self.creating, None),
                State::Running(running) if running.hook_pending => {
                    status::waiting(self.creating, None)
                }
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
