//! The systemd cgroup driver: a container's control group is a scope that systemd
//! makes (`--systemd-cgroup`). Where it lies and what it is called is in
//! `linux.cgroupsPath`, `SLICE:PREFIX:NAME`, as callers of runc write it.
//!
//! systemd makes no group without a process: until the container's own is in it, a
//! copy of the runtime holds the place. The limits are told to systemd as well as
//! written by the runtime, because systemd writes those it knows again whenever its
//! configuration is reloaded.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::error::OciError;
use super::limits::{self, Setting};
use crate::sys::process::{self, Kind};
use crate::sys::systemd::{Properties, Systemd, Value};

/// What runtimes fall back to, with a prefix of their own.
const DEFAULT_SLICE: &str = "system.slice";
const DEFAULT_PREFIX: &str = "orlop";
/// systemd takes quotas of cpu in hundredths of a processor.
const QUOTA_STEP: u64 = 10_000;
const SECOND: u64 = 1_000_000;

/// A scope, and the slice that it lies in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// The unit's name, `PREFIX-NAME.scope`.
    pub unit: String,
    /// The name of its slice.
    pub slice: String,
}

impl Scope {
    /// What `linux.cgroupsPath` means to container `id`; without one a scope in
    /// `system.slice`.
    ///
    /// # Errors
    /// [`OciError::Unsupported`] for a path of another form.
    pub fn parse(path: Option<&Path>, id: &str) -> Result<Self, OciError> {
        let text = path.map(Path::to_string_lossy).unwrap_or_default();
        let parts: Vec<&str> = text.split(':').collect();
        let (slice, prefix, name) = match parts[..] {
            [""] => (DEFAULT_SLICE, DEFAULT_PREFIX, id),
            ["", prefix, name] => (DEFAULT_SLICE, prefix, name),
            [slice, prefix, name] => (slice, prefix, name),
            _ => {
                return Err(OciError::Unsupported(format!(
                    "cgroupsPath {text:?} is not meant for systemd: write SLICE:PREFIX:NAME, or leave --systemd-cgroup out"
                )));
            }
        };
        if name.is_empty() || name.contains('/') || prefix.contains('/') || name.ends_with(".slice")
        {
            return Err(OciError::Unsupported(format!(
                "cgroupsPath {text:?} does not name a scope: write SLICE:PREFIX:NAME"
            )));
        }
        let unit = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        let slice = slice.to_owned();
        let scope = Self { unit, slice };
        match slice_path(&scope.slice) {
            Some(_) => Ok(scope),
            None => Err(OciError::Unsupported(format!(
                "cgroupsPath {text:?}: {:?} is not the name of a slice, such as \"system.slice\" or \"a-b.slice\"",
                scope.slice
            ))),
        }
    }

    /// Where its control group is, below the root of every hierarchy.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let slice = slice_path(&self.slice).unwrap_or_default();
        slice.join(&self.unit)
    }

    /// Has systemd make the scope, with the limits of `resources` that it knows.
    ///
    /// # Errors
    /// What systemd says, and limits that this machine cannot set.
    pub(super) fn start(
        &self,
        id: &str,
        cgroup: &Cgroup,
        resources: Option<&LinuxResources>,
    ) -> Result<Placeholder, OciError> {
        let mut systemd = Systemd::connect()?;
        if matches!(cgroup, Cgroup::Legacy(_)) {
            return Err(OciError::Unsupported(
                "--systemd-cgroup needs cgroup version 2, and this machine has version 1: use the cgroupfs driver".into(),
            ));
        }
        let settings = match resources {
            Some(resources) => limits::settings(cgroup, resources)?,
            None => Vec::new(),
        };
        let mut properties: Properties = vec![
            ("Description", Value::Text(format!("orlop container {id}"))),
            ("CPUAccounting", Value::Flag(true)),
            ("MemoryAccounting", Value::Flag(true)),
            ("TasksAccounting", Value::Flag(true)),
            ("IOAccounting", Value::Flag(true)),
            // systemd has a limit for those that say nothing.
            ("TasksMax", Value::Number(u64::MAX)),
        ];
        properties.extend(known(&settings));
        let pid =
            process::spawn(Kind::Child, || process::hold_namespace()).map_err(OciError::step::<
                io::Error,
            >(
                "start a process to hold the scope",
            ))?;
        let placeholder = Placeholder(pid);
        let number = pid.as_raw_nonzero().get().unsigned_abs();
        systemd.start_scope(&self.unit, &self.slice, number, &properties)?;
        Ok(placeholder)
    }

    /// Has systemd forget the scope, which must have no processes any more.
    ///
    /// # Errors
    /// What systemd says. A scope that is gone is no error.
    pub(super) fn stop(&self) -> Result<(), OciError> {
        Ok(Systemd::connect()?.stop(&self.unit)?)
    }
}

/// A process that keeps a scope alive; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Placeholder(Pid);

impl Drop for Placeholder {
    fn drop(&mut self) {
        // It is our child, and not reaped yet: it can be signalled and waited for.
        let _ = kill_process(self.0, Signal::KILL);
        let _ = process::reap(self.0);
    }
}

/// The place of a slice: `a-b.slice` lies in `a.slice` (systemd.slice(5)). Nothing for
/// what is no name of a slice.
fn slice_path(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut above = String::new();
    for part in name.split('-') {
        if part.is_empty() || part.contains('/') {
            return None;
        }
        above.push_str(part);
        path.push(format!("{above}.slice"));
        above.push('-');
    }
    Some(path)
}

/// The properties that stand for files of a control group. systemd leaves files alone
/// that it has none for.
fn known(settings: &[Setting]) -> Properties {
    let mut properties = Vec::new();
    for setting in settings {
        let value = setting.value.as_str();
        let name = match setting.file.as_str() {
            "memory.min" => "MemoryMin",
            "memory.low" => "MemoryLow",
            "memory.high" => "MemoryHigh",
            "memory.max" => "MemoryMax",
            "memory.swap.max" => "MemorySwapMax",
            "cpu.weight" => "CPUWeight",
            "pids.max" => "TasksMax",
            "io.weight" => "IOWeight",
            "cpuset.cpus" | "cpuset.mems" => {
                let name = match setting.file.as_str() {
                    "cpuset.cpus" => "AllowedCPUs",
                    _ => "AllowedMemoryNodes",
                };
                properties.extend(bits(value).map(|bits| (name, Value::Bits(bits))));
                continue;
            }
            "cpu.max" => {
                properties.extend(quota(value));
                continue;
            }
            _ => continue,
        };
        properties.extend(amount(value).map(|amount| (name, Value::Number(amount))));
    }
    properties
}

/// What `cpu.max` says: a quota, or `max`, and a period, both in microseconds.
fn quota(value: &str) -> Properties {
    let (quota, period) = value.split_once(' ').unwrap_or((value, ""));
    let period = period.parse().unwrap_or(100_000).max(1);
    let second = match quota.parse::<u64>() {
        Ok(quota) => (quota.saturating_mul(SECOND) / period).next_multiple_of(QUOTA_STEP),
        Err(_) => u64::MAX,
    };
    vec![
        ("CPUQuotaPerSecUSec", Value::Number(second)),
        ("CPUQuotaPeriodUSec", Value::Number(period)),
    ]
}

/// `max`, a number, or `default` and a number.
fn amount(value: &str) -> Option<u64> {
    match value.strip_prefix("default ").unwrap_or(value) {
        "max" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// `0-2,5` as bits; nothing for what is no such list.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        // More than any machine has.
        if last > 1 << 16 {
            return None;
        }
        for number in first..=last {
            let byte = number / 8;
            if bits.len() <= byte {
                bits.resize(byte + 1, 0);
            }
            bits[byte] |= 1 << (number % 8);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope(path: &str) -> Result<Scope, OciError> {
        Scope::parse(Some(Path::new(path)), "c1")
    }

    #[test]
    fn a_scope_lies_in_the_slices_that_its_slice_is_named_after() {
        for (path, unit, place) in [
            ("", "orlop-c1.scope", "system.slice/orlop-c1.scope"),
            (
                "kubepods-burstable-pod1_2.slice:cri-containerd:abc",
                "cri-containerd-abc.scope",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-abc.scope",
            ),
            (
                ":libpod:abc",
                "libpod-abc.scope",
                "system.slice/libpod-abc.scope",
            ),
            ("-.slice::abc", "abc.scope", "abc.scope"),
        ] {
            let scope = scope(path).expect("a scope");
            assert_eq!(
                (scope.unit.as_str(), scope.path()),
                (unit, PathBuf::from(place))
            );
        }
    }

    #[test]
    fn what_is_no_scope_is_refused() {
        for path in [
            "/a/b",
            "a.slice:b",
            "a.slice:b:",
            "a.slice:b:c/d",
            "a.slice:b:c:d",
            "a--b.slice:b:c",
            "-a.slice:b:c",
            "a/b.slice:b:c",
            "a:b:c",
            "a.slice:b:c.slice",
        ] {
            let error = scope(path).expect_err(path).to_string();
            assert!(error.contains(&format!("{path:?}")), "{error}");
        }
    }

    #[test]
    fn systemd_is_told_what_it_knows() {
        let resources: LinuxResources = serde_json::from_value(json!({
            "cpu": {"shares": 1024, "quota": 12_345, "period": 50_000, "cpus": "0-2,9"},
            "memory": {"limit": 1 << 20, "swap": -1},
            "pids": {"limit": 10},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        }))
        .expect("resources");
        let number = Value::Number;
        let settings = limits::settings(&Cgroup::Unified("/g".into()), &resources);
        let properties = known(&settings.expect("settings"));
        for property in [
            ("MemoryMax", number(1 << 20)),
            ("MemorySwapMax", number(u64::MAX)),
            ("CPUWeight", number(100)),
            ("TasksMax", number(10)),
            ("AllowedCPUs", Value::Bits(vec![0b111, 0b10])),
            ("CPUQuotaPeriodUSec", number(50_000)),
            // A quarter of a processor, in steps of a hundredth.
            ("CPUQuotaPerSecUSec", number(250_000)),
        ] {
            assert!(
                properties.contains(&property),
                "{property:?}: {properties:?}"
            );
        }
        assert_eq!(quota("max 100000")[0].1, number(u64::MAX));
    }
}
