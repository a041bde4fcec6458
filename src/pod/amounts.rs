//! What a container's status says of its resources
//! (`containerStatuses[].allocatedResources` and `resources` of the Kubernetes API).

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodSpec, ResourceRequirements};

/// Tells in each of `statuses` what its container was given: as nothing is resized in
/// place, what its manifest asks for.
#[must_use]
pub fn told(spec: &PodSpec, mut statuses: Vec<ContainerStatus>) -> Vec<ContainerStatus> {
    let init = spec.init_containers.iter().flatten();
    let all: Vec<&Container> = init.chain(&spec.containers).collect();
    for status in &mut statuses {
        let container = all.iter().find(|container| container.name == status.name);
        let given = container.and_then(|container| container.resources.clone());
        let given = given.unwrap_or_default();
        status.allocated_resources = given.requests.clone().filter(|all| !all.is_empty());
        status.resources = Some(ResourceRequirements {
            claims: None,
            ..given
        });
    }
    statuses
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_tells_requests_as_allocated_and_both_as_resources() {
        let spec = json!({
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}}],
        });
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let status = |name: &str| ContainerStatus {
            name: name.to_owned(),
            ..ContainerStatus::default()
        };
        let told = told(&spec, vec![status("i"), status("c")]);
        let told = serde_json::to_value(told).expect("JSON");
        assert_eq!(told[0]["resources"], json!({}));
        assert!(told[0].get("allocatedResources").is_none());
        assert_eq!(told[1]["allocatedResources"], json!({"cpu": "1"}));
        let both = json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}});
        assert_eq!(told[1]["resources"], both);
    }
}
