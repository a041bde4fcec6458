//! What is decided by the objects alone.

use serde_json::{Value, json};

use super::*;

fn volume(name: &str, phase: &str, policy: &str, source: Value) -> PersistentVolume {
    let mut volume = json!({
        "metadata": {"name": name, "uid": name},
        "spec": {"capacity": {"storage": "1Gi"}, "persistentVolumeReclaimPolicy": policy},
        "status": {"phase": phase},
    });
    json_patch::merge(&mut volume["spec"], &source);
    serde_json::from_value(volume).expect("a volume")
}

fn host(path: &str) -> Value {
    json!({"hostPath": {"path": path}})
}

fn nfs(server: &str, path: &str) -> Value {
    json!({"nfs": {"server": server, "path": path}})
}

#[test]
fn large_volumes_have_more_time_and_servers_more_than_disks() {
    let seconds = |size: &str, source: Value| {
        let mut volume = volume("v", "Released", "Recycle", source);
        let capacity = volume.spec.as_mut().and_then(|it| it.capacity.as_mut());
        let size = k8s_openapi::apimachinery::pkg::api::resource::Quantity(size.to_owned());
        capacity
            .expect("capacity")
            .insert("storage".to_owned(), size);
        limit(&volume).as_secs()
    };
    assert_eq!(seconds("1Gi", host("/a")), 60);
    assert_eq!(seconds("2900Mi", host("/a")), 60);
    assert_eq!(seconds("100Gi", host("/a")), 3000);
    assert_eq!(seconds("1Gi", nfs("s", "/a")), 300);
    assert_eq!(seconds("11Gi", nfs("s", "/a")), 330);
    assert_eq!(seconds("8Ei", nfs("s", "/a")), 365 * 86_400);
}

#[test]
fn a_volume_is_endangered_when_its_data_is_in_what_goes() {
    let going = volume("v", "Released", "Recycle", host("/srv/a/"));
    let is_endangered = |phase: &str, policy: &str, source: Value| {
        let others = [going.clone(), volume("other", phase, policy, source)];
        endangered(&going, &others).is_some()
    };
    for path in ["/srv/a", "/srv/a/b", "/srv", "/", "//srv/./a"] {
        assert!(is_endangered("Bound", "Recycle", host(path)), "{path}");
    }
    assert!(!is_endangered("Bound", "Recycle", host("/srv/ab")));
    assert!(!is_endangered("Bound", "Recycle", host("/srv/b")));
    assert!(!is_endangered("Bound", "Recycle", nfs("s", "/srv/a")));
    for phase in ["Available", "Released", "Failed"] {
        assert!(is_endangered(phase, "Retain", host("/srv/a")), "{phase}");
        assert!(!is_endangered(phase, "Delete", host("/srv/a")), "{phase}");
    }
    let local = json!({"local": {"path": "/srv/a/b"}});
    assert!(is_endangered("Bound", "Retain", local));

    let remote = volume("v", "Released", "Delete", nfs("s", "/e/a"));
    let others = |server| [volume("other", "Bound", "Delete", nfs(server, "/e/a/b"))];
    assert!(endangered(&remote, &others("s")).is_some());
    assert!(endangered(&remote, &others("t")).is_none());
}

#[test]
fn only_what_is_below_tmp_can_be_deleted_of_what_nobody_made() {
    let may = |source: Value| {
        let volume = volume("v", "Released", "Delete", source);
        may_delete(&volume).map_err(|error| error.to_string())
    };
    assert_eq!(may(host("/tmp/a")), Ok(()));
    for path in [
        "/tmp",
        "/tmp/",
        "/tmp/.",
        "/tmp/..",
        "/tmp/../etc",
        "/var/tmp/a",
        "/tmpa/b",
        "tmp/a",
        "/",
    ] {
        let why = format!("host_path deleter only supports /tmp/.+ but received provided {path}");
        assert_eq!(may(host(path)), Err(why));
    }
    let why =
        "error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched";
    assert_eq!(may(nfs("s", "/tmp/a")), Err(why.to_owned()));
    assert_eq!(
        may(json!({"local": {"path": "/tmp/a"}})),
        Err(why.to_owned())
    );
}
