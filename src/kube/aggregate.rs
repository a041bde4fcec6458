//! What a pod as a whole asks for: the sum of its containers, or the pod's own
//! `resources` where it has them, and its `overhead` on top.
//!
//! Follows <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers>,
//! <https://kubernetes.io/docs/tasks/configure-pod-container/assign-pod-level-resources/>
//! and <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-overhead/>.

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};

use super::qos::{self, Compute};

/// Which amount of a container: [`qos::request`] or [`qos::limit`].
pub type Amount = fn(Option<&ResourceRequirements>, Compute) -> u64;

/// True for an init container that goes on running beside the others.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What the pod's containers need of a resource at their busiest, in the unit of
/// `compute`: all of them together with the init containers that keep running, or
/// one init container together with those started before it.
#[must_use]
pub fn of_containers(spec: &PodSpec, amount: Amount, compute: Compute) -> u64 {
    at_their_busiest(spec, |container| {
        amount(container.resources.as_ref(), compute)
    })
}

/// The same of anything that containers have an amount of.
pub fn at_their_busiest(spec: &PodSpec, of: impl Fn(&Container) -> u64) -> u64 {
    let mut staying = 0u64;
    let mut starting = 0u64;
    for container in spec.init_containers.iter().flatten() {
        let now = staying.saturating_add(of(container));
        starting = starting.max(now);
        if is_sidecar(container) {
            staying = now;
        }
    }
    let running = spec
        .containers
        .iter()
        .fold(staying, |sum, container| sum.saturating_add(of(container)));
    running.max(starting)
}

/// What the pod requests, in the unit of `compute`.
#[must_use]
pub fn request(spec: &PodSpec, compute: Compute) -> u64 {
    let own = qos::request(qos::pod_level(spec), compute);
    let sum = match own {
        0 => of_containers(spec, qos::request, compute),
        own => own,
    };
    sum.saturating_add(overhead(spec, compute))
}

/// The pod's limit, in the unit of `compute`; 0 unless it has one of its own or all
/// of its containers have one: the sum of some would choke the others.
#[must_use]
pub fn limit(spec: &PodSpec, compute: Compute) -> u64 {
    let own = qos::limit(qos::pod_level(spec), compute);
    let limited = |container: &Container| qos::limit(container.resources.as_ref(), compute) > 0;
    let mut init = spec.init_containers.iter().flatten();
    let sum = match own {
        0 if !init.all(limited) || !spec.containers.iter().all(limited) => 0,
        0 => of_containers(spec, qos::limit, compute),
        own => own,
    };
    match sum {
        0 => 0,
        sum => sum.saturating_add(overhead(spec, compute)),
    }
}

fn overhead(spec: &PodSpec, compute: Compute) -> u64 {
    qos::given(spec.overhead.as_ref(), compute).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).expect("a pod spec")
    }

    #[test]
    fn resources_of_the_pod_itself_come_before_the_sum_one_by_one() {
        let spec = spec(json!({
            "resources": {"limits": {"memory": "1Gi"}},
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "3", "memory": "1Mi"}}}],
        }));
        assert_eq!(limit(&spec, Compute::Memory), 1 << 30);
        assert_eq!(request(&spec, Compute::Memory), 1 << 30);
        assert_eq!(request(&spec, Compute::Cpu), 2000);
        assert_eq!(limit(&spec, Compute::Cpu), 3000);
    }

    #[test]
    fn overhead_comes_on_top_of_requests_and_of_limits_that_exist() {
        let spec = spec(json!({
            "overhead": {"cpu": "250m", "memory": "120Mi"},
            "containers": [{"name": "c", "resources": {"limits": {"memory": "80Mi"}}}],
        }));
        assert_eq!(request(&spec, Compute::Cpu), 250);
        assert_eq!(limit(&spec, Compute::Cpu), 0);
        assert_eq!(limit(&spec, Compute::Memory), 200 << 20);
    }
}
