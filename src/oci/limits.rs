//! The limits of `linux.resources` (OCI runtime specification,
//! config-linux.md) as the kernel's files want them, for both versions of
//! cgroups. Device rules are not limits: see [`super::devices`].
//!
//! A value of 0 means "not set" for everything that cannot be 0, as it does for
//! other runtimes, and -1 means "no limit".

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources, LinuxThrottleDevice,
};

use super::cgroup::Cgroup;
use super::error::{OciError, sentence};

/// One value for one file of a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    controller: String,
    pub(super) file: String,
    pub(super) value: String,
    /// Kernels may be built without this file, and lose nothing by it.
    optional: bool,
}

fn set(file: &str, value: impl ToString) -> Setting {
    let controller = file.split('.').next().unwrap_or_default();
    Setting {
        controller: controller.to_owned(),
        file: file.to_owned(),
        value: value.to_string(),
        optional: false,
    }
}

fn set_if_there(file: &str, value: impl ToString) -> Setting {
    Setting {
        optional: true,
        ..set(file, value)
    }
}

/// Writes every limit of `resources` into a group that exists.
///
/// # Errors
/// [`OciError::Step`] naming the file and the value, [`OciError::Unsupported`]
/// when the machine lacks the controller.
pub(crate) fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<(), OciError> {
    for setting in settings(cgroup, resources)? {
        let Some(directory) = cgroup.directory(&setting.controller) else {
            return Err(missing(&setting, None));
        };
        let path = directory.join(&setting.file);
        match write(&path, &setting.value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !setting.optional {
                    return Err(missing(&setting, Some(&error)));
                }
            }
            Err(error) => {
                return Err(OciError::step::<io::Error>(format!(
                    "write {:?} to {path:?}",
                    setting.value
                ))(error));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// What `resources` means for the files of a group.
///
/// # Errors
/// [`OciError::Unsupported`] for what makes no sense to this version of cgroups.
pub(super) fn settings(
    cgroup: &Cgroup,
    resources: &LinuxResources,
) -> Result<Vec<Setting>, OciError> {
    let settings = match cgroup {
        Cgroup::Unified(_) => unified(resources),
        Cgroup::Legacy(_) => legacy(resources),
    };
    settings.map_err(OciError::Unsupported)
}

impl Cgroup {
    /// Writes every limit of `resources` into this group, which exists. Device rules
    /// are left out.
    ///
    /// # Errors
    /// [`OciError::Step`] naming the file and the value, [`OciError::Unsupported`]
    /// when the machine lacks the controller.
    pub fn limit(&self, resources: &LinuxResources) -> Result<(), OciError> {
        apply(self, resources)
    }
}

pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    // No O_CREAT: a missing file is a missing controller, not a refusal.
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

fn missing(setting: &Setting, error: Option<&io::Error>) -> OciError {
    let Setting {
        controller, file, ..
    } = setting;
    let reason = error.map(|error| format!(" ({})", sentence(error)));
    OciError::Unsupported(format!(
        "cannot set {file}: the {controller} cgroup controller is not available here{}",
        reason.unwrap_or_default()
    ))
}

/// "max" for no limit.
fn or_max(limit: i64) -> String {
    match limit {
        ..0 => "max".to_owned(),
        limit => limit.to_string(),
    }
}

fn unified(resources: &LinuxResources) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    if let Some(memory) = resources.memory() {
        settings.extend(unified_memory(memory)?);
    }
    if let Some(cpu) = resources.cpu() {
        settings.extend(unified_cpu(cpu));
    }
    if let Some(pids) = resources.pids() {
        settings.push(set(
            "pids.max",
            or_max(if pids.limit() == 0 { -1 } else { pids.limit() }),
        ));
    }
    if let Some(io) = resources.block_io() {
        settings.extend(unified_io(io));
    }
    settings.extend(huge_pages(resources, "max"));
    for (device, limit) in resources.rdma().iter().flatten() {
        let part = |name: &str, limit: Option<u32>| {
            limit
                .map(|limit| format!(" {name}={limit}"))
                .unwrap_or_default()
        };
        let handles = part("hca_handle", limit.hca_handles());
        let objects = part("hca_object", limit.hca_objects());
        settings.push(set("rdma.max", format!("{device}{handles}{objects}")));
    }
    // Last, so that they win over what was worked out from the older fields.
    for (file, value) in resources.unified().iter().flatten() {
        if file.contains('/') || !file.contains('.') {
            return Err(format!(
                "linux.resources.unified: {file:?} is not the name of a cgroup file"
            ));
        }
        settings.extend(value.lines().map(|line| set(file, line)));
    }
    Ok(settings)
}

fn unified_memory(memory: &LinuxMemory) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    let limit = memory.limit().filter(|&limit| limit != 0);
    if let Some(limit) = limit {
        settings.push(set("memory.max", or_max(limit)));
    }
    // The specification counts memory and swap together, the kernel apart.
    if let Some(both) = memory.swap().filter(|&both| both != 0) {
        let swap = match (both, limit) {
            (..0, _) => -1,
            (_, None | Some(..0)) => {
                return Err("linux.resources.memory.swap is set without a memory limit: set linux.resources.memory.limit as well".into());
            }
            (both, Some(limit)) if both < limit => {
                return Err(format!(
                    "linux.resources.memory.swap is {both}, less than the memory limit {limit}: it counts memory and swap together"
                ));
            }
            (both, Some(limit)) => both - limit,
        };
        settings.push(set_if_there("memory.swap.max", or_max(swap)));
    }
    if let Some(reservation) = memory.reservation().filter(|&value| value != 0) {
        settings.push(set("memory.low", or_max(reservation)));
    }
    Ok(settings)
}

/// The weight (1 to 10000, usually 100) for shares (2 to 262144, usually 1024): in
/// the logarithms the parabola through these three pairs, which is what Kubernetes
/// documents, and runc and crun use, since 2025.
/// <https://kubernetes.io/blog/2026/01/30/new-cgroup-v1-to-v2-cpu-conversion-formula/>
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let bits = f64::from(u32::try_from(shares).unwrap_or(u32::MAX)).log2();
            let digits = bits.mul_add(bits + 125.0, -126.0) / 612.0;
            // Between 1 and 10000 by then.
            10f64.powf(digits).ceil() as u64
        }
    }
}

fn unified_cpu(cpu: &LinuxCpu) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(idle) = cpu.idle() {
        settings.push(set("cpu.idle", idle));
    }
    if let Some(shares) = cpu.shares().filter(|&shares| shares != 0) {
        settings.push(set("cpu.weight", weight(shares)));
    }
    let quota = cpu.quota().filter(|&quota| quota != 0);
    let period = cpu.period().filter(|&period| period != 0);
    if quota.is_some() || period.is_some() {
        let quota = or_max(quota.unwrap_or(-1));
        settings.push(set(
            "cpu.max",
            format!("{quota} {}", period.unwrap_or(100_000)),
        ));
    }
    if let Some(burst) = cpu.burst() {
        settings.push(set("cpu.max.burst", burst));
    }
    settings.extend(cpuset(cpu));
    settings
}

fn cpuset(cpu: &LinuxCpu) -> impl Iterator<Item = Setting> {
    [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())]
        .into_iter()
        .filter_map(|(file, value)| {
            let value = value.as_ref().filter(|value| !value.is_empty())?;
            Some(set(file, value))
        })
}

fn throttles<'a>(
    file: &'a str,
    key: &'a str,
    devices: &'a Option<Vec<LinuxThrottleDevice>>,
) -> impl Iterator<Item = Setting> + 'a {
    devices.iter().flatten().map(move |device| {
        let (major, minor, rate) = (device.major(), device.minor(), device.rate());
        let rate = match (key, rate) {
            ("", rate) => rate.to_string(),
            (key, 0) => format!("{key}=max"),
            (key, rate) => format!("{key}={rate}"),
        };
        set(file, format!("{major}:{minor} {rate}"))
    })
}

fn unified_io(io: &LinuxBlockIo) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
        // 10..1000 there, 1..10000 here; only one of the two files exists.
        let wide = 1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990;
        settings.push(set_if_there("io.bfq.weight", weight));
        settings.push(set_if_there("io.weight", format!("default {wide}")));
    }
    for (key, devices) in [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ] {
        settings.extend(throttles("io.max", key, devices));
    }
    settings
}

fn huge_pages<'a>(
    resources: &'a LinuxResources,
    suffix: &'a str,
) -> impl Iterator<Item = Setting> + 'a {
    let limits = resources.hugepage_limits().iter().flatten();
    limits.map(move |limit| {
        set(
            &format!("hugetlb.{}.{suffix}", limit.page_size()),
            limit.limit(),
        )
    })
}

fn legacy(resources: &LinuxResources) -> Result<Vec<Setting>, String> {
    if resources
        .unified()
        .as_ref()
        .is_some_and(|files| !files.is_empty())
    {
        return Err(
            "linux.resources.unified needs cgroup version 2, and this machine has version 1".into(),
        );
    }
    let mut settings = Vec::new();
    if let Some(memory) = resources.memory() {
        settings.extend(legacy_memory(memory));
    }
    if let Some(cpu) = resources.cpu() {
        settings.extend(legacy_cpu(cpu));
    }
    if let Some(pids) = resources.pids() {
        settings.push(set(
            "pids.max",
            or_max(if pids.limit() == 0 { -1 } else { pids.limit() }),
        ));
    }
    if let Some(io) = resources.block_io() {
        if let Some(weight) = io.weight().filter(|&weight| weight != 0) {
            settings.push(set_if_there("blkio.bfq.weight", weight));
            settings.push(set_if_there("blkio.weight", weight));
        }
        for (file, devices) in [
            (
                "blkio.throttle.read_bps_device",
                io.throttle_read_bps_device(),
            ),
            (
                "blkio.throttle.write_bps_device",
                io.throttle_write_bps_device(),
            ),
            (
                "blkio.throttle.read_iops_device",
                io.throttle_read_iops_device(),
            ),
            (
                "blkio.throttle.write_iops_device",
                io.throttle_write_iops_device(),
            ),
        ] {
            settings.extend(throttles(file, "", devices));
        }
    }
    settings.extend(huge_pages(resources, "limit_in_bytes"));
    if let Some(network) = resources.network() {
        settings.extend(legacy_network(network));
    }
    Ok(settings)
}

fn legacy_memory(memory: &LinuxMemory) -> Vec<Setting> {
    // In this order: the limit for both may not be below the one for memory.
    [
        ("memory.limit_in_bytes", memory.limit(), false),
        ("memory.memsw.limit_in_bytes", memory.swap(), true),
        ("memory.soft_limit_in_bytes", memory.reservation(), false),
    ]
    .into_iter()
    .filter_map(|(file, value, optional)| {
        let value = value.filter(|&value| value != 0)?;
        Some(Setting {
            optional,
            ..set(file, value)
        })
    })
    .chain(
        memory
            .swappiness()
            .map(|value| set("memory.swappiness", value)),
    )
    .chain(
        memory
            .disable_oom_killer()
            .filter(|&disable| disable)
            .map(|_| set("memory.oom_control", 1)),
    )
    .collect()
}

fn legacy_cpu(cpu: &LinuxCpu) -> Vec<Setting> {
    let unsigned = |value: Option<u64>| value.filter(|&value| value != 0).map(|v| v.to_string());
    let signed = |value: Option<i64>| value.filter(|&value| value != 0).map(|v| v.to_string());
    [
        ("cpu.shares", unsigned(cpu.shares())),
        ("cpu.cfs_period_us", unsigned(cpu.period())),
        ("cpu.cfs_quota_us", signed(cpu.quota())),
        ("cpu.cfs_burst_us", unsigned(cpu.burst())),
        ("cpu.rt_period_us", unsigned(cpu.realtime_period())),
        ("cpu.rt_runtime_us", signed(cpu.realtime_runtime())),
        ("cpu.idle", cpu.idle().map(|idle| idle.to_string())),
    ]
    .into_iter()
    .filter_map(|(file, value)| Some(set(file, value?)))
    .chain(cpuset(cpu))
    .collect()
}

fn legacy_network(network: &LinuxNetwork) -> Vec<Setting> {
    let class = network.class_id().filter(|&class| class != 0);
    let priorities = network.priorities().iter().flatten();
    class
        .map(|class| set("net_cls.classid", class))
        .into_iter()
        .chain(priorities.map(|priority| {
            set(
                "net_prio.ifpriomap",
                format!("{} {}", priority.name(), priority.priority()),
            )
        }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(json: serde_json::Value) -> LinuxResources {
        serde_json::from_value(json).expect("resources")
    }

    fn lines(settings: Result<Vec<Setting>, String>) -> Vec<String> {
        let settings = settings.expect("settings");
        let line = |s: &Setting| format!("{}={}", s.file, s.value);
        settings.iter().map(line).collect()
    }

    #[test]
    fn half_a_processor_and_256_mi_look_different_in_both_versions() {
        let half = resources(serde_json::json!({
            "cpu": {"shares": 512, "quota": 50000, "period": 100000},
            "memory": {"limit": 268435456, "swap": 268435456},
            "pids": {"limit": 100},
        }));
        assert_eq!(
            lines(unified(&half)),
            [
                "memory.max=268435456",
                "memory.swap.max=0",
                "cpu.weight=59",
                "cpu.max=50000 100000",
                "pids.max=100",
            ]
        );
        assert_eq!(
            lines(legacy(&half)),
            [
                "memory.limit_in_bytes=268435456",
                "memory.memsw.limit_in_bytes=268435456",
                "cpu.shares=512",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "pids.max=100",
            ]
        );
    }

    #[test]
    fn the_weight_of_shares_covers_the_whole_range() {
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 100, 10_000]);
        assert_eq!([weight(102), weight(256), weight(512)], [17, 35, 59]);
        assert_eq!([weight(1), weight(u64::MAX)], [1, 10_000]);
    }

    #[test]
    fn swap_below_the_memory_limit_is_refused() {
        for memory in [
            serde_json::json!({"limit": 1000, "swap": 999}),
            serde_json::json!({"swap": 999}),
        ] {
            let refused = unified(&resources(serde_json::json!({"memory": memory})));
            assert!(refused.expect_err("accepted").contains("memory.swap"));
        }
    }

    #[test]
    fn a_unified_key_cannot_leave_the_group() {
        for key in ["../memory.max", "memory"] {
            let bad = resources(serde_json::json!({"unified": {key: "max"}}));
            assert!(unified(&bad).is_err(), "{key}");
        }
    }

    #[test]
    fn no_limit_at_all_sets_nothing() {
        let none = resources(serde_json::json!({
            "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": ""},
            "memory": {"limit": 0, "swap": 0, "reservation": 0},
        }));
        assert!(lines(unified(&none)).is_empty() && lines(legacy(&none)).is_empty());
    }
}
