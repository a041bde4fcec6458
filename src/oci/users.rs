//! User namespaces of containers (user_namespaces(7)): who is who on the machine, and
//! how a process becomes root of a namespace that is there already.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Spec};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_groups};

use super::error::sentence;
use crate::sys::user_namespace;

/// The existing user namespace that a configuration wants its process in.
pub(super) fn joined(spec: &Spec) -> Option<&Path> {
    let linux = spec.linux().as_ref()?;
    let mut namespaces = linux.namespaces().iter().flatten();
    let users = namespaces.find(|namespace| namespace.typ() == LinuxNamespaceType::User)?;
    users.path().as_deref()
}

/// Moves the calling process into the user namespace at `path`, as its root. It has
/// every capability there, and none outside.
///
/// # Errors
/// One sentence with the path, or the step.
pub(super) fn enter(path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| {
        format!(
            "cannot join the user namespace {path:?}: {}",
            sentence(&error)
        )
    };
    let namespace = File::open(path).map_err(failed)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))
        .map_err(|error| failed(error.into()))?;
    become_root()
}

/// Becomes user and group 0 of the user namespace that the process is in.
///
/// # Errors
/// One sentence with the step: a namespace without a user 0 has no root to be.
pub(super) fn become_root() -> Result<(), String> {
    let failed =
        |what: &'static str| move |error: Errno| format!("cannot {what}: {}", sentence(&error));
    user_namespace::become_root().map_err(failed("become user and group 0"))?;
    match set_thread_groups(&[]) {
        // Where groups may not be set, they may not be kept for use either.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(error) => Err(failed("drop the caller's groups")(error)),
    }
}

/// The mapping of users that the process `pid` lives under.
///
/// # Errors
/// What reading it says.
pub(super) fn mapping_of(pid: i32) -> std::io::Result<Vec<LinuxIdMapping>> {
    let text = fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        let builder = LinuxIdMappingBuilder::default()
            .container_id(next()?)
            .host_id(next()?)
            .size(next()?);
        builder.build().ok()
    };
    Ok(text.lines().filter_map(line).collect())
}

/// The user of the machine that the container's user `uid` is: itself without a
/// mapping, `None` when the mapping lacks it.
pub(super) fn on_host(spec: &Spec, uid: u32) -> Option<u32> {
    let mappings = spec.linux().as_ref()?.uid_mappings().as_deref();
    match mappings.unwrap_or_default() {
        [] => Some(uid),
        mappings => find(mappings, uid),
    }
}

/// The user and the group of the machine that are the container's root by a mapping.
pub(super) fn mapped_root(spec: &Spec) -> Option<(u32, u32)> {
    let linux = spec.linux().as_ref()?;
    let root = |mappings: &Option<Vec<LinuxIdMapping>>| find(mappings.as_deref()?, 0);
    Some((root(linux.uid_mappings())?, root(linux.gid_mappings())?))
}

fn find(mappings: &[LinuxIdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id())?;
        (offset < mapping.size()).then(|| mapping.host_id().checked_add(offset))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_user_is_found_among_the_machines() {
        let mut spec = Spec::default();
        assert_eq!(on_host(&spec, 7), Some(7));
        let mapping = LinuxIdMappingBuilder::default()
            .container_id(5_u32)
            .host_id(100_000_u32)
            .size(10_u32);
        let linux = spec.linux_mut().as_mut().expect("linux");
        linux.set_uid_mappings(Some(vec![mapping.build().expect("a mapping")]));
        for (uid, host) in [
            (4, None),
            (5, Some(100_000)),
            (14, Some(100_009)),
            (15, None),
        ] {
            assert_eq!(on_host(&spec, uid), host, "{uid}");
        }
        let own = mapping_of(std::process::id().cast_signed()).expect("a mapping");
        assert_eq!(own.len(), 1, "the tests run as the machine's own users");
    }
}
