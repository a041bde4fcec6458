//! emptyDirs of huge pages: a hugetlbfs of the pod's own
//! (Documentation/admin-guide/mm/hugetlbpage.rst of the kernel).

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::VolumeError;
use crate::kube::huge_pages;
use crate::sys::mount;

/// Why an emptyDir of huge pages cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HugePagesError {
    /// No container of the pod requests pages of that size.
    #[error(
        "medium {0}: hugePages storage requested, but there is no resource request for huge pages"
    )]
    NotRequested(String),
    /// `HugePages` could mean several sizes.
    #[error(
        "medium {0} cannot be used when the containers request pages of several sizes: name one, as in HugePages-2Mi"
    )]
    SeveralSizes(String),
    /// The kernel does not have pages of that size.
    #[error("this machine's kernel has no huge pages of {} KiB", .0 / 1024)]
    NoSuchPages(u64),
    /// None are set aside.
    #[error(
        "no huge pages of {} KiB are set aside on this machine: write their number to \
         /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages",
        .0 / 1024, .0 / 1024
    )]
    NoneReserved(u64),
}

/// A hugetlbfs for the emptyDir `name` on `medium`, attached nowhere. `requested`
/// are the sizes of pages that the pod's containers request, `limit` is the most
/// that the volume may hold, in bytes.
///
/// # Errors
/// kubelet's sentences about requests, and what the machine lacks.
pub(super) fn set_up(
    name: &str,
    medium: &str,
    requested: &[u64],
    limit: Option<u64>,
) -> Result<OwnedFd, VolumeError> {
    let size = page_size(medium, requested)?;
    let directory = PathBuf::from(format!(
        "/sys/kernel/mm/hugepages/hugepages-{}kB",
        size / 1024
    ));
    let count = |file: &str| -> Option<u64> {
        let text = std::fs::read_to_string(directory.join(file)).ok()?;
        text.trim().parse().ok()
    };
    match (count("nr_hugepages"), count("nr_overcommit_hugepages")) {
        (None, _) => return Err(HugePagesError::NoSuchPages(size).into()),
        (Some(0), None | Some(0)) => return Err(HugePagesError::NoneReserved(size).into()),
        _ => {}
    }
    let mut options = vec![("mode", "0777".to_owned()), ("pagesize", size.to_string())];
    options.extend(limit.map(|limit| ("size", limit.to_string())));
    mount::hugetlbfs(&options).map_err(VolumeError::step("mount a hugetlbfs for", name))
}

fn page_size(medium: &str, requested: &[u64]) -> Result<u64, HugePagesError> {
    let wanted = huge_pages::medium_size(medium);
    match (wanted, requested) {
        (Some(size), requested) if requested.contains(&size) => Ok(size),
        (None, [size]) => Ok(*size),
        (None, [_, _, ..]) => Err(HugePagesError::SeveralSizes(medium.to_owned())),
        _ => Err(HugePagesError::NotRequested(medium.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_what_the_medium_or_else_the_containers_say() {
        let of = |medium: &str, requested: &[u64]| {
            page_size(medium, requested).map_err(|error| error.to_string())
        };
        const MI: u64 = 1 << 20;
        assert_eq!(of("HugePages", &[2 * MI]), Ok(2 * MI));
        assert_eq!(of("HugePages-1Gi", &[2 * MI, 1024 * MI]), Ok(1024 * MI));
        let missing = |medium: &str| {
            Err(format!(
                "medium {medium}: hugePages storage requested, but there is no resource request for huge pages"
            ))
        };
        assert_eq!(of("HugePages", &[]), missing("HugePages"));
        assert_eq!(of("HugePages-1Gi", &[2 * MI]), missing("HugePages-1Gi"));
        let several = of("HugePages", &[2 * MI, 1024 * MI]).expect_err("two");
        assert!(several.contains("several sizes"), "{several}");
    }
}
