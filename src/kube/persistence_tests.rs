use super::*;
use crate::kube::manifest::checked;
use serde_json::{Value, json};

fn pv(change: impl FnOnce(&mut Value)) -> Result<PersistentVolume, String> {
    let mut value = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "a", "namespace": "stray"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/srv/a"}
        }
    });
    change(&mut value);
    volume(&value).map_err(|problem| problem.to_string())
}

fn pvc(change: impl FnOnce(&mut Value)) -> Result<PersistentVolumeClaim, String> {
    let mut value = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "a"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    });
    change(&mut value);
    claim(&value, |_| Ok(())).map_err(|problem| problem.to_string())
}

fn sc(change: impl FnOnce(&mut Value)) -> Result<StorageClass, String> {
    let mut value = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "a"},
        "provisioner": "kubernetes.io/no-provisioner",
    });
    change(&mut value);
    class(&value).map_err(|problem| problem.to_string())
}

#[test]
fn what_is_left_out_is_filled_in() {
    let volume = pv(|_| ()).expect("a volume");
    assert_eq!(volume.metadata.namespace, None);
    let spec = volume.spec.expect("a spec");
    assert_eq!(
        spec.persistent_volume_reclaim_policy.as_deref(),
        Some("Retain")
    );
    assert_eq!(spec.volume_mode.as_deref(), Some("Filesystem"));
    let claim = pvc(|_| ()).expect("a claim");
    assert_eq!(claim.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(claim.spec.expect("a spec").storage_class_name, None);
    let class = sc(|_| ()).expect("a class");
    assert_eq!(class.reclaim_policy.as_deref(), Some("Delete"));
    assert_eq!(class.volume_binding_mode.as_deref(), Some("Immediate"));
}

#[test]
fn volumes_are_refused_in_the_words_of_the_api_server() {
    let set = |path: &'static str, to: Value| {
        pv(|value| *value.pointer_mut(path).expect("a place") = to).expect_err(path)
    };
    let spec = |key: &'static str, to: Value| pv(|value| value["spec"][key] = to).expect_err(key);
    for (said, why) in [
        (
            spec("accessModes", json!([])),
            "spec.accessModes: Required value",
        ),
        (
            spec("accessModes", json!(["ReadWriteSometimes"])),
            "spec.accessModes: Unsupported value: \"ReadWriteSometimes\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
        ),
        (
            spec("accessModes", json!(["ReadWriteOncePod", "ReadOnlyMany"])),
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
        ),
        (spec("capacity", json!({})), "spec.capacity: Required value"),
        (
            set("/spec/capacity/storage", json!("0")),
            "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
        ),
        (
            spec("capacity", json!({"storage": "1Gi", "cpu": "1"})),
            "spec.capacity: Unsupported value: \"cpu\": supported values: \"storage\"",
        ),
        (
            spec("persistentVolumeReclaimPolicy", json!("Shred")),
            "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Shred\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
        ),
        (
            spec("hostPath", json!(null)),
            "spec: Required value: must specify a volume type",
        ),
        (
            spec("nfs", json!({"server": "a", "path": "/b"})),
            "spec.nfs: Forbidden: may not specify more than 1 volume type",
        ),
        (
            spec("csi", json!({"driver": "d", "volumeHandle": "h"})),
            "spec.csi is not supported by this version of orlop",
        ),
        (
            set("/spec/hostPath/path", json!("/a/../b")),
            "must not contain '..'",
        ),
        (
            pv(|value| {
                value["spec"]["hostPath"]["path"] = json!("//");
                value["spec"]["persistentVolumeReclaimPolicy"] = json!("Recycle");
            })
            .expect_err("the root"),
            "may not be 'recycle' for a hostPath mount of '/'",
        ),
        (
            pv(|value| {
                value["spec"]["hostPath"] = json!(null);
                value["spec"]["nfs"] = json!({"server": "", "path": "b"});
            })
            .expect_err("no server"),
            "[spec.nfs.server: Required value, spec.nfs.path: Invalid value: \"b\": must be an absolute path]",
        ),
        (
            pv(|value| {
                value["spec"]["hostPath"] = json!(null);
                value["spec"]["local"] = json!({"path": "/mnt/a"});
            })
            .expect_err("no affinity"),
            "spec.nodeAffinity: Required value: Local volume requires node affinity",
        ),
    ] {
        assert!(said.contains(why), "{said}\n{why}");
    }
}

#[test]
fn claims_and_classes_are_refused_in_the_words_of_the_api_server() {
    let spec = |key: &'static str, to: Value| pvc(|value| value["spec"][key] = to).expect_err(key);
    for (said, why) in [
        (
            spec("accessModes", json!(null)),
            "spec.accessModes: Required value: at least 1 access mode is required",
        ),
        (
            spec("resources", json!(null)),
            "spec.resources[storage]: Required value",
        ),
        (
            spec("resources", json!({"requests": {"storage": "-1"}})),
            "spec.resources[storage]: Invalid value: \"-1\": must be greater than zero",
        ),
        (
            spec(
                "selector",
                json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            ),
            "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            spec("storageClassName", json!("Gold")),
            "spec.storageClassName: Invalid value: \"Gold\": a lowercase RFC 1123 subdomain",
        ),
        (
            spec("volumeMode", json!("Tape")),
            "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
        ),
        (
            spec("dataSource", json!({"kind": "VolumeSnapshot", "name": "s"})),
            "spec.dataSource is not supported by this version of orlop",
        ),
        (
            spec("storageclassname", json!("gold")),
            "unknown field \"spec.storageclassname\" (did you mean \"storageClassName\"?)",
        ),
        (
            sc(|value| value["provisioner"] = json!("")).expect_err("none"),
            "provisioner: Required value",
        ),
        (
            sc(|value| value["reclaimPolicy"] = json!("Recycle")).expect_err("recycle"),
            "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
        ),
        (
            sc(|value| value["volumeBindingMode"] = json!("Later")).expect_err("later"),
            "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
        ),
    ] {
        assert!(said.contains(why), "{said}\n{why}");
    }
}

#[test]
fn a_claim_grows_and_never_shrinks_and_nothing_else_of_it_changes() {
    let bound = |size: &str| {
        let mut claim = pvc(|value| {
            value["spec"]["volumeName"] = json!("v");
            value["spec"]["resources"]["requests"]["storage"] = json!(size);
        })
        .expect("a claim");
        claim.status =
            serde_json::from_value(json!({"phase": "Bound", "capacity": {"storage": "2Gi"}})).ok();
        claim
    };
    let said = |old: &PersistentVolumeClaim, new: &PersistentVolumeClaim| {
        let findings = validate::claim_update(old, new);
        findings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(said(&bound("2Gi"), &bound("3Gi")).is_empty());
    assert!(
        said(&bound("4Gi"), &bound("3Gi")).is_empty(),
        "an expansion that failed"
    );
    assert_eq!(
        said(&bound("2Gi"), &bound("1Gi")),
        ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
    );
    let mut other = bound("2Gi");
    other.spec.as_mut().expect("a spec").access_modes = Some(vec!["ReadOnlyMany".to_owned()]);
    assert_eq!(
        said(&bound("2Gi"), &other),
        [
            "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        ]
    );
    let fresh = pvc(|_| ()).expect("a claim");
    let given = pvc(|value| value["spec"]["storageClassName"] = json!("gold")).expect("a claim");
    assert!(said(&fresh, &given).is_empty(), "a class may come later");
    assert_eq!(said(&given, &fresh).len(), 1);
}

#[test]
fn every_kind_of_the_group_is_found() {
    for (version, kind) in [
        ("v1", "PersistentVolume"),
        ("v1", "PersistentVolumeClaim"),
        ("storage.k8s.io/v1", "StorageClass"),
    ] {
        let value = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}});
        let said = checked(&value).expect_err("incomplete").to_string();
        assert!(
            said.starts_with(&format!("The {kind} \"x\" is invalid:")),
            "{said}"
        );
    }
}
