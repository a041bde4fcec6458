//! A container's control group, in the unified hierarchy (cgroups(7), version 2)
//! or in every version 1 hierarchy of the machine.
//!
//! A process is never moved by its number: on version 2 it is born in its group, on
//! version 1 it moves itself, which spares the kernel the lock that makes moving
//! others slow (milliseconds per container).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::OciError;
use super::limits;
use crate::sys::cgroup::tree::{self, Mounted, ROOT, is_gone};
use crate::sys::pidfd;

/// How long killed processes may take to leave a group: they can be stuck in
/// the kernel, waiting for a device or a server.
const PATIENCE: Duration = Duration::from_secs(10);

/// A control group; it may or may not have been made yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cgroup {
    /// A directory of the unified hierarchy.
    Unified(PathBuf),
    /// One directory in each version 1 hierarchy, each at the same place below
    /// a mount point named after its controllers.
    Legacy(Vec<Hierarchy>),
}

/// A group's place in one version 1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// The hierarchy's name: its controllers (`cpu,cpuacct`), or `systemd`.
    pub name: String,
    /// The group's directory.
    pub directory: PathBuf,
}

impl Cgroup {
    /// Says where the group for container `id` is: at `path` below the root of
    /// every hierarchy, or at `/orlop-ID` without one (`linux.cgroupsPath`,
    /// config-linux.md).
    ///
    /// # Errors
    /// [`OciError::Unsupported`] for a systemd path (`slice:prefix:name`), for
    /// a path with `..`, and on a machine without mounted cgroups.
    pub fn locate(path: Option<&Path>, id: &str) -> Result<Self, OciError> {
        let path = match path {
            Some(path) if !path.as_os_str().is_empty() => path.to_owned(),
            _ => PathBuf::from(format!("orlop-{id}")),
        };
        if path.to_string_lossy().contains(':') {
            return Err(OciError::Unsupported(format!(
                "cgroupsPath {path:?} is meant for systemd: add --systemd-cgroup, or give a plain path"
            )));
        }
        let mut relative = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(part) => relative.push(part),
                Component::ParentDir => {
                    return Err(OciError::Unsupported(format!(
                        "cgroupsPath {path:?} must not contain \"..\""
                    )));
                }
                _ => {}
            }
        }
        if relative.as_os_str().is_empty() {
            return Err(OciError::Unsupported(format!(
                "cgroupsPath {path:?} names the root of the hierarchy: name a group below it"
            )));
        }
        let mounted = tree::mounted().map_err(OciError::step::<io::Error>(format!(
            "look for cgroups in {ROOT}"
        )))?;
        let mut hierarchies = match mounted {
            Mounted::Unified => return Ok(Self::Unified(Path::new(ROOT).join(relative))),
            Mounted::Legacy(hierarchies) => hierarchies,
        };
        hierarchies.retain(|hierarchy| !hierarchy.unified);
        if hierarchies.is_empty() {
            return Err(OciError::Unsupported(format!(
                "no cgroup file system is mounted on {ROOT}: mount one (mount -t cgroup2 none {ROOT})"
            )));
        }
        let at = |one: tree::Hierarchy| Hierarchy {
            name: one.name,
            directory: one.path.join(&relative),
        };
        Ok(Self::Legacy(hierarchies.into_iter().map(at).collect()))
    }

    /// Makes the group and the ones above it, and hands controllers down to it.
    ///
    /// # Errors
    /// [`OciError::Step`] naming the directory: `EROFS` and `EACCES` where this
    /// machine's cgroups are not the caller's to change.
    pub fn create(&self) -> Result<(), OciError> {
        match self {
            Self::Unified(directory) => create_unified(directory),
            Self::Legacy(hierarchies) => {
                for hierarchy in hierarchies {
                    create_legacy(hierarchy)?;
                }
                Ok(())
            }
        }
    }

    /// The directory in which `controller`'s files of this group lie, if this
    /// machine has that controller.
    pub(crate) fn directory(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::Unified(directory) => Some(directory),
            Self::Legacy(hierarchies) => hierarchies
                .iter()
                .find(|hierarchy| hierarchy.name.split(',').any(|name| name == controller))
                .map(|hierarchy| hierarchy.directory.as_path()),
        }
    }

    /// Names of the controllers whose files groups below this one have.
    ///
    /// # Errors
    /// What reading the group says.
    pub fn controllers(&self) -> io::Result<Vec<String>> {
        let names = |names: &str, separator| names.split(separator).map(str::to_owned).collect();
        match self {
            Self::Unified(directory) => {
                let available = fs::read_to_string(directory.join("cgroup.subtree_control"))?;
                Ok(names(available.trim_end(), ' '))
            }
            Self::Legacy(hierarchies) => Ok(hierarchies
                .iter()
                .flat_map(|hierarchy| -> Vec<String> { names(&hierarchy.name, ',') })
                .collect()),
        }
    }

    /// Writes `value` to a file of this group, which kernels may be built without.
    /// Returns whether the file is there.
    ///
    /// # Errors
    /// What write(2) says.
    pub fn set_if_there(&self, file: &str, value: &str) -> io::Result<bool> {
        let controller = file.split('.').next().unwrap_or_default();
        let Some(directory) = self.directory(controller) else {
            return Ok(false);
        };
        match limits::write(&directory.join(file), value) {
            Err(error) if is_gone(&error) => Ok(false),
            written => written.map(|()| true),
        }
    }

    /// Lets the groups below this one use all controllers that it has (cgroup v2;
    /// on v1 they do).
    pub fn hand_down(&self) {
        if let Self::Unified(directory) = self {
            hand_down_controllers(directory);
        }
    }

    /// Opens what a process needs to get into this group.
    ///
    /// # Errors
    /// [`OciError::Step`] naming the file.
    pub(crate) fn entrance(&self) -> Result<Entrance, OciError> {
        match self {
            Self::Unified(directory) => {
                File::open(directory)
                    .map(Entrance::Birth)
                    .map_err(OciError::step::<io::Error>(format!(
                        "open cgroup {directory:?}"
                    )))
            }
            Self::Legacy(hierarchies) => hierarchies
                .iter()
                .map(|hierarchy| {
                    let path = hierarchy.directory.join("tasks");
                    OpenOptions::new()
                        .write(true)
                        .open(&path)
                        .map_err(OciError::step::<io::Error>(format!("open {path:?}")))
                })
                .collect::<Result<_, _>>()
                .map(Entrance::Moves),
        }
    }

    /// The ids of all processes in this group and the groups below it, as the
    /// caller sees them.
    ///
    /// # Errors
    /// What reading the group says; a group that is gone has no processes.
    pub fn processes(&self) -> io::Result<BTreeSet<i32>> {
        let mut found = BTreeSet::new();
        for directory in self.directories() {
            found.extend(tree::processes(directory)?);
        }
        Ok(found)
    }

    /// Sends a signal to every process in the group.
    ///
    /// # Errors
    /// As [`Cgroup::processes`]. Processes that end meanwhile are no error.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        if let (Self::Unified(directory), 9) = (self, signal) {
            // One write kills the whole tree, with no process forking away.
            match fs::write(directory.join("cgroup.kill"), "1") {
                Err(error) if is_gone(&error) => {}
                other => return other,
            }
        }
        for pid in self.processes()? {
            match pidfd::open(pid).and_then(|process| pidfd::send_signal(process, signal)) {
                Err(error)
                    if error.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error()) =>
                {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Kills what is left in the group and removes it with the groups below it.
    /// A group that is gone already is no error.
    ///
    /// # Errors
    /// [`OciError::Step`] when processes are still in it after ten seconds.
    pub fn remove(&self) -> Result<(), OciError> {
        let deadline = Instant::now() + PATIENCE;
        for directory in self.directories() {
            tree::remove(directory, deadline, || self.signal(9)).map_err(OciError::step::<
                io::Error,
            >(format!(
                "remove cgroup {directory:?}"
            )))?;
        }
        Ok(())
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        let (one, many): (Option<&PathBuf>, &[Hierarchy]) = match self {
            Self::Unified(directory) => (Some(directory), &[]),
            Self::Legacy(hierarchies) => (None, hierarchies),
        };
        let many = many.iter().map(|hierarchy| &hierarchy.directory);
        one.into_iter().chain(many).map(PathBuf::as_path)
    }
}

/// The way into a group.
#[derive(Debug)]
pub(crate) enum Entrance {
    /// Be cloned into this directory of the unified hierarchy.
    Birth(File),
    /// Write to each of these `tasks` files as the process that moves.
    Moves(Vec<File>),
}

impl Entrance {
    /// Moves the calling thread in, where that is not done by being born.
    pub(crate) fn walk_in(&self) -> io::Result<()> {
        if let Self::Moves(files) = self {
            for mut file in files {
                file.write_all(b"0")?;
            }
        }
        Ok(())
    }
}

fn make(directory: &Path) -> Result<(), OciError> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(OciError::step::<io::Error>(format!(
                "create cgroup {directory:?}"
            ))(error))
        }
        _ => Ok(()),
    }
}

fn create_unified(directory: &Path) -> Result<(), OciError> {
    // The usual case first: the parent is there and set up.
    let below_root = directory.strip_prefix(ROOT).unwrap_or(directory);
    let mut group = PathBuf::from(ROOT);
    for part in below_root.components() {
        hand_down_controllers(&group);
        group.push(part);
        make(&group)?;
    }
    Ok(())
}

/// Lets the groups below `group` use all controllers that `group` has. What the
/// kernel refuses is left alone: a limit that needs it will say so.
fn hand_down_controllers(group: &Path) {
    let read = |name| fs::read_to_string(group.join(name)).unwrap_or_default();
    let enabled = read("cgroup.subtree_control");
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    let available = read("cgroup.controllers");
    let missing: Vec<String> = available
        .split_whitespace()
        .filter(|name| !enabled.contains(name))
        .map(|name| format!("+{name}"))
        .collect();
    let write = |text: &str| fs::write(group.join("cgroup.subtree_control"), text);
    if !missing.is_empty() && write(&missing.join(" ")).is_err() {
        for controller in &missing {
            let _ = write(controller);
        }
    }
}

fn create_legacy(hierarchy: &Hierarchy) -> Result<(), OciError> {
    let directory = &hierarchy.directory;
    let is_cpuset = hierarchy.name.split(',').any(|name| name == "cpuset");
    if !is_cpuset {
        return tree::make(directory).map_err(OciError::step::<io::Error>(format!(
            "create cgroup {directory:?}"
        )));
    }
    // A cpuset without processors and memory nodes takes no process; a new one
    // has none until they are copied from the group above.
    let mount_point = Path::new(ROOT).join(&hierarchy.name);
    let below = directory.strip_prefix(&mount_point).unwrap_or(directory);
    let mut group = mount_point.clone();
    for part in below.components() {
        let above = group.clone();
        group.push(part);
        make(&group)?;
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let copy = || {
                if fs::read_to_string(group.join(name))?.trim().is_empty() {
                    fs::write(group.join(name), fs::read(above.join(name))?)?;
                }
                Ok(())
            };
            copy().map_err(OciError::step::<io::Error>(format!(
                "set {name} of cgroup {group:?}"
            )))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_below_the_root_of_the_hierarchy() {
        for path in ["/a/../../b", "..", "/", "//", "system.slice:orlop:x"] {
            assert!(
                Cgroup::locate(Some(Path::new(path)), "c").is_err(),
                "{path}"
            );
        }
    }

    #[test]
    fn without_a_path_the_group_is_named_after_the_container() {
        let directories = |path: &str| -> Vec<PathBuf> {
            let path = Some(Path::new(path));
            let cgroup = Cgroup::locate(path, "c").expect("cgroups");
            cgroup.directories().map(Path::to_owned).collect()
        };
        assert!(directories("").iter().all(|path| path.ends_with("orlop-c")));
        assert!(directories("/a/b").iter().all(|path| path.ends_with("a/b")));
    }

    #[test]
    fn a_group_lives_until_it_is_removed_with_everything_in_it() {
        let name = format!("orlop-test-{}", std::process::id());
        let cgroup = Cgroup::locate(Some(Path::new(&name)), "c").expect("cgroups");
        cgroup.create().expect("create");
        cgroup.create().expect("create again");
        let entrance = cgroup.entrance().expect("entrance");
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .expect("sleep");
        for directory in cgroup.directories() {
            fs::create_dir(directory.join("below")).expect("nested group");
            fs::write(directory.join("cgroup.procs"), child.id().to_string()).expect("move");
        }
        let processes = cgroup.processes().expect("processes");
        assert_eq!(processes, BTreeSet::from([child.id() as i32]));
        drop(entrance);
        cgroup.remove().expect("remove");
        cgroup.remove().expect("remove again");
        assert!(cgroup.directories().all(|directory| !directory.exists()));
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&child.wait().expect("wait")),
            Some(9)
        );
    }
}
