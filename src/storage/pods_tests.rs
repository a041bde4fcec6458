use k8s_openapi::api::core::v1::PodStatus;
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

fn pod(namespace: &str, name: &str) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "containers": [{"name": "c", "image": "busybox", "command": ["true"]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    }))
    .unwrap()
}

fn status(phase: &str) -> PodStatus {
    PodStatus {
        phase: Some(phase.into()),
        ..PodStatus::default()
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap()
}

#[test]
fn a_created_pod_is_read_back_as_it_was_returned() {
    let (_dir, store) = store();
    let mut given = pod("default", "web");
    given.metadata.uid = Some("chosen by the user".into());
    given.status = Some(status("Failed"));
    let made = store.create_pod(given).unwrap();
    let uid = uid(&made);
    assert!(uuid::Uuid::parse_str(&uid).is_ok(), "{uid}");
    let created = made.metadata.creation_timestamp.as_ref().unwrap().0;
    assert_eq!(created.subsec_nanosecond(), 0);
    assert_eq!(made.metadata.resource_version.as_deref(), Some("1"));
    assert_eq!(made.status, None);

    assert_eq!(store.pod("default", "web").unwrap().as_ref(), Some(&made));
    assert_eq!(store.pod_by_uid(&uid).unwrap(), Some(made));
    assert_eq!(store.pod("other", "web").unwrap(), None);
    assert_eq!(store.pod_by_uid("nobody").unwrap(), None);
}

#[test]
fn a_name_is_taken_once_per_namespace() {
    let (_dir, store) = store();
    store.create_pod(pod("default", "web")).unwrap();
    store.create_pod(pod("other", "web")).unwrap();
    let refused = store.create_pod(pod("default", "web")).unwrap_err();
    assert_eq!(refused.to_string(), r#"pods "web" already exists"#);
    let mut nameless = pod("default", "web");
    nameless.metadata.name = None;
    let refused = store.create_pod(nameless).unwrap_err();
    assert_eq!(refused.to_string(), "a Pod needs metadata.name");
}

#[test]
fn pods_come_by_namespace_and_name() {
    let (_dir, store) = store();
    for (namespace, name) in [("b", "a"), ("a", "z"), ("a", "b")] {
        store.create_pod(pod(namespace, name)).unwrap();
    }
    let names = |namespace| -> Vec<_> {
        let pods = store.pods(namespace).unwrap();
        pods.iter().map(|pod| identity(pod).unwrap()).collect()
    };
    let pair = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    assert_eq!(
        names(None),
        [pair("a", "b"), pair("a", "z"), pair("b", "a")]
    );
    assert_eq!(names(Some("b")), [pair("b", "a")]);
}

#[test]
fn a_status_is_written_once_and_belongs_to_its_boot() {
    let (_dir, store) = store();
    let made = store.create_pod(pod("default", "web")).unwrap();
    let uid = uid(&made);
    assert_eq!(store.pod_boot_id(&uid).unwrap(), None);
    assert!(
        store
            .set_pod_status(&uid, &status("Running"), "boot 1")
            .unwrap()
    );
    let version = store.latest_version().unwrap();
    assert!(
        store
            .set_pod_status(&uid, &status("Running"), "boot 1")
            .unwrap()
    );
    assert_eq!(
        store.latest_version().unwrap(),
        version,
        "nothing was written"
    );
    assert!(
        store
            .set_pod_status(&uid, &status("Running"), "boot 2")
            .unwrap()
    );
    assert_eq!(store.pod_boot_id(&uid).unwrap().as_deref(), Some("boot 2"));

    let stored = store.stored_pod("default", "web").unwrap().unwrap();
    assert_eq!(stored.boot_id.as_deref(), Some("boot 2"));
    assert_eq!(stored.pod.status, Some(status("Running")));
    assert_eq!(stored.pod.spec, made.spec);
    assert!(
        !store
            .set_pod_status("nobody", &status("Running"), "boot 1")
            .unwrap()
    );
}

#[test]
fn a_replacement_of_an_older_version_is_refused_and_leaves_status_and_identity() {
    let (_dir, store) = store();
    let made = store.create_pod(pod("default", "web")).unwrap();
    store
        .set_pod_status(&uid(&made), &status("Running"), "boot")
        .unwrap();
    let mut labelled = made.clone();
    labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let refused = store.replace_pod(labelled.clone()).unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { .. }), "{refused}");

    labelled.metadata.resource_version = None;
    labelled.metadata.uid = Some("another".into());
    let replaced = store.replace_pod(labelled).unwrap();
    assert_eq!(replaced.metadata.uid, made.metadata.uid);
    assert_eq!(
        replaced.metadata.creation_timestamp,
        made.metadata.creation_timestamp
    );
    assert_eq!(replaced.status, Some(status("Running")));
    assert_eq!(store.pod("default", "web").unwrap(), Some(replaced));

    let refused = store.replace_pod(pod("default", "nobody")).unwrap_err();
    assert_eq!(refused.to_string(), r#"pods "nobody" not found"#);
}

#[test]
fn a_second_deletion_can_only_bring_the_end_nearer() {
    let (_dir, store) = store();
    let uid = uid(&store.create_pod(pod("default", "web")).unwrap());
    let now: Timestamp = "2026-01-01T00:00:00.75Z".parse().unwrap();
    let end = |pod: &Pod| {
        let metadata = &pod.metadata;
        let time = metadata.deletion_timestamp.as_ref().unwrap().0.to_string();
        (time, metadata.deletion_grace_period_seconds.unwrap())
    };
    let first = store.mark_pod_deleted_at(&uid, 30, now).unwrap();
    assert_eq!(end(&first), ("2026-01-01T00:00:30Z".into(), 30));
    let later = store.mark_pod_deleted_at(&uid, 60, now).unwrap();
    assert_eq!(later, first);
    let sooner = store.mark_pod_deleted_at(&uid, 1, now).unwrap();
    assert_eq!(end(&sooner), ("2026-01-01T00:00:01Z".into(), 1));
    assert_eq!(store.pod_by_uid(&uid).unwrap().as_ref(), Some(&sooner));

    let kept = store.replace_pod(pod("default", "web")).unwrap();
    assert_eq!(end(&kept), end(&sooner), "replacing a pod does not save it");
    assert!(store.mark_pod_deleted("nobody", 1).is_err());
}

#[test]
fn a_removed_pod_is_gone_and_its_name_is_free() {
    let (_dir, store) = store();
    let first = uid(&store.create_pod(pod("default", "web")).unwrap());
    assert!(store.remove_pod(&first).unwrap());
    assert!(!store.remove_pod(&first).unwrap());
    let second = store.create_pod(pod("default", "web")).unwrap();
    assert_ne!(second.metadata.uid.as_ref(), Some(&first));
    assert!(
        !store
            .set_pod_status(&first, &status("Running"), "boot")
            .unwrap()
    );
}
