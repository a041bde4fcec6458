//! What a container asks of one of its volume mounts besides a place: a part of
//! the volume, which mounts it shares, and how far read-only reaches.

use super::volumes::has_backsteps;
use crate::kube::field::Findings;
use k8s_openapi::api::core::v1::{Container, VolumeMount};

const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];
const RECURSIVE_READ_ONLY: &[&str] = &["Disabled", "Enabled", "IfPossible"];

/// Checks the volume mount at `at`, as in `spec.containers[0].volumeMounts[0]`,
/// of `container`.
pub(super) fn check(container: &Container, mount: &VolumeMount, at: &str, findings: &mut Findings) {
    let sub_path = mount.sub_path.as_deref().unwrap_or("");
    let expression = mount.sub_path_expr.as_deref().unwrap_or("");
    check_descending(sub_path, format!("{at}.subPath"), findings);
    if !expression.is_empty() && !sub_path.is_empty() {
        findings.invalid(
            format!("{at}.subPathExpr"),
            expression,
            "subPathExpr and subPath are mutually exclusive",
        );
    }
    check_descending(expression, format!("{at}.subPathExpr"), findings);

    let propagation = mount.mount_propagation.as_deref();
    let field = format!("{at}.mountPropagation");
    findings.one_of(field.clone(), propagation, PROPAGATIONS);
    let context = container.security_context.as_ref();
    let privileged = context.and_then(|context| context.privileged) == Some(true);
    if propagation == Some("Bidirectional") && !privileged {
        findings.forbidden(
            field,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }

    let recursive = mount.recursive_read_only.as_deref();
    let field = format!("{at}.recursiveReadOnly");
    findings.one_of(field.clone(), recursive, RECURSIVE_READ_ONLY);
    if matches!(recursive, Some("Enabled" | "IfPossible")) {
        if mount.read_only != Some(true) {
            findings.forbidden(field.clone(), "may only be specified when readOnly is true");
        }
        if propagation.is_some_and(|propagation| propagation != "None") {
            findings.forbidden(
                field,
                "may only be specified when mountPropagation is None or not specified",
            );
        }
    }
}

/// A path that leads nowhere but down, or nothing at all.
fn check_descending(path: &str, field: String, findings: &mut Findings) {
    if path.starts_with('/') {
        findings.invalid(field, path, "must be a relative path");
    } else if has_backsteps(path) {
        findings.invalid(field, path, "must not contain '..'");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn findings(mount: Value, privileged: bool) -> Vec<String> {
        let container = json!({"name": "c", "securityContext": {"privileged": privileged}});
        let mut mount = mount;
        mount["name"] = json!("v");
        mount["mountPath"] = json!("/v");
        let mut findings = Findings::default();
        check(
            &serde_json::from_value(container).expect("a container"),
            &serde_json::from_value(mount).expect("a mount"),
            "m",
            &mut findings,
        );
        findings.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_an_api_server_takes_is_taken() {
        for mount in [
            json!({"subPath": "a/b..c/.hidden"}),
            json!({"subPathExpr": "$(POD)/logs"}),
            json!({"subPath": "", "subPathExpr": ""}),
            json!({"mountPropagation": "HostToContainer"}),
            json!({"readOnly": true, "recursiveReadOnly": "Enabled"}),
            json!({"readOnly": true, "recursiveReadOnly": "IfPossible", "mountPropagation": "None"}),
            json!({"recursiveReadOnly": "Disabled"}),
        ] {
            assert_eq!(findings(mount.clone(), false), [""; 0], "{mount}");
        }
        let mount = json!({"mountPropagation": "Bidirectional"});
        assert_eq!(findings(mount, true), [""; 0]);
    }

    #[test]
    fn what_an_api_server_refuses_is_refused_in_its_words() {
        for (mount, wanted) in [
            (
                json!({"subPath": "/etc"}),
                "m.subPath: Invalid value: \"/etc\": must be a relative path",
            ),
            (
                json!({"subPath": "a/../../etc"}),
                "m.subPath: Invalid value: \"a/../../etc\": must not contain '..'",
            ),
            (
                json!({"subPathExpr": "$(A)/.."}),
                "m.subPathExpr: Invalid value: \"$(A)/..\": must not contain '..'",
            ),
            (
                json!({"subPath": "a", "subPathExpr": "b"}),
                "m.subPathExpr: Invalid value: \"b\": subPathExpr and subPath are mutually exclusive",
            ),
            (
                json!({"mountPropagation": "Bidirectional"}),
                "m.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            ),
            (
                json!({"recursiveReadOnly": "Enabled"}),
                "m.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
            ),
            (
                json!({"readOnly": true, "recursiveReadOnly": "IfPossible", "mountPropagation": "HostToContainer"}),
                "m.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified",
            ),
            (
                json!({"readOnly": true, "recursiveReadOnly": "Always"}),
                "m.recursiveReadOnly: Unsupported value: \"Always\": supported values: \"Disabled\", \"Enabled\", \"IfPossible\"",
            ),
        ] {
            assert_eq!(findings(mount.clone(), false), [wanted], "{mount}");
        }
    }
}
