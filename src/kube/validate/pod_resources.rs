//! Resources of a pod as a whole: `spec.resources`, `spec.overhead`, and the number of
//! its processes.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::resources::{amounts, check};
use crate::kube::aggregate;
use crate::kube::field::{Findings, entry};
use crate::kube::pids;
use crate::kube::qos::{self, Compute};

/// Checks what the pod asks for as a whole against what its containers do.
pub(super) fn check_pod(metadata: &ObjectMeta, spec: &PodSpec, findings: &mut Findings) {
    if let Err(why) = pids::limit(metadata) {
        let value = metadata.annotations.as_ref();
        let value = value.and_then(|all| all.get(pids::ANNOTATION));
        findings.invalid(
            entry("metadata.annotations", pids::ANNOTATION),
            value.map_or("", String::as_str),
            why,
        );
    }
    amounts(&spec.overhead, "spec.overhead", findings);
    let Some(own) = &spec.resources else { return };
    let at = "spec.resources";
    check(own, at, findings);
    for compute in Compute::ALL {
        let name = compute.name();
        let given = |list: &Option<_>| qos::given(list.as_ref(), compute);
        let sum = aggregate::of_containers(spec, qos::request, compute);
        if let Some(request) = given(&own.requests).filter(|request| *request < sum) {
            let sum = compute.text(sum);
            findings.invalid(
                entry(&format!("{at}.requests"), name),
                &compute.text(request),
                format!("must be greater than or equal to aggregate container requests of {sum}"),
            );
        }
        let Some(limit) = given(&own.limits).filter(|limit| *limit > 0) else {
            continue;
        };
        let mut one = |at: String, container: &Container| {
            let own = qos::limit(container.resources.as_ref(), compute);
            if own > limit {
                findings.invalid(
                    entry(&format!("{at}.resources.limits"), name),
                    &compute.text(own),
                    format!(
                        "must be less than or equal to pod limits of {}",
                        compute.text(limit)
                    ),
                );
            }
        };
        for (i, container) in spec.init_containers.iter().flatten().enumerate() {
            one(format!("spec.initContainers[{i}]"), container);
        }
        for (i, container) in spec.containers.iter().enumerate() {
            one(format!("spec.containers[{i}]"), container);
        }
    }
}
