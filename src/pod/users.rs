//! Which of the machine's users a pod with `hostUsers: false` has
//! (<https://kubernetes.io/docs/concepts/workloads/pods/user-namespaces/>).
//!
//! A pod has 65,536 of them, and no two pods of these roots the same: what gets out of
//! one pod is nobody in another. Which they are is in the file `users` in the pod's
//! durable directory, so that volumes are the pod's own after a restart, too, and the
//! users are free again when that directory goes.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::home::Home;

/// How many users, and groups, a pod has: 0 to 65535 as it sees them.
pub const COUNT: u32 = 1 << 16;

/// The users that pods get: those that nothing else on a machine gives away
/// (<https://systemd.io/UIDS-GIDS/>).
pub const DEFAULT: Range<u32> = 0x7000_0000..0x8000_0000;

/// Who may have users set aside for pods, in [`SUBORDINATE`].
const OWNER: &str = "orlop";

/// Where users and groups are set aside (subuid(5), subgid(5)).
const SUBORDINATE: [&str; 2] = ["/etc/subuid", "/etc/subgid"];

const FILE: &str = "users";

/// Why a pod has no users of its own.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// What is set aside for pods cannot be used.
    #[error(
        "{0} must have the same one line for {OWNER:?} as {1}, with a first id and a count that are multiples of 65536"
    )]
    SetAside(&'static str, &'static str),
    /// There are too many pods.
    #[error(
        "all {0} ranges of users for pods are taken: set more aside for {OWNER:?} in {1} and {2}"
    )]
    Exhausted(u32, &'static str, &'static str),
    /// A step failed.
    #[error("cannot {step}: {source}")]
    Step {
        /// What was tried, as in `read the pod's users`.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl UsersError {
    fn step(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Step { step, source }
    }
}

/// The machine's id of the pod's user and group 0; `None` when the pod has none of its
/// own yet.
///
/// # Errors
/// A file that cannot be read or has something else in it.
pub fn first(home: &Home) -> Result<Option<u32>, UsersError> {
    read(&home.data()).map_err(UsersError::step("read the pod's users"))
}

/// Gives the pod users of its own, the ones that it has had before if there are any,
/// and returns the id of the first.
///
/// # Errors
/// See [`UsersError`].
pub fn claim(home: &Home) -> Result<u32, UsersError> {
    if let Some(first) = first(home)? {
        return Ok(first);
    }
    let available = available()?;
    let claim = || -> io::Result<Option<u32>> {
        fs::create_dir_all(home.data())?;
        let pods = File::open(home.roots.pods())?;
        flock(&pods, FlockOperation::LockExclusive)?;
        let mut taken = Vec::new();
        for entry in fs::read_dir(home.roots.pods())? {
            taken.extend(read(&entry?.path())?);
        }
        let mut ranges = available.clone().step_by(COUNT as usize);
        let free = ranges.find(|first| !taken.contains(first));
        if let Some(first) = free {
            // Whole or not there at all.
            let new = home.data().join("users.new");
            fs::write(&new, format!("{first}\n"))?;
            fs::rename(new, home.data().join(FILE))?;
        }
        Ok(free)
    };
    let free = claim().map_err(UsersError::step("choose the pod's users"))?;
    let count = (available.end - available.start) / COUNT;
    free.ok_or(UsersError::Exhausted(count, SUBORDINATE[0], SUBORDINATE[1]))
}

fn read(pod: &Path) -> io::Result<Option<u32>> {
    match fs::read_to_string(pod.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => {
            let first = text?.trim_end().parse();
            first.map(Some).map_err(io::Error::other)
        }
    }
}

fn available() -> Result<Range<u32>, UsersError> {
    let read = |path| match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(UsersError::step("read what users are set aside for pods")),
    };
    let [uids, gids] = SUBORDINATE;
    set_aside(&read(uids)?, &read(gids)?).ok_or(UsersError::SetAside(uids, gids))
}

/// What the two files say; `None` when they do not agree or cannot be used.
fn set_aside(uids: &str, gids: &str) -> Option<Range<u32>> {
    let ours = |text: &'_ str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let ours = lines.filter(|(owner, _)| *owner == OWNER);
        ours.map(|(_, range)| range.to_owned()).collect()
    };
    let (uids, gids) = (ours(uids), ours(gids));
    let range = match (uids.as_slice(), gids.as_slice()) {
        ([], []) => return Some(DEFAULT),
        ([one], [other]) if one == other => one,
        _ => return None,
    };
    let (first, count) = range.split_once(':')?;
    let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
    let fits = first > 0 && count > 0 && first % COUNT == 0 && count % COUNT == 0;
    let end = first.checked_add(count)?;
    fits.then_some(first..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::roots::Roots;

    #[test]
    fn no_two_pods_have_the_same_users_and_a_pod_keeps_its_own() {
        let directory = tempfile::tempdir().expect("tempdir");
        let roots = Roots::new(Some(directory.path()), Some(directory.path()), None);
        let roots = roots.expect("roots");
        let [one, other, third] = ["a", "b", "c"].map(|uid| Home::new(&roots, uid));
        assert_eq!(first(&one).expect("nothing"), None);
        let start = claim(&one).expect("users");
        assert_eq!(claim(&other).expect("users"), start + COUNT);
        assert_eq!(claim(&one).expect("users"), start);
        assert_eq!(first(&one).expect("users"), Some(start));
        fs::remove_dir_all(one.data()).expect("removed");
        assert_eq!(claim(&third).expect("users"), start);
    }

    #[test]
    fn what_is_set_aside_must_be_whole_ranges_and_alike() {
        let ours = "somebody:100000:65536\norlop:131072:131072\n";
        assert_eq!(set_aside("", ""), Some(DEFAULT));
        assert_eq!(set_aside(ours, ours), Some(131_072..262_144));
        assert_eq!(set_aside(ours, ""), None);
        for bad in [
            "orlop:100000:65536",
            "orlop:65536:1000",
            "orlop:0:65536",
            "orlop:65536:65536\norlop:131072:65536",
            "orlop:4294901760:131072",
            "orlop:many",
        ] {
            assert_eq!(set_aside(bad, bad), None, "{bad}");
        }
    }
}
