//! What an API server fills in when a manifest leaves it out.
//!
//! The values are those of the Kubernetes API reference; only fields that a
//! pod's life or its `get -o yaml` depend on are set.

mod lifecycle;
mod persistence;

pub use persistence::{claim, persistent_volume, storage_class};

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, ObjectFieldSelector, Pod, PodSpec,
    ResourceFieldSelector, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::aggregate;
use super::qos::{self, Compute};

/// The namespace of objects that name none.
pub const NAMESPACE: &str = "default";
/// Permissions of a volume's files that name none.
const FILE_MODE: i32 = 0o644;

/// Puts an object that names no namespace into the default one.
pub fn namespace(metadata: &mut ObjectMeta) {
    fill(&mut metadata.namespace, NAMESPACE);
}

/// Fills in the defaults of `pod`. What is set stays; doing it twice changes
/// nothing.
pub fn pod(pod: &mut Pod) {
    namespace(&mut pod.metadata);
    let spec = pod.spec.get_or_insert_default();
    fill(&mut spec.restart_policy, "Always");
    fill(&mut spec.dns_policy, "ClusterFirst");
    fill(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_default();
    spec.volumes.iter_mut().flatten().for_each(volume);
    containers(spec);
    pod_requests(spec);
}

fn containers(spec: &mut PodSpec) {
    let host_network = spec.host_network.unwrap_or(false);
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        lifecycle::defaults(container);
        fill(
            &mut container.termination_message_path,
            "/dev/termination-log",
        );
        fill(&mut container.termination_message_policy, "File");
        let policy = pull_policy(container.image.as_deref().unwrap_or(""));
        fill(&mut container.image_pull_policy, policy);
        requests(container.resources.get_or_insert_default());
        ports(container, host_network);
        let env = container.env.iter_mut().flatten();
        for source in env.filter_map(|variable| variable.value_from.as_mut()) {
            field_version(&mut source.field_ref);
            divisor(&mut source.resource_field_ref);
        }
    }
}

/// On the host's network a container's port is the host's.
fn ports(container: &mut Container, host_network: bool) {
    for port in container.ports.iter_mut().flatten() {
        fill(&mut port.protocol, "TCP");
        if host_network && port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
    }
}

/// What is limited and not requested is requested up to its limit.
fn requests(resources: &mut ResourceRequirements) {
    for (name, limit) in resources.limits.iter().flatten() {
        let requests = resources.requests.get_or_insert_default();
        if !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
}

/// What a pod with resources of its own does not request is what its containers do,
/// or as much as its limit.
fn pod_requests(spec: &mut PodSpec) {
    let Some(mut resources) = spec.resources.take() else {
        return;
    };
    let given = |list: &Option<BTreeMap<_, _>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if given(&resources.limits) || given(&resources.requests) {
        for compute in Compute::ALL {
            let sum = aggregate::of_containers(spec, qos::request, compute);
            if sum > 0 {
                let requests = resources.requests.get_or_insert_default();
                let sum = || Quantity(compute.text(sum));
                requests
                    .entry(compute.name().to_owned())
                    .or_insert_with(sum);
            }
        }
        requests(&mut resources);
    }
    spec.resources = Some(resources);
}

/// `Always` for images that may change under their name.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn volume(volume: &mut Volume) {
    if let Some(host_path) = &mut volume.host_path {
        host_path.type_.get_or_insert_default();
    }
    if let Some(map) = &mut volume.config_map {
        map.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(fields) = &mut volume.downward_api {
        fields.default_mode.get_or_insert(FILE_MODE);
        fields.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(FILE_MODE);
        let sources = projected.sources.iter_mut().flatten();
        let fields = sources.filter_map(|source| source.downward_api.as_mut());
        fields
            .flat_map(|fields| fields.items.iter_mut().flatten())
            .for_each(downward_file);
    }
    if let Some(ephemeral) = &mut volume.ephemeral
        && let Some(template) = &mut ephemeral.volume_claim_template
    {
        fill(&mut template.spec.volume_mode, "Filesystem");
    }
    if let Some(image) = &mut volume.image {
        let policy = pull_policy(image.reference.as_deref().unwrap_or(""));
        fill(&mut image.pull_policy, policy);
    }
    let bare = Volume {
        name: volume.name.clone(),
        ..Volume::default()
    };
    if *volume == bare {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
}

fn downward_file(file: &mut DownwardAPIVolumeFile) {
    field_version(&mut file.field_ref);
    divisor(&mut file.resource_field_ref);
}

fn field_version(field: &mut Option<ObjectFieldSelector>) {
    if let Some(field) = field {
        fill(&mut field.api_version, "v1");
    }
}

fn divisor(resource: &mut Option<ResourceFieldSelector>) {
    if let Some(resource) = resource {
        let zero = || Quantity("0".to_owned());
        resource.divisor.get_or_insert_with(zero);
    }
}

fn fill(field: &mut Option<String>, value: &str) {
    if field.as_deref().unwrap_or("").is_empty() {
        *field = Some(value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn defaulted(given: Value) -> Value {
        let mut object: Pod = serde_json::from_value(given).expect("a pod");
        pod(&mut object);
        let once = object.clone();
        pod(&mut object);
        assert_eq!(once, object, "doing it twice changes nothing");
        serde_json::to_value(object).expect("a value")
    }

    #[test]
    fn a_bare_pod_is_completed_as_an_api_server_does() {
        let given = json!({
            "metadata": {"name": "p"},
            "spec": {
                "containers": [{
                    "name": "a", "image": "busybox",
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                    "ports": [{"containerPort": 80}],
                    "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
                }],
                "volumes": [{"name": "v"}, {"name": "h", "hostPath": {"path": "/srv"}}]
            }
        });
        let want = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {
                "containers": [{
                    "name": "a", "image": "busybox", "imagePullPolicy": "Always",
                    "resources": {
                        "limits": {"cpu": "1", "memory": "1Gi"},
                        "requests": {"cpu": "500m", "memory": "1Gi"}
                    },
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "env": [{"name": "N", "valueFrom": {
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}
                    }}],
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"
                }],
                "volumes": [
                    {"name": "v", "emptyDir": {}},
                    {"name": "h", "hostPath": {"path": "/srv", "type": ""}}
                ],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                "enableServiceLinks": true, "schedulerName": "default-scheduler", "securityContext": {}
            }
        });
        assert_eq!(defaulted(given), want);
    }

    #[test]
    fn what_the_manifest_sets_stays() {
        let given = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
                "containers": [{"name": "a", "image": "b", "imagePullPolicy": "Never"}]
            }
        });
        let got = defaulted(given);
        assert_eq!(got["metadata"]["namespace"], "n");
        assert_eq!(got["spec"]["restartPolicy"], "Never");
        assert_eq!(got["spec"]["terminationGracePeriodSeconds"], 0);
        assert_eq!(got["spec"]["enableServiceLinks"], false);
        assert_eq!(got["spec"]["containers"][0]["imagePullPolicy"], "Never");
    }

    #[test]
    fn images_that_may_change_under_their_name_are_always_pulled() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("host:5000/busybox", "Always"),
            ("busybox:latest@sha256:0123", "Always"),
            ("busybox:1.36", "IfNotPresent"),
            ("host:5000/a/busybox:1.36", "IfNotPresent"),
            ("busybox@sha256:0123", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
