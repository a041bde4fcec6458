//! Where one pod lives: its directories, sockets and control group.
//!
//! Every place is derived from the roots and the pod's uid alone, so that
//! whoever knows the uid can find, and remove, all of a pod.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use super::scope;
use crate::storage::roots::{RUN_ROOT, Roots};

/// The places of one pod.
#[derive(Clone, Debug)]
pub struct Home {
    /// The roots that the pod belongs to.
    pub roots: Roots,
    /// The pod's uid.
    pub uid: String,
}

impl Home {
    /// The places of the pod with this uid.
    #[must_use]
    pub fn new(roots: &Roots, uid: &str) -> Self {
        Self {
            roots: roots.clone(),
            uid: uid.to_owned(),
        }
    }

    /// What must survive a reboot: volumes, and what containers wrote.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.roots.pod_data(&self.uid)
    }

    /// The pod's volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.data().join("volumes")
    }

    /// The directories of one container's starts, one below it for each.
    #[must_use]
    pub fn container(&self, name: &str) -> PathBuf {
        self.data().join("containers").join(name)
    }

    /// The file in which one start of a container may say why it ended.
    #[must_use]
    pub fn termination_message(&self, container: &str, attempt: u32) -> PathBuf {
        self.container(container)
            .join(attempt.to_string())
            .join("termination-message")
    }

    /// What ends with the machine's uptime.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.roots.pod_run(&self.uid)
    }

    /// The pod's mounts; empty for everybody outside its mount namespace.
    #[must_use]
    pub fn mounts(&self) -> PathBuf {
        self.run().join("mounts")
    }

    /// The OCI bundle of a container, among the pod's mounts: its variables may be
    /// secret, and must not come to a disk.
    #[must_use]
    pub fn bundle(&self, container: &str) -> PathBuf {
        self.mounts().join("bundles").join(container)
    }

    /// The OCI state of the pod's containers, one directory below it for each.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.run().join("state")
    }

    /// The socket on which the keeper listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run().join("keeper.sock")
    }

    /// The file that the pod's keeper, or whoever cleans up after it, has locked.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        locks(&self.roots).join(&self.uid)
    }

    /// The pod's control group, the parent of its containers'.
    #[must_use]
    pub fn cgroup(&self) -> String {
        if let Some(scope) = scope::group(self) {
            return format!("{scope}/{}", scope::POD);
        }
        format!("{}/{}", cgroup_parent(&self.roots), group_name(&self.uid))
    }

    /// The control group of the keeper and its launcher. It lies beside the pod's:
    /// what limits the pod must not choke, or kill, those who look after it.
    #[must_use]
    pub fn keeper_cgroup(&self) -> String {
        if let Some(scope) = scope::group(self) {
            return format!("{scope}/{}", scope::KEEPER);
        }
        let parent = cgroup_parent(&self.roots);
        format!("{parent}/{}", keeper_group_name(&self.uid))
    }

    /// The control group of one container.
    #[must_use]
    pub fn container_cgroup(&self, id: &str) -> String {
        format!("{}/{id}", self.cgroup())
    }
}

/// The directory of the pods' locks.
#[must_use]
pub fn locks(roots: &Roots) -> PathBuf {
    roots.run.join("locks")
}

/// The control group above all pods of these roots. The default run root has
/// `/orlop`; any other gets a name of its own, so that two orlops on one
/// machine never touch each other's groups.
#[must_use]
pub fn cgroup_parent(roots: &Roots) -> String {
    format!("/{}", group_of_all(roots))
}

/// The name of [`cgroup_parent`].
#[must_use]
pub fn group_of_all(roots: &Roots) -> String {
    if roots.run == Path::new(RUN_ROOT) {
        return "orlop".to_owned();
    }
    let mut hasher = DefaultHasher::new();
    roots.run.hash(&mut hasher);
    format!("orlop-{:016x}", hasher.finish())
}

/// The name of the control group of a pod's keeper below [`cgroup_parent`].
#[must_use]
pub fn keeper_group_name(uid: &str) -> String {
    format!("keeper{uid}")
}

/// The name of a pod's control group below [`cgroup_parent`].
#[must_use]
pub fn group_name(uid: &str) -> String {
    format!("pod{uid}")
}
