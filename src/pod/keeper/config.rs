//! What a pod draws from ConfigMaps, Secrets and its own metadata: written into its
//! volumes once they are mounted, and again whenever it has changed.
//!
//! The keeper writes through a descriptor of each volume's root that the launcher
//! gives it, and reads the store each time: nothing of it stays in memory.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use super::container::State;
use super::resume::never_ran;
use super::{Keeper, orders};
use crate::pod::content;
use crate::pod::fs_group;
use crate::pod::protocol::{Failure, FailureKind, Order};
use crate::pod::spec::downward::Capacity;
use crate::pod::spec::env::References;
use crate::pod::users;
use crate::pod::variables;
use crate::storage::events::EventType;
use crate::volume::atomic;

/// The roots of mounted volumes that the keeper writes, by the volume's name.
#[derive(Default)]
pub(super) struct Roots(BTreeMap<String, OwnedFd>);

impl Roots {
    /// The volume of this name is mounted; `root` is its root directory.
    pub(super) fn add(&mut self, name: &str, root: OwnedFd) {
        self.0.insert(name.to_owned(), root);
    }

    /// Whether the volume of this name is mounted.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl Keeper {
    /// Writes the files of a volume that has just been mounted; nothing for volumes
    /// of other kinds.
    pub(super) fn fill(&self, name: &str) -> Result<(), Failure> {
        self.write_volume(name)
            .map_err(|error| Failure::new(FailureKind::Other, &error))
    }

    /// Takes in that the pod's manifest, or what the pod draws from, has changed:
    /// volumes are written anew, and what waits for an object is tried again.
    pub(super) fn refresh(&mut self, before: &Pod) {
        self.gate.knock();
        self.sandbox.wait_no_longer();
        for (_, attempt) in &mut self.volumes {
            attempt.wait_no_longer();
        }
        for container in &mut self.containers {
            container.configuration_changed();
        }
        let names: Vec<String> = self.written.0.keys().cloned().collect();
        for name in names {
            let is_mounted =
                |(volume, attempt): &(String, super::Attempt)| *volume == name && attempt.is_done();
            if !self.volumes.iter().any(is_mounted) {
                continue;
            }
            if let Err(failure) = self.fill(&name) {
                // The files stay as they were.
                let message = format!("MountVolume.SetUp failed for volume \"{name}\" : {failure}");
                self.happened(EventType::Warning, "", "FailedMount", message);
            }
        }
        let metadata = &self.pod.metadata;
        if before.metadata.labels != metadata.labels
            || before.metadata.annotations != metadata.annotations
        {
            self.tell_launcher();
        }
    }

    /// Lets the launcher know the pod's labels and annotations, for variables of
    /// containers that start from now on.
    fn tell_launcher(&self) {
        let order = Order::Metadata {
            labels: self.pod.metadata.labels.clone(),
            annotations: self.pod.metadata.annotations.clone(),
        };
        let launcher = Rc::clone(&self.launcher);
        tokio::task::spawn_local(async move {
            // A launcher that does not answer is noticed by its end.
            let _ = orders::order(launcher.as_fd(), &order, &[]).await;
        });
    }

    /// What the container's variables come from; names that cannot be variables are
    /// left out, with an event.
    pub(super) fn references(&self, container: &Container) -> Result<References, Failure> {
        let namespace = self.pod.metadata.namespace.as_deref();
        let found = variables::resolve(container, namespace.unwrap_or_default(), &self.store);
        let (references, skipped) = found.map_err(|error| Failure {
            kind: FailureKind::Config,
            message: error.to_string(),
        })?;
        for message in skipped {
            let reason = "InvalidEnvironmentVariableNames";
            self.happened(EventType::Warning, "", reason, message);
        }
        Ok(references)
    }

    /// A container could not be started because of what its manifest asks for.
    pub(super) async fn not_configured(&mut self, index: usize, message: String) {
        let container = &self.containers[index];
        let path = container.field_path();
        let text = format!("Error: {message}");
        self.happened(EventType::Warning, &path, "Failed", text);
        self.clear_start(index).await;
        let container = &mut self.containers[index];
        match self.stopping {
            Some(_) => container.state = State::Ended(never_ran(&container.name)),
            None => container.not_configured(message),
        }
    }

    fn write_volume(&self, name: &str) -> Result<()> {
        let Some(root) = self.written.0.get(name) else {
            return Ok(());
        };
        let volume = self
            .volume(name)
            .with_context(|| format!("the pod has no volume {name:?}"))?;
        let capacity = Capacity::of_this_machine();
        let files = content::files(&self.pod, volume, &self.store, capacity)?
            .ok_or_else(|| anyhow!("volume {name:?} is of a kind that has no files"))?;
        let spec = self.pod.spec.as_ref().context("the pod has no spec")?;
        for place in content::places(spec, name) {
            atomic::make_place(root.as_fd(), &place)?;
        }
        let ownership = match spec.host_users {
            Some(false) => {
                users::first(&self.home)?.map(|first| fs_group::of_users(spec, volume, first))
            }
            _ => fs_group::of(spec, volume, None),
        };
        atomic::write_for(root.as_fd(), files, ownership)?;
        Ok(())
    }

    fn volume(&self, name: &str) -> Option<&Volume> {
        let spec = self.pod.spec.as_ref()?;
        let mut volumes = spec.volumes.iter().flatten();
        volumes.find(|volume| volume.name == name)
    }
}
