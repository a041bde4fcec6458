//! What becomes of claims and volumes.

use super::*;
use crate::storage::binder::facts::is_deleting;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

fn bound_pair(policy: &str) -> Snapshot {
    let fields = json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
    let mut world = world(
        vec![pv("v", "5Gi", fields)],
        vec![pvc("x", "1Gi", json!({}))],
    );
    world.settled("");
    assert_eq!(world.pairs(), ["x=v"]);
    world
}

fn delete_claim(world: &mut Snapshot) {
    world.claim_mut("x").metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
}

#[test]
fn a_bound_claim_has_what_its_volume_has() {
    let world = bound_pair("Retain");
    let status = world.claim("x").status.clone().expect("a status");
    assert_eq!(status.capacity.expect("a capacity")["storage"].0, "5Gi");
    assert_eq!(status.access_modes.expect("modes"), ["ReadWriteOnce"]);
    let annotations = world.claim("x").metadata.annotations.clone();
    let yes = |key: &str| annotations.as_ref().and_then(|all| all.get(key)).cloned();
    assert_eq!(yes(facts::BIND_COMPLETED).as_deref(), Some("yes"));
    assert_eq!(yes(facts::BOUND_BY_CONTROLLER).as_deref(), Some("yes"));
    assert_eq!(
        facts::annotation(world.volume("v"), facts::BOUND_BY_CONTROLLER),
        Some("yes")
    );
}

#[test]
fn retain_keeps_the_volume_until_its_reference_is_taken_away() {
    let mut world = bound_pair("Retain");
    delete_claim(&mut world);
    world.settled("");
    assert!(world.claims.is_empty());
    assert_eq!(volume_phase(world.volume("v")), "Released");
    assert_eq!(facts::claim_name(world.volume("v")), "default/x");
    // A claim of the same name is another claim.
    world.claims.push(pvc("x", "1Gi", json!({})));
    let said = world.settled("x");
    assert_eq!(world.pairs(), [""; 0]);
    assert!(
        said[1]
            .1
            .contains("v: it is Released, an earlier claim of this name had it"),
        "{said:?}"
    );
    // Without the uid the volume is kept for a claim of that name.
    let spec = world.volume_mut("v").spec.as_mut().expect("a spec");
    spec.claim_ref.as_mut().expect("a reference").uid = None;
    world.settled("");
    assert_eq!(world.pairs(), ["x=v"]);
    delete_claim(&mut world);
    world.settled("");
    world
        .volume_mut("v")
        .spec
        .as_mut()
        .expect("a spec")
        .claim_ref = None;
    assert!(settle(&mut world).work.is_empty());
    assert_eq!(volume_phase(world.volume("v")), "Available");
    assert_eq!(world.volume("v").metadata.annotations, None);
}

#[test]
fn what_the_policy_asks_for_is_to_be_done_and_follows_an_edit() {
    for (policy, action) in [
        ("Retain", None),
        ("Recycle", Some(Action::Recycle)),
        ("Delete", Some(Action::Delete)),
    ] {
        let mut world = bound_pair(policy);
        delete_claim(&mut world);
        let uid = facts::uid(world.volume("v")).to_owned();
        let wanted: Vec<_> = action.map(|action| (action, uid)).into_iter().collect();
        assert_eq!(settle(&mut world).work, wanted, "{policy}");
        // An attempt has failed; it stays to be done.
        volumes::fail(
            world.volume_mut("v"),
            "Why",
            "because",
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(settle(&mut world).work, wanted, "{policy}");
        let spec = world.volume_mut("v").spec.as_mut().expect("a spec");
        spec.persistent_volume_reclaim_policy = Some("Retain".into());
        assert!(settle(&mut world).work.is_empty());
        assert_eq!(volume_phase(world.volume("v")), "Released");
    }
    let mut world = bound_pair("Recycle");
    let spec = world.volume_mut("v").spec.as_mut().expect("a spec");
    (spec.host_path, spec.local) = (None, Some(Default::default()));
    delete_claim(&mut world);
    let said = world.settled("v");
    let message = "No recycler plugin found for the volume!".to_owned();
    assert_eq!(said, [("VolumeFailedRecycle", message)]);
    assert_eq!(volume_phase(world.volume("v")), "Failed");
}

#[test]
fn a_recycled_volume_is_free_and_a_reserved_one_stays_reserved() {
    let mut world = bound_pair("Recycle");
    delete_claim(&mut world);
    world.settled("");
    let (free, happened) = outcome::recycled(world.volume("v").clone(), Timestamp::UNIX_EPOCH);
    assert_eq!(
        (facts::claim_ref(&free), volume_phase(&free)),
        (None, "Available")
    );
    assert_eq!(happened.reason, "VolumeRecycled");
    let mut reserved = world.volume("v").clone();
    reserved.metadata.annotations = None;
    let (kept, _) = outcome::recycled(reserved, Timestamp::UNIX_EPOCH);
    assert_eq!(facts::claim_name(&kept), "default/x");
    assert_eq!(facts::claim_ref_uid(&kept), None);
}

#[test]
fn half_a_binding_is_completed() {
    // Each of the four steps may be the last that was done.
    let whole = bound_pair("Retain");
    for step in 0..4 {
        let mut world = whole.clone();
        let claim = world.claim_mut("x");
        if step < 3 {
            claim.status.as_mut().expect("a status").phase = Some("Pending".into());
        }
        if step < 2 {
            claim.spec.as_mut().expect("a spec").volume_name = None;
            claim.metadata.annotations = None;
        }
        if step < 1 {
            volumes::set_phase(world.volume_mut("v"), "Available", Timestamp::UNIX_EPOCH);
        }
        world.settled("");
        assert_eq!(world.pairs(), ["x=v"], "after step {step}");
    }
    // A claim that says it is bound, and a volume that knows nothing of it.
    let mut world = whole.clone();
    world
        .volume_mut("v")
        .spec
        .as_mut()
        .expect("a spec")
        .claim_ref = None;
    world.settled("");
    assert_eq!(world.pairs(), ["x=v"]);
}

#[test]
fn a_claim_without_its_volume_is_lost_for_good() {
    let mut world = bound_pair("Retain");
    world.volumes.clear();
    let said = world.settled("x");
    assert_eq!(claim_phase(world.claim("x")), "Lost");
    let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    assert_eq!(said, [("ClaimLost", message.to_owned())]);
    world.volumes.push(pv("v", "5Gi", json!({})));
    world.settled("x");
    assert_eq!(
        claim_phase(world.claim("x")),
        "Lost",
        "that is another volume"
    );
    assert_eq!(volume_phase(world.volume("v")), "Available");

    let mut world = bound_pair("Retain");
    let mut twin = world.claim("x").clone();
    twin.metadata.name = Some("y".into());
    twin.metadata.uid = Some("another".into());
    world.claims.push(twin);
    let said = world.settled("y");
    assert_eq!(said[0].0, "ClaimMisbound");
    assert_eq!(world.pairs(), ["x=v"]);
}

#[test]
fn claims_in_use_and_bound_volumes_are_protected() {
    let mut world = bound_pair("Retain");
    let mut pod = user("p", &["x"]);
    pod.placed = true;
    world.pods.push(pod);
    delete_claim(&mut world);
    let since = Some(Time(Timestamp::UNIX_EPOCH));
    world.volume_mut("v").metadata.deletion_timestamp = since;
    world.settled("");
    assert!(is_deleting(world.claim("x")) && is_deleting(world.volume("v")));
    assert_eq!(world.pairs(), ["x=v"], "bound all the while");
    let refusal = may_be_placed(&world, "unknown");
    assert_eq!(refusal, Ok(()));
    world.pods.push(user("next", &["x"]));
    let next = world.pods[1].uid.clone();
    assert_eq!(
        may_be_placed(&world, &next)
            .expect_err("it is ending")
            .to_string(),
        "0/1 nodes are available: persistentvolumeclaim \"x\" is being deleted."
    );
    // A pod that is over holds its claim, one that never ran does not.
    world.pods[0].over = true;
    world.settled("");
    assert_eq!(world.claims.len(), 1);
    world.pods.remove(0);
    world.settled("");
    assert!(world.claims.is_empty() && world.volumes.is_empty());
}

#[test]
fn a_claim_for_one_pod_is_used_by_one() {
    let only = json!({"spec": {"accessModes": ["ReadWriteOncePod"]}});
    let mut world = world(
        vec![pv("v", "1Gi", only.clone())],
        vec![pvc("x", "1Gi", only)],
    );
    world.pods = vec![user("first", &["x"]), user("second", &["x"])];
    world.settled("");
    let second = world.pods[1].uid.clone();
    assert_eq!(may_be_placed(&world, &second), Ok(()));
    world.pods[0].placed = true;
    assert_eq!(
        may_be_placed(&world, &second)
            .expect_err("taken")
            .to_string(),
        "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod \
         access mode."
    );
    world.pods[0].over = true;
    assert_eq!(may_be_placed(&world, &second), Ok(()));
}

#[test]
fn a_claim_that_waits_is_bound_for_the_first_pod_all_or_nothing() {
    let class = |class: &str| json!({"spec": {"storageClassName": class}});
    let mut world = world(
        vec![
            pv("small", "1Gi", class("late")),
            pv("large", "5Gi", class("late")),
        ],
        vec![
            pvc("big", "2Gi", class("late")),
            pvc("little", "1Gi", class("late")),
            pvc("huge", "100Gi", class("late")),
        ],
    );
    world.classes = vec![sc(
        "late",
        json!({"volumeBindingMode": "WaitForFirstConsumer"}),
    )];
    let said = world.settled("big");
    assert_eq!(world.pairs(), [""; 0]);
    let message = "waiting for first consumer to be created before binding";
    assert_eq!(said, [("WaitForFirstConsumer", message.to_owned())]);

    world.pods = vec![user("greedy", &["little", "huge"])];
    let greedy = world.pods[0].uid.clone();
    let said = world.settled("little");
    assert_eq!(world.pairs(), [""; 0], "huge has none, so little gets none");
    assert_eq!(
        said[0],
        (
            "WaitForPodScheduled",
            "waiting for pod greedy to be scheduled".to_owned()
        )
    );
    assert_eq!(
        may_be_placed(&world, &greedy)
            .expect_err("waits")
            .to_string(),
        "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind."
    );
    world.pods.push(user("modest", &["big", "little"]));
    world.settled("");
    assert_eq!(world.pairs(), ["big=large", "little=small"]);
    assert_eq!(may_be_placed(&world, &world.pods[1].uid), Ok(()));
}

#[test]
fn volumes_are_made_when_a_class_says_who_makes_them() {
    let class = |class: &str| json!({"spec": {"storageClassName": class}});
    let mut world = world(
        vec![],
        vec![
            pvc("now", "1Gi", class("now")),
            pvc("late", "1Gi", class("late")),
            pvc("odd", "1Gi", class("odd")),
            pvc("none", "1Gi", class("none")),
        ],
    );
    let by = |name: &str, provisioner: &str, mode: &str| {
        sc(
            name,
            json!({"provisioner": provisioner, "volumeBindingMode": mode}),
        )
    };
    world.classes = vec![
        by("now", "nfs.orlop.dev", "Immediate"),
        by("late", "local-path.orlop.dev", "WaitForFirstConsumer"),
        by("odd", "example.com/odd", "Immediate"),
    ];
    let work = |world: &mut Snapshot| settle(world).work;
    let provision = |world: &Snapshot, claim: &str| {
        (Action::Provision, facts::uid(world.claim(claim)).to_owned())
    };
    let now = provision(&world, "now");
    assert_eq!(work(&mut world), std::slice::from_ref(&now));
    assert_eq!(world.settled("odd")[0].0, "ExternalProvisioning");
    assert_eq!(
        world.settled("none")[0],
        (
            "ProvisioningFailed",
            "storageclass.storage.k8s.io \"none\" not found".to_owned()
        )
    );
    world.pods = vec![user("p", &["late"])];
    let late = provision(&world, "late");
    let mut both = work(&mut world);
    both.sort();
    let mut wanted = vec![now, late];
    wanted.sort();
    assert_eq!(both, wanted);
}

#[test]
fn a_claim_grows_with_its_class_s_permission() {
    let class = |allowed: bool| sc("gold", json!({"allowVolumeExpansion": allowed}));
    for allowed in [false, true] {
        let golden = json!({"spec": {"storageClassName": "gold"}});
        let mut world = world(
            vec![pv("v", "1Gi", golden.clone())],
            vec![pvc("x", "1Gi", golden)],
        );
        world.classes = vec![class(allowed)];
        world.settled("");
        let spec = world.claim_mut("x").spec.as_mut().expect("a spec");
        let requests = spec.resources.as_mut().and_then(|it| it.requests.as_mut());
        requests.expect("requests").insert(
            "storage".into(),
            k8s_openapi::apimachinery::pkg::api::resource::Quantity("3Gi".into()),
        );
        let said = settle(&mut world).happenings;
        let size =
            facts::capacity_text(world.volume("v").spec.as_ref().expect("a spec")).to_owned();
        let status = world
            .claim("x")
            .status
            .clone()
            .and_then(|it| it.capacity)
            .expect("a capacity");
        assert_eq!(size, status["storage"].0);
        assert_eq!(size, if allowed { "3Gi" } else { "1Gi" });
        assert_eq!(
            said.iter().any(|it| it.reason == "VolumeResizeSuccessful"),
            allowed
        );
    }
}

#[test]
fn claims_are_made_for_pods_and_go_with_them() {
    let content = serde_json::from_value(
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    let mut pod = user("web", &["web-scratch"]);
    pod.templates = vec![Template {
        claim: "web-scratch".into(),
        content: content.expect("a template"),
    }];
    let mut world = world(vec![pv("v", "1Gi", json!({}))], vec![]);
    world.pod_uids.insert(pod.uid.clone());
    world.pods = vec![pod.clone()];
    let mut made = missing_claims(&world);
    assert_eq!(made.len(), 1);
    let mut claim = made.remove(0);
    assert_eq!(
        (
            name(&claim),
            claim.metadata.labels.as_ref().map(|all| all.len())
        ),
        ("web-scratch", Some(1))
    );
    claim.metadata.uid = Some("made".into());
    world.claims.push(claim);
    world.settled("");
    assert!(missing_claims(&world).is_empty());
    assert_eq!(
        (world.pairs(), may_be_placed(&world, &pod.uid)),
        (vec!["web-scratch=v".to_owned()], Ok(()))
    );

    // A claim of that name which is somebody else's is not taken.
    let mut stolen = world.clone();
    stolen.claim_mut("web-scratch").metadata.owner_references = None;
    assert_eq!(
        may_be_placed(&stolen, &pod.uid)
            .expect_err("not its own")
            .to_string(),
        "0/1 nodes are available: PVC default/web-scratch was not created for pod default/web (pod is not owner)."
    );
    world.pods.clear();
    world.pod_uids.clear();
    world.settled("");
    assert!(world.claims.is_empty());
    assert_eq!(volume_phase(world.volume("v")), "Released");
}
