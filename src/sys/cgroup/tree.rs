//! The hierarchies as directories: where they are mounted, and what is common to
//! every group of every version.
//!
//! The hierarchies are found by looking at `/sys/fs/cgroup`, never by reading the
//! table of mounts, whose length is other people's business.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, openat, statfs};

/// Where machines have their control groups.
pub const ROOT: &str = "/sys/fs/cgroup";

const V1_MAGIC: u64 = 0x0027_e0eb;
const V2_MAGIC: u64 = 0x6367_7270;
const ATTEMPTS: usize = 100;

/// What is mounted on [`ROOT`].
#[derive(Debug)]
pub enum Mounted {
    /// The unified hierarchy.
    Unified,
    /// A directory with hierarchies of version 1.
    Legacy(Vec<Hierarchy>),
}

/// A mounted hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// The name of its mount point: its controllers (`cpu,cpuacct`), `systemd`, or
    /// `unified`.
    pub name: String,
    /// Its mount point.
    pub path: PathBuf,
    /// True for the unified one, which some machines have beside those of version 1.
    pub unified: bool,
}

/// Says what is mounted.
///
/// # Errors
/// When there is no such directory, or it cannot be read.
pub fn mounted() -> io::Result<Mounted> {
    if magic(Path::new(ROOT))? == V2_MAGIC {
        return Ok(Mounted::Unified);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(ROOT)? {
        let entry = entry?;
        // Symbolic links lead from `cpu` to `cpu,cpuacct`.
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let path = entry.path();
        let magic = magic(&path)?;
        if [V1_MAGIC, V2_MAGIC].contains(&magic) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let unified = magic == V2_MAGIC;
            found.push(Hierarchy {
                name,
                path,
                unified,
            });
        }
    }
    Ok(Mounted::Legacy(found))
}

fn magic(path: &Path) -> io::Result<u64> {
    Ok(statfs(path)?.f_type as u64)
}

/// True when the error says that a group is not there: one that goes while its file
/// is being read gives ENODEV.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Makes a group and those above it.
///
/// # Errors
/// What mkdir(2) says.
pub fn make(group: &Path) -> io::Result<()> {
    // The last pod to go takes the group above with it, perhaps between the steps
    // of this.
    let mut made = fs::create_dir_all(group);
    for _ in 0..ATTEMPTS {
        match &made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => break,
        }
        made = fs::create_dir_all(group);
    }
    made
}

/// The numbers in a file of a group, one a line; none when it is gone.
///
/// # Errors
/// What read(2) says.
pub fn numbers(file: &Path) -> io::Result<Vec<i32>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The groups directly below `group`; none when it is gone.
///
/// # Errors
/// What open(2) or readdir(3) say.
pub fn below(group: &Path) -> io::Result<Vec<PathBuf>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match openat(CWD, group, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::new(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if entry.file_type() == FileType::Directory && name != "." && name != ".." {
            found.push(group.join(&*name));
        }
    }
    Ok(found)
}

/// `group` and everything below it, parents first; nothing when it is gone.
fn tree(group: &Path) -> io::Result<Vec<PathBuf>> {
    if !group.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = vec![group.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next) {
        let more = below(directory)?;
        found.extend(more);
        next += 1;
    }
    Ok(found)
}

/// The processes of `group` and of all groups below it.
///
/// # Errors
/// What readdir(3) or read(2) say; a group that is gone has none.
pub fn processes(group: &Path) -> io::Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for directory in tree(group)? {
        found.extend(numbers(&directory.join("cgroup.procs"))?);
    }
    Ok(found)
}

/// Removes `group` and the groups below it. While the kernel says that one is in use,
/// `busy` is called and it is tried again: a process counts for its group a moment
/// longer than its descriptor says, and no event tells when the group is free on every
/// version.
///
/// # Errors
/// `EBUSY` when one is in use at `deadline`, and what `busy` says.
pub fn remove(
    group: &Path,
    deadline: Instant,
    mut busy: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let mut pause = Duration::from_micros(50);
    loop {
        match remove_now(group) {
            Err(error)
                if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {}
            result => return result,
        }
        busy()?;
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn remove_now(group: &Path) -> io::Result<()> {
    let remove = |group: &Path| match fs::remove_dir(group) {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    };
    // Most groups have none below them: then one call does it.
    remove(group).or_else(|_| {
        tree(group)?
            .iter()
            .rev()
            .try_for_each(|group| remove(group))
    })
}
