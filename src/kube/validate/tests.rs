use super::*;
use crate::kube::defaults;
use serde_json::{Value, json};

/// What is wrong with a pod of this spec, defaults filled in.
fn findings(spec: Value) -> Vec<String> {
    of(json!({"metadata": {"name": "p"}, "spec": spec}))
}

fn of(given: Value) -> Vec<String> {
    let mut object: Pod = serde_json::from_value(given).expect("a pod");
    defaults::pod(&mut object);
    pod(&object).iter().map(ToString::to_string).collect()
}

/// What is wrong with a pod of one container that has these fields as well.
fn in_container(fields: Value) -> Vec<String> {
    let mut container = json!({"name": "a", "image": "b"});
    let all = container.as_object_mut().expect("a mapping");
    all.extend(fields.as_object().expect("a mapping").clone());
    let volumes = json!([{"name": "data"}, {"name": "more"}]);
    findings(json!({"containers": [container], "volumes": volumes}))
}

/// What is wrong with a pod that has these fields as well.
fn in_spec(fields: Value) -> Vec<String> {
    let mut spec = json!({"containers": [{"name": "a", "image": "b"}]});
    let all = spec.as_object_mut().expect("a mapping");
    all.extend(fields.as_object().expect("a mapping").clone());
    findings(spec)
}

fn in_volume(source: Value) -> Vec<String> {
    let mut volume = json!({"name": "v"});
    let all = volume.as_object_mut().expect("a mapping");
    all.extend(source.as_object().expect("a mapping").clone());
    in_spec(json!({"volumes": [volume]}))
}

const OK: [&str; 0] = [];

#[test]
fn names_labels_and_annotations_follow_the_rules() {
    let spec = json!({"containers": [{"name": "a", "image": "b"}]});
    let with = |metadata: Value| of(json!({"metadata": metadata, "spec": spec}));
    assert_eq!(
        with(json!({})),
        ["metadata.name: Required value: name is required"]
    );
    let found = with(json!({"name": "Foo_"}));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with(
        "metadata.name: Invalid value: \"Foo_\": a lowercase RFC 1123 subdomain must consist of lower case"
    ));
    let found = with(json!({"name": "a".repeat(254)}));
    assert!(
        found[0].ends_with("must be no more than 253 bytes"),
        "{found:?}"
    );
    let found = with(json!({"name": "p", "namespace": "../up"}));
    assert!(
        found[0].starts_with(
            "metadata.namespace: Invalid value: \"../up\": a lowercase RFC 1123 label"
        )
    );
    let found = with(json!({"name": "p", "labels": {"a b": "ok", "fine": "not fine"}}));
    assert!(
        found[0].starts_with("metadata.labels: Invalid value: \"a b\": name part"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("metadata.labels[fine]: Invalid value: \"not fine\": a valid label")
    );
    let found = with(json!({"name": "p", "annotations": {"a": "x".repeat(300_000)}}));
    assert_eq!(
        found,
        ["metadata.annotations: Too long: may not be more than 262144 bytes"]
    );
    let good = json!({"name": "p.q", "labels": {"app.kubernetes.io/name": "x"}, "annotations": {"A/b": "any\ntext"}});
    assert_eq!(with(good), OK);
}

#[test]
fn containers_need_a_name_of_their_own_and_an_image() {
    assert_eq!(findings(json!({})), ["spec.containers: Required value"]);
    assert_eq!(
        findings(
            json!({"containers": [{}, {"name": "a", "image": " b"}, {"name": "a", "image": "b"}]})
        ),
        [
            "spec.containers[0].name: Required value",
            "spec.containers[2].name: Duplicate value: \"a\"",
            "spec.containers[0].image: Required value",
            "spec.containers[1].image: Invalid value: \" b\": must not have leading or trailing whitespace",
        ]
    );
    assert_eq!(
        in_container(json!({"imagePullPolicy": "Sometimes"})),
        [
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
             \"IfNotPresent\", \"Never\""
        ]
    );
}

#[test]
fn a_mount_needs_a_volume_and_a_path_of_its_own() {
    let mounts = |mounts: Value| in_container(json!({"volumeMounts": mounts}));
    let at = "spec.containers[0].volumeMounts";
    for (given, want) in [
        (
            json!([{"name": "dat", "mountPath": "/a"}]),
            "[0].name: Not found: \"dat\"",
        ),
        (json!([{"mountPath": "/a"}]), "[0].name: Required value"),
        (json!([{"name": "data"}]), "[0].mountPath: Required value"),
        (
            json!([{"name": "data", "mountPath": "/a:b"}]),
            "[0].mountPath: Invalid value: \"/a:b\": must not contain ':'",
        ),
        (
            json!([{"name": "data", "mountPath": "/a/../../etc"}]),
            "[0].mountPath: Invalid value: \"/a/../../etc\": must not contain '..'",
        ),
        (
            json!([{"name": "data", "mountPath": "//."}]),
            "[0].mountPath: Invalid value: \"//.\": a volume cannot take the place of the container's root directory",
        ),
        (
            json!([{"name": "data", "mountPath": "/a"}, {"name": "more", "mountPath": "/a/"}]),
            "[1].mountPath: Invalid value: \"/a/\": must be unique",
        ),
        (
            json!([{"name": "data", "mountPath": "/a", "recursiveReadOnly": "Yes"}]),
            "[0].recursiveReadOnly: Unsupported value: \"Yes\": supported values: \"Disabled\", \"Enabled\", \
             \"IfPossible\"",
        ),
    ] {
        assert_eq!(mounts(given), [format!("{at}{want}")]);
    }
    let good = json!([
        {"name": "data", "mountPath": "/a", "readOnly": true},
        {"name": "data", "mountPath": "/a/b..c"},
        {"name": "more", "mountPath": "relative"}
    ]);
    assert_eq!(mounts(good), OK);
}

#[test]
fn a_volume_has_one_source_and_a_name_of_its_own() {
    assert_eq!(
        in_spec(json!({"volumes": [{"name": "v"}, {"name": "v"}, {}, {"name": "w.x"}]}))[..2],
        [
            "spec.volumes[1].name: Duplicate value: \"v\"".to_owned(),
            "spec.volumes[2].name: Required value".to_owned()
        ]
    );
    for (source, want) in [
        (
            json!({"emptyDir": {}, "hostPath": {"path": "/a"}}),
            "hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (json!({"hostPath": {}}), "hostPath.path: Required value"),
        (json!({"nfs": {"path": "/e"}}), "nfs.server: Required value"),
        (json!({"nfs": {"server": "s"}}), "nfs.path: Required value"),
        (
            json!({"nfs": {"server": "s", "path": "e"}}),
            "nfs.path: Invalid value: \"e\": must be an absolute path",
        ),
        (
            json!({"nfs": {"server": "a b", "path": "/e"}}),
            "nfs.server: Invalid value: \"a b\": must be the name or the address of a server",
        ),
        (
            json!({"emptyDir": {}, "nfs": {"server": "s", "path": "/e"}}),
            "nfs: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"hostPath": {"path": "a/b"}}),
            "hostPath.path: Invalid value: \"a/b\": must be an absolute path",
        ),
        (
            json!({"hostPath": {"path": "/a/../b"}}),
            "hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            json!({"hostPath": {"path": format!("/{}", "a".repeat(4095))}}),
            "hostPath.path: Too long: may not be more than 4095 bytes",
        ),
        (
            json!({"hostPath": {"path": "/a", "type": "Dir"}}),
            "hostPath.type: Unsupported value: \"Dir\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \
             \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ),
        (
            json!({"emptyDir": {"medium": "Disk"}}),
            "emptyDir.medium: Unsupported value: \"Disk\": supported values: \"\", \"HugePages\", \
             \"HugePages-1Gi\", \"HugePages-2Mi\", \"Memory\"",
        ),
        (
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": "-1"}}),
            "emptyDir.sizeLimit: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
    ] {
        assert_eq!(in_volume(source), [format!("spec.volumes[0].{want}")]);
    }
    let found = in_volume(json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1GB"}}));
    assert!(found[0].starts_with(
        "spec.volumes[0].emptyDir.sizeLimit: Invalid value: \"1GB\": quantities must match"
    ));
    assert!(found[0].ends_with("(did you mean \"1G\"?)"));
    assert_eq!(
        in_volume(json!({"hostPath": {"path": "/a..b", "type": "Socket"}})),
        OK
    );
}

#[test]
fn requests_stay_within_limits() {
    let resources = |resources: Value| in_container(json!({"resources": resources}));
    let at = "spec.containers[0].resources";
    for (given, want) in [
        (
            json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "1"}}),
            "requests[cpu]: Invalid value: \"1\": must be less than or equal to cpu limit of 500m",
        ),
        (
            json!({"requests": {"memory": "-1Gi"}}),
            "requests[memory]: Invalid value: \"-1Gi\": must be greater than or equal to 0",
        ),
        (
            json!({"requests": {"memory": "512m"}}),
            "requests[memory]: Invalid value: \"512m\": must be a whole number of bytes (\"m\" means thousandths; did \
             you mean \"512M\" or \"512Mi\"?)",
        ),
        (
            json!({"requests": {"mem": "1Gi"}}),
            "requests: Invalid value: \"mem\": must be a standard resource for containers: cpu, memory, \
             ephemeral-storage or hugepages-<size>",
        ),
        (
            json!({"limits": {"cpu": "1", "hugepages-2Mi": "4Mi"}, "requests": {"hugepages-2Mi": "2Mi"}}),
            "requests[hugepages-2Mi]: Invalid value: \"2Mi\": must be equal to hugepages-2Mi limit of 4Mi",
        ),
        (
            json!({"limits": {"cpu": "1"}, "requests": {"hugepages-2Mi": "2Mi"}}),
            "limits[hugepages-2Mi]: Required value: Limit must be set for non overcommitable resources",
        ),
    ] {
        assert_eq!(resources(given), [format!("{at}.{want}")]);
    }
    let odd = json!({"limits": {"memory": "1Gi", "hugepages-2Mi": "3Mi"}});
    let why = "Invalid value: \"3Mi\": 3Mi is not positive integer multiple of 2Mi";
    let both = ["limits", "requests"].map(|list| format!("{at}.{list}[hugepages-2Mi]: {why}"));
    assert_eq!(resources(odd), both);
    let alone = json!({"limits": {"hugepages-1Gi": "1Gi"}, "requests": {"hugepages-1Gi": "1Gi"}});
    let wanted = format!("{at}: Forbidden: HugePages require cpu or memory");
    assert_eq!(resources(alone), [wanted]);
    let good = json!({
        "limits": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1G", "hugepages-2Mi": "4Mi"},
        "requests": {"cpu": "1000m", "memory": "1024Mi"}
    });
    assert_eq!(resources(good), OK);
    assert_eq!(
        resources(json!({"limits": {"cpu": 0.5, "memory": 1_000_000}})),
        OK
    );
}

#[test]
fn variables_have_names_and_one_source() {
    let env = |env: Value| in_container(json!({"env": env}));
    let at = "spec.containers[0].env[0]";
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    for (given, want) in [
        (json!([{"value": "x"}]), "name: Required value"),
        (
            json!([{"name": "A=B"}]),
            "name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII \
             characters other than '='",
        ),
        (
            json!([{"name": "A", "value": "x", "valueFrom": field("metadata.name")}]),
            "valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            json!([{"name": "A", "valueFrom": {}}]),
            "valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        ),
        (
            json!([{"name": "A", "valueFrom": field("metadata.nam")}]),
            "valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.nam\": supported values: \"metadata.name\", \
             \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \
             \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ),
    ] {
        assert_eq!(env(given), [format!("{at}.{want}")]);
    }
    assert_eq!(
        env(json!([{"name": "A"}, {"name": "B", "valueFrom": field("status.podIP")}])),
        OK
    );
}

#[test]
fn ports_are_ports() {
    let ports = |ports: Value| in_container(json!({"ports": ports}));
    let at = "spec.containers[0].ports";
    for (given, want) in [
        (json!([{}]), "[0].containerPort: Required value"),
        (
            json!([{"containerPort": 65536}]),
            "[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            json!([{"containerPort": 1, "protocol": "ICMP"}]),
            "[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            json!([{"containerPort": 1, "name": "http"}, {"containerPort": 2, "name": "http"}]),
            "[1].name: Duplicate value: \"http\"",
        ),
        (
            json!([{"containerPort": 1, "hostIP": "here"}]),
            "[0].hostIP: Invalid value: \"here\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
    ] {
        assert_eq!(ports(given), [format!("{at}{want}")]);
    }
    let host = |ports: Value| {
        in_spec(
            json!({"hostNetwork": true, "containers": [{"name": "a", "image": "b", "ports": ports}]}),
        )
    };
    assert_eq!(
        host(
            json!([{"containerPort": 80, "hostPort": 81}, {"containerPort": 90}, {"containerPort": 90}])
        ),
        [
            "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true",
            "spec.containers[0].ports[2].hostPort: Duplicate value: \"/90/TCP\"",
        ]
    );
    assert_eq!(
        host(json!([{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}])),
        OK
    );
}

#[test]
fn users_and_privileges_are_possible_ones() {
    let context = |context: Value| in_container(json!({"securityContext": context}));
    let at = "spec.containers[0].securityContext";
    for (given, want) in [
        (
            json!({"runAsUser": -1}),
            "runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            json!({"runAsGroup": 1_i64 << 31}),
            "runAsGroup: Invalid value: 2147483648: must be between 0 and 2147483647, inclusive",
        ),
        (
            json!({"capabilities": {"add": ["NET_ADMN"]}}),
            "capabilities.add[0]: Invalid value: \"NET_ADMN\": must be a capability of Linux, such as NET_ADMIN, or \
             ALL (did you mean \"NET_ADMIN\"?)",
        ),
        (
            json!({"privileged": true, "allowPrivilegeEscalation": false}),
            "allowPrivilegeEscalation: Invalid value: false: cannot set `allowPrivilegeEscalation` to false and \
             `privileged` to true",
        ),
        (
            json!({"capabilities": {"add": ["CAP_SYS_ADMIN"]}, "allowPrivilegeEscalation": false}),
            "allowPrivilegeEscalation: Invalid value: false: cannot set `allowPrivilegeEscalation` to false and \
             `capabilities.Add` CAP_SYS_ADMIN",
        ),
        (
            json!({"seccompProfile": {"type": "Off"}}),
            "seccompProfile.type: Unsupported value: \"Off\": supported values: \"Localhost\", \"RuntimeDefault\", \
             \"Unconfined\"",
        ),
    ] {
        assert_eq!(context(given), [format!("{at}.{want}")]);
    }
    let good = json!({
        "runAsUser": 0, "runAsGroup": 2_147_483_647, "allowPrivilegeEscalation": false,
        "capabilities": {"add": ["NET_BIND_SERVICE", "cap_chown"], "drop": ["ALL"]}
    });
    assert_eq!(context(good), OK);
    assert_eq!(
        in_spec(json!({"securityContext": {"runAsUser": -5, "supplementalGroups": [1, -1]}})),
        [
            "spec.securityContext.runAsUser: Invalid value: -5: must be between 0 and 2147483647, inclusive",
            "spec.securityContext.supplementalGroups[1]: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ]
    );
}

#[test]
fn the_pods_own_fields_are_checked() {
    for (fields, want) in [
        (
            json!({"restartPolicy": "always"}),
            "spec.restartPolicy: Unsupported value: \"always\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ),
        (
            json!({"terminationGracePeriodSeconds": -1}),
            "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({"hostPID": true, "shareProcessNamespace": true}),
            "spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
        ),
        (
            json!({"dnsPolicy": "Cluster"}),
            "spec.dnsPolicy: Unsupported value: \"Cluster\": supported values: \"ClusterFirst\", \
             \"ClusterFirstWithHostNet\", \"Default\", \"None\"",
        ),
        (
            json!({"dnsPolicy": "None"}),
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
        ),
        (
            json!({"dnsConfig": {"nameservers": ["1.1.1.1", "dns"]}}),
            "spec.dnsConfig.nameservers[1]: Invalid value: \"dns\": must be a valid IP address, (e.g. 10.9.8.7 or \
             2001:db8::ffff)",
        ),
        (
            json!({"dnsConfig": {"options": [{"name": "ndots", "value": "5\nnameserver 6.6.6.6"}]}}),
            "spec.dnsConfig.options[0].value: Invalid value: \"5\\nnameserver 6.6.6.6\": must not contain whitespace",
        ),
        (
            json!({"hostAliases": [{"ip": "1.2.3", "hostnames": ["a.b"]}]}),
            "spec.hostAliases[0].ip: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or \
             2001:db8::ffff)",
        ),
    ] {
        assert_eq!(in_spec(fields), [want]);
    }
    let found = in_spec(json!({"hostname": "a.b", "subdomain": "C"}));
    assert!(
        found[0].starts_with("spec.hostname: Invalid value: \"a.b\": a lowercase RFC 1123 label")
    );
    assert!(
        found[1].starts_with("spec.subdomain: Invalid value: \"C\": a lowercase RFC 1123 label")
    );
    let good = json!({
        "hostname": "h", "restartPolicy": "OnFailure", "terminationGracePeriodSeconds": 0, "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["::1"], "searches": ["a.b."], "options": [{"name": "ndots", "value": "5"}]},
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a.b"]}], "os": {"name": "linux"}
    });
    assert_eq!(in_spec(good), OK);
}

#[test]
fn what_a_pod_as_a_whole_may_take_fits_what_its_containers_ask_for() {
    let of = |pod: Value, container: Value| {
        let containers = json!([{"name": "a", "image": "b", "resources": container}, {"name": "c", "image": "b"}]);
        findings(json!({"containers": containers, "resources": pod}))
    };
    let container = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "64Mi"}});
    let fitting = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "64Mi"}});
    assert_eq!(of(fitting, container.clone()), OK);
    let small = json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1500m", "memory": "64Mi"}});
    assert_eq!(
        of(small, container),
        [
            "spec.resources.requests[cpu]: Invalid value: \"500m\": must be greater than or equal to aggregate \
             container requests of 1",
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"2\": must be less than or equal to pod limits \
             of 1500m",
        ]
    );
    let backwards = json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}});
    assert_eq!(
        of(backwards, json!({})),
        [
            "spec.resources.requests[memory]: Invalid value: \"2Gi\": must be less than or equal to memory limit of 1Gi"
        ]
    );
    let overhead = in_spec(json!({"overhead": {"memory": "-1"}}));
    assert_eq!(
        overhead,
        ["spec.overhead[memory]: Invalid value: \"-1\": must be greater than or equal to 0"]
    );

    let annotations = json!({"orlop.dev/pids-limit": "many"});
    let spec = json!({"containers": [{"name": "a", "image": "b"}]});
    assert_eq!(
        self::of(json!({"metadata": {"name": "p", "annotations": annotations}, "spec": spec})),
        [
            "metadata.annotations[orlop.dev/pids-limit]: Invalid value: \"many\": must be a whole number of processes \
             from 1 to 4194304"
        ]
    );
}
