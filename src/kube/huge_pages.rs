//! Huge pages in manifests: the resources `hugepages-<size>` and the mediums
//! `HugePages` and `HugePages-<size>` of emptyDirs
//! (<https://kubernetes.io/docs/tasks/manage-hugepages/scheduling-hugepages/>).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};

use super::quantity::Quantity;

/// What the names of these resources begin with.
pub const PREFIX: &str = "hugepages-";
/// The medium of an emptyDir of huge pages of whatever size the pod requests.
pub const MEDIUM: &str = "HugePages";

/// The size of a page, in bytes, in the name of a resource such as `hugepages-2Mi`;
/// none when it is no such name.
#[must_use]
pub fn page_size(resource: &str) -> Option<u64> {
    size(resource.strip_prefix(PREFIX)?)
}

/// Whether `medium` is one of huge pages, well formed.
#[must_use]
pub fn is_medium(medium: &str) -> bool {
    medium == MEDIUM || medium_size(medium).is_some()
}

/// The size of a page, in bytes, in a medium such as `HugePages-2Mi`.
#[must_use]
pub fn medium_size(medium: &str) -> Option<u64> {
    size(medium.strip_prefix(MEDIUM)?.strip_prefix('-')?)
}

fn size(text: &str) -> Option<u64> {
    let bytes = text.parse::<Quantity>().ok()?.to_bytes();
    bytes.is_power_of_two().then_some(bytes)
}

/// What a container may take of huge pages, in bytes, by the size of a page.
#[must_use]
pub fn limits(resources: Option<&ResourceRequirements>) -> BTreeMap<u64, u64> {
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let limits = limits.into_iter().flatten().filter_map(|(name, limit)| {
        let limit = limit.0.parse::<Quantity>().ok()?;
        Some((page_size(name)?, limit.to_bytes()))
    });
    limits.collect()
}

/// The sizes of huge pages, in bytes, that a pod's containers request.
#[must_use]
pub fn requested(spec: &PodSpec) -> Vec<u64> {
    let of = |container: &Container| limits(container.resources.as_ref()).into_keys();
    let first = spec.init_containers.iter().flatten();
    let mut sizes: Vec<u64> = first.chain(&spec.containers).flat_map(of).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_names() {
        assert_eq!(page_size("hugepages-2Mi"), Some(2 << 20));
        assert_eq!(page_size("hugepages-1Gi"), Some(1 << 30));
        assert_eq!(page_size("hugepages-3Mi"), None);
        assert_eq!(page_size("memory"), None);
        assert_eq!(medium_size("HugePages-1Gi"), Some(1 << 30));
        assert!(is_medium("HugePages") && !is_medium("HugePages-") && !is_medium("Hugepages"));
    }
}
