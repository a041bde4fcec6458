//! The end of one container that was asked to end: its `preStop` hook, its
//! signal, some time, and SIGKILL.
//!
//! The grace period counts from the moment the container is asked; hook and
//! signal share it. A container whose time was used up before its signal came
//! has two seconds left, as with kubelet
//! (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination>).

use std::time::{Duration, Instant};

use super::container::{Intent, Kind, State};
use super::{Event, Keeper, hooks};
use crate::oci::signal::{self, KILL, TERM};
use crate::storage::events::EventType;
use crate::sys::pidfd;

/// How long until a process that does not react to SIGKILL is killed again.
const AGAIN: Duration = Duration::from_secs(10);

/// The same where a volume is on a server, which it may be waiting for.
const SERVED: Duration = Duration::from_secs(1);

/// What is left to a container that got its signal when its time was over.
const LEAST: Duration = Duration::from_secs(2);

/// How far the end of a container is.
pub(super) struct Ending {
    /// True while its `preStop` hook runs.
    hook: bool,
    /// True while it waits for those that are to end before it.
    turn: bool,
    /// True once it has got its signal.
    signalled: bool,
    /// True once it was killed.
    killed: bool,
    /// When patience ends.
    due: Instant,
    /// True when there is no patience at all.
    forced: bool,
    /// The least time between signal and SIGKILL.
    least: Duration,
}

impl Keeper {
    /// Asks a running container to end within `grace`; a second call may only
    /// shorten the time. `message` is for the event that says so. With
    /// `in_turn` a sidecar waits until those have ended that need it.
    pub(super) fn end(&mut self, index: usize, grace: Duration, message: String, in_turn: bool) {
        let due = Instant::now() + grace;
        let forced = grace.is_zero();
        let hook = self
            .specification(index)
            .and_then(|one| one.lifecycle.as_ref()?.pre_stop.clone());
        let hook = hook.filter(|_| !forced);
        let container = &mut self.containers[index];
        let turn = in_turn && container.kind == Kind::Sidecar;
        let State::Running(running) = &mut container.state else {
            return;
        };
        if let Some(ending) = &mut running.ending {
            ending.due = ending.due.min(due);
            ending.forced |= forced;
            return;
        }
        running.probes.stop_judging();
        let waits = turn || hook.is_some();
        running.ending = Some(Ending {
            hook: hook.is_some(),
            turn,
            signalled: false,
            killed: false,
            due,
            forced,
            least: if waits && !forced {
                LEAST
            } else {
                Duration::ZERO
            },
        });
        let path = container.field_path();
        self.happened(EventType::Normal, &path, "Killing", message);
        if let Some(hook) = hook {
            self.run_hook(index, hooks::Hook::PreStop, &hook, Some(grace));
        }
        self.go_on_ending(index);
    }

    /// Ends a container that is not well; it is restarted unless it never is.
    pub(super) fn end_to_restart(&mut self, index: usize, grace: Duration, what: &str) {
        let container = &mut self.containers[index];
        if container.intent == Intent::Policy {
            container.intent = Intent::Restart;
        }
        let message = format!(
            "Container {} {what}{}",
            container.name,
            if container.is_ever_restarted() {
                ", will be restarted"
            } else {
                ""
            }
        );
        self.end(index, grace, message, false);
    }

    /// The `preStop` hook of a container is over.
    pub(super) fn pre_stopped(&mut self, index: usize, id: &str) {
        if let Some(running) = self.containers[index].running(id)
            && let Some(ending) = &mut running.ending
        {
            ending.hook = false;
            self.go_on_ending(index);
        }
    }

    /// Gives a container its signal when nothing comes before that.
    fn go_on_ending(&mut self, index: usize) {
        let State::Running(running) = &self.containers[index].state else {
            return;
        };
        let waits = |ending: &Ending| ending.turn && !self.is_turn_to_end(index);
        let is_due = |ending: &Ending| !ending.signalled && !ending.hook && !waits(ending);
        if !running.ending.as_ref().is_some_and(is_due) {
            return;
        }
        let container = &mut self.containers[index];
        let wanted = container.stop_signal.as_deref().and_then(signal::parse);
        let State::Running(running) = &mut container.state else {
            return;
        };
        let Some(ending) = &mut running.ending else {
            return;
        };
        ending.signalled = true;
        ending.due = ending.due.max(Instant::now() + ending.least);
        // One that has ended meanwhile needs no signal.
        let _ = pidfd::send_signal(&*running.pidfd, wanted.unwrap_or(TERM));
    }

    /// A sidecar ends after the containers proper, and after the sidecars that
    /// were started later.
    fn is_turn_to_end(&self, index: usize) -> bool {
        let mut active = self.containers.iter().enumerate();
        active.all(|(other, container)| {
            !container.is_active() || (container.kind == Kind::Sidecar && other <= index)
        })
    }

    /// Does what is due of the ends that are under way.
    pub(super) fn press(&mut self) {
        let now = Instant::now();
        let again = if self.has_servers() { SERVED } else { AGAIN };
        let mut stuck = false;
        for index in 0..self.containers.len() {
            self.go_on_ending(index);
            let State::Running(running) = &mut self.containers[index].state else {
                continue;
            };
            let Some(ending) = running.ending.as_mut().filter(|end| end.due <= now) else {
                continue;
            };
            if ending.signalled || ending.forced {
                ending.due = now + again;
                stuck |= std::mem::replace(&mut ending.killed, true);
                let _ = pidfd::send_signal(&*running.pidfd, KILL);
            } else {
                (ending.hook, ending.turn) = (false, false);
                self.go_on_ending(index);
            }
        }
        if stuck {
            self.give_servers_up();
        }
    }

    /// When the next patience ends.
    pub(super) fn ending_due(&self) -> Option<Instant> {
        let states = self.containers.iter().map(|container| &container.state);
        let endings = states.filter_map(|state| match state {
            State::Running(running) => running.ending.as_ref(),
            _ => None,
        });
        endings.map(|ending| ending.due).min()
    }

    /// Lets a task run a hook of a running container, for `limit` at most.
    pub(super) fn run_hook(
        &self,
        index: usize,
        which: hooks::Hook,
        hook: &k8s_openapi::api::core::v1::LifecycleHandler,
        limit: Option<Duration>,
    ) {
        let (Some(specification), Some(id)) =
            (self.specification(index), self.containers[index].id.clone())
        else {
            return;
        };
        let action = hooks::Action::of(hook, specification);
        let (reach, events) = (self.reach(index), self.events.clone());
        tokio::task::spawn_local(async move {
            let failed = hooks::run(action, reach, limit).await.is_err();
            let _ = events.send(Event::Hooked {
                index,
                id,
                which,
                failed,
            });
        });
    }
}
