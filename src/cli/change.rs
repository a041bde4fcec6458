//! What the verbs that change objects share: reading an object, checking what
//! became of it as a manifest is checked, storing it, and telling its keeper.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::Machine;
use super::print::{self, Selection};
use super::select::{Pods, to_value};
use crate::kube::manifest::{self, Document, Object, Source};
use crate::kube::selector::LabelSelector;
use crate::pod::control::{Client, Request};
use crate::pod::repair;
use crate::storage::change::Changed;
use crate::storage::store::StoreError;
use crate::sys::node;

/// How often a change is made anew when somebody else changes the object, too.
const TRIES: usize = 10;

/// Changes one pod by `edit`, which is given the pod in full. The change is made
/// to what the pod is at that moment, however many change it at once.
///
/// # Errors
/// What `edit` says, what is wrong with its result, or what may not change.
pub(super) fn change(
    machine: &Machine,
    namespace: &str,
    name: &str,
    mut edit: impl FnMut(&mut Value) -> Result<()>,
) -> Result<Changed> {
    let mut tries = TRIES;
    loop {
        let pod = machine.pod(namespace, name)?;
        let mut object = to_value(&pod)?;
        edit(&mut object)?;
        let mut wanted = check(&object, &pod)?;
        wanted
            .metadata
            .resource_version
            .clone_from(&pod.metadata.resource_version);
        match machine.store.change_pod(wanted) {
            Err(StoreError::Conflict { .. }) if tries > 1 => tries -= 1,
            changed => {
                let changed = changed?;
                if changed.changed {
                    remind(machine, &changed.pod)?;
                }
                return Ok(changed);
            }
        }
    }
}

/// What became of a pod, checked as a manifest is.
fn check(object: &Value, pod: &Pod) -> Result<Pod> {
    let wanted = manifest::checked_pod(object)?;
    let (is, was) = (&wanted.metadata, &pod.metadata);
    for (field, is, was) in [
        ("metadata.name", &is.name, &was.name),
        ("metadata.namespace", &is.namespace, &was.namespace),
        ("metadata.uid", &is.uid, &was.uid),
    ] {
        if is != was {
            bail!(
                "{field}: Invalid value: {:?}: field is immutable",
                is.as_deref().unwrap_or_default()
            );
        }
    }
    Ok(wanted)
}

/// Tells a pod's keeper that its manifest has changed.
pub(super) fn remind(machine: &Machine, pod: &Pod) -> Result<()> {
    let Some(keeper) = Client::connect(&machine.home(pod))? else {
        return Ok(());
    };
    match keeper.send(&Request::Reload, &[]) {
        // It is ending, and will not do anything more.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot talk to the pod's keeper"),
    }
}

/// Stores a new pod and starts it.
///
/// # Errors
/// `AlreadyExists`, or that its keeper cannot be executed.
pub(super) fn create(machine: &Machine, pod: Pod) -> Result<Pod> {
    let pod = machine.store.create_pod(pod)?;
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    repair::start_keeper(&machine.roots, uid)?;
    Ok(pod)
}

/// The pods that manifests declare, each with its file.
///
/// # Errors
/// What is wrong with a manifest.
pub(super) fn load(filenames: &[OsString], namespace: Option<&str>) -> Result<Vec<(String, Pod)>> {
    let sources: Vec<Source> = filenames
        .iter()
        .map(|name| Source::from(name.as_os_str()))
        .collect();
    let documents = manifest::load_into(&sources, namespace)?;
    let pod = |document: Document| match document.object {
        Object::Pod(pod) => (document.source.to_string(), place(*pod)),
    };
    Ok(documents.into_iter().map(pod).collect())
}

/// A pod that is to run on this machine.
pub(super) fn place(mut pod: Pod) -> Pod {
    if let Some(spec) = &mut pod.spec {
        spec.node_name.get_or_insert_with(node::name);
    }
    pod
}

/// The names that a command line gives, or all that it selects.
///
/// # Errors
/// No name and no selection, or both.
pub(super) fn names(
    machine: &Machine,
    verb: &str,
    words: &[String],
    namespace: &str,
    selector: Option<&LabelSelector>,
    all: bool,
) -> Result<Vec<String>> {
    let selection = Selection::parse(verb, words)?;
    let selects = all || selector.is_some();
    match (selection.names.is_empty(), selects) {
        (false, false) => Ok(selection.names),
        (true, true) => {
            let pods = Pods::new(selector, None)?.of(&machine.store, Some(namespace))?;
            if pods.is_empty() {
                print::note(format_args!("No resources found"));
            }
            Ok(pods
                .into_iter()
                .filter_map(|pod| pod.metadata.name)
                .collect())
        }
        (true, false) => bail!("resource(s) were provided, but no name was specified"),
        (false, true) => bail!("name cannot be provided when a selector or --all is specified"),
    }
}
