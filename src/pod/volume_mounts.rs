//! What a container's status says of its volume mounts
//! (`containerStatuses[].volumeMounts` of the Kubernetes API).

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodSpec, VolumeMountStatus};

/// Tells in each of `statuses` how the volumes of its container are mounted.
#[must_use]
pub fn told(spec: &PodSpec, mut statuses: Vec<ContainerStatus>) -> Vec<ContainerStatus> {
    for status in &mut statuses {
        let mut containers = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers);
        let container = containers.find(|container| container.name == status.name);
        status.volume_mounts = container.and_then(mounts);
    }
    statuses
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_deref()?;
    let mounts = mounts.iter().map(|mount| {
        let read_only = mount.read_only == Some(true);
        // Every kernel that orlop runs on can do it (mount_setattr(2), Linux 5.12).
        let recursive = match mount.recursive_read_only.as_deref() {
            Some("Enabled" | "IfPossible") => "Enabled",
            _ => "Disabled",
        };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| recursive.to_owned()),
            volume_status: None,
        }
    });
    Some(mounts.collect())
}
