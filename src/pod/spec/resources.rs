//! Processor and memory of containers and pods in the cgroups' terms, and who
//! is killed first when memory runs out.
//!
//! The numbers are those of cgroup v1, as the OCI runtime specification has
//! them (`linux.resources`); the runtime converts them on v2.
//! <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/>

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxMemory, LinuxResources,
};

use crate::kube::aggregate;
use crate::kube::huge_pages;
use crate::kube::qos::{self, Compute, QosClass};
use crate::oci::defaults;
use crate::sys::cgroup::Controllers;

/// The period, in microseconds, of which a cpu limit is a share.
const PERIOD: u64 = 100_000;
/// The shortest quota, in microseconds, that the kernel takes.
const SHORTEST_QUOTA: u64 = 1_000;
const FEWEST_SHARES: u64 = 2;
const MOST_SHARES: u64 = 262_144;

const GUARANTEED: i32 = -997;
const BEST_EFFORT: i32 = 1000;
const NODE_CRITICAL: &str = "system-node-critical";

/// What the cgroup of `container` gets: its cpu and memory, and which devices
/// may be opened in it (all of them when it is `privileged`).
///
/// A request of cpu, and limits of huge pages, are left out where there is no controller
/// for them (the pod has been told so); other limits are not, so that the start fails. As with kubelet there is no
/// swap for containers, and on cgroup v2 (`unified`) the kernel ends all of a
/// container's processes when one takes too much memory.
pub fn container(
    container: &Container,
    privileged: bool,
    unified: bool,
    controllers: Controllers,
) -> LinuxResources {
    let resources = container.resources.as_ref();
    let mut result = compute(
        qos::request(resources, Compute::Cpu),
        qos::limit(resources, Compute::Cpu),
        qos::limit(resources, Compute::Memory),
    );
    if !controllers.cpu {
        without_shares(&mut result);
    }
    if unified {
        let wanted = [
            (controllers.memory, "memory.oom.group", "1"),
            (controllers.swap, "memory.swap.max", "0"),
        ];
        let files = wanted.into_iter().filter(|(there, ..)| *there);
        let files = files.map(|(_, file, value)| (file.to_owned(), value.to_owned()));
        result.set_unified(Some(files.collect()));
    } else if let Some(memory) = result.memory_mut() {
        // On v1 this counts memory and swap together.
        let limit = memory.limit();
        memory.set_swap(limit);
    }
    let pages = huge_pages::limits(resources);
    if controllers.hugetlb && !pages.is_empty() {
        let limits = pages
            .into_iter()
            .map(|(size, limit)| pages_limit(size, limit));
        result.set_hugepage_limits(Some(limits.collect()));
    }
    result.set_devices(Some(if privileged {
        vec![every_device()]
    } else {
        defaults::device_rules()
    }));
    result
}

/// What the cgroup around all containers of a pod gets. A limit is set only if
/// the pod or every container has one: otherwise the sum would choke the others.
///
/// Of huge pages there are as many as the containers may take together, and none of
/// the other sizes in `page_sizes` (bytes), those that the machine has.
pub fn pod(spec: &PodSpec, page_sizes: &[u64]) -> LinuxResources {
    let mut result = compute(
        aggregate::request(spec, Compute::Cpu),
        aggregate::limit(spec, Compute::Cpu),
        aggregate::limit(spec, Compute::Memory),
    );
    let limit = |size: &u64| {
        let of = |container: &Container| {
            let all = huge_pages::limits(container.resources.as_ref());
            all.get(size).copied().unwrap_or(0)
        };
        pages_limit(*size, aggregate::at_their_busiest(spec, of))
    };
    let mut sizes = page_sizes.to_vec();
    sizes.extend(huge_pages::requested(spec));
    sizes.sort_unstable();
    sizes.dedup();
    result.set_hugepage_limits(Some(sizes.iter().map(limit).collect()));
    result
}

/// The size, in bytes, of an emptyDir in memory: the node's memory, lowered to
/// the pod's limit and then to the volume's `sizeLimit` where these are lower
/// (and more than nothing).
pub fn memory_volume_size(spec: &PodSpec, volume: &Volume, node_memory: u64) -> u64 {
    let size_limit = volume
        .empty_dir
        .as_ref()
        .and_then(|source| source.size_limit.as_ref())
        .map_or(0, |quantity| Compute::Memory.amount(quantity));
    [aggregate::limit(spec, Compute::Memory), size_limit]
        .into_iter()
        .filter(|&bound| bound > 0)
        .fold(node_memory, u64::min)
}

/// The `oom_score_adj` that kubelet gives a container: the less of the node's
/// `memory_capacity` (in bytes) it has reserved, the sooner it is killed.
/// <https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-out-of-memory-behavior>
pub fn oom_score_adj(spec: &PodSpec, container: &Container, memory_capacity: u64) -> i32 {
    if spec.priority_class_name.as_deref() == Some(NODE_CRITICAL) {
        return GUARANTEED;
    }
    match qos::qos_class(spec) {
        QosClass::Guaranteed => return GUARANTEED,
        QosClass::BestEffort => return BEST_EFFORT,
        QosClass::Burstable => {}
    }
    let reserved = |container: &Container| {
        let own = qos::request(container.resources.as_ref(), Compute::Memory);
        own.saturating_add(share_of_the_rest(spec))
    };
    let mut memory = reserved(container);
    if aggregate::is_sidecar(container) {
        // It goes no sooner than the first of those it serves.
        let least = spec.containers.iter().map(reserved).min();
        memory = memory.max(least.unwrap_or(0));
    }
    let share = 1000 * u128::from(memory) / u128::from(memory_capacity.max(1));
    let score = BEST_EFFORT - i32::try_from(share).unwrap_or(BEST_EFFORT);
    score.clamp(BEST_EFFORT + GUARANTEED, BEST_EFFORT - 1)
}

/// What one container has, in bytes, of the memory that the pod itself requests
/// beyond what its containers do.
fn share_of_the_rest(spec: &PodSpec) -> u64 {
    let whole = qos::request(qos::pod_level(spec), Compute::Memory);
    let rest = whole.saturating_sub(aggregate::of_containers(
        spec,
        qos::request,
        Compute::Memory,
    ));
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|container| aggregate::is_sidecar(container));
    let running = sidecars.count() + spec.containers.len();
    rest / (running as u64).max(1)
}

/// The `oom_score_adj` nearest to `wanted` that a process whose own is
/// `current` can give to a child. Lowering it takes `CAP_SYS_RESOURCE`
/// (proc_pid_oom_score_adj(5)): `may_lower` says whether it is there.
pub fn clamp_oom_score(wanted: i32, current: i32, may_lower: bool) -> i32 {
    if may_lower {
        wanted
    } else {
        wanted.max(current)
    }
}

/// `request` and `limit` of cpu in thousandths of a processor, `memory` in
/// bytes; 0 for none.
fn compute(request: u64, limit: u64, memory: u64) -> LinuxResources {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(Some(shares(request)));
    if limit > 0 {
        let quota = limit.saturating_mul(PERIOD / 1000).max(SHORTEST_QUOTA);
        cpu.set_quota(Some(i64::try_from(quota).unwrap_or(i64::MAX)))
            .set_period(Some(PERIOD));
    }
    let mut resources = LinuxResources::default();
    resources.set_devices(None).set_cpu(Some(cpu));
    if memory > 0 {
        let mut bytes = LinuxMemory::default();
        bytes.set_limit(Some(i64::try_from(memory).unwrap_or(i64::MAX)));
        resources.set_memory(Some(bytes));
    }
    resources
}

/// Takes the request of cpu out.
pub fn without_shares(resources: &mut LinuxResources) {
    if let Some(cpu) = resources.cpu_mut() {
        cpu.set_shares(None);
    }
}

fn pages_limit(size: u64, limit: u64) -> LinuxHugepageLimit {
    let mut pages = LinuxHugepageLimit::default();
    pages
        .set_page_size(cgroup_name(size))
        .set_limit(i64::try_from(limit).unwrap_or(i64::MAX));
    pages
}

/// The size of a page as control groups write it: `2MB`, `1GB`.
fn cgroup_name(page_size: u64) -> String {
    match page_size {
        size if size >= 1 << 30 => format!("{}GB", size >> 30),
        size if size >= 1 << 20 => format!("{}MB", size >> 20),
        size => format!("{}KB", size >> 10),
    }
}

fn shares(request: u64) -> u64 {
    (request.saturating_mul(1024) / 1000).clamp(FEWEST_SHARES, MOST_SHARES)
}

fn every_device() -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true).set_access(Some("rwm".to_owned()));
    rule
}

#[cfg(test)]
mod tests;
