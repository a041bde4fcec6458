//! Startup, liveness and readiness probes
//! (<https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/>).
//!
//! Every probe of a running container is a task, which checks again and again and
//! tells the keeper when its verdict changes. The startup probe comes first; the
//! others begin once it has succeeded. Tasks end with the container's start.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::check::{Action, Finding, Reach};
use super::container::State;
use super::{Event, Keeper};
use crate::storage::events::EventType;

/// Bytes of an event's message at most: it repeats what a container says.
const LONGEST_MESSAGE: usize = 1024;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What one check adds to what is known.
pub(super) struct Probed {
    kind: Kind,
    finding: Finding,
    /// The verdict, when enough checks in a row agree.
    verdict: Option<bool>,
}

/// The probes of one start of a container.
pub(super) struct Probes {
    /// The verdict of the startup probe; true when there is none.
    pub(super) started: bool,
    /// The verdict of the readiness probe; true when there is none.
    pub(super) ready: bool,
    tasks: Vec<(Kind, Task)>,
}

/// A task that ends when it is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Probes {
    /// Those of a container that has just been started.
    pub(super) fn new(container: &Container) -> Self {
        Self {
            started: container.startup_probe.is_none(),
            ready: container.readiness_probe.is_none(),
            tasks: Vec::new(),
        }
    }

    /// Ends the probes that would end the container, which is being ended.
    pub(super) fn stop_judging(&mut self) {
        self.tasks.retain(|(kind, _)| *kind == Kind::Readiness);
    }
}

impl Keeper {
    /// Begins the probes of a container that runs and whose hook is over.
    pub(super) fn begin_probes(&mut self, index: usize) {
        let State::Running(running) = &self.containers[index].state else {
            return;
        };
        if running.probes.started {
            self.come_up(index);
        } else {
            self.begin_probe(index, Kind::Startup);
        }
    }

    /// A container has come up.
    fn come_up(&mut self, index: usize) {
        self.containers[index].came_up = true;
        self.begin_probe(index, Kind::Liveness);
        self.begin_probe(index, Kind::Readiness);
    }

    fn begin_probe(&mut self, index: usize, kind: Kind) {
        let Some(specification) = self.specification(index) else {
            return;
        };
        let Some(probe) = kind.of(specification) else {
            return;
        };
        let watch = Watch {
            kind,
            action: Action::of(probe, specification),
            timing: Timing::of(probe),
            index,
            id: self.containers[index].id.clone().unwrap_or_default(),
            reach: self.reach(index),
            events: self.events.clone(),
        };
        let State::Running(running) = &mut self.containers[index].state else {
            return;
        };
        if running.ending.is_some() && kind != Kind::Readiness {
            return;
        }
        let task = tokio::task::spawn_local(watch.run(running.clock));
        running.probes.tasks.push((kind, Task(task)));
    }

    /// Takes in what a probe of the start `id` of a container has found.
    pub(super) fn probed(&mut self, index: usize, id: &str, probed: Probed) {
        let container = &mut self.containers[index];
        let path = container.field_path();
        let Some(running) = container.running(id) else {
            return;
        };
        let kind = probed.kind;
        if let (Kind::Readiness, Some(ready)) = (kind, probed.verdict) {
            running.probes.ready = ready;
        }
        let has_come_up = kind == Kind::Startup && probed.verdict == Some(true);
        running.probes.started |= has_come_up;
        let name = kind.name();
        let (reason, mut message) = match probed.finding {
            Finding::Healthy => ("", String::new()),
            Finding::Warning(text) => ("ProbeWarning", format!("{name} probe warning: {text}")),
            Finding::Unhealthy(text) => ("Unhealthy", format!("{name} probe failed: {text}")),
            Finding::Broken(text) => (
                "Unhealthy",
                format!("{name} probe errored and resulted in unknown state: {text}"),
            ),
        };
        if !reason.is_empty() {
            message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
            self.happened(EventType::Warning, &path, reason, message);
        }
        if has_come_up {
            self.come_up(index);
        } else if kind != Kind::Readiness && probed.verdict == Some(false) {
            let own = self
                .specification(index)
                .and_then(|container| kind.of(container)?.termination_grace_period_seconds);
            let grace = own
                .and_then(|seconds| seconds.try_into().ok())
                .map_or_else(|| self.grace(), Duration::from_secs);
            let what = format!("failed {} probe", name.to_ascii_lowercase());
            self.end_to_restart(index, grace, &what);
        }
    }
}

/// When a probe checks, and how often for a verdict.
#[derive(Clone, Copy)]
struct Timing {
    delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: u32,
    failures: u32,
}

impl Timing {
    fn of(probe: &Probe) -> Self {
        let number = |given: Option<i32>, default: u32| match given.map(u32::try_from) {
            Some(Ok(number @ 1..)) => number,
            _ => default,
        };
        let seconds = |given, default| Duration::from_secs(number(given, default).into());
        Self {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: number(probe.success_threshold, 1),
            failures: number(probe.failure_threshold, 3),
        }
    }
}

/// Findings in a row.
#[derive(Default)]
struct Row {
    healthy: bool,
    length: u32,
}

impl Row {
    /// Adds a finding; returns the verdict when the row is long enough for one.
    fn add(&mut self, healthy: bool, timing: Timing) -> Option<bool> {
        if self.length > 0 && self.healthy == healthy {
            self.length = self.length.saturating_add(1);
        } else {
            (self.healthy, self.length) = (healthy, 1);
        }
        let needed = if healthy {
            timing.successes
        } else {
            timing.failures
        };
        (self.length >= needed).then_some(healthy)
    }
}

/// One probe at work.
struct Watch {
    kind: Kind,
    action: Result<Action, String>,
    timing: Timing,
    index: usize,
    id: String,
    reach: Reach,
    events: mpsc::UnboundedSender<Event>,
}

impl Watch {
    /// Checks from the first delay after `start` on, until there is nothing more to
    /// find out.
    async fn run(self, start: Instant) {
        let mut row = Row::default();
        let mut known = None;
        let mut due = start + self.timing.delay;
        loop {
            tokio::time::sleep_until(due.into()).await;
            due = Instant::now() + self.timing.period;
            let finding = match &self.action {
                Ok(action) => action.run(&self.reach, self.timing.timeout).await,
                Err(message) => Finding::Broken(message.clone()),
            };
            let healthy = matches!(finding, Finding::Healthy | Finding::Warning(_));
            let verdict = row.add(healthy, self.timing);
            let over = match self.kind {
                Kind::Startup => verdict.is_some(),
                Kind::Liveness => verdict == Some(false),
                Kind::Readiness => false,
            };
            let is_news = verdict.is_some() && verdict != known;
            known = verdict.or(known);
            if finding != Finding::Healthy || is_news {
                let probed = Probed {
                    kind: self.kind,
                    finding,
                    verdict,
                };
                let _ = self.events.send(Event::Probed {
                    index: self.index,
                    id: self.id.clone(),
                    probed,
                });
            }
            if over {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_enough_findings_in_a_row() {
        let timing = Timing {
            successes: 2,
            failures: 3,
            ..Timing::of(&Probe::default())
        };
        let mut row = Row::default();
        let verdicts: Vec<_> = "ggbbgbbbbg"
            .chars()
            .map(|letter| row.add(letter == 'g', timing))
            .collect();
        let (good, bad) = (Some(true), Some(false));
        assert_eq!(
            verdicts,
            [None, good, None, None, None, None, None, bad, bad, None]
        );
    }

    #[test]
    fn what_a_probe_leaves_out_is_as_kubernetes_has_it() {
        let timing = Timing::of(&Probe::default());
        let seconds = [timing.delay, timing.period, timing.timeout].map(|time| time.as_secs());
        assert_eq!(
            (seconds, timing.successes, timing.failures),
            ([0, 10, 1], 1, 3)
        );
    }
}
