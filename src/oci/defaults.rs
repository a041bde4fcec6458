//! What an ordinary Kubernetes container gets when its manifest asks for
//! nothing special: capabilities, mounts, masked paths and device rules.
//!
//! The values are the ones that containers see under a node's container
//! runtime interface today, so that an image behaves here as it does there.
//! `/dev/shm` is missing on purpose: it belongs to the pod, not to the
//! container.

use std::collections::HashSet;
use std::path::PathBuf;

use oci_spec::runtime::{Capability, LinuxDeviceCgroup, LinuxDeviceType, Mount};

/// `PATH` of a container whose image sets none.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The fourteen capabilities of a container that is neither privileged nor
/// asks for more or fewer (see capabilities(7) for each).
pub fn capabilities() -> HashSet<Capability> {
    HashSet::from([
        Capability::AuditWrite,
        Capability::Chown,
        Capability::DacOverride,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::Kill,
        Capability::Mknod,
        Capability::NetBindService,
        Capability::NetRaw,
        Capability::Setfcap,
        Capability::Setgid,
        Capability::Setpcap,
        Capability::Setuid,
        Capability::SysChroot,
    ])
}

/// Every capability that the specification knows: what `privileged: true` and
/// `capabilities.add: ["ALL"]` ask for. Those that the running kernel or the
/// caller's bounding set lack must still be taken away by whoever applies it.
pub fn all_capabilities() -> HashSet<Capability> {
    HashSet::from([
        Capability::AuditControl,
        Capability::AuditRead,
        Capability::AuditWrite,
        Capability::BlockSuspend,
        Capability::Bpf,
        Capability::CheckpointRestore,
        Capability::Chown,
        Capability::DacOverride,
        Capability::DacReadSearch,
        Capability::Fowner,
        Capability::Fsetid,
        Capability::IpcLock,
        Capability::IpcOwner,
        Capability::Kill,
        Capability::Lease,
        Capability::LinuxImmutable,
        Capability::MacAdmin,
        Capability::MacOverride,
        Capability::Mknod,
        Capability::NetAdmin,
        Capability::NetBindService,
        Capability::NetBroadcast,
        Capability::NetRaw,
        Capability::Perfmon,
        Capability::Setfcap,
        Capability::Setgid,
        Capability::Setpcap,
        Capability::Setuid,
        Capability::SysAdmin,
        Capability::SysBoot,
        Capability::SysChroot,
        Capability::SysModule,
        Capability::SysNice,
        Capability::SysPacct,
        Capability::SysPtrace,
        Capability::SysRawio,
        Capability::SysResource,
        Capability::SysTime,
        Capability::SysTtyConfig,
        Capability::Syslog,
        Capability::WakeAlarm,
    ])
}

/// The kernel's own file systems of a container, in the order in which they
/// must be mounted.
///
/// `cgroup_v2` says whether the machine has the unified hierarchy alone;
/// `privileged` makes `/sys` and the cgroup tree writable.
pub fn mounts(cgroup_v2: bool, privileged: bool) -> Vec<Mount> {
    let access = if privileged { "rw" } else { "ro" };
    let cgroup_type = if cgroup_v2 { "cgroup2" } else { "cgroup" };
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", access],
        ),
        mount(
            "/sys/fs/cgroup",
            cgroup_type,
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", access],
        ),
    ]
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(PathBuf::from(destination))
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(PathBuf::from(source)))
        .set_options(Some(options.iter().map(|&option| option.into()).collect()));
    mount
}

/// Paths under `/proc` and `/sys` that an unprivileged container cannot read:
/// they tell about the host, or let a container disturb it
/// (`procMount: Default`).
pub fn masked_paths() -> Vec<String> {
    [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ]
    .map(String::from)
    .to_vec()
}

/// Paths under `/proc` that an unprivileged container can read and not write
/// (`procMount: Default`).
pub fn readonly_paths() -> Vec<String> {
    [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ]
    .map(String::from)
    .to_vec()
}

/// Rules for the devices an unprivileged container may open: everything is
/// denied but making nodes, the harmless character devices, terminals, and the
/// pseudo terminals of its own `/dev/pts`. Later rules win over earlier ones.
pub fn device_rules() -> Vec<LinuxDeviceCgroup> {
    let character = |major, minor| rule(true, Some((LinuxDeviceType::C, major, minor)), "rwm");
    vec![
        rule(false, None, "rwm"),
        rule(true, Some((LinuxDeviceType::C, None, None)), "m"),
        rule(true, Some((LinuxDeviceType::B, None, None)), "m"),
        character(Some(1), Some(3)),
        character(Some(1), Some(5)),
        character(Some(1), Some(7)),
        character(Some(1), Some(8)),
        character(Some(1), Some(9)),
        character(Some(5), Some(0)),
        character(Some(5), Some(1)),
        character(Some(5), Some(2)),
        character(Some(136), None),
    ]
}

type Device = (LinuxDeviceType, Option<i64>, Option<i64>);

fn rule(allow: bool, device: Option<Device>, access: &str) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_access(Some(access.to_owned()));
    if let Some((kind, major, minor)) = device {
        rule.set_typ(Some(kind)).set_major(major).set_minor(minor);
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_container_gets_fourteen_capabilities_of_the_known_forty_one() {
        assert_eq!(capabilities().len(), 14);
        assert_eq!(all_capabilities().len(), 41);
        assert!(capabilities().is_subset(&all_capabilities()));
        assert!(!capabilities().contains(&Capability::SysAdmin));
    }

    #[test]
    fn sys_and_cgroup_are_writable_for_the_privileged_alone() {
        for (privileged, access) in [(false, "ro"), (true, "rw")] {
            let mounts = mounts(true, privileged);
            for path in ["/sys", "/sys/fs/cgroup"] {
                let mount = mounts
                    .iter()
                    .find(|m| m.destination().ends_with(&path[1..]));
                let options = mount.and_then(|m| m.options().as_ref()).expect(path);
                assert!(options.iter().any(|option| option == access), "{path}");
            }
        }
    }

    #[test]
    fn a_mount_comes_after_the_mount_it_lies_in() {
        let mounts = mounts(false, false);
        for (index, outer) in mounts.iter().enumerate() {
            for inner in &mounts[..index] {
                assert!(!inner.destination().starts_with(outer.destination()));
            }
        }
    }

    #[test]
    fn the_first_device_rule_denies_everything() {
        let rules = device_rules();
        assert!(!rules[0].allow() && rules[0].typ().is_none());
        assert!(rules[1..].iter().all(LinuxDeviceCgroup::allow));
    }
}
