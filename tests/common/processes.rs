//! The processes of a machine's pods, chosen, killed and counted by a test.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use orlop::pod::home::{self, Home};
use orlop::storage::store::{Durability, Store};
use orlop::sys::cgroup::Cgroups;
use orlop::sys::pidfd;
use rustix::event::{PollFd, PollFlags, poll};

use super::{LIMIT, Machine, entries, path};

/// A process of the shim that keeps a pod: the keeper, or a copy of it.
#[derive(Clone, Debug)]
pub struct Shim {
    pub pid: i32,
    pub parent: i32,
    pub started: u64,
    pub uid: String,
}

impl Machine {
    /// The store, as no command sees it: nothing is repaired before it is read.
    pub fn store(&self) -> Store {
        Store::open(&self.roots, Durability::Normal).expect("open the store")
    }

    /// A pod of the namespace `default`, read without a command.
    pub fn stored(&self, name: &str) -> Option<Pod> {
        self.store().pod("default", name).expect("read the pod")
    }

    /// Every process that keeps a pod of this machine.
    pub fn shims(&self) -> Vec<Shim> {
        self.keepers()
            .into_iter()
            .filter_map(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).into_owned();
                let words: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
                (words.get(1) == Some(&"keep")).then_some(Shim {
                    pid,
                    parent: fields.get(1)?.parse().ok()?,
                    started: fields.get(19)?.parse().ok()?,
                    uid: (*words.last()?).to_owned(),
                })
            })
            .collect()
    }

    /// The keeper of a pod.
    pub fn keeper(&self, uid: &str) -> Option<i32> {
        let mut shims = self.shims();
        shims.retain(|shim| shim.uid == uid);
        let is_copy = |shim: &Shim| shims.iter().any(|other| other.pid == shim.parent);
        shims
            .iter()
            .find(|shim| !is_copy(shim))
            .map(|shim| shim.pid)
    }

    /// The launcher of a pod: the first copy that its keeper made of itself.
    pub fn launcher(&self, uid: &str) -> Option<i32> {
        let mut shims = self.shims();
        shims.retain(|shim| shim.uid == uid);
        let keepers: BTreeSet<i32> = shims.iter().map(|shim| shim.pid).collect();
        shims.retain(|shim| keepers.contains(&shim.parent));
        let first = shims.iter().min_by_key(|shim| (shim.started, shim.pid));
        first.map(|shim| shim.pid)
    }

    /// Every process whose control group, in any hierarchy, is one of this
    /// machine's.
    pub fn members(&self) -> Vec<i32> {
        let parent = self.cgroup();
        let mine = |text: &str| {
            text.lines().any(|line| {
                let group = line.splitn(3, ':').nth(2).unwrap_or_default();
                let rest = group.strip_prefix(&parent);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        processes
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| mine(&text))
            })
            .collect()
    }

    /// Waits until every pod on record runs with all of its containers, each of
    /// which has one process, and nothing else of any pod is there: no process,
    /// control group, directory, lock or mount. No command is run for it.
    #[track_caller]
    pub fn assert_pods_are_whole(&self) {
        let start = Instant::now();
        while let Err(lack) = self.look() {
            assert!(start.elapsed() < LIMIT, "not whole: {lack}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn look(&self) -> Result<(), String> {
        let pods = self.store().pods(None).expect("read the pods");
        let uids: BTreeSet<String> = pods.iter().filter_map(|p| p.metadata.uid.clone()).collect();
        let mut processes = 0;
        for pod in &pods {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            if pod.metadata.deletion_timestamp.is_some() {
                return Err(format!("pod {name} is still being deleted"));
            }
            let wanted = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
            let running = containers(pod).iter().filter(|one| one.ready).count();
            if running != wanted {
                return Err(format!(
                    "pod {name}: {running} of {wanted} containers run: {:?}",
                    pod.status
                ));
            }
            if self.keeper(uid).is_none() || self.launcher(uid).is_none() {
                return Err(format!("pod {name} has no keeper or no launcher"));
            }
            for container in containers(pod) {
                let starts = entries(&Home::new(&self.roots, uid).container(&container.name)).len();
                if starts != 1 {
                    return Err(format!(
                        "container {} has left {starts} root file systems",
                        container.name
                    ));
                }
            }
            processes += 2 + wanted;
        }
        let shims = self.keepers();
        if shims.len() != 2 * pods.len() {
            return Err(format!("{shims:?} keep {} pods", pods.len()));
        }
        let members = self.members();
        if members.len() != processes {
            return Err(format!("{members:?} should be {processes} processes"));
        }
        for place in [
            self.roots.pods(),
            self.roots.run.join("pods"),
            home::locks(&self.roots),
        ] {
            let there: BTreeSet<String> = entries(&place).into_iter().collect();
            if there != uids {
                return Err(format!("{place:?} has {there:?}"));
            }
        }
        if entries(&self.roots.logs).len() != uids.len() {
            return Err(format!("logs {:?} are left", entries(&self.roots.logs)));
        }
        if !entries(&self.roots.trash()).is_empty() {
            return Err("the trash has not been emptied".to_owned());
        }
        let groups = Cgroups::detect().expect("cgroups");
        let groups = groups.children(&self.cgroup()).expect("list the groups");
        let names = |uid: &String| [home::group_name(uid), home::keeper_group_name(uid)];
        let wanted: BTreeSet<String> = uids.iter().flat_map(names).collect();
        if groups != wanted {
            return Err(format!("there are the control groups {groups:?}"));
        }
        let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        if table.contains(path(self.directory.path())) {
            return Err(format!("there is a mount: {table}"));
        }
        Ok(())
    }

    /// What a machine is like that was switched off and on again: nothing runs,
    /// the run root is empty, and what is on record is of an earlier boot.
    pub fn reboot(&self) {
        let start = Instant::now();
        loop {
            let mut left = self.members();
            left.extend(self.keepers());
            if left.is_empty() {
                break;
            }
            assert!(start.elapsed() < LIMIT, "{left:?} do not end");
            left.into_iter().for_each(kill);
            std::thread::sleep(Duration::from_millis(2));
        }
        let groups = Cgroups::detect().expect("cgroups");
        groups
            .remove(&self.cgroup(), Instant::now() + LIMIT)
            .expect("remove the control groups");
        fs::remove_dir_all(&self.roots.run).expect("empty the run root");
        let database = rusqlite::Connection::open(self.roots.database()).expect("open");
        let earlier = "00000000-0000-4000-8000-000000000000";
        database
            .execute("UPDATE objects SET boot_id = ?1", [earlier])
            .expect("change the boot");
    }
}

/// The states of a pod's containers.
pub fn containers(pod: &Pod) -> Vec<ContainerStatus> {
    let status = pod.status.clone().unwrap_or_default();
    status.container_statuses.unwrap_or_default()
}

/// How often the containers of a pod were started again.
pub fn restarts(pod: &Pod) -> i32 {
    containers(pod).iter().map(|one| one.restart_count).sum()
}

/// Kills a process, as `kill -9` does, and waits until it has ended: until then it
/// keeps its locks. One that has ended already is fine.
pub fn kill(pid: i32) {
    if let Ok(process) = pidfd::open(pid) {
        let _ = pidfd::send_signal(&process, 9);
        let mut end = [PollFd::new(&process, PollFlags::IN)];
        let limit = LIMIT.try_into().expect("a timeout");
        let ended = poll(&mut end, Some(&limit)).expect("poll");
        assert_eq!(ended, 1, "process {pid} does not end");
    }
}

/// Waits for `condition`.
#[track_caller]
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number from the environment, or `otherwise`.
pub fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => otherwise,
    }
}

/// Numbers that nobody foresees, and that come again with the same seed
/// (xorshift64).
pub struct Random(u64);

impl Random {
    /// Seeded by `ORLOP_TEST_SEED`, or by the clock; says which.
    pub fn new() -> Self {
        let clock = std::time::UNIX_EPOCH.elapsed().expect("clock").as_nanos() as u64;
        let seed = number("ORLOP_TEST_SEED", clock | 1);
        println!("ORLOP_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
