//! Which volume a claim gets.

use super::*;

fn bound(volumes: Vec<PersistentVolume>, claims: Vec<PersistentVolumeClaim>) -> Vec<String> {
    let mut world = world(volumes, claims);
    world.settled("");
    world.pairs()
}

#[test]
fn the_smallest_that_is_large_enough_wins_then_the_oldest_then_the_name() {
    let volumes = vec![
        pv("large", "10Gi", json!({})),
        pv("b", "5Gi", json!({})),
        pv("a", "5Gi", json!({})),
        pv("small", "1Gi", json!({})),
    ];
    let claims = vec![
        pvc("x", "2Gi", json!({})),
        pvc("y", "2Gi", json!({})),
        pvc("z", "2Gi", json!({})),
        pvc("w", "2Gi", json!({})),
    ];
    assert_eq!(bound(volumes, claims), ["x=b", "y=a", "z=large"]);
    let mut twins = vec![pv("b", "5Gi", json!({})), pv("a", "5Gi", json!({}))];
    let since = twins[0].metadata.creation_timestamp.clone();
    twins[1].metadata.creation_timestamp = since;
    assert_eq!(bound(twins, vec![pvc("x", "2Gi", json!({}))]), ["x=a"]);
}

#[test]
fn sizes_are_compared_as_amounts() {
    let volumes = || {
        vec![
            pv("decimal", "1G", json!({})),
            pv("binary", "1Gi", json!({})),
        ]
    };
    assert_eq!(
        bound(volumes(), vec![pvc("x", "1Gi", json!({}))]),
        ["x=binary"]
    );
    assert_eq!(
        bound(volumes(), vec![pvc("x", "1G", json!({}))]),
        ["x=decimal"]
    );
}

#[test]
fn fifty_small_volumes_never_make_a_large_one() {
    let small = |number: i32| pv(&format!("small{number}"), "50Gi", json!({}));
    let mut world = world(
        (0..50).map(small).collect(),
        vec![pvc("x", "100Gi", json!({}))],
    );
    let said = world.settled("x");
    assert_eq!(claim_phase(world.claim("x")), "Pending");
    assert_eq!(said[0].0, "FailedBinding");
    assert_eq!(
        said[0].1,
        "no persistent volumes available for this claim and no storage class is set"
    );
    assert_eq!(said[1].0, "NoMatch");
    assert!(
        said[1]
            .1
            .starts_with("small0: it has 50Gi, the claim asks for 100Gi; small1:")
    );
    assert!(
        said[1]
            .1
            .ends_with("and 40 more, see: orlop explain-binding pvc/x")
    );
    world.volumes.push(pv("large", "100Gi", json!({})));
    world.settled("x");
    assert_eq!(world.pairs(), ["x=large"]);
}

#[test]
fn few_access_modes_go_before_small_sizes() {
    let modes = |modes: &[&str]| json!({"spec": {"accessModes": modes}});
    let volumes = vec![
        pv("both", "1Gi", modes(&["ReadWriteOnce", "ReadWriteMany"])),
        pv("one", "5Gi", modes(&["ReadWriteOnce"])),
    ];
    assert_eq!(bound(volumes, vec![pvc("x", "1Gi", json!({}))]), ["x=one"]);
    let volumes = vec![
        pv("many", "1Gi", modes(&["ReadWriteMany"])),
        pv("once", "1Gi", modes(&["ReadWriteOnce"])),
        pv("pod", "1Gi", modes(&["ReadWriteOncePod"])),
    ];
    let claims = vec![
        pvc("x", "1Gi", modes(&["ReadWriteMany"])),
        pvc("y", "1Gi", modes(&["ReadWriteOncePod"])),
        pvc("z", "1Gi", modes(&["ReadWriteOnce", "ReadWriteMany"])),
    ];
    assert_eq!(bound(volumes, claims), ["x=many", "y=pod"]);
}

#[test]
fn classes_modes_and_labels_have_to_fit() {
    let class = |class: &str| json!({"spec": {"storageClassName": class}});
    let volumes = || {
        vec![
            pv("plain", "1Gi", json!({})),
            pv("gold", "1Gi", class("gold")),
            pv(
                "beta",
                "1Gi",
                json!({"metadata": {"annotations": {facts::BETA_CLASS: "old"}}}),
            ),
            pv(
                "raw",
                "1Gi",
                json!({"spec": {"volumeMode": "Block", "storageClassName": "raw"}}),
            ),
            pv(
                "labelled",
                "1Gi",
                json!({"metadata": {"labels": {"disk": "ssd", "zone": "a"}}, "spec": {"storageClassName": "labels"}}),
            ),
        ]
    };
    let selector =
        |selector: Value| json!({"spec": {"storageClassName": "labels", "selector": selector}});
    for (fields, gets) in [
        (json!({}), Some("plain")),
        (class(""), Some("plain")),
        (class("gold"), Some("gold")),
        (class("silver"), None),
        (
            json!({"metadata": {"annotations": {facts::BETA_CLASS: "old"}}}),
            Some("beta"),
        ),
        (class("raw"), None),
        (
            json!({"spec": {"volumeMode": "Block", "storageClassName": "raw"}}),
            Some("raw"),
        ),
        (
            selector(json!({"matchLabels": {"disk": "ssd"}})),
            Some("labelled"),
        ),
        (selector(json!({"matchLabels": {"disk": "hdd"}})), None),
        (
            selector(
                json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"}]}),
            ),
            Some("labelled"),
        ),
        (
            selector(
                json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}),
            ),
            None,
        ),
        (
            selector(json!({"matchExpressions": [{"key": "old", "operator": "Exists"}]})),
            None,
        ),
    ] {
        let pairs = bound(volumes(), vec![pvc("x", "1Gi", fields.clone())]);
        let wanted: Vec<String> = gets
            .map(|volume| format!("x={volume}"))
            .into_iter()
            .collect();
        assert_eq!(pairs, wanted, "{fields}");
    }
}

#[test]
fn a_volume_that_names_its_claim_waits_for_it_and_goes_before_all_others() {
    let reserved = json!({"spec": {"claimRef": {"namespace": "default", "name": "x"}, "storageClassName": "other"}});
    let mut world = world(
        vec![
            pv("reserved", "5Gi", reserved),
            pv("free", "1Gi", json!({})),
        ],
        vec![pvc("y", "1Gi", json!({}))],
    );
    world.volumes[1].spec.as_mut().expect("spec").access_modes = Some(vec!["ReadOnlyMany".into()]);
    world.settled("");
    assert_eq!(world.pairs(), [""; 0], "y must not get it");
    assert_eq!(volume_phase(world.volume("reserved")), "Available");
    world.claims.push(pvc("x", "1Gi", json!({})));
    world.settled("");
    assert_eq!(world.pairs(), ["x=reserved"]);
    let annotations = &world.volume("reserved").metadata.annotations;
    assert_eq!(*annotations, None, "it was not found for it");
}

#[test]
fn a_claim_that_names_its_volume_gets_it_or_hears_why_not() {
    let wants = |name: &str, size: &str| pvc(name, size, json!({"spec": {"volumeName": "v"}}));
    let mut world = world(vec![], vec![wants("x", "1Gi")]);
    assert_eq!(world.settled("x")[0].1, "volume \"v\" not found.");
    for (fields, why) in [
        (
            json!({"spec": {"capacity": {"storage": "1Mi"}}}),
            "requested PV is too small",
        ),
        (
            json!({"spec": {"storageClassName": "gold"}}),
            "storageClassName does not match",
        ),
        (
            json!({"spec": {"volumeMode": "Block"}}),
            "incompatible volumeMode",
        ),
        (
            json!({"spec": {"accessModes": ["ReadOnlyMany"]}}),
            "incompatible accessMode",
        ),
    ] {
        world.volumes = vec![pv("v", "1Gi", fields)];
        let message = format!("Cannot bind to requested volume \"v\": {why}");
        assert_eq!(world.settled("x"), [("VolumeMismatch", message)]);
        assert_eq!(claim_phase(world.claim("x")), "Pending");
    }
    world.volumes = vec![pv("v", "1Gi", json!({}))];
    world.claims.push(wants("y", "1Gi"));
    let said = world.settled("y");
    assert_eq!(world.pairs(), ["x=v"]);
    let message = "volume \"v\" already bound to a different claim.";
    assert_eq!(said, [("FailedBinding", message.to_owned())]);
}

#[test]
fn the_default_class_is_given_when_a_claim_is_made_or_later_when_nothing_else_fits() {
    let marked = |name: &str| {
        sc(
            name,
            json!({"metadata": {"annotations": {classes::DEFAULT: "true"}}}),
        )
    };
    let class = |world: &Snapshot| {
        let spec = world.claim("x").spec.clone().expect("a spec");
        spec.storage_class_name
    };
    let mut early = world(
        vec![pv("plain", "1Gi", json!({}))],
        vec![pvc("x", "1Gi", json!({}))],
    );
    early.classes = vec![marked("old"), marked("new"), sc("other", json!({}))];
    early.settled("");
    assert_eq!(
        class(&early).as_deref(),
        Some("new"),
        "of several the newest"
    );
    assert_eq!(early.pairs(), [""; 0]);

    let mut late = world(vec![], vec![pvc("x", "1Gi", json!({}))]);
    late.settled("");
    late.classes = vec![marked("gold")];
    late.volumes = vec![pv("plain", "1Gi", json!({}))];
    late.settled("");
    assert_eq!(
        (class(&late), late.pairs()),
        (None, vec!["x=plain".to_owned()])
    );

    let mut later = world(
        vec![],
        vec![
            pvc("x", "1Gi", json!({})),
            pvc("y", "1Gi", json!({"spec": {"storageClassName": ""}})),
        ],
    );
    later.settled("");
    later.classes = vec![marked("gold")];
    later.volumes = vec![pv(
        "golden",
        "1Gi",
        json!({"spec": {"storageClassName": "gold"}}),
    )];
    later.settled("");
    assert_eq!(
        later.pairs(),
        ["x=golden"],
        "an empty class is none, for ever"
    );
}

#[test]
fn every_volume_is_explained() {
    let mut world = world(
        vec![
            pv("a-chosen", "1Gi", json!({})),
            pv("b-larger", "2Gi", json!({})),
            pv(
                "c-small",
                "1Mi",
                json!({"spec": {"accessModes": ["ReadOnlyMany"], "storageClassName": "gold"}}),
            ),
            pv("d-block", "1Gi", json!({"spec": {"volumeMode": "Block"}})),
        ],
        vec![pvc("x", "1Gi", json!({}))],
    );
    let explained = |world: &Snapshot| explain(world, world.claim("x")).to_string();
    // Not settled yet: the volumes are there, and free.
    for volume in &mut world.volumes {
        volumes::set_phase(volume, "Available", Timestamp::UNIX_EPOCH);
    }
    assert_eq!(
        explained(&world),
        "persistentvolumeclaim/default/x (1Gi, RWO, no storage class) is Pending\n\
         a-chosen: it matches\n\
         b-larger: it would do, but \"a-chosen\" comes first\n\
         c-small: it has storage class \"gold\", the claim asks for no storage class, it has 1Mi, the claim asks for 1Gi, \
         its access modes ROX do not include RWO\n\
         d-block: its volume mode is Block, the claim asks for Filesystem\n"
    );
    world.settled("");
    let text = explained(&world);
    assert!(
        text.contains("is Bound, volume \"a-chosen\"\na-chosen: it is bound to the claim\n"),
        "{text}"
    );
    assert!(
        text.contains("b-larger: the claim names \"a-chosen\"\n"),
        "{text}"
    );
}
