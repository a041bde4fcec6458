//! The namespaces that a container's process makes or joins itself, after it was
//! born in its user, PID and time namespaces (namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use rustix::system::{setdomainname, sethostname};
use rustix::thread::{UnshareFlags, move_into_link_name_space};

use super::error::sentence;
use crate::sys::namespace::leave;

/// Joins the namespaces that have a path, but for a user namespace: in that the
/// process might lack what it takes to enter the others.
///
/// # Errors
/// One sentence with the kind and path of the namespace.
pub(super) fn join(spec: &Spec) -> Result<(), String> {
    let mut join = Vec::new();
    for namespace in listed(spec) {
        if let Some(path) = namespace.path()
            && !flag(namespace.typ()).is_empty()
        {
            // All are opened before any is entered: in another mount
            // namespace the paths mean something else.
            let file = File::open(path).map_err(|error| failed(namespace, &error))?;
            join.push((file, namespace));
        }
    }
    join.sort_by_key(|(_, namespace)| namespace.typ() == LinuxNamespaceType::Mount);
    for (file, namespace) in join {
        move_into_link_name_space(file.as_fd(), None)
            .map_err(|error| failed(namespace, &error.into()))?;
    }
    Ok(())
}

/// Makes the namespaces that have no path, and names the machine in a new UTS
/// namespace. They belong to the user namespace that the process is in.
///
/// # Errors
/// One sentence with the name, or what unshare(2) says.
pub(super) fn make(spec: &Spec) -> Result<(), String> {
    let new: UnshareFlags = listed(spec)
        .iter()
        .filter(|namespace| namespace.path().is_none())
        .map(|namespace| flag(namespace.typ()))
        .collect();
    if !new.is_empty() {
        leave(new).map_err(|error| format!("cannot make namespaces: {}", sentence(&error)))?;
    }
    if new.contains(UnshareFlags::NEWUTS) {
        let named = |what: &str, name: &str, result: rustix::io::Result<()>| {
            result.map_err(|error| format!("cannot set the {what} {name:?}: {}", sentence(&error)))
        };
        if let Some(name) = spec.hostname() {
            named("host name", name, sethostname(name.as_bytes()))?;
        }
        if let Some(name) = spec.domainname() {
            named("domain name", name, setdomainname(name.as_bytes()))?;
        }
    }
    Ok(())
}

/// Whether the process makes a namespace of this kind.
pub(super) fn is_new(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let mut all = listed(spec).iter();
    all.any(|namespace| namespace.typ() == kind && namespace.path().is_none())
}

fn listed(spec: &Spec) -> &[LinuxNamespace] {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref());
    namespaces.unwrap_or_default()
}

fn failed(namespace: &LinuxNamespace, error: &io::Error) -> String {
    format!(
        "cannot join the namespace {:?} ({:?}): {}",
        namespace.path().as_deref().unwrap_or(Path::new("")),
        namespace.typ(),
        sentence(error)
    )
}

fn flag(kind: LinuxNamespaceType) -> UnshareFlags {
    match kind {
        LinuxNamespaceType::Cgroup => UnshareFlags::NEWCGROUP,
        LinuxNamespaceType::Ipc => UnshareFlags::NEWIPC,
        LinuxNamespaceType::Mount => UnshareFlags::NEWNS,
        LinuxNamespaceType::Network => UnshareFlags::NEWNET,
        LinuxNamespaceType::Uts => UnshareFlags::NEWUTS,
        // Processes are born in these.
        LinuxNamespaceType::Pid | LinuxNamespaceType::Time | LinuxNamespaceType::User => {
            UnshareFlags::empty()
        }
    }
}
