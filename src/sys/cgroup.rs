//! Control groups, version 1 and 2 (cgroups(7)), as trees of directories.
//!
//! A group is named by a path such as `/orlop/pod1`, the same in every
//! hierarchy. One hierarchy, the *tracking* one, tells which processes a group
//! has: the unified one on cgroup v2, and on v1 the first that exists of those
//! which every container is put in.

pub mod tree;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use self::tree::{Mounted, ROOT, is_gone, numbers};

const TRACKING: [&str; 6] = ["pids", "freezer", "devices", "memory", "cpu", "cpuset"];

/// The hierarchies of this machine.
#[derive(Clone, Debug)]
pub struct Cgroups {
    tracking: PathBuf,
    all: Vec<PathBuf>,
    unified: bool,
}

/// What the control groups of containers can limit on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controllers {
    /// True when the controller `cpu` is there.
    pub cpu: bool,
    /// True when the controller `memory` is there.
    pub memory: bool,
    /// True when the controller `hugetlb` is there.
    pub hugetlb: bool,
    /// True when cgroup v2 has limits of swap.
    pub swap: bool,
}

impl Cgroups {
    /// Finds the hierarchies below `/sys/fs/cgroup`, without reading the table
    /// of mounts.
    ///
    /// # Errors
    /// When there is no control group file system at all.
    pub fn detect() -> io::Result<Self> {
        let hierarchies = match tree::mounted()? {
            Mounted::Unified => {
                return Ok(Self {
                    tracking: ROOT.into(),
                    all: vec![ROOT.into()],
                    unified: true,
                });
            }
            Mounted::Legacy(hierarchies) => hierarchies,
        };
        let all: Vec<PathBuf> = hierarchies.into_iter().map(|one| one.path).collect();
        let tracking = TRACKING
            .iter()
            .find_map(|name| {
                all.iter()
                    .find(|path| controllers(path).any(|c| c == *name))
            })
            .cloned()
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("no control groups are mounted below {ROOT}"),
                )
            })?;
        Ok(Self {
            tracking,
            all,
            unified: false,
        })
    }

    /// True on a machine with cgroup v2 alone.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// Puts the calling process into `group`, which is made when missing: in the
    /// tracking hierarchy, and on v1 also in systemd's, whose groups decide what
    /// ends with a service.
    ///
    /// # Errors
    /// What mkdir(2) or write(2) say.
    pub fn join(&self, group: &str) -> io::Result<()> {
        for hierarchy in self.joined() {
            let directory = beneath(hierarchy, group);
            tree::make(&directory)?;
            std::fs::write(directory.join("cgroup.procs"), "0")?;
        }
        Ok(())
    }

    /// True when there is such a group.
    #[must_use]
    pub fn exists(&self, group: &str) -> bool {
        self.all
            .iter()
            .any(|hierarchy| beneath(hierarchy, group).is_dir())
    }

    /// Moves the calling process to the root of the hierarchies in which it is
    /// in `group`, or in a group below it.
    ///
    /// # Errors
    /// What read(2) or write(2) say.
    pub fn leave(&self, group: &str) -> io::Result<()> {
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let inside = own.lines().any(|line| {
            let path = line.splitn(3, ':').nth(2).unwrap_or_default();
            path.strip_prefix(group)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if inside {
            for hierarchy in self.joined() {
                std::fs::write(hierarchy.join("cgroup.procs"), "0")?;
            }
        }
        Ok(())
    }

    /// Removes `group` where it has neither processes nor groups below it.
    pub fn remove_if_empty(&self, group: &str) {
        for hierarchy in &self.all {
            // Not empty, or not there: both are fine.
            let _ = std::fs::remove_dir(beneath(hierarchy, group));
        }
    }

    /// The hierarchies that [`join`](Self::join) puts a process into.
    fn joined(&self) -> impl Iterator<Item = &PathBuf> {
        let systemd = self.all.iter().filter(|path| {
            **path != self.tracking && path.file_name().is_some_and(|name| name == "systemd")
        });
        std::iter::once(&self.tracking).chain(systemd)
    }

    /// The threads of `group` itself, without those of groups below it.
    ///
    /// # Errors
    /// What read(2) says; a group that does not exist has no threads.
    pub fn threads(&self, group: &str) -> io::Result<Vec<i32>> {
        let name = if self.unified {
            "cgroup.threads"
        } else {
            "tasks"
        };
        numbers(&beneath(&self.tracking, group).join(name))
    }

    /// The processes of `group` and of all groups below it.
    ///
    /// # Errors
    /// What readdir(3) or read(2) say; a group that does not exist has none.
    pub fn processes(&self, group: &str) -> io::Result<BTreeSet<i32>> {
        tree::processes(&beneath(&self.tracking, group))
    }

    /// True when the kernel has killed a process of `group` because memory ran
    /// out (`oom_kill` in `memory.events` on v2, in `memory.oom_control` on v1).
    ///
    /// # Errors
    /// What read(2) says; in a group that does not exist nothing was killed.
    pub fn ran_out_of_memory(&self, group: &str) -> io::Result<bool> {
        let (hierarchy, name) = if self.unified {
            (Some(&self.tracking), "memory.events")
        } else {
            let memory = self
                .all
                .iter()
                .find(|path| controllers(path).any(|controller| controller == "memory"));
            (memory, "memory.oom_control")
        };
        let Some(hierarchy) = hierarchy else {
            return Ok(false);
        };
        let text = match std::fs::read_to_string(beneath(hierarchy, group).join(name)) {
            Err(error) if is_gone(&error) => return Ok(false),
            text => text?,
        };
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(kills.is_some_and(|count| count.trim() != "0"))
    }

    /// Names of the groups directly below `group`, in all hierarchies.
    ///
    /// # Errors
    /// What readdir(3) says.
    pub fn children(&self, group: &str) -> io::Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for hierarchy in &self.all {
            for path in tree::below(&beneath(hierarchy, group))? {
                found.extend(path.file_name().and_then(|n| n.to_str()).map(str::to_owned));
            }
        }
        Ok(found)
    }

    /// Kills every process of `group` and of the groups below it, `spare`
    /// excepted, and waits until all are gone.
    ///
    /// Each process is signalled through a descriptor, after a second look that
    /// it still belongs to the group: a number that was given to another process
    /// in between is never hit.
    ///
    /// # Errors
    /// `TimedOut` when a process is not gone at `deadline`.
    pub fn kill(&self, group: &str, spare: Option<Pid>, deadline: Instant) -> io::Result<()> {
        loop {
            let mut pids = self.processes(group)?;
            pids.retain(|pid| spare.is_none_or(|spare| spare.as_raw_nonzero().get() != *pid));
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("processes {pids:?} do not end, although they were killed"),
                ));
            }
            let victims: Vec<OwnedFd> = pids
                .into_iter()
                .filter_map(|pid| pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok())
                .collect();
            let members = self.processes(group)?;
            for victim in &victims {
                if pid_of(victim).is_some_and(|pid| members.contains(&pid)) {
                    // A process that ended meanwhile needs no signal.
                    let _ = pidfd_send_signal(victim, Signal::KILL);
                }
            }
            for victim in &victims {
                await_end(victim, deadline)?;
            }
        }
    }

    /// Removes `group` and the groups below it from all hierarchies. They must
    /// have no processes.
    ///
    /// # Errors
    /// `EBUSY` when a process is still in one of them at `deadline`.
    pub fn remove(&self, group: &str, deadline: Instant) -> io::Result<()> {
        for hierarchy in &self.all {
            tree::remove(&beneath(hierarchy, group), deadline, || Ok(()))?;
        }
        Ok(())
    }
}

fn controllers(path: &Path) -> impl Iterator<Item = &str> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.unwrap_or_default().split(',')
}

fn beneath(hierarchy: &Path, group: &str) -> PathBuf {
    hierarchy.join(group.trim_start_matches('/'))
}

fn pid_of(pidfd: &OwnedFd) -> Option<i32> {
    use std::os::fd::AsRawFd;
    let info = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = std::fs::read_to_string(info).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    line.trim().parse().ok().filter(|pid| *pid > 0)
}

fn await_end(pidfd: &OwnedFd, deadline: Instant) -> io::Result<()> {
    let mut interest = [PollFd::new(pidfd, PollFlags::IN)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.try_into().map_err(io::Error::other)?;
        match poll(&mut interest, Some(&timeout)) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
