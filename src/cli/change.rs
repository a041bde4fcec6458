//! What the verbs that change objects share: reading an object, checking what
//! became of it as a manifest is checked, storing it, and telling the keepers.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::Machine;
use super::print::{self, Selection};
use super::select::Wanted;
use crate::kube::kind::Kind;
use crate::kube::manifest::{self, Document, Object, Source};
use crate::kube::selector::LabelSelector;
use crate::pod::control::{Client, Request};
use crate::pod::{claims, repair};
use crate::storage::store::{StoreError, boot_id};

/// How often a change is made anew when somebody else changes the object, too.
const TRIES: usize = 10;

/// An object after a change that was asked for.
pub(super) struct Changed {
    /// The object as it is now.
    pub object: Object,
    /// False when it was like that before.
    pub changed: bool,
}

/// Changes one object by `edit`, which is given the object in full. The change is
/// made to what the object is at that moment, however many change it at once.
///
/// # Errors
/// What `edit` says, what is wrong with its result, or what may not change.
pub(super) fn change(
    machine: &Machine,
    kind: Kind,
    namespace: &str,
    name: &str,
    mut edit: impl FnMut(&mut Value) -> Result<()>,
) -> Result<Changed> {
    let mut tries = TRIES;
    loop {
        let object = machine.object(kind, namespace, name)?;
        let mut value = object.to_value()?;
        edit(&mut value)?;
        let mut wanted = check(&value, &object)?;
        let version = &object.metadata().resource_version;
        wanted.metadata_mut().resource_version.clone_from(version);
        match replace(machine, wanted) {
            Err(error) if tries > 1 && is_conflict(&error) => tries -= 1,
            changed => return changed,
        }
    }
}

fn is_conflict(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<StoreError>();
    matches!(error, Some(StoreError::Conflict { .. }))
}

/// What became of an object, checked as a manifest is.
fn check(value: &Value, object: &Object) -> Result<Object> {
    let wanted = manifest::checked(value)?;
    if wanted.kind() != object.kind() {
        bail!(
            "kind: Invalid value: {:?}: field is immutable",
            wanted.kind().name()
        );
    }
    let (is, was) = (wanted.metadata(), object.metadata());
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

/// Gives the object of the same kind, namespace and name this form, as far as it
/// may change, and tells the keepers whom it concerns.
///
/// # Errors
/// What may not change, or that the object is not there.
pub(super) fn replace(machine: &Machine, wanted: Object) -> Result<Changed> {
    if let Object::Pod(pod) = wanted {
        let done = machine.store.change_pod(*pod)?;
        if done.changed {
            tell(machine, &done.pod)?;
        }
        return Ok(Changed {
            object: done.pod.into(),
            changed: done.changed,
        });
    }
    let before = machine.object(wanted.kind(), wanted.namespace(), wanted.name())?;
    let object = machine.store.replace(wanted)?;
    let changed = object != before;
    if changed {
        claims::follow_up(&machine.roots, &machine.store)?;
    }
    Ok(Changed { object, changed })
}

/// Tells a pod's keeper that its manifest has changed.
fn tell(machine: &Machine, pod: &Pod) -> Result<()> {
    let Some(keeper) = Client::connect(&machine.home(pod))? else {
        return Ok(());
    };
    match keeper.send(&Request::Reload, &[]) {
        // It is ending, and will not do anything more.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot talk to the pod's keeper"),
    }
}

/// Stores a new object, and starts it if it is a pod.
///
/// # Errors
/// `AlreadyExists`, or that a pod's keeper cannot be executed.
pub(super) fn create(machine: &Machine, object: Object) -> Result<Object> {
    let object = machine.store.create(object)?;
    match &object {
        Object::Pod(pod) => {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            repair::start_keeper(&machine.roots, uid)?;
        }
        _ => claims::follow_up(&machine.roots, &machine.store)?,
    }
    Ok(object)
}

/// The objects that manifests declare, each with its file.
///
/// # Errors
/// What is wrong with a manifest.
pub(super) fn load(
    filenames: &[OsString],
    namespace: Option<&str>,
) -> Result<Vec<(String, Object)>> {
    let sources: Vec<Source> = filenames
        .iter()
        .map(|name| Source::from(name.as_os_str()))
        .collect();
    let documents = manifest::load_into(&sources, namespace)?;
    let placed = |document: Document| (document.source.to_string(), place(document.object));
    Ok(documents.into_iter().map(placed).collect())
}

/// The object; a pod is to run on this machine.
pub(super) fn place(mut object: Object) -> Object {
    if let Object::Pod(pod) = &mut object {
        claims::assign_node(pod);
    }
    object
}

/// The objects that a command line names, or all that it selects: kind and name of
/// each.
///
/// # Errors
/// No name and no selection, or both.
pub(super) fn targets(
    machine: &Machine,
    verb: &str,
    words: &[String],
    namespace: &str,
    selector: Option<&LabelSelector>,
    all: bool,
) -> Result<Vec<(Kind, String)>> {
    let selects = all || selector.is_some();
    let mut targets = Vec::new();
    for selection in Selection::parse_all(verb, words)? {
        let kind = selection.resource.kind();
        match (selection.names.is_empty(), selects) {
            (false, false) => targets.extend(selection.names.into_iter().map(|name| (kind, name))),
            (true, true) => {
                let wanted = Wanted::new(kind, selector, None)?;
                let found = wanted.of(&machine.store, kind, Some(namespace), &boot_id()?)?;
                let names = found.iter().map(|object| (kind, object.name().to_owned()));
                targets.extend(names);
            }
            (true, false) => bail!("resource(s) were provided, but no name was specified"),
            (false, true) => bail!("name cannot be provided when a selector or --all is specified"),
        }
    }
    if targets.is_empty() {
        print::note(format_args!("No resources found"));
    }
    Ok(targets)
}
