//! The pod's control group, which bounds all of its containers together.
//!
//! A limit that this machine cannot set keeps the pod from starting. What only matters
//! when others want the same becomes a warning: a request of cpu, and limits of huge
//! pages, without which containers share what is set aside.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use oci_spec::runtime::LinuxPids;

use crate::kube::aggregate;
use crate::kube::huge_pages;
use crate::kube::pids;
use crate::kube::qos::Compute;
use crate::oci::cgroup::Cgroup;
use crate::pod::home::Home;
use crate::pod::spec::resources;
use crate::sys::cgroup::Controllers;

/// Where the kernel tells which huge pages there are
/// (Documentation/admin-guide/mm/hugetlbpage.rst).
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// What has been found out about the pod's control group.
pub(super) struct Group {
    /// True when the machine has the unified hierarchy alone.
    pub(super) unified: bool,
    pub(super) controllers: Controllers,
    /// What the pod asks for and does without, one sentence each.
    pub(super) lacks: Vec<String>,
}

/// Makes the group and sets the limits of the pod as a whole.
///
/// # Errors
/// A group that cannot be made, and a limit that cannot be set.
pub(super) fn make(home: &Home, metadata: &ObjectMeta, spec: &PodSpec) -> Result<Group> {
    let group = Cgroup::locate(Some(Path::new(&home.cgroup())), &home.uid)?;
    group.create()?;
    group.hand_down();
    let names = group
        .controllers()
        .context("cannot tell which controllers it has")?;
    let has = |name: &str| names.iter().any(|one| one == name);
    let unified = matches!(group, Cgroup::Unified(_));
    let mut controllers = Controllers {
        cpu: has("cpu"),
        memory: has("memory"),
        hugetlb: has("hugetlb"),
        swap: false,
    };
    let page_sizes = match controllers.hugetlb {
        true => page_sizes(),
        false => Vec::new(),
    };
    let mut limits = resources::pod(spec, &page_sizes);
    if let Some(most) = pids::limit(metadata).map_err(anyhow::Error::msg)? {
        let mut pids = LinuxPids::default();
        pids.set_limit(most);
        limits.set_pids(Some(pids));
    }
    let mut lacks = Vec::new();
    if !controllers.cpu {
        resources::without_shares(&mut limits);
        if aggregate::request(spec, Compute::Cpu) > 0 {
            lacks.push(
                "The cpu requests have no effect: the cpu cgroup controller is not available on this machine"
                    .to_owned(),
            );
        }
    }
    if !controllers.hugetlb {
        limits.set_hugepage_limits(None);
        if !huge_pages::requested(spec).is_empty() {
            lacks.push(
                "The limits of huge pages have no effect: the hugetlb cgroup controller is not available on this machine"
                    .to_owned(),
            );
        }
    }
    group.limit(&limits)?;
    if unified && controllers.memory {
        controllers.swap = group
            .set_if_there("memory.swap.max", "0")
            .context("cannot keep the pod from swapping")?;
    }
    Ok(Group {
        unified,
        controllers,
        lacks,
    })
}

/// The sizes of huge pages, in bytes, that the machine has.
fn page_sizes() -> Vec<u64> {
    // A kernel without them has no such directory.
    let entries = fs::read_dir(HUGE_PAGES).into_iter().flatten().flatten();
    let size = |name: &str| -> Option<u64> {
        let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        kib.parse::<u64>().ok()?.checked_mul(1024)
    };
    entries
        .filter_map(|entry| size(entry.file_name().to_str()?))
        .collect()
}
