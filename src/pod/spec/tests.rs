use oci_spec::runtime::LinuxNamespaceType;
use serde_json::json;

use super::fixture::{first, image, pod, pod_of, sandbox, spec, spec_in};
use super::*;

fn namespaces_of(spec: &Spec) -> Vec<LinuxNamespaceType> {
    let linux = spec.linux().as_ref().expect("linux");
    let namespaces = linux.namespaces().as_ref().expect("namespaces");
    namespaces.iter().map(LinuxNamespace::typ).collect()
}

#[test]
fn a_container_gets_its_own_mount_pid_and_cgroup_namespaces() {
    let spec = spec(&pod_of(json!({}))).expect("a specification");
    assert_eq!(
        namespaces_of(&spec),
        [
            LinuxNamespaceType::Mount,
            LinuxNamespaceType::Pid,
            LinuxNamespaceType::Cgroup
        ]
    );
    assert!(spec.hostname().is_none());
}

#[test]
fn there_is_no_cgroup_namespace_on_cgroup_v1_nor_for_the_privileged() {
    let mut v1 = sandbox();
    v1.cgroup_v2 = false;
    let plain = spec_in(&pod_of(json!({})), &image(), &v1).expect("a specification");
    let privileged = pod_of(json!({"securityContext": {"privileged": true}}));
    let privileged = spec(&privileged).expect("a specification");
    for spec in [plain, privileged] {
        assert!(!namespaces_of(&spec).contains(&LinuxNamespaceType::Cgroup));
    }
}

#[test]
fn the_pid_namespace_can_be_the_machines_or_the_pods() {
    let pod = pod_of(json!({}));
    let mut host = sandbox();
    host.pid_namespace = PidNamespace::Host;
    let spec = spec_in(&pod, &image(), &host).expect("a specification");
    assert!(!namespaces_of(&spec).contains(&LinuxNamespaceType::Pid));

    let mut shared = sandbox();
    shared.pid_namespace = PidNamespace::Path("/proc/42/ns/pid".into());
    let spec = spec_in(&pod, &image(), &shared).expect("a specification");
    let linux = spec.linux().as_ref().expect("linux");
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    assert_eq!(
        namespaces[1].path().as_deref(),
        Some(Path::new("/proc/42/ns/pid"))
    );
}

#[test]
fn the_containers_cgroup_lies_in_the_pods_under_its_name() {
    let spec = spec(&pod_of(json!({}))).expect("a specification");
    let linux = spec.linux().as_ref().expect("linux");
    assert_eq!(
        linux.cgroups_path().as_deref(),
        Some(Path::new("/orlop/pod1/c"))
    );
}

#[test]
fn a_container_name_cannot_lead_out_of_the_pods_cgroup() {
    for name in ["..", "/init", "a/../../b", ""] {
        let pod = pod(json!({"containers": [{"name": name}]}));
        let error = spec(&pod).expect_err(name);
        assert!(matches!(error, SpecError::ContainerName(_)), "{error}");
    }
}

#[test]
fn a_read_only_root_is_read_only() {
    let pod = pod_of(json!({"securityContext": {"readOnlyRootFilesystem": true}}));
    let spec = spec(&pod).expect("a specification");
    let root = spec.root().as_ref().expect("a root");
    assert_eq!(root.path(), Path::new("/run/pod/c/rootfs"));
    assert_eq!(root.readonly(), Some(true));
}

#[test]
fn paths_of_the_kernel_are_masked_unless_privileged_or_unmasked() {
    let masks = |pod: &Pod| {
        let spec = spec(pod).expect("a specification");
        let linux = spec.linux().as_ref().expect("linux");
        (
            linux.masked_paths().as_ref().map_or(0, Vec::len),
            linux.readonly_paths().as_ref().map_or(0, Vec::len),
        )
    };
    let (masked, read_only) = masks(&pod_of(json!({})));
    assert!(masked > 0 && read_only > 0);
    for context in [
        json!({"privileged": true}),
        json!({"procMount": "Unmasked"}),
    ] {
        assert_eq!(masks(&pod_of(json!({"securityContext": context}))), (0, 0));
    }
}

#[test]
fn host_devices_are_for_the_privileged_alone() {
    let mut device = LinuxDevice::default();
    device.set_path("/dev/sda".into());
    let devices = [device];
    let mut sandbox = sandbox();
    sandbox.host_devices = &devices;
    for (privileged, count) in [(false, 0), (true, 1)] {
        let pod = pod_of(json!({"securityContext": {"privileged": privileged}}));
        let spec = spec_in(&pod, &image(), &sandbox).expect("a specification");
        let linux = spec.linux().as_ref().expect("linux");
        assert_eq!(linux.devices().as_ref().map_or(0, Vec::len), count);
    }
}

#[test]
fn the_same_input_gives_the_same_specification() {
    let pod = pod_of(json!({"env": [{"name": "A", "value": "1"}]}));
    assert_eq!(first(&pod).name, "c");
    assert_eq!(spec(&pod).expect("one"), spec(&pod).expect("another"));
}
