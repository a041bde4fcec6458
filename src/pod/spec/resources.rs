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

use crate::kube::huge_pages;
use crate::kube::qos::{self, Compute, QosClass};
use crate::oci::defaults;

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
pub fn container(container: &Container, privileged: bool) -> LinuxResources {
    let resources = container.resources.as_ref();
    let mut result = compute(
        qos::request(resources, Compute::Cpu),
        qos::limit(resources, Compute::Cpu),
        qos::limit(resources, Compute::Memory),
    );
    let pages = huge_pages::limits(resources);
    if !pages.is_empty() {
        let limits = pages.into_iter().map(|(size, limit)| {
            let mut pages = LinuxHugepageLimit::default();
            pages
                .set_page_size(cgroup_name(size))
                .set_limit(i64::try_from(limit).unwrap_or(i64::MAX));
            pages
        });
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
/// every container has one: otherwise the sum would choke the others.
pub fn pod(spec: &PodSpec) -> LinuxResources {
    compute(
        total(spec, qos::request, Compute::Cpu),
        pod_limit(spec, Compute::Cpu),
        pod_limit(spec, Compute::Memory),
    )
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
    [pod_limit(spec, Compute::Memory), size_limit]
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
    let request = u128::from(qos::request(container.resources.as_ref(), Compute::Memory));
    let share = 1000 * request / u128::from(memory_capacity.max(1));
    let score = BEST_EFFORT - i32::try_from(share).unwrap_or(BEST_EFFORT);
    score.clamp(BEST_EFFORT + GUARANTEED, BEST_EFFORT - 1)
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

type Amount = fn(Option<&k8s_openapi::api::core::v1::ResourceRequirements>, Compute) -> u64;

/// The pod's limit; 0 unless all of its containers have one, or the pod itself.
fn pod_limit(spec: &PodSpec, compute: Compute) -> u64 {
    let init = spec.init_containers.iter().flatten();
    let unlimited = |c: &Container| qos::limit(c.resources.as_ref(), compute) == 0;
    if qos::pod_level(spec).is_none() && init.chain(&spec.containers).any(unlimited) {
        return 0;
    }
    total(spec, qos::limit, compute)
}

/// What a pod needs of a resource at its busiest: all containers together with
/// the init containers that keep running, or one init container together with
/// those started before it.
fn total(spec: &PodSpec, amount: Amount, compute: Compute) -> u64 {
    if let Some(resources) = qos::pod_level(spec) {
        return amount(Some(resources), compute);
    }
    let of = |container: &Container| amount(container.resources.as_ref(), compute);
    let mut staying = 0u64;
    let mut starting = 0u64;
    for container in spec.init_containers.iter().flatten() {
        let now = staying.saturating_add(of(container));
        starting = starting.max(now);
        if container.restart_policy.as_deref() == Some("Always") {
            staying = now;
        }
    }
    let running = spec
        .containers
        .iter()
        .fold(staying, |sum, container| sum.saturating_add(of(container)));
    running.max(starting)
}

#[cfg(test)]
mod tests;
