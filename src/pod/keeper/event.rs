//! What the keeper's loop learns, and who takes it in.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::probes::Probed;
use super::pull::{Pull, Wanting};
use super::start::{StartError, Started};
use super::{Keeper, hooks, serve};
use crate::pod::protocol::Failure;
use crate::storage::events::EventType;

/// What the loop learns.
pub(super) enum Event {
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

impl Keeper {
    /// Takes in what the loop has learnt.
    pub(super) async fn take_in(&mut self, event: Event) {
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
}
