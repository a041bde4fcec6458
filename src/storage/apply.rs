//! What applying a manifest changes.
//!
//! As kubectl's client-side apply does
//! (<https://kubernetes.io/docs/tasks/manage-kubernetes-objects/declarative-config/>):
//! three versions are compared, the manifest, the one applied before, and the
//! object as it is. A label or annotation that the earlier manifest had and this one has
//! not is taken away; those that somebody added by other means stay. Of a pod's
//! spec Kubernetes lets few fields change: images,
//! `activeDeadlineSeconds`, `terminationGracePeriodSeconds`, and tolerations.
//!
//! The manifest last applied has its own column, not an annotation, so that
//! `get -o yaml` shows what users wrote.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::Value;

use super::pods::{KIND, identity};
use super::store::{Change, Store, StoreError};

/// What applying a manifest did.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied<T = Pod> {
    /// There was no such object.
    Created(T),
    /// The object is as the manifest wants it.
    Unchanged(T),
    /// The object was changed.
    Configured(T),
}

impl Applied {
    /// The pod as it is now.
    pub fn pod(&self) -> &Pod {
        self.object()
    }
}

impl<T> Applied<T> {
    /// The object as it is now.
    pub fn object(&self) -> &T {
        match self {
            Self::Created(object) | Self::Unchanged(object) | Self::Configured(object) => object,
        }
    }

    /// The same about the object in another form.
    pub(super) fn map<U>(self, form: impl FnOnce(T) -> U) -> Applied<U> {
        match self {
            Self::Created(object) => Applied::Created(form(object)),
            Self::Unchanged(object) => Applied::Unchanged(form(object)),
            Self::Configured(object) => Applied::Configured(form(object)),
        }
    }

    /// kubectl's word for it: `created`, `unchanged`, `configured`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Unchanged(_) => "unchanged",
            Self::Configured(_) => "configured",
        }
    }
}

impl Store {
    /// Makes pods be as their manifests say, all in one transaction: each is
    /// created, or changed where it may be, or left as it is.
    ///
    /// `wanted`: the pods with their namespaces and all defaults filled in. The
    /// spec's `nodeName` is taken from the stored pod when one has none.
    ///
    /// # Errors
    /// [`StoreError::Forbidden`] when a spec differs where it must not, or
    /// [`StoreError::Incomplete`] without name or namespace; nothing is changed
    /// then.
    pub fn apply_pods(&self, wanted: Vec<Pod>) -> Result<Vec<Applied>, StoreError> {
        self.write("apply pods", |change| {
            wanted.into_iter().map(|pod| apply(change, pod)).collect()
        })
    }
}

pub(super) fn apply(change: &Change, wanted: Pod) -> Result<Applied, StoreError> {
    let (namespace, name) = identity(&wanted)?;
    let manifest = serde_json::to_string(&wanted).map_err(|source| StoreError::Decode {
        kind: KIND,
        name: name.clone(),
        source,
    })?;
    let Some(current) = change.pod(&namespace, &name)? else {
        let pod = change.create_pod(wanted, &namespace, &name, Some(&manifest))?;
        return Ok(Applied::Created(pod));
    };
    let uid = current.metadata.uid.as_deref();
    let before: Option<String> = change.run(|db| {
        db.query_row("SELECT applied FROM objects WHERE uid = ?1", [uid], |row| {
            row.get(0)
        })
    })?;
    let merged = merge(&current, wanted, before.as_deref(), &name)?;
    if before.as_deref() != Some(&manifest) {
        change.run(|db| {
            db.execute(
                "UPDATE objects SET applied = ?2 WHERE uid = ?1",
                (uid, &manifest),
            )
        })?;
    }
    if merged == current {
        return Ok(Applied::Unchanged(current));
    }
    change.update_pod(&current, merged).map(Applied::Configured)
}

/// `current` with everything that `wanted` changes.
fn merge(current: &Pod, wanted: Pod, before: Option<&str>, name: &str) -> Result<Pod, StoreError> {
    let before: Value = match before {
        Some(text) => serde_json::from_str(text).map_err(|source| StoreError::Decode {
            kind: KIND,
            name: name.to_owned(),
            source,
        })?,
        None => Value::Null,
    };
    let mut merged = current.clone();
    for (map, wanted, key) in [
        (
            &mut merged.metadata.labels,
            wanted.metadata.labels,
            "labels",
        ),
        (
            &mut merged.metadata.annotations,
            wanted.metadata.annotations,
            "annotations",
        ),
    ] {
        merge_map(map, wanted.unwrap_or_default(), &before["metadata"][key]);
    }
    if let (Some(current), Some(mut wanted)) = (&current.spec, wanted.spec) {
        if wanted.node_name.is_none() {
            wanted.node_name.clone_from(&current.node_name);
        }
        if let Some(field) = forbidden_change(current, &wanted) {
            let name = name.to_owned();
            return Err(StoreError::Forbidden { name, field });
        }
        merged.spec = Some(wanted);
    }
    Ok(merged)
}

fn merge_map(
    current: &mut Option<BTreeMap<String, String>>,
    wanted: BTreeMap<String, String>,
    before: &Value,
) {
    let mut merged = current.take().unwrap_or_default();
    for key in before.as_object().into_iter().flat_map(|map| map.keys()) {
        if !wanted.contains_key(key) {
            merged.remove(key);
        }
    }
    merged.extend(wanted);
    *current = Some(merged).filter(|map| !map.is_empty());
}

/// The first field of a spec that differs and must not, as a path from the pod.
pub(super) fn forbidden_change(current: &PodSpec, wanted: &PodSpec) -> Option<String> {
    let mut allowed = wanted.clone();
    allowed.active_deadline_seconds = current.active_deadline_seconds;
    allowed.termination_grace_period_seconds = current.termination_grace_period_seconds;
    allowed.tolerations.clone_from(&current.tolerations);
    take_images(&mut allowed.containers, &current.containers);
    if let (Some(allowed), Some(current)) = (&mut allowed.init_containers, &current.init_containers)
    {
        take_images(allowed, current);
    }
    if allowed == *current {
        return None;
    }
    // Specs serialize to objects; should one not, the whole is what differs.
    let tree = |spec: &PodSpec| serde_json::to_value(spec).unwrap_or_default();
    Some(first_difference("spec", &tree(current), &tree(&allowed)))
}

fn take_images(wanted: &mut [Container], current: &[Container]) {
    for (wanted, current) in wanted.iter_mut().zip(current) {
        wanted.image.clone_from(&current.image);
    }
}

fn first_difference(path: &str, current: &Value, wanted: &Value) -> String {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => current
            .keys()
            .chain(wanted.keys())
            .find(|key| current.get(*key) != wanted.get(*key))
            .map(|key| {
                let of = |map: &serde_json::Map<_, _>| map.get(key).cloned().unwrap_or_default();
                first_difference(&format!("{path}.{key}"), &of(current), &of(wanted))
            }),
        (Value::Array(current), Value::Array(wanted)) if current.len() == wanted.len() => current
            .iter()
            .zip(wanted)
            .enumerate()
            .find(|(_, (current, wanted))| current != wanted)
            .map(|(index, (current, wanted))| {
                first_difference(&format!("{path}[{index}]"), current, wanted)
            }),
        _ => None,
    }
    .unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::storage::roots::Roots;
    use crate::storage::store::Durability;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(Some(dir.path()), None, None).unwrap();
        let store = Store::open(&roots, Durability::Full).unwrap();
        (dir, store)
    }

    fn manifest() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": "web", "labels": {"app": "web", "tier": "front"}},
            "spec": {"containers": [{"name": "c", "image": "busybox", "args": ["sleep", "1"]}]},
        })
    }

    fn apply(store: &Store, manifest: &Value) -> Result<Applied, StoreError> {
        let mut wanted: Pod = serde_json::from_value(manifest.clone()).unwrap();
        wanted.spec.as_mut().unwrap().restart_policy = Some("Always".into());
        let applied = store.apply_pods(vec![wanted])?;
        Ok(applied.into_iter().next().expect("one pod"))
    }

    #[test]
    fn a_manifest_creates_a_pod_then_changes_nothing_then_changes_it() {
        let (_dir, store) = store();
        let created = apply(&store, &manifest()).unwrap();
        assert_eq!(created.word(), "created");
        let again = apply(&store, &manifest()).unwrap();
        assert_eq!(again, Applied::Unchanged(created.pod().clone()));

        let mut changed = manifest();
        changed["metadata"]["labels"]["app"] = json!("shop");
        let configured = apply(&store, &changed).unwrap();
        assert_eq!(configured.word(), "configured");
        let pod = configured.pod();
        assert_eq!(pod.metadata.uid, created.pod().metadata.uid);
        assert_ne!(
            pod.metadata.resource_version,
            created.pod().metadata.resource_version
        );
        assert_eq!(pod.metadata.labels.as_ref().unwrap()["app"], "shop");
        assert_eq!(store.pod("default", "web").unwrap().as_ref(), Some(pod));
    }

    #[test]
    fn a_label_taken_out_of_the_manifest_goes_and_one_added_elsewhere_stays() {
        let (_dir, store) = store();
        let mut pod = apply(&store, &manifest()).unwrap().pod().clone();
        pod.metadata
            .labels
            .as_mut()
            .unwrap()
            .insert("owner".into(), "me".into());
        store.replace_pod(pod).unwrap();

        let mut fewer = manifest();
        fewer["metadata"]["labels"] = json!({"app": "web"});
        let applied = apply(&store, &fewer).unwrap();
        let labels = applied.pod().metadata.labels.clone().unwrap();
        assert_eq!(labels.keys().collect::<Vec<_>>(), ["app", "owner"]);
        assert_eq!(apply(&store, &fewer).unwrap().word(), "unchanged");
    }

    #[test]
    fn an_image_may_change_and_the_node_that_was_chosen_stays() {
        let (_dir, store) = store();
        let mut pod = apply(&store, &manifest()).unwrap().pod().clone();
        pod.spec.as_mut().unwrap().node_name = Some("here".into());
        store.replace_pod(pod).unwrap();
        assert_eq!(apply(&store, &manifest()).unwrap().word(), "unchanged");

        let mut newer = manifest();
        newer["spec"]["containers"][0]["image"] = json!("busybox:2");
        let applied = apply(&store, &newer).unwrap();
        let spec = applied.pod().spec.as_ref().unwrap();
        assert_eq!(spec.containers[0].image.as_deref(), Some("busybox:2"));
        assert_eq!(spec.node_name.as_deref(), Some("here"));
    }

    #[test]
    fn what_cannot_be_changed_is_named_and_nothing_is_changed() {
        let (_dir, store) = store();
        let created = apply(&store, &manifest()).unwrap();
        let mut other = manifest();
        other["metadata"]["labels"]["app"] = json!("shop");
        other["spec"]["containers"][0]["args"][1] = json!("2");
        let refused = apply(&store, &other).unwrap_err();
        let text = refused.to_string();
        let start = r#"Pod "web" is invalid: spec: Forbidden: pod updates may not change fields"#;
        assert!(text.starts_with(start), "{text}");
        assert!(
            text.ends_with("spec.containers[0].args[1] differs"),
            "{text}"
        );
        assert_eq!(
            store.pod("default", "web").unwrap().as_ref(),
            Some(created.pod())
        );

        let mut more = manifest();
        more["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        let refused = apply(&store, &more).unwrap_err();
        assert!(
            refused.to_string().ends_with("spec.volumes differs"),
            "{refused}"
        );
    }
}
