//! A pod's quality-of-service class, which decides who is killed first when
//! memory runs out.
//!
//! The rules are those of
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>: only cpu and
//! memory count; a request that is not given equals its limit; with resources
//! of the pod as a whole, those alone count.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::quantity::Quantity;

/// The three classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has cpu and memory limits and requests equal to them: killed last.
    Guaranteed,
    /// Neither of the others.
    Burstable,
    /// No container asks for cpu or memory: killed first.
    BestEffort,
}

impl QosClass {
    /// As `status.qosClass` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The class of a pod, of a validated spec.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    if let Some(whole) = spec.resources.as_ref().filter(|whole| asks(whole)) {
        return class_of(whole);
    }
    let init = spec.init_containers.iter().flatten();
    let mut classes = spec.containers.iter().chain(init).map(|container| {
        container
            .resources
            .as_ref()
            .map_or(QosClass::BestEffort, class_of)
    });
    let first = classes.next().unwrap_or(QosClass::BestEffort);
    if classes.all(|class| class == first) {
        first
    } else {
        QosClass::Burstable
    }
}

fn asks(resources: &ResourceRequirements) -> bool {
    ["cpu", "memory"].into_iter().any(|name| {
        amount(&resources.limits, name).is_some() || amount(&resources.requests, name).is_some()
    })
}

fn class_of(resources: &ResourceRequirements) -> QosClass {
    if !asks(resources) {
        return QosClass::BestEffort;
    }
    let guaranteed = ["cpu", "memory"].into_iter().all(|name| {
        let limit = amount(&resources.limits, name);
        let request = amount(&resources.requests, name).or(limit.clone());
        limit.is_some() && request == limit
    });
    if guaranteed {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// An amount above zero.
fn amount(amounts: &Option<BTreeMap<String, Text>>, name: &str) -> Option<Quantity> {
    let text = &amounts.as_ref()?.get(name)?.0;
    text.parse()
        .ok()
        .filter(|amount: &Quantity| amount.to_millis() > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(containers: Value) -> &'static str {
        let spec: PodSpec = serde_json::from_value(json!({"containers": containers})).unwrap();
        qos_class(&spec).as_str()
    }

    fn container(resources: Value) -> Value {
        json!({"name": "c", "resources": resources})
    }

    #[test]
    fn limits_alone_guarantee_when_every_container_has_both() {
        let both = container(json!({"limits": {"cpu": "1", "memory": "1Gi"}}));
        let same = container(json!({
            "limits": {"cpu": "0.5", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1024Mi"},
        }));
        assert_eq!(class(json!([both, same])), "Guaranteed");
        assert_eq!(class(json!([both, container(json!({}))])), "Burstable");
        assert_eq!(
            class(json!([container(json!({"limits": {"memory": "1Gi"}}))])),
            "Burstable"
        );
    }

    #[test]
    fn a_request_below_its_limit_is_burstable() {
        let lower = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1m"}});
        assert_eq!(class(json!([container(lower)])), "Burstable");
    }

    #[test]
    fn asking_for_nothing_that_counts_is_best_effort() {
        let storage = container(json!({"limits": {"ephemeral-storage": "1Gi"}}));
        let zero = container(json!({"requests": {"cpu": "0"}}));
        assert_eq!(class(json!([storage, zero, {"name": "d"}])), "BestEffort");
    }

    #[test]
    fn resources_of_the_pod_come_before_those_of_its_containers() {
        let spec: PodSpec = serde_json::from_value(json!({
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1m"}}}],
        }))
        .unwrap();
        assert_eq!(qos_class(&spec).as_str(), "Guaranteed");
    }
}
