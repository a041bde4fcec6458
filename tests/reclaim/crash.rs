//! `kill -9` at any moment of binding, making, emptying and deleting.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use orlop::storage::binder::facts::{
    claim_phase, claim_ref_uid, name, uid, volume_of_claim, volume_phase,
};
use serde_json::{Value, json};

use crate::common::processes::{Random, kill, number};
use crate::common::{LIMIT, Machine, entries};
use crate::support::{apply, list, pv, pvc};

/// The files of the volume that is never to lose one.
const FILES: usize = 200;

/// All volumes and claims, at one instant.
struct State {
    volumes: Vec<PersistentVolume>,
    claims: Vec<PersistentVolumeClaim>,
}

impl State {
    /// Reads the store until nothing has changed while it was read.
    fn of(machine: &Machine) -> Self {
        let store = machine.store();
        loop {
            let before = store.latest_version().expect("version");
            let state = Self {
                volumes: store.objects(None).expect("volumes"),
                claims: store.objects(None).expect("claims"),
            };
            if store.latest_version().expect("version") == before {
                return state;
            }
        }
    }

    /// Every claim and every volume is in a state that there can be, and no volume is
    /// bound to two claims.
    fn assert_legal(&self) {
        let mut bound = BTreeMap::new();
        for claim in &self.claims {
            let volume = volume_of_claim(claim);
            assert_eq!(claim_phase(claim) == "Bound", volume.is_some(), "{claim:?}");
            if let Some(wanted) = volume {
                let other = bound.insert(wanted.to_owned(), uid(claim).to_owned());
                assert_eq!(other, None, "{wanted} is bound twice");
                let volume = self.volumes.iter().find(|one| name(*one) == wanted);
                let volume = volume.expect("the volume of a bound claim");
                assert_eq!(claim_ref_uid(volume), Some(uid(claim)), "{volume:?}");
            }
        }
        for volume in &self.volumes {
            let phase = volume_phase(volume);
            let is_bound = bound.contains_key(name(volume));
            assert_eq!(phase == "Bound", is_bound, "{volume:?}");
            let message = volume.status.as_ref().and_then(|it| it.message.as_deref());
            let was_killed = message.is_some_and(|why| why.ends_with("that did it was killed"));
            assert!(
                matches!(phase, "Available" | "Bound" | "Released")
                    || (phase == "Failed" && was_killed),
                "{volume:?}"
            );
            assert_eq!(phase == "Available", claim_ref_uid(volume).is_none());
        }
    }
}

fn path_of(volume: &PersistentVolume) -> PathBuf {
    let source = volume.spec.as_ref().and_then(|it| it.host_path.as_ref());
    PathBuf::from(&source.expect("a hostPath").path)
}

fn assert_retained(directory: &Path) {
    let mut files = entries(directory);
    files.sort();
    let mut wanted: Vec<String> = (0..FILES).map(|number| number.to_string()).collect();
    wanted.sort();
    assert_eq!(files, wanted, "a file of a retained volume is missing");
    for file in files {
        let content = fs::read_to_string(directory.join(&file)).expect("read");
        assert_eq!(
            content,
            file.repeat(20),
            "a byte of a retained volume is missing"
        );
    }
}

/// The stewards of this machine and their copies.
fn stewards(machine: &Machine) -> Vec<i32> {
    let mut shims = machine.keepers();
    shims.retain(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"steward")
    });
    shims
}

/// Has commands do what is left until nothing is.
fn come_to_rest(machine: &Machine) {
    let start = Instant::now();
    while !machine.store().pending_work().expect("work").is_empty() {
        machine.orlop(["get", "pv"]).ok();
        let left = machine.store().pending_work().expect("work");
        assert!(start.elapsed() < LIMIT, "work is left: {left:?}");
    }
}

/// With both kernels 300 kills, or as many in each as `ORLOP_TEST_KILLS` says.
#[test]
fn a_kill_at_any_moment_leaves_legal_states_and_loses_no_retained_byte() {
    let machine = Machine::bare();
    let (kept, emptied) = (machine.path("kept"), machine.path("emptied"));
    for directory in [&kept, &emptied] {
        fs::create_dir(directory).expect("mkdir");
    }
    for number in 0..FILES {
        let number = number.to_string();
        fs::write(kept.join(&number), number.repeat(20)).expect("write");
    }
    let policy = |policy: &str, class: &str| json!({"persistentVolumeReclaimPolicy": policy, "storageClassName": class});
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "made"},
        "provisioner": "local-path.orlop.dev",
    });
    apply(
        &machine,
        &[
            pv("kept", "1Gi", &kept, policy("Retain", "kept")),
            pv("emptied", "1Gi", &emptied, policy("Recycle", "emptied")),
            class,
        ],
    );
    let claim = |class: &str| {
        let mut claim = pvc(class, "1Gi", json!({"storageClassName": class}));
        claim["metadata"]["name"] = json!(class);
        claim
    };

    let mut random = Random::new();
    // What was written into volumes that can be emptied, by the uid of their claims.
    let mut written: BTreeMap<String, PathBuf> = BTreeMap::new();
    for round in 0..number("ORLOP_TEST_KILLS", 150) {
        let class = ["kept", "emptied", "made"][random.below(3) as usize];
        let there = State::of(&machine)
            .claims
            .iter()
            .any(|one| name(one) == class);
        let delay = Duration::from_micros(random.below(25_000));
        let kills_steward = random.below(3) > 0;
        let arguments: &[&str] = match (there, class) {
            (true, _) => &["delete", "pvc", class],
            (false, "kept") if random.below(2) > 0 => &["release", "pv/kept"],
            (false, _) => &["apply", "-f", "-"],
        };
        println!("round {round}: {arguments:?} {class}, steward {kills_steward}, {delay:?}");
        let mut command = machine.command(arguments);
        let (read, mut write) = std::io::pipe().expect("pipe");
        let mut child = command.stdin(read).spawn().expect("spawn");
        drop(command);
        // A command that has ended reads nothing.
        let _ = write.write_all(list(&[claim(class)] as &[Value]).as_bytes());
        drop(write);
        std::thread::sleep(delay);
        if kills_steward {
            let all = stewards(&machine);
            let count = u64::try_from(all.len()).expect("a few");
            if count > 0 {
                kill(all[random.below(count) as usize]);
            }
            child.wait().expect("wait");
        } else {
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
        // The next command finishes what this one, or the steward, did not.
        State::of(&machine).assert_legal();
        assert_retained(&kept);

        if random.below(4) == 0 {
            come_to_rest(&machine);
        }
        let state = State::of(&machine);
        state.assert_legal();
        let is_there = |claim: &str| state.claims.iter().any(|one| uid(one) == claim);
        written.retain(|claim, _| is_there(claim));
        for file in written.values() {
            assert!(file.exists(), "{file:?} of a bound claim is gone");
        }
        for volume in &state.volumes {
            let Some(claim) = claim_ref_uid(volume).filter(|claim| is_there(claim)) else {
                continue;
            };
            let directory = path_of(volume);
            assert!(directory.is_dir(), "{directory:?} is not there");
            if directory != kept && !written.contains_key(claim) {
                assert_eq!(entries(&directory), [""; 0], "what another claim had");
                let file = directory.join(claim);
                fs::write(&file, "data").expect("write");
                fs::create_dir_all(directory.join(".more/and/more")).expect("mkdir");
                for number in 0..50 {
                    fs::write(directory.join(format!(".more/{number}")), "").expect("write");
                }
                written.insert(claim.to_owned(), file);
            }
        }
    }

    machine.orlop(["delete", "pvc", "--all"]).ok();
    come_to_rest(&machine);
    let state = State::of(&machine);
    state.assert_legal();
    let left: Vec<&str> = state.volumes.iter().map(name).collect();
    assert_eq!(left, ["emptied", "kept"]);
    assert_eq!(entries(&emptied), [""; 0]);
    assert_retained(&kept);
    // Nothing that was made is forgotten.
    machine.orlop(["reconcile"]).ok();
    assert_eq!(entries(&machine.roots.local_path()), [""; 0]);
    assert_eq!(entries(&machine.roots.data.join("provisioning")), [""; 0]);
    machine.assert_nothing_is_left();
}
