//! How much a pod asks for: requests and limits with Kubernetes' defaults, and
//! the quality-of-service class that follows from them.
//!
//! Follows <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>.
//! Quantities have been checked when the manifest was loaded: one that cannot
//! be read counts as not given.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::kube::quantity::Quantity;

/// The quality-of-service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Every container limits cpu and memory, and asks for just as much.
    Guaranteed,
    /// Something is asked for or limited.
    Burstable,
    /// Nothing is asked for.
    BestEffort,
}

impl QosClass {
    /// The word in `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The resources that decide on the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compute {
    /// Processor time, in thousandths of a processor.
    Cpu,
    /// Memory, in bytes.
    Memory,
}

impl Compute {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Memory];

    /// The name of the resource in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }

    /// An amount in this resource's unit, as people write it: `1500m`, `64Mi`.
    pub fn text(self, amount: u64) -> String {
        match self {
            Self::Cpu if amount.is_multiple_of(1000) => (amount / 1000).to_string(),
            Self::Cpu => format!("{amount}m"),
            Self::Memory => {
                let suffixes = ["Ei", "Pi", "Ti", "Gi", "Mi", "Ki"];
                let units = suffixes.into_iter().zip([60, 50, 40, 30, 20, 10]);
                let mut fitting = units.filter(|(_, power)| amount.trailing_zeros() >= *power);
                match fitting.next().filter(|_| amount > 0) {
                    Some((suffix, power)) => format!("{}{suffix}", amount >> power),
                    None => amount.to_string(),
                }
            }
        }
    }

    /// `quantity` in this resource's unit, rounded up; 0 when it is negative
    /// or cannot be read.
    pub fn amount(self, quantity: &ApiQuantity) -> u64 {
        let parsed: Result<Quantity, _> = quantity.0.parse();
        parsed.map_or(0, |quantity| match self {
            Self::Cpu => quantity.to_millis(),
            Self::Memory => quantity.to_bytes(),
        })
    }
}

/// The limit in `resources`, in the unit of `compute`; 0 when there is none.
pub fn limit(resources: Option<&ResourceRequirements>, compute: Compute) -> u64 {
    given(resources.and_then(|r| r.limits.as_ref()), compute).unwrap_or(0)
}

/// The request in `resources`, in the unit of `compute`; what is limited and
/// not requested is requested up to its limit; 0 when there is neither.
pub fn request(resources: Option<&ResourceRequirements>, compute: Compute) -> u64 {
    given(resources.and_then(|r| r.requests.as_ref()), compute)
        .unwrap_or_else(|| limit(resources, compute))
}

/// The amount of a resource in a list, in the unit of `compute`, if it is there.
pub fn given(list: Option<&BTreeMap<String, ApiQuantity>>, compute: Compute) -> Option<u64> {
    list?
        .get(compute.name())
        .map(|quantity| compute.amount(quantity))
}

/// `spec.resources` if it names cpu or memory: it then stands for the sum of
/// what the containers ask for.
pub fn pod_level(spec: &PodSpec) -> Option<&ResourceRequirements> {
    spec.resources.as_ref().filter(|resources| {
        Compute::ALL
            .iter()
            .any(|&compute| request(Some(resources), compute) > 0)
    })
}

/// The class of a pod, from its containers and init containers, or from the
/// pod's own `resources` where it has them.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    if let Some(resources) = pod_level(spec) {
        return class_of(std::iter::once(Some(resources)));
    }
    let init = spec.init_containers.iter().flatten();
    class_of(
        init.chain(&spec.containers)
            .map(|c: &Container| c.resources.as_ref()),
    )
}

fn class_of<'a>(all: impl Iterator<Item = Option<&'a ResourceRequirements>>) -> QosClass {
    let mut requests = [0u64; 2];
    let mut limits = [0u64; 2];
    let mut all_limited = true;
    for resources in all {
        for (index, compute) in Compute::ALL.into_iter().enumerate() {
            let limit = limit(resources, compute);
            all_limited &= limit > 0;
            limits[index] = limits[index].saturating_add(limit);
            requests[index] = requests[index].saturating_add(request(resources, compute));
        }
    }
    if requests == [0; 2] && limits == [0; 2] {
        QosClass::BestEffort
    } else if all_limited && requests == limits {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of_json(spec: serde_json::Value) -> QosClass {
        qos_class(&serde_json::from_value(spec).expect("a pod spec"))
    }

    fn container(resources: serde_json::Value) -> serde_json::Value {
        serde_json::json!({"name": "c", "resources": resources})
    }

    #[test]
    fn a_pod_that_asks_for_nothing_is_best_effort() {
        let zero =
            serde_json::json!({"requests": {"cpu": "0"}, "limits": {"example.com/fpga": "1"}});
        for resources in [serde_json::json!({}), zero] {
            let spec = serde_json::json!({"containers": [container(resources)]});
            assert_eq!(class_of_json(spec), QosClass::BestEffort);
        }
    }

    #[test]
    fn limits_of_cpu_and_memory_in_every_container_guarantee_a_pod() {
        let limited = container(serde_json::json!({"limits": {"cpu": "500m", "memory": "64Mi"}}));
        let equal = container(serde_json::json!({
            "limits": {"cpu": "1", "memory": "1Gi"},
            "requests": {"cpu": "1000m", "memory": "1024Mi"},
        }));
        let spec = serde_json::json!({"initContainers": [limited], "containers": [equal]});
        assert_eq!(class_of_json(spec), QosClass::Guaranteed);
    }

    #[test]
    fn one_container_that_asks_for_less_than_its_limit_makes_a_pod_burstable() {
        let limited = container(serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}}));
        for other in [
            serde_json::json!({}),
            serde_json::json!({"limits": {"memory": "1Gi"}}),
            serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}}),
        ] {
            let spec = serde_json::json!({"containers": [limited, container(other)]});
            assert_eq!(class_of_json(spec), QosClass::Burstable);
        }
    }

    #[test]
    fn resources_of_the_pod_itself_stand_for_those_of_its_containers() {
        let spec = serde_json::json!({
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            "containers": [container(serde_json::json!({}))],
        });
        assert_eq!(class_of_json(spec), QosClass::Guaranteed);
    }

    #[test]
    fn amounts_are_thousandths_of_a_processor_and_bytes() {
        let quantity = |text: &str| ApiQuantity(text.to_owned());
        assert_eq!(Compute::Cpu.amount(&quantity("1.5")), 1500);
        assert_eq!(Compute::Cpu.amount(&quantity("250m")), 250);
        assert_eq!(Compute::Memory.amount(&quantity("64Mi")), 67_108_864);
        assert_eq!(Compute::Memory.amount(&quantity("-1")), 0);
        let texts = [0, 1000, 64 << 20, 3 << 30, 1 << 60].map(|bytes| Compute::Memory.text(bytes));
        assert_eq!(texts, ["0", "1000", "64Mi", "3Gi", "1Ei"]);
        assert_eq!(
            [0, 250, 2000].map(|cpu| Compute::Cpu.text(cpu)),
            ["0", "250m", "2"]
        );
    }
}
