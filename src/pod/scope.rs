//! Control groups of pods on machines that systemd runs: a scope for each pod, whose
//! content is orlop's (`Delegate=`, systemd.resource-control(5)).
//!
//! One call makes it, when the pod starts, for the keeper. Everything below is made as
//! on other machines, so that a container costs no call. Whether a pod has a scope is
//! asked of the kernel, not of the setting, which may have changed since it started.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::home::{self, Home};
use crate::storage::roots::Roots;
use crate::sys::cgroup::Cgroups;
use crate::sys::cgroup::tree::ROOT;
use crate::sys::systemd::{Systemd, Value};

/// The variable that says who makes the groups: `cgroupfs` (or nothing), or `systemd`.
/// The words are those of kubelet's `cgroupDriver`.
const VARIABLE: &str = "ORLOP_CGROUP_DRIVER";
/// The group of all containers, below the scope's.
pub const POD: &str = "pod";
/// The group of the keeper and its launcher, below the scope's.
pub const KEEPER: &str = "keeper";
const PREFIX: &str = "orlop-pod";
const SUFFIX: &str = ".scope";

/// True when systemd is to make the groups of pods that start.
///
/// # Errors
/// A driver that is not known, or of no use on this machine.
pub fn is_wanted() -> Result<bool> {
    let Some(driver) = std::env::var_os(VARIABLE) else {
        return Ok(false);
    };
    match driver.to_str() {
        Some("" | "cgroupfs") => return Ok(false),
        Some("systemd") => {}
        _ => bail!("{VARIABLE}={driver:?} is no cgroup driver: use \"cgroupfs\" or \"systemd\""),
    }
    if !Cgroups::detect()
        .context("cannot use control groups")?
        .is_unified()
    {
        bail!(
            "{VARIABLE}=systemd needs cgroup version 2, and this machine has version 1: use \"cgroupfs\""
        );
    }
    Systemd::connect().with_context(|| format!("{VARIABLE}=systemd is of no use here"))?;
    Ok(true)
}

/// Has systemd make the pod's scope around the calling process, which is its keeper. A
/// keeper that is in it already, because it executed itself anew, stays.
///
/// # Errors
/// What systemd says.
pub fn enter(home: &Home) -> Result<()> {
    if let Some(group) = group(home)
        && is_inside(&group)?
    {
        return Ok(());
    }
    let description = format!("orlop pod {}", home.uid);
    let properties = [
        ("Description", Value::Text(description)),
        // systemd has a limit for those that say nothing.
        ("TasksMax", Value::Number(u64::MAX)),
    ];
    Systemd::connect()?.start_scope(
        &unit(&home.uid),
        &slice(&home.roots),
        std::process::id(),
        &properties,
    )?;
    Ok(())
}

/// Ends all processes in the pod's scope, which has this control group, but the calling
/// one, and removes the groups in it. A scope in which nobody is left is stopped; it
/// ends with the calling process if that is in it.
///
/// # Errors
/// A process that does not end, and what systemd says.
pub fn clear(home: &Home, group: &str, cgroups: &Cgroups, deadline: Instant) -> Result<()> {
    let inside = is_inside(group)?;
    let own = rustix::process::getpid();
    cgroups
        .kill(group, inside.then_some(own), deadline)
        .context("cannot end the pod's processes")?;
    let retreat = || -> io::Result<()> {
        cgroups.remove(&format!("{group}/{POD}"), deadline)?;
        if inside {
            // A group that divides its controllers takes no process.
            let directory = directory(group);
            let control = directory.join("cgroup.subtree_control");
            for controller in fs::read_to_string(&control)?.split_whitespace() {
                fs::write(&control, format!("-{controller}"))?;
            }
            fs::write(directory.join("cgroup.procs"), "0")?;
        }
        cgroups.remove(&format!("{group}/{KEEPER}"), deadline)
    };
    retreat().context("cannot remove the pod's control groups")?;
    if !inside {
        let stopped = Systemd::connect().and_then(|mut systemd| systemd.stop(&unit(&home.uid)));
        stopped.context("cannot stop the pod's scope")?;
    }
    Ok(())
}

fn is_inside(group: &str) -> Result<bool> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let path = own.trim_end().strip_prefix("0::").unwrap_or_default();
    let rest = path.strip_prefix(group);
    Ok(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn directory(group: &str) -> PathBuf {
    Path::new(ROOT).join(group.trim_start_matches('/'))
}

/// The control group of the pod's scope, if it has one.
#[must_use]
pub fn group(home: &Home) -> Option<String> {
    let group = format!("{}/{}", parent(&home.roots), unit(&home.uid));
    directory(&group).is_dir().then_some(group)
}

/// The control group above all scopes of these roots.
#[must_use]
pub fn parent(roots: &Roots) -> String {
    match slice(roots).as_str() {
        // A dash in its name says that a slice lies in another one.
        name if name.contains('-') => format!("/orlop.slice/{name}"),
        name => format!("/{name}"),
    }
}

/// The uid of the pod whose scope has this name.
#[must_use]
pub fn owner(unit: &str) -> Option<&str> {
    unit.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)
}

fn unit(uid: &str) -> String {
    format!("{PREFIX}{uid}{SUFFIX}")
}

fn slice(roots: &Roots) -> String {
    let name = home::group_of_all(roots);
    format!("{name}.slice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_lie_in_slices_named_as_the_groups_of_other_machines() {
        let roots = |run: &str| Roots {
            data: "/d".into(),
            run: run.into(),
            logs: "/l".into(),
        };
        assert_eq!(parent(&roots("/run/orlop")), "/orlop.slice");
        let other = parent(&roots("/run/other"));
        let name = home::group_of_all(&roots("/run/other"));
        assert_eq!(other, format!("/orlop.slice/{name}.slice"));
        assert_eq!(owner(&unit("1-2")), Some("1-2"));
        assert_eq!(owner("orlop-1.slice"), None);
    }
}
