use serde_json::{Value, json};

use super::References;
use crate::pod::spec::fixture::{environment as of, image, pod, pod_of, sandbox, spec, spec_in};

fn value_from(source: Value) -> String {
    let fields = json!({
        "env": [{"name": "X", "valueFrom": source}],
        "resources": {"limits": {"memory": "100Mi"}, "requests": {"cpu": "1500m"}},
    });
    of(&pod_of(fields), &image())["X"].clone()
}

fn field_value(path: &str) -> String {
    value_from(json!({"fieldRef": {"fieldPath": path}}))
}

fn resource_value(resource: &str, divisor: &str) -> String {
    value_from(json!({"resourceFieldRef": {"resource": resource, "divisor": divisor}}))
}

fn error(fields: Value) -> String {
    spec(&pod_of(fields)).expect_err("an error").to_string()
}

#[test]
fn an_image_without_path_gets_the_usual_one() {
    assert_eq!(
        of(&pod_of(json!({})), &image())["PATH"],
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    );
}

#[test]
fn the_manifest_wins_over_the_host_name_and_this_over_the_image() {
    let mut image = image();
    image.env = ["PATH=/bin", "HOSTNAME=builder", "A=image", "B=image"]
        .map(String::from)
        .to_vec();
    let env = of(
        &pod_of(json!({"env": [{"name": "B", "value": "manifest"}]})),
        &image,
    );
    assert_eq!(env["PATH"], "/bin");
    assert_eq!(env["HOSTNAME"], "web");
    assert_eq!(env["A"], "image");
    assert_eq!(env["B"], "manifest");
    let env = of(
        &pod_of(json!({"env": [{"name": "HOSTNAME", "value": "mine"}]})),
        &image,
    );
    assert_eq!(env["HOSTNAME"], "mine");
}

#[test]
fn a_name_given_twice_is_there_once_with_the_later_value() {
    let pod = pod_of(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}));
    let spec = spec(&pod).expect("a specification");
    let process = spec.process().as_ref().expect("a process");
    let entries = process.env().as_deref().unwrap_or_default();
    let of_a: Vec<_> = entries.iter().filter(|e| e.starts_with("A=")).collect();
    assert_eq!(of_a, ["A=2"]);
}

#[test]
fn references_reach_variables_defined_before_in_the_manifest() {
    let mut image = image();
    image.env = vec!["FROM_IMAGE=x".into()];
    let pod = pod_of(json!({"env": [
        {"name": "EARLY", "value": "$(LATE)-$(FROM_IMAGE)"},
        {"name": "LATE", "value": "late"},
        {"name": "BOTH", "value": "$(EARLY)/$(LATE)/$$(LATE)"},
    ]}));
    let env = of(&pod, &image);
    assert_eq!(env["EARLY"], "$(LATE)-$(FROM_IMAGE)");
    assert_eq!(env["BOTH"], "$(LATE)-$(FROM_IMAGE)/late/$(LATE)");
}

#[test]
fn there_is_a_terminal_type_with_a_terminal_only() {
    let without = of(&pod_of(json!({})), &image());
    assert!(!without.contains_key("TERM"));
    let with = of(&pod_of(json!({"tty": true})), &image());
    assert_eq!(with["TERM"], "xterm");
}

#[test]
fn home_is_always_set() {
    assert_eq!(of(&pod_of(json!({})), &image())["HOME"], "/");
    let pod = pod_of(json!({"env": [{"name": "HOME", "value": "/data"}]}));
    assert_eq!(of(&pod, &image())["HOME"], "/data");
}

#[test]
fn fields_of_the_pod_can_be_referred_to() {
    for (path, value) in [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "11111111-2222-3333-4444-555555555555"),
        ("metadata.labels['example.com/tier']", "front"),
        ("metadata.labels['missing']", ""),
        ("metadata.annotations['note']", "fresh"),
        ("spec.nodeName", "node-1"),
        ("spec.serviceAccountName", ""),
        ("status.hostIP", "192.0.2.7"),
        ("status.podIP", "10.1.2.3"),
        ("status.podIPs", "10.1.2.3"),
    ] {
        assert_eq!(field_value(path), value, "{path}");
    }
}

#[test]
fn the_address_of_a_pod_on_the_nodes_network_is_the_nodes() {
    let pod = pod(
        json!({"hostNetwork": true, "containers": [{"name": "c", "env": [
            {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ]}]}),
    );
    assert_eq!(of(&pod, &image())["X"], "192.0.2.7");
}

#[test]
fn an_unknown_field_is_an_error() {
    let source = json!({"fieldRef": {"fieldPath": "spec.hostname"}});
    assert_eq!(
        error(json!({"env": [{"name": "X", "valueFrom": source}]})),
        "unsupported fieldPath: spec.hostname"
    );
}

#[test]
fn resources_are_divided_and_rounded_up() {
    for (resource, divisor, value) in [
        ("limits.memory", "0", "104857600"),
        ("limits.memory", "1Gi", "1"),
        ("requests.cpu", "1", "2"),
        ("requests.cpu", "1m", "1500"),
    ] {
        assert_eq!(resource_value(resource, divisor), value, "{resource}");
    }
}

#[test]
fn a_limit_that_is_not_set_is_what_the_node_has() {
    assert_eq!(resource_value("limits.cpu", "1"), "4");
}

#[test]
fn objects_that_are_not_there_are_an_error_unless_optional() {
    let key =
        |optional: bool| json!({"secretKeyRef": {"name": "db", "key": "k", "optional": optional}});
    assert_eq!(
        error(json!({"env": [{"name": "X", "valueFrom": key(false)}]})),
        "secret \"db\" not found"
    );
    let pod = pod_of(json!({"env": [{"name": "X", "valueFrom": key(true)}]}));
    assert!(!of(&pod, &image()).contains_key("X"));
}

#[test]
fn what_the_keeper_looked_up_comes_first_and_the_manifest_wins() {
    let pod = pod_of(json!({"env": [
        {"name": "B", "value": "$(A)-$(B)"},
        {"name": "X", "valueFrom": {"secretKeyRef": {"name": "db", "key": "k"}}},
        {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "db", "key": "l", "optional": true}}},
        {"name": "Z", "value": "$(X)$(Y)"},
    ]}));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let references = References {
        from: vec![pair("A", "0"), pair("A", "1"), pair("B", "from")],
        values: [(1, Some("secret".to_owned())), (2, None)].into(),
    };
    assert!(!format!("{references:?}").contains("secret"));
    let mut sandbox = sandbox();
    sandbox.references = &references;
    let spec = spec_in(&pod, &image(), &sandbox).expect("a specification");
    let process = spec.process().as_ref().expect("a process");
    let entries = process.env().as_deref().unwrap_or_default();
    let given: Vec<&str> = entries
        .iter()
        .map(String::as_str)
        .filter(|entry| "ABXYZ".contains(&entry[..1]) && &entry[1..2] == "=")
        .collect();
    assert_eq!(given, ["A=1", "B=1-from", "X=secret", "Z=secret$(Y)"]);
}

#[test]
fn a_value_with_a_zero_byte_is_refused() {
    assert_eq!(
        error(json!({"env": [{"name": "X", "value": "a\u{0}b"}]})),
        "env contains a NUL character"
    );
}

#[test]
fn an_entry_of_the_image_without_a_name_is_left_out() {
    let mut image = image();
    image.env = vec!["=oops".into(), String::new(), "A=1".into()];
    let env = of(&pod_of(json!({})), &image);
    assert_eq!(env["A"], "1");
    assert!(!env.contains_key(""));
}
