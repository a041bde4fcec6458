//! Which ConfigMaps and Secrets a pod draws from.

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};

use crate::kube::kind::Kind;

/// Whether a volume or a variable of the pod comes from this object of the pod's
/// namespace.
#[must_use]
pub fn uses(spec: &PodSpec, kind: Kind, name: &str) -> bool {
    let init = spec.init_containers.iter().flatten();
    spec.volumes
        .iter()
        .flatten()
        .any(|volume| volume_uses(volume, kind, name))
        || init
            .chain(&spec.containers)
            .any(|container| environment_uses(container, kind, name))
}

/// Whether the volume has files from this object.
#[must_use]
pub fn volume_uses(volume: &Volume, kind: Kind, name: &str) -> bool {
    let sources = volume.projected.iter().flat_map(|it| it.sources.iter());
    let mut sources = sources.flatten();
    match kind {
        Kind::ConfigMap => {
            volume.config_map.as_ref().is_some_and(|it| it.name == name)
                || sources.any(|it| it.config_map.as_ref().is_some_and(|it| it.name == name))
        }
        Kind::Secret => {
            let whole = volume.secret.as_ref();
            whole.is_some_and(|it| it.secret_name.as_deref() == Some(name))
                || sources.any(|it| it.secret.as_ref().is_some_and(|it| it.name == name))
        }
        _ => false,
    }
}

fn environment_uses(container: &Container, kind: Kind, name: &str) -> bool {
    let mut whole = container.env_from.iter().flatten();
    let variables = container.env.iter().flatten();
    let mut keys = variables.filter_map(|variable| variable.value_from.as_ref());
    match kind {
        Kind::ConfigMap => {
            whole.any(|it| it.config_map_ref.as_ref().is_some_and(|it| it.name == name))
                || keys.any(|it| {
                    let key = it.config_map_key_ref.as_ref();
                    key.is_some_and(|it| it.name == name)
                })
        }
        Kind::Secret => {
            whole.any(|it| it.secret_ref.as_ref().is_some_and(|it| it.name == name))
                || keys.any(|it| it.secret_key_ref.as_ref().is_some_and(|it| it.name == name))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_place_that_can_name_an_object_is_looked_at() {
        let spec: PodSpec = serde_json::from_value(json!({
            "volumes": [
                {"name": "a", "configMap": {"name": "m1"}},
                {"name": "b", "secret": {"secretName": "s1"}},
                {"name": "c", "projected": {"sources": [
                    {"configMap": {"name": "m2"}}, {"secret": {"name": "s2"}}
                ]}},
            ],
            "initContainers": [{"name": "i", "envFrom": [
                {"configMapRef": {"name": "m3"}}, {"secretRef": {"name": "s3"}}
            ]}],
            "containers": [{"name": "c", "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m4", "key": "k"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s4", "key": "k"}}},
            ]}],
        }))
        .expect("a spec");
        for number in 1..=4 {
            assert!(uses(&spec, Kind::ConfigMap, &format!("m{number}")));
            assert!(uses(&spec, Kind::Secret, &format!("s{number}")));
            assert!(!uses(&spec, Kind::ConfigMap, &format!("s{number}")));
            assert!(!uses(&spec, Kind::Secret, &format!("m{number}")));
        }
    }
}
