//! Telling running pods that what they draw from has changed.
//!
//! A change of a ConfigMap or Secret is recorded together with the fact that its
//! users do not know of it; whoever has told them takes that back. So a command
//! that is killed in between leaves it to the next one.

use anyhow::{Context, Result};

use super::control::{Client, Request};
use super::home::Home;
use super::references::uses;
use crate::kube::kind::Kind;
use crate::storage::binder::claims_of;
use crate::storage::roots::Roots;
use crate::storage::store::Store;

/// Has the keepers of all pods that use a changed ConfigMap or Secret look at it
/// again, if that has not been done. Pods without a keeper find it when they get one.
///
/// # Errors
/// When the store cannot be used, or a keeper that is there cannot be told.
pub fn users(roots: &Roots, store: &Store) -> Result<()> {
    let untold = store.untold()?;
    let Some(first) = untold.first() else {
        return Ok(());
    };
    let same = untold.iter().all(|one| one.namespace == first.namespace);
    let namespace = same.then_some(first.namespace.as_str());
    for pod in store.pods(namespace)? {
        let draws = untold.iter().any(|object| {
            pod.metadata.namespace.as_deref() == Some(object.namespace.as_str())
                && (pod.spec.as_ref()).is_some_and(|spec| match object.kind {
                    Kind::PersistentVolumeClaim => {
                        let own = pod.metadata.name.as_deref().unwrap_or_default();
                        claims_of(own, spec).contains(&object.name)
                    }
                    kind => uses(spec, kind, &object.name),
                })
        });
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if draws && let Some(keeper) = Client::connect(&Home::new(roots, uid))? {
            match keeper.send(&Request::Reload, &[]) {
                // It is ending.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                sent => sent.context("cannot talk to a pod's keeper")?,
            }
        }
    }
    Ok(store.told(&untold)?)
}
