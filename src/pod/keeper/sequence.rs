//! In which order a pod's containers start, and when the pod is over.
//!
//! Init containers come first, one after the other: the next one starts when the
//! one before has ended with success or, if it is a sidecar, has come up. Then
//! come the containers proper, in list order. The pod is over when an init
//! container has failed for good, or all containers proper have ended for good
//! and the sidecars were stopped
//! (<https://kubernetes.io/docs/concepts/workloads/pods/init-containers/>,
//! <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>).

use k8s_openapi::api::core::v1::{self as api, PodSpec};

use super::Keeper;
use super::container::{Container, Kind, State};

/// The containers of a pod in the order in which they start.
pub(super) fn specifications(spec: &PodSpec) -> impl Iterator<Item = (&api::Container, bool)> {
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|container| (container, true));
    init.chain(spec.containers.iter().map(|container| (container, false)))
}

impl Keeper {
    /// What the manifest says of a container.
    pub(super) fn specification(&self, index: usize) -> Option<&api::Container> {
        let spec = self.pod.spec.as_ref()?;
        let (specification, _) = specifications(spec).nth(index)?;
        Some(specification)
    }

    /// The container that may be started next for the first time.
    pub(super) fn next_to_start(&self) -> Option<usize> {
        let next = self.containers.iter().position(|one| !one.begun)?;
        let is_open = |before: &Container| match before.kind {
            Kind::Init => before.has_succeeded(),
            Kind::Sidecar => before.came_up,
            Kind::App => !matches!(&before.state, State::Running(run) if run.hook_pending),
        };
        self.containers[..next].iter().all(is_open).then_some(next)
    }

    /// True when every init container has done what the others wait for.
    pub(super) fn is_initialized(&self) -> bool {
        self.containers.iter().all(|one| match one.kind {
            Kind::Init => one.has_succeeded(),
            Kind::Sidecar => one.came_up,
            Kind::App => true,
        })
    }

    /// True when there is nothing left for the pod to do, sidecars apart.
    pub(super) fn is_finished(&self) -> bool {
        let has_ended = |one: &Container| matches!(one.state, State::Ended(_));
        let init_failed =
            |one: &Container| one.kind == Kind::Init && has_ended(one) && !one.has_succeeded();
        self.containers.iter().any(init_failed)
            || self
                .containers
                .iter()
                .filter(|one| one.kind == Kind::App)
                .all(has_ended)
    }

    /// True when nothing runs.
    pub(super) fn is_idle(&self) -> bool {
        !self.containers.iter().any(Container::is_active)
    }

    /// True when nothing runs and nothing will be started again.
    pub(super) fn is_over(&self) -> bool {
        self.is_idle() && (self.failure.is_some() || self.is_finished())
    }
}
