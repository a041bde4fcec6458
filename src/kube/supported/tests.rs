use super::*;
use k8s_openapi::api::core::v1::*;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, Visitor};
use serde_json::json;

/// Decodes nothing: it only hears which fields a type asks for.
struct Listener<'a>(&'a mut (&'static str, &'static [&'static str]));

impl<'de> Deserializer<'de> for Listener<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = (name, fields);
        Err(Self::Error::custom("heard"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("not a struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn agrees<T: DeserializeOwned>() -> &'static str {
    let mut heard = ("", &[] as &[_]);
    assert!(<T as Deserialize>::deserialize(Listener(&mut heard)).is_err());
    let (name, fields) = heard;
    let mut all = pod_groups().chain(CONFIGURATION).chain(PERSISTENCE);
    let group = all.find(|group| group.kind == name);
    let group = group.unwrap_or_else(|| panic!("the table has no group {name}"));
    let mut listed: Vec<_> = group.fields().collect();
    let mut known = fields.to_vec();
    listed.sort_unstable();
    known.sort_unstable();
    assert_eq!(listed, known, "{name}");
    for (field, _) in group.refused_values {
        assert!(group.used.split_whitespace().any(|used| used == *field));
    }
    name
}

#[test]
fn the_table_has_every_field_of_the_api_just_once() {
    let checked = [
        agrees::<Pod>(),
        agrees::<ObjectMeta>(),
        agrees::<PodSpec>(),
        agrees::<PodOS>(),
        agrees::<PodDNSConfig>(),
        agrees::<HostAlias>(),
        agrees::<PodSecurityContext>(),
        agrees::<Container>(),
        agrees::<Probe>(),
        agrees::<Lifecycle>(),
        agrees::<LifecycleHandler>(),
        agrees::<EnvVar>(),
        agrees::<EnvVarSource>(),
        agrees::<ObjectFieldSelector>(),
        agrees::<ContainerPort>(),
        agrees::<ResourceRequirements>(),
        agrees::<SecurityContext>(),
        agrees::<Capabilities>(),
        agrees::<SeccompProfile>(),
        agrees::<AppArmorProfile>(),
        agrees::<VolumeMount>(),
        agrees::<Volume>(),
        agrees::<EmptyDirVolumeSource>(),
        agrees::<HostPathVolumeSource>(),
        agrees::<NFSVolumeSource>(),
        agrees::<EnvFromSource>(),
        agrees::<ConfigMapEnvSource>(),
        agrees::<SecretEnvSource>(),
        agrees::<ConfigMapKeySelector>(),
        agrees::<SecretKeySelector>(),
        agrees::<ResourceFieldSelector>(),
        agrees::<ConfigMapVolumeSource>(),
        agrees::<SecretVolumeSource>(),
        agrees::<DownwardAPIVolumeSource>(),
        agrees::<ProjectedVolumeSource>(),
        agrees::<VolumeProjection>(),
        agrees::<ConfigMapProjection>(),
        agrees::<SecretProjection>(),
        agrees::<DownwardAPIProjection>(),
        agrees::<KeyToPath>(),
        agrees::<DownwardAPIVolumeFile>(),
        agrees::<ImageVolumeSource>(),
        agrees::<LocalObjectReference>(),
        agrees::<PersistentVolumeClaimVolumeSource>(),
        agrees::<EphemeralVolumeSource>(),
        agrees::<PersistentVolumeClaimTemplate>(),
    ];
    assert_eq!(
        checked.len(),
        pod_groups().count(),
        "a group that no type was held against"
    );
}

#[test]
fn the_table_has_every_field_of_what_is_only_drawn_from() {
    assert_eq!(agrees::<ConfigMap>(), "ConfigMap");
    assert_eq!(agrees::<Secret>(), "Secret");
}

#[test]
fn the_table_has_every_field_of_volumes_that_outlive_pods() {
    use k8s_openapi::api::storage::v1::StorageClass;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

    let checked = [
        agrees::<PersistentVolume>(),
        agrees::<PersistentVolumeSpec>(),
        agrees::<ObjectReference>(),
        agrees::<LocalVolumeSource>(),
        agrees::<NFSVolumeSource>(),
        agrees::<PersistentVolumeClaim>(),
        agrees::<PersistentVolumeClaimSpec>(),
        agrees::<VolumeResourceRequirements>(),
        agrees::<LabelSelector>(),
        agrees::<LabelSelectorRequirement>(),
        agrees::<StorageClass>(),
    ];
    // Those of ObjectMeta and of HostPathVolumeSource are held against the type above.
    let elsewhere = ["ObjectMeta", "HostPathVolumeSource"];
    let own = PERSISTENCE
        .iter()
        .filter(|group| !elsewhere.contains(&group.kind));
    assert_eq!(checked.len(), own.count());
}

fn checked(spec: Value) -> Result<(), String> {
    let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    let pod: Pod = serde_json::from_value(value.clone()).expect("a pod");
    check(&value, &pod).map_err(|problem| problem.to_string())
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let container = |fields: Value| json!({"containers": [fields]});
    let volume = |fields: Value| json!({"volumes": [{"name": "ok"}, fields]});
    for (spec, refused) in [
        (
            json!({"initContainers": [{"ports": [{"hostPort": 80}]}]}),
            "spec.initContainers[0].ports[0].hostPort",
        ),
        (
            json!({"ephemeralContainers": [{"name": "a"}]}),
            "spec.ephemeralContainers",
        ),
        (json!({"runtimeClassName": "kata"}), "spec.runtimeClassName"),
        (
            json!({"os": {"name": "windows"}}),
            "spec.os.name \"windows\"",
        ),
        (
            json!({"securityContext": {"windowsOptions": {}}}),
            "spec.securityContext.windowsOptions",
        ),
        (
            container(json!({"restartPolicyRules": [{}]})),
            "spec.containers[0].restartPolicyRules",
        ),
        (
            container(json!({"env": [{"name": "A", "valueFrom": {"fileKeyRef": {}}}]})),
            "spec.containers[0].env[0].valueFrom.fileKeyRef",
        ),
        (
            container(
                json!({"env": [{"valueFrom": {"resourceFieldRef": {"resource": "limits.ephemeral-storage"}}}]}),
            ),
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource \"limits.ephemeral-storage\"",
        ),
        (
            container(json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/v"}]})),
            "spec.containers[0].volumeDevices",
        ),
        (
            container(json!({"ports": [{"hostPort": 80}]})),
            "spec.containers[0].ports[0].hostPort",
        ),
        (
            container(json!({"resources": {"limits": {"nvidia.com/gpu": "1"}}})),
            "spec.containers[0].resources.limits[nvidia.com/gpu]",
        ),
        (
            json!({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}}),
            "spec.resources.limits[hugepages-2Mi]",
        ),
        (volume(json!({"iscsi": {}})), "spec.volumes[1].iscsi"),
        (
            volume(
                json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"dataSource": {"name": "x"}}}}}),
            ),
            "spec.volumes[1].ephemeral.volumeClaimTemplate.spec.dataSource",
        ),
        (
            volume(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
            "spec.volumes[1].projected.sources[0].serviceAccountToken (there is no API server that could issue or \
             accept a token)",
        ),
    ] {
        let want = format!("{refused} is not supported by this version of orlop");
        assert_eq!(checked(spec), Err(want));
    }
    assert_eq!(
        checked(json!({"runtimeClassName": "kata", "containers": [{"volumeDevices": [{}]}, {"restartPolicyRules": [{}]}]})),
        Err(
            "spec.runtimeClassName, spec.containers[0].volumeDevices, spec.containers[1].restartPolicyRules are not supported \
             by this version of orlop"
                .to_owned()
        )
    );
}

#[test]
fn what_means_nothing_to_one_machine_is_accepted() {
    let spec = json!({
        "nodeSelector": {"disk": "ssd"}, "tolerations": [{"operator": "Exists"}], "affinity": {},
        "schedulerName": "default-scheduler", "serviceAccountName": "default", "priority": 0,
        "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "x"}], "enableServiceLinks": true,
        "initContainers": [], "hostUsers": true, "setHostnameAsFQDN": false, "runtimeClassName": null,
        "hostNetwork": true,
        "containers": [{
            "name": "a", "stdin": true, "tty": true, "terminationMessagePath": "/dev/termination-log",
            "ports": [{"containerPort": 80, "hostPort": 80}],
            "volumeMounts": [{"subPath": "", "mountPropagation": "None", "recursiveReadOnly": "Disabled"}],
            "resources": {"limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi"}},
            "securityContext": {"seccompProfile": {"type": "Unconfined"}, "procMount": "Default"},
            "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
        }],
        "volumes": [{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}]
    });
    assert_eq!(checked(spec), Ok(()));
}
