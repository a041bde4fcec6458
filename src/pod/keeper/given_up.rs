//! Servers of volumes that do not answer while a pod is to end.
//!
//! A process that was killed and wrote to such a server ends only when the server
//! answers, or when what it wrote is given up. That is done when the server does not
//! answer, and told to whoever deletes the pod.

use std::os::fd::AsFd;
use std::rc::Rc;

use super::{Event, Keeper, orders};
use crate::pod::protocol::{Answer, Failure, Order};
use crate::storage::events::EventType;

/// What a keeper has done about servers that do not answer.
#[derive(Default)]
pub(super) struct Servers {
    under_way: bool,
    given_up: Vec<String>,
}

impl Servers {
    /// What is lost with the servers that were given up, one sentence for each.
    pub(super) fn lost(&self) -> Vec<String> {
        let volumes = self.given_up.iter();
        let lost = volumes.map(|volume| {
            format!(
                "the server of volume {volume} does not answer: what containers wrote and the server had not taken is \
                 lost; the kernel goes on trying to tell it goodbye"
            )
        });
        lost.collect()
    }
}

impl Keeper {
    /// Whether a volume of the pod may be on a server.
    pub(super) fn has_servers(&self) -> bool {
        let spec = self.pod.spec.iter();
        let mut volumes = spec.flat_map(|spec| spec.volumes.iter().flatten());
        volumes.any(|volume| {
            volume.nfs.is_some()
                || volume.persistent_volume_claim.is_some()
                || volume.ephemeral.is_some()
        })
    }

    /// Lets a task end what waits for servers that do not answer, if the pod is to be
    /// removed: a container that is only restarted waits for its data to arrive.
    pub(super) fn give_servers_up(&mut self) {
        let stopping = self.stopping.as_ref();
        let removed = stopping.is_some_and(|stopping| stopping.removed);
        if !removed || self.servers.under_way || !self.has_servers() {
            return;
        }
        self.servers.under_way = true;
        let (launcher, events) = (Rc::clone(&self.launcher), self.events.clone());
        tokio::task::spawn_local(async move {
            let answer = orders::order(launcher.as_fd(), &Order::GiveServersUp, &[]).await;
            let given_up = answer.map(|(answer, _)| match answer {
                Answer::GivenUp(volumes) => volumes,
                _ => Vec::new(),
            });
            let _ = events.send(Event::GaveUp(given_up));
        });
    }

    /// Takes in what was given up.
    pub(super) fn gave_up(&mut self, result: Result<Vec<String>, Failure>) {
        self.servers.under_way = false;
        match result {
            Ok(volumes) => {
                for volume in volumes {
                    if self.servers.given_up.contains(&volume) {
                        continue;
                    }
                    self.servers.given_up.push(volume);
                    let message = self.servers.lost().pop().unwrap_or_default();
                    self.happened(EventType::Warning, "", "VolumeServerGivenUp", message);
                }
            }
            Err(failure) => {
                let message = format!("cannot give up servers of volumes: {failure}");
                self.happened(EventType::Warning, "", "FailedKillPod", message);
            }
        }
    }
}
