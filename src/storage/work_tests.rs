use super::*;
use crate::storage::roots::Roots;
use crate::storage::store::Durability;
use serde_json::{Value, json};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let roots = Roots::new(Some(dir.path()), None, None).expect("roots");
    let store = Store::open(&roots, Durability::Full).expect("a store");
    (dir, store)
}

fn pv(policy: &str) -> PersistentVolume {
    let value = json!({"metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/srv/v"},
        "volumeMode": "Filesystem", "persistentVolumeReclaimPolicy": policy}});
    serde_json::from_value(value).expect("a volume")
}

fn pvc(fields: Value) -> PersistentVolumeClaim {
    let mut value = json!({"metadata": {"name": "c", "namespace": "default"}, "spec": {
        "resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"}});
    json_patch::merge(&mut value, &fields);
    serde_json::from_value(value).expect("a claim")
}

/// A store with a volume whose claim has just gone, and what is to be done with it.
fn released(policy: &str) -> (tempfile::TempDir, Store, Vec<Work>) {
    let (dir, store) = store();
    store.create_object(pv(policy)).expect("a volume");
    store.create_object(pvc(json!({}))).expect("a claim");
    assert_eq!(phase(&store), "Bound");
    assert!(store.pending_work().expect("work").is_empty());
    let gone = store.remove_object::<PersistentVolumeClaim>("default", "c");
    assert!(gone.expect("removed").is_some());
    let work = store.pending_work().expect("work");
    (dir, store, work)
}

fn phase(store: &Store) -> String {
    let volume: PersistentVolume = store.object("", "v").expect("read").expect("a volume");
    super::super::binder::facts::volume_phase(&volume).to_owned()
}

fn edit(store: &Store, policy: &str) {
    let mut volume: PersistentVolume = store.object("", "v").expect("read").expect("a volume");
    let spec = volume.spec.as_mut().expect("a spec");
    spec.persistent_volume_reclaim_policy = Some(policy.to_owned());
    store.replace_object(volume).expect("edited");
}

#[test]
fn a_recycled_volume_is_bound_to_the_claim_that_waits() {
    let (_dir, store, work) = released("Recycle");
    assert_eq!(phase(&store), "Released");
    store
        .create_object(pvc(json!({"metadata": {"name": "next"}})))
        .expect("a claim");
    let [work] = work.as_slice() else {
        panic!("one thing to do: {work:?}");
    };
    assert_eq!((work.action, work.attempts), (Action::Recycle, 0));
    assert!(store.has_work(Timestamp::now()).expect("look"));
    let task = store.begin_work(work).expect("begin");
    assert!(matches!(task, Some(Task::Recycle(_))));

    // In vain at first: it is told, and tried again later.
    let again = SignedDuration::from_mins(5);
    let failed = |reason: &str| Outcome::Failed {
        reason: reason.to_owned(),
        again,
    };
    store.finish_work(work, failed("busy")).expect("finish");
    let volume: PersistentVolume = store.object("", "v").expect("read").expect("a volume");
    let status = volume.status.clone().expect("a status");
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("VolumeFailedRecycle"));
    assert_eq!(status.message.as_deref(), Some("Recycle failed: busy"));
    let events = store.events_for(volume.metadata.uid.as_deref().expect("a uid"));
    let events = events.expect("events");
    assert_eq!(events[0].event.message, "Recycle failed: busy");
    let later = store.pending_work().expect("work");
    assert_eq!(later[0].attempts, 1);
    assert!(!store.has_work(Timestamp::now()).expect("look"));

    store.finish_work(work, Outcome::Done).expect("finish");
    assert_eq!(
        phase(&store),
        "Bound",
        "to the next claim, in the same transaction"
    );
    assert!(store.pending_work().expect("work").is_empty());
    // A second worker with the same news changes nothing.
    store.finish_work(work, Outcome::Done).expect("finish");
    assert_eq!(phase(&store), "Bound");
}

#[test]
fn an_edited_policy_takes_work_back() {
    let (_dir, store, work) = released("Delete");
    assert_eq!(work[0].action, Action::Delete);
    edit(&store, "Retain");
    assert_eq!(store.begin_work(&work[0]).expect("begin"), None);
    store.finish_work(&work[0], Outcome::Done).expect("finish");
    assert_eq!(phase(&store), "Released", "it is still there");
    edit(&store, "Delete");
    let work = store.pending_work().expect("work");
    store.finish_work(&work[0], Outcome::Done).expect("finish");
    assert_eq!(
        store.object::<PersistentVolume>("", "v").expect("read"),
        None
    );
    assert!(store.pending_work().expect("work").is_empty());
}

#[test]
fn a_volume_that_was_made_is_bound_and_made_once() {
    let (_dir, store) = store();
    let class = json!({"metadata": {"name": "made"}, "provisioner": "local-path.orlop.dev", "volumeBindingMode": "Immediate"});
    let class: StorageClass = serde_json::from_value(class).expect("a class");
    store.create_object(class).expect("stored");
    let claim = pvc(json!({"spec": {"storageClassName": "made"}}));
    let claim = store.create_object(claim).expect("stored");
    let work = store.pending_work().expect("work");
    assert_eq!(work[0].action, Action::Provision);
    let Some(Task::Provision { claim: asked, .. }) = store.begin_work(&work[0]).expect("begin")
    else {
        panic!("something to provision");
    };
    assert_eq!(asked.metadata.uid, claim.metadata.uid);
    let mut made = pv("Delete");
    made.metadata.name = Some(format!(
        "pvc-{}",
        claim.metadata.uid.as_deref().expect("a uid")
    ));
    made.spec.as_mut().expect("a spec").storage_class_name = Some("made".into());
    for _ in 0..2 {
        let outcome = Outcome::Provisioned(Box::new(made.clone()));
        store.finish_work(&work[0], outcome).expect("finish");
    }
    let volumes: Vec<PersistentVolume> = store.objects(None).expect("read");
    assert_eq!(volumes.len(), 1);
    assert_eq!(
        super::super::binder::facts::volume_phase(&volumes[0]),
        "Bound"
    );
    let annotations = volumes[0]
        .metadata
        .annotations
        .clone()
        .expect("annotations");
    assert_eq!(annotations[PROVISIONED_BY], "local-path.orlop.dev");
    assert!(store.pending_work().expect("work").is_empty());
    let mut other = made;
    other
        .spec
        .as_mut()
        .expect("a spec")
        .host_path
        .as_mut()
        .expect("a path")
        .path = "/etc".into();
    let refused = store.finish_work(&work[0], Outcome::Provisioned(Box::new(other)));
    assert!(matches!(refused, Err(StoreError::AlreadyExists { .. })));
}

#[test]
fn a_volume_that_is_being_emptied_is_bound_to_nobody_before_that_is_over() {
    for over in ["stopped", "finished", "restarted"] {
        let (_dir, store, work) = released("Recycle");
        let claim = pvc(json!({"metadata": {"name": "next"}}));
        store.create_object(claim).expect("a claim");
        assert!(store.start_work(&work[0]).expect("start"));
        // Somebody frees the volume while its content is being deleted.
        let mut volume: PersistentVolume = store.object("", "v").expect("read").expect("a volume");
        volume.spec.as_mut().expect("a spec").claim_ref = None;
        store.replace_object(volume).expect("released");
        assert_eq!(phase(&store), "Released");
        assert!(store.pending_work().expect("work").is_empty(), "not wanted");
        assert!(!store.start_work(&work[0]).expect("start"));
        let explained = store.explain_binding("default", "next").expect("read");
        let text = explained.expect("a claim").to_string();
        assert!(text.contains("it is being emptied or deleted"), "{text}");
        match over {
            "stopped" => store.stop_work(&work[0]),
            "finished" => store.finish_work(&work[0], Outcome::Done),
            _ => store.no_work_is_begun(),
        }
        .expect(over);
        assert_eq!(phase(&store), "Bound", "{over}");
    }
}
