use serde_json::{Value, json};

use super::*;
use crate::pod::spec::fixture::{first, pod, sandbox};

fn mounted(volume_mounts: Value, read_only_root: bool) -> Result<Vec<Mount>, SpecError> {
    let pod = pod(json!({
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "logs", "emptyDir": {}}],
        "containers": [{"name": "c", "volumeMounts": volume_mounts}],
    }));
    let spec = pod.spec.as_ref().expect("a spec");
    mounts(spec, first(&pod), &sandbox(), false, read_only_root)
}

fn destinations(mounts: &[Mount]) -> Vec<&str> {
    mounts
        .iter()
        .filter_map(|mount| mount.destination().to_str())
        .collect()
}

fn at<'a>(mounts: &'a [Mount], path: &str) -> &'a Mount {
    let found: Vec<_> = mounts
        .iter()
        .filter(|mount| mount.destination() == Path::new(path))
        .collect();
    assert_eq!(found.len(), 1, "{path}");
    found[0]
}

fn options<'a>(mounts: &'a [Mount], path: &str) -> &'a [String] {
    at(mounts, path).options().as_deref().unwrap_or_default()
}

#[test]
fn a_container_without_volumes_has_the_kernels_file_systems_and_the_pods_files() {
    let mounts = mounted(json!([]), false).expect("mounts");
    assert_eq!(
        destinations(&mounts),
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/dev/mqueue",
            "/sys",
            "/sys/fs/cgroup",
            "/etc/hosts",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/dev/shm"
        ]
    );
    let hosts = at(&mounts, "/etc/hosts");
    assert_eq!(hosts.source().as_deref(), Some(Path::new("/run/pod/hosts")));
}

#[test]
fn a_volume_is_bound_from_where_the_pod_has_it() {
    let mounts = mounted(json!([{"name": "data", "mountPath": "/srv/data"}]), false);
    let mounts = mounts.expect("mounts");
    let mount = at(&mounts, "/srv/data");
    assert_eq!(
        mount.source().as_deref(),
        Some(Path::new("/run/pod/volumes/data"))
    );
    assert_eq!(options(&mounts, "/srv/data"), ["rbind", "rprivate", "rw"]);
}

#[test]
fn read_only_and_propagation_become_options() {
    let mounts = mounted(
        json!([
            {"name": "data", "mountPath": "/a", "readOnly": true},
            {"name": "data", "mountPath": "/b", "readOnly": true, "recursiveReadOnly": "IfPossible"},
            {"name": "data", "mountPath": "/c", "mountPropagation": "HostToContainer"},
            {"name": "data", "mountPath": "/d", "mountPropagation": "Bidirectional"},
        ]),
        false,
    );
    let mounts = mounts.expect("mounts");
    assert_eq!(options(&mounts, "/a"), ["rbind", "rprivate", "ro"]);
    assert_eq!(options(&mounts, "/b"), ["rbind", "rprivate", "rro"]);
    assert_eq!(options(&mounts, "/c"), ["rbind", "rslave", "rw"]);
    assert_eq!(options(&mounts, "/d"), ["rbind", "rshared", "rw"]);
}

#[test]
fn outer_mounts_come_before_inner_ones() {
    let mounts = mounted(
        json!([
            {"name": "logs", "mountPath": "/srv/data/logs"},
            {"name": "data", "mountPath": "/etc"},
            {"name": "data", "mountPath": "/srv"},
        ]),
        false,
    );
    let mounts = mounts.expect("mounts");
    assert_eq!(
        destinations(&mounts)[6..],
        [
            "/etc",
            "/srv",
            "/etc/hosts",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/dev/shm",
            "/srv/data/logs"
        ]
    );
}

#[test]
fn a_volume_takes_the_place_of_what_would_be_there() {
    let mounts = mounted(
        json!([
            {"name": "data", "mountPath": "/etc/hosts"},
            {"name": "logs", "mountPath": "/dev/shm/"},
            {"name": "logs", "mountPath": "/sys"},
        ]),
        false,
    );
    let mounts = mounts.expect("mounts");
    for (path, name) in [
        ("/etc/hosts", "data"),
        ("/dev/shm", "logs"),
        ("/sys", "logs"),
    ] {
        let source = at(&mounts, path).source().as_deref();
        assert_eq!(source, Some(&*Path::new("/run/pod/volumes").join(name)));
    }
}

#[test]
fn a_volume_at_dev_drops_the_default_mounts_in_it() {
    let mounts = mounted(json!([{"name": "data", "mountPath": "/dev"}]), false);
    let mounts = mounts.expect("mounts");
    let in_dev: Vec<_> = destinations(&mounts)
        .into_iter()
        .filter(|path| path.starts_with("/dev"))
        .collect();
    assert_eq!(in_dev, ["/dev", "/dev/shm"]);
}

#[test]
fn a_mount_path_is_taken_from_the_root_and_tidied() {
    for given in ["srv/data", "/srv/data", "//srv/./data/"] {
        let mounts = mounted(json!([{"name": "data", "mountPath": given}]), false);
        at(&mounts.expect(given), "/srv/data");
    }
}

#[test]
fn a_mount_path_that_cannot_be_is_refused() {
    for (given, message) in [
        (
            "/srv/../etc",
            "volume mount \"/srv/../etc\": must not contain '..'",
        ),
        (
            "/./",
            "volume mount \"/./\": would hide the container's whole root file system; choose a directory in it",
        ),
    ] {
        let error = mounted(json!([{"name": "data", "mountPath": given}]), false);
        assert_eq!(error.expect_err(given).to_string(), message);
    }
}

#[test]
fn two_volumes_at_one_path_are_refused() {
    let error = mounted(
        json!([{"name": "data", "mountPath": "/a"}, {"name": "logs", "mountPath": "/a/"}]),
        false,
    );
    assert_eq!(
        error.expect_err("two").to_string(),
        "volume mount \"/a/\": another volume is mounted there"
    );
}

#[test]
fn a_volume_that_the_pod_does_not_have_is_refused() {
    let error = mounted(json!([{"name": "../secrets", "mountPath": "/a"}]), false);
    assert_eq!(
        error.expect_err("a volume").to_string(),
        "volume mount \"/a\": the pod has no volume \"../secrets\""
    );
}

#[test]
fn a_volume_name_is_never_a_path_even_if_declared() {
    let pod = pod(json!({
        "volumes": [{"name": "../../etc", "emptyDir": {}}],
        "containers": [{"name": "c", "volumeMounts": [{"name": "../../etc", "mountPath": "/a"}]}],
    }));
    let spec = pod.spec.as_ref().expect("a spec");
    let error = mounts(spec, first(&pod), &sandbox(), false, false);
    assert!(matches!(error, Err(SpecError::UnknownVolume { .. })));
}

#[test]
fn a_read_only_root_leaves_volumes_and_shared_memory_writable() {
    let mounts = mounted(json!([{"name": "data", "mountPath": "/srv"}]), true);
    let mounts = mounts.expect("mounts");
    assert_eq!(options(&mounts, "/srv"), ["rbind", "rprivate", "rw"]);
    assert_eq!(options(&mounts, "/dev/shm"), ["rbind", "rprivate", "rw"]);
    assert_eq!(options(&mounts, "/etc/hosts"), ["rbind", "rprivate", "ro"]);
}
