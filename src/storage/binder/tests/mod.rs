//! The binder on snapshots.

mod matching;
mod phases;

use std::cell::Cell;

use serde_json::{Value, json};

use super::facts::{claim_phase, name, volume_of_claim, volume_phase};
use super::pods::Template;
use super::*;

thread_local! {
    static NUMBER: Cell<i64> = const { Cell::new(0) };
}

fn stamped(mut value: Value) -> Value {
    let number = NUMBER.replace(NUMBER.get() + 1);
    value["metadata"]["uid"] = json!(format!("uid-{number}"));
    let created = Timestamp::from_second(number).expect("a time");
    value["metadata"]["creationTimestamp"] = json!(created.to_string());
    value
}

fn merge(value: &mut Value, fields: Value) {
    json_patch::merge(value, &fields);
}

/// A volume of this size, made after all others.
fn pv(name: &str, size: &str, fields: Value) -> PersistentVolume {
    let mut value = stamped(json!({"metadata": {"name": name}, "spec": {
        "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/srv"},
        "volumeMode": "Filesystem", "persistentVolumeReclaimPolicy": "Retain",
    }}));
    merge(&mut value, fields);
    serde_json::from_value(value).expect("a volume")
}

/// A claim of this size, made after all others.
fn pvc(name: &str, size: &str, fields: Value) -> PersistentVolumeClaim {
    let mut value = stamped(
        json!({"metadata": {"name": name, "namespace": "default"}, "spec": {
            "resources": {"requests": {"storage": size}}, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
        }}),
    );
    merge(&mut value, fields);
    serde_json::from_value(value).expect("a claim")
}

fn sc(name: &str, fields: Value) -> StorageClass {
    let mut value = stamped(
        json!({"metadata": {"name": name}, "provisioner": "kubernetes.io/no-provisioner",
        "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}),
    );
    merge(&mut value, fields);
    serde_json::from_value(value).expect("a class")
}

fn user(name: &str, claims: &[&str]) -> Consumer {
    let number = NUMBER.replace(NUMBER.get() + 1);
    Consumer {
        uid: format!("uid-{number}"),
        namespace: "default".into(),
        name: name.into(),
        created: Timestamp::from_second(number).ok(),
        claims: claims.iter().map(|claim| (*claim).to_owned()).collect(),
        ..Consumer::default()
    }
}

fn world(volumes: Vec<PersistentVolume>, claims: Vec<PersistentVolumeClaim>) -> Snapshot {
    Snapshot {
        volumes,
        claims,
        ..Snapshot::default()
    }
}

impl Snapshot {
    /// `claim=volume` for each claim that has one, by name.
    fn pairs(&self) -> Vec<String> {
        let bound = self.claims.iter().filter_map(|claim| {
            let volume = volume_of_claim(claim).filter(|_| claim_phase(claim) == "Bound")?;
            Some(format!("{}={volume}", name(claim)))
        });
        let mut bound: Vec<String> = bound.collect();
        bound.sort();
        bound
    }

    fn volume(&self, wanted: &str) -> &PersistentVolume {
        let mut volumes = self.volumes.iter();
        volumes.find(|one| name(*one) == wanted).expect(wanted)
    }

    fn volume_mut(&mut self, wanted: &str) -> &mut PersistentVolume {
        let mut volumes = self.volumes.iter_mut();
        volumes.find(|one| name(*one) == wanted).expect(wanted)
    }

    fn claim(&self, wanted: &str) -> &PersistentVolumeClaim {
        let mut claims = self.claims.iter();
        claims.find(|one| name(*one) == wanted).expect(wanted)
    }

    fn claim_mut(&mut self, wanted: &str) -> &mut PersistentVolumeClaim {
        let mut claims = self.claims.iter_mut();
        claims.find(|one| name(*one) == wanted).expect(wanted)
    }

    /// Settles, checks that doing it again changes nothing and that every state is
    /// legal, and returns what was said of the object of this name, by reason.
    fn settled(&mut self, of: &str) -> Vec<(&'static str, String)> {
        let settled = settle(self);
        let once = self.clone();
        settle(self);
        assert_eq!(self.volumes, once.volumes, "settling twice");
        assert_eq!(self.claims, once.claims, "settling twice");
        self.assert_legal();
        let happenings = settled.happenings.into_iter();
        let own = happenings.filter(|happened| happened.name == of);
        own.map(|happened| (happened.reason, happened.message))
            .collect()
    }

    /// No volume is bound to two claims, no claim to a volume that is another's.
    fn assert_legal(&self) {
        let mut taken = BTreeSet::new();
        for claim in self.claims.iter().filter(|one| claim_phase(one) == "Bound") {
            let volume = volume_of_claim(claim).expect("a bound claim names its volume");
            assert!(taken.insert(volume.to_owned()), "{volume} is bound twice");
            let volume = self.volume(volume);
            assert_eq!(facts::claim_ref_uid(volume), Some(facts::uid(claim)));
            assert_eq!(volume_phase(volume), "Bound");
        }
        let bound = self
            .volumes
            .iter()
            .filter(|one| volume_phase(one) == "Bound");
        assert_eq!(bound.count(), taken.len(), "a volume is bound to nobody");
    }
}
