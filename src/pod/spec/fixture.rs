//! A small pod and its sandbox, for the tests of this module.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Container, Pod};
use oci_spec::runtime::{Capabilities, Spec};
use serde_json::{Value, json};

use super::env::References;
use super::{ImageDefaults, PidNamespace, Sandbox, SpecError};
use crate::oci::defaults;

static REFERENCES: LazyLock<References> = LazyLock::new(References::default);
static CAPABILITIES: LazyLock<Capabilities> = LazyLock::new(defaults::all_capabilities);

/// A pod named `web` whose spec is `spec` (a JSON object).
pub fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": "11111111-2222-3333-4444-555555555555",
            "labels": {"app": "shop", "example.com/tier": "front"},
            "annotations": {"note": "fresh"},
        },
        "spec": spec,
        "status": {"podIP": "10.1.2.3"},
    }))
    .expect("a pod")
}

/// A pod with one container, `c`, whose further fields are `fields`.
pub fn pod_of(mut fields: Value) -> Pod {
    fields["name"] = json!("c");
    pod(json!({"containers": [fields]}))
}

/// The first container of `pod`.
pub fn first(pod: &Pod) -> &Container {
    &pod.spec.as_ref().expect("a spec").containers[0]
}

/// An image that runs `/bin/server --listen`.
pub fn image() -> ImageDefaults {
    ImageDefaults {
        entrypoint: vec!["/bin/server".into()],
        cmd: vec!["--listen".into()],
        ..ImageDefaults::default()
    }
}

/// A sandbox on a node with four processors and 8 GiB of memory.
pub fn sandbox() -> Sandbox<'static> {
    Sandbox {
        rootfs: Path::new("/run/pod/c/rootfs"),
        volumes: Path::new("/run/pod/volumes"),
        sub_paths: Path::new("/run/pod/subpaths/c"),
        shm: Path::new("/run/pod/shm"),
        hosts: Path::new("/run/pod/hosts"),
        resolv_conf: Path::new("/run/pod/resolv.conf"),
        hostname_file: Path::new("/run/pod/hostname"),
        hostname: "web",
        cgroup_parent: "/orlop/pod1",
        cgroup_v2: true,
        controllers: crate::sys::cgroup::Controllers {
            cpu: true,
            memory: true,
            hugetlb: true,
            swap: true,
        },
        pid_namespace: PidNamespace::Own,
        node_name: "node-1",
        host_ip: "192.0.2.7",
        cpu_capacity: 4000,
        memory_capacity: 8 << 30,
        oom_score_adj: 0,
        capabilities: &CAPABILITIES,
        host_devices: &[],
        references: &REFERENCES,
        seccomp: Path::new("/var/lib/orlop/seccomp"),
        users: None,
    }
}

/// A root file system: an empty directory with the given files in `etc`.
pub struct Rootfs {
    directory: tempfile::TempDir,
    descriptor: File,
}

impl Rootfs {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("etc")).expect("etc");
        for (name, content) in files {
            std::fs::write(directory.path().join("etc").join(name), content).expect("a file");
        }
        let descriptor = File::open(directory.path()).expect("its descriptor");
        Self {
            directory,
            descriptor,
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The specification of the first container of `pod`, in an empty root.
pub fn spec_in(pod: &Pod, image: &ImageDefaults, sandbox: &Sandbox) -> Result<Spec, SpecError> {
    super::container(pod, first(pod), image, sandbox, Rootfs::new(&[]).fd())
}

/// The specification of the first container of `pod`, with everything usual.
pub fn spec(pod: &Pod) -> Result<Spec, SpecError> {
    spec_in(pod, &image(), &sandbox())
}

/// The environment of the first container of `pod`, by name.
pub fn environment(pod: &Pod, image: &ImageDefaults) -> BTreeMap<String, String> {
    let spec = spec_in(pod, image, &sandbox()).expect("a specification");
    let process = spec.process().as_ref().expect("a process");
    let entries = process.env().as_deref().unwrap_or_default();
    let pair = |entry: &String| entry.split_once('=').map(|(n, v)| (n.into(), v.into()));
    entries.iter().filter_map(pair).collect()
}
