//! Telling running pods that what they draw from has changed.

use anyhow::{Context, Result};

use super::Machine;
use crate::kube::kind::Kind;
use crate::kube::manifest::Object;
use crate::pod::control::{Client, Request};
use crate::pod::references::uses;

/// Has the keepers of all pods that use one of the `changed` ConfigMaps and Secrets
/// look at them again. Pods without a keeper find them when they get one.
///
/// # Errors
/// When the pods cannot be read, or a keeper that is there cannot be told.
pub(super) fn users(machine: &Machine, changed: &[&Object]) -> Result<()> {
    let mut namespaces: Vec<&str> = changed.iter().map(|object| object.namespace()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    for namespace in namespaces {
        let here = |object: &&&Object| object.namespace() == namespace;
        let here: Vec<_> = changed.iter().filter(here).collect();
        for pod in machine.store.pods(Some(namespace))? {
            let spec = pod.spec.as_ref();
            let draws = |object: &&&&Object| {
                spec.is_some_and(|spec| uses(spec, object.kind(), object.name()))
            };
            if !here.iter().any(|object| draws(&object)) {
                continue;
            }
            if let Some(keeper) = Client::connect(&machine.home(&pod))? {
                match keeper.send(&Request::Reload, &[]) {
                    // It is ending.
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                    sent => sent.context("cannot talk to a pod's keeper")?,
                }
            }
        }
    }
    Ok(())
}

/// Whether pods draw from objects of this kind.
pub(super) fn is_drawn_from(kind: Kind) -> bool {
    matches!(kind, Kind::ConfigMap | Kind::Secret)
}
