//! Volumes that are made of files: configMap, secret, downwardAPI, projected; and
//! images as volumes.

use super::environment::{check_field, check_object, check_resource};
use super::names;
use crate::kube::field::Findings;
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, ImageVolumeSource, KeyToPath, PodSpec, ProjectedVolumeSource, Volume,
};
use std::collections::HashSet;

/// Fields of the pod that a file can hold.
const FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MODES: &str = "must be a number between 0 and 0777 (octal), both inclusive";
/// The most bytes of a path, with the NUL behind it (path_resolution(7)).
const PATH_MAX: usize = 4096;
/// The most bytes of a file's name.
const NAME_MAX: usize = 255;

/// Checks one volume's source of these kinds, if it has one.
pub(super) fn check(volume: &Volume, spec: &PodSpec, at: &str, findings: &mut Findings) {
    if let Some(map) = &volume.config_map {
        let at = format!("{at}.configMap");
        check_object(&map.name, &at, findings);
        check_mode(map.default_mode, &format!("{at}.defaultMode"), findings);
        check_items(map.items.as_deref(), &at, findings);
    }
    if let Some(secret) = &volume.secret {
        let at = format!("{at}.secret");
        match secret.secret_name.as_deref().unwrap_or("") {
            "" => findings.required(format!("{at}.secretName"), ""),
            name => {
                if let Err(why) = names::subdomain(name) {
                    findings.invalid(format!("{at}.secretName"), name, why);
                }
            }
        }
        check_mode(secret.default_mode, &format!("{at}.defaultMode"), findings);
        check_items(secret.items.as_deref(), &at, findings);
    }
    if let Some(fields) = &volume.downward_api {
        let at = format!("{at}.downwardAPI");
        check_mode(fields.default_mode, &format!("{at}.defaultMode"), findings);
        check_downward(fields.items.as_deref(), spec, &at, findings);
    }
    if let Some(projected) = &volume.projected {
        check_projected(projected, spec, &format!("{at}.projected"), findings);
    }
    if let Some(image) = &volume.image {
        check_image(image, &format!("{at}.image"), findings);
    }
}

fn check_image(image: &ImageVolumeSource, at: &str, findings: &mut Findings) {
    let field = format!("{at}.reference");
    match image.reference.as_deref().unwrap_or("") {
        "" => findings.required(field, ""),
        name if name.trim() != name => {
            findings.invalid(field, name, "must not have leading or trailing whitespace");
        }
        _ => {}
    }
    let policy = image.pull_policy.as_deref();
    findings.one_of(format!("{at}.pullPolicy"), policy, PULL_POLICIES);
}

fn check_projected(
    projected: &ProjectedVolumeSource,
    spec: &PodSpec,
    at: &str,
    findings: &mut Findings,
) {
    check_mode(
        projected.default_mode,
        &format!("{at}.defaultMode"),
        findings,
    );
    let mut paths = HashSet::new();
    for (i, source) in projected.sources.iter().flatten().enumerate() {
        let at = format!("{at}.sources[{i}]");
        let kinds = [
            source.config_map.is_some(),
            source.secret.is_some(),
            source.downward_api.is_some(),
        ];
        match kinds.iter().filter(|is_set| **is_set).count() {
            0 => findings.required(at.clone(), "must specify one of the sources"),
            1 => {}
            _ => findings.forbidden(at.clone(), "may not specify more than 1 volume type"),
        }
        let mut check_paths = |given: Vec<&str>, at: &str, findings: &mut Findings| {
            for (i, path) in given.into_iter().enumerate() {
                if !path.is_empty() && !paths.insert(path.to_owned()) {
                    let why = "conflicting duplicate paths";
                    findings.invalid(format!("{at}.items[{i}].path"), path, why);
                }
            }
        };
        if let Some(map) = &source.config_map {
            let at = format!("{at}.configMap");
            check_object(&map.name, &at, findings);
            check_items(map.items.as_deref(), &at, findings);
            check_paths(item_paths(map.items.as_deref()), &at, findings);
        }
        if let Some(secret) = &source.secret {
            let at = format!("{at}.secret");
            check_object(&secret.name, &at, findings);
            check_items(secret.items.as_deref(), &at, findings);
            check_paths(item_paths(secret.items.as_deref()), &at, findings);
        }
        if let Some(fields) = &source.downward_api {
            let at = format!("{at}.downwardAPI");
            check_downward(fields.items.as_deref(), spec, &at, findings);
            let items = fields.items.iter().flatten();
            check_paths(
                items.map(|item| item.path.as_str()).collect(),
                &at,
                findings,
            );
        }
    }
}

fn item_paths(items: Option<&[KeyToPath]>) -> Vec<&str> {
    let items = items.unwrap_or_default().iter();
    items.map(|item| item.path.as_str()).collect()
}

fn check_items(items: Option<&[KeyToPath]>, at: &str, findings: &mut Findings) {
    for (i, item) in items.into_iter().flatten().enumerate() {
        let at = format!("{at}.items[{i}]");
        if item.key.is_empty() {
            findings.required(format!("{at}.key"), "");
        }
        check_path(&item.path, &format!("{at}.path"), findings);
        check_mode(item.mode, &format!("{at}.mode"), findings);
    }
}

fn check_downward(
    items: Option<&[DownwardAPIVolumeFile]>,
    spec: &PodSpec,
    at: &str,
    findings: &mut Findings,
) {
    for (i, item) in items.into_iter().flatten().enumerate() {
        let at = format!("{at}.items[{i}]");
        check_path(&item.path, &format!("{at}.path"), findings);
        check_mode(item.mode, &format!("{at}.mode"), findings);
        match (&item.field_ref, &item.resource_field_ref) {
            (None, None) => {
                findings.required(at, "one of fieldRef and resourceFieldRef is required");
            }
            (Some(_), Some(_)) => {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                findings.invalid(at, "resource", why);
            }
            (Some(field), None) => check_field(field, FIELDS, &format!("{at}.fieldRef"), findings),
            (None, Some(resource)) => {
                let at = format!("{at}.resourceFieldRef");
                let field = format!("{at}.containerName");
                let init = spec.init_containers.iter().flatten();
                let mut all = init.chain(&spec.containers);
                match resource.container_name.as_deref().unwrap_or("") {
                    "" => findings.required(field, ""),
                    name if !all.any(|container| container.name == name) => {
                        findings.not_found(field, name);
                    }
                    _ => {}
                }
                check_resource(resource, &at, findings);
            }
        }
    }
}

fn check_mode(mode: Option<i32>, field: &str, findings: &mut Findings) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        findings.invalid_plain(field, mode, MODES);
    }
}

/// A file's path in a volume: relative, and not orlop's own.
fn check_path(path: &str, field: &str, findings: &mut Findings) {
    if path.is_empty() {
        return findings.required(field, "");
    }
    if path.starts_with('/') {
        return findings.invalid(field, path, "must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        return findings.invalid(field, path, "must not contain '..'");
    }
    if path.starts_with("..") {
        return findings.invalid(field, path, "must not start with '..'");
    }
    if path.split('/').any(|part| matches!(part, "" | ".")) {
        let why = "must have a name between any two slashes, and no '.'";
        return findings.invalid(field, path, why);
    }
    if path.len() >= PATH_MAX {
        return findings.too_long(field, PATH_MAX - 1);
    }
    if path.split('/').any(|part| part.len() > NAME_MAX) {
        findings.invalid(field, path, "must have names of 255 bytes at most");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn said(volume: Value) -> String {
        let spec = json!({"containers": [{"name": "c"}]});
        let spec: PodSpec = serde_json::from_value(spec).expect("a spec");
        let mut volume = volume;
        volume["name"] = json!("v");
        let volume: Volume = serde_json::from_value(volume).expect("a volume");
        let mut findings = Findings::default();
        check(&volume, &spec, "volumes[0]", &mut findings);
        let lines: Vec<String> = findings.0.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn paths_and_modes_of_files_are_checked() {
        let item = |item: Value| json!({"configMap": {"name": "m", "items": [item]}});
        let long = "x".repeat(256);
        for (volume, want) in [
            (
                item(json!({"key": "k", "path": "../x"})),
                "items[0].path: Invalid value: \"../x\": must not contain '..'",
            ),
            (
                item(json!({"key": "k", "path": "a/../x"})),
                "must not contain '..'",
            ),
            (
                item(json!({"key": "k", "path": "..x"})),
                "must not start with '..'",
            ),
            (
                item(json!({"key": "k", "path": "/x"})),
                "must be a relative path",
            ),
            (
                item(json!({"key": "k", "path": "a//b"})),
                "a name between any two slashes",
            ),
            (
                item(json!({"key": "k", "path": ""})),
                "items[0].path: Required value",
            ),
            (
                item(json!({"key": "", "path": "p"})),
                "items[0].key: Required value",
            ),
            (
                item(json!({"key": "k", "path": long})),
                "names of 255 bytes at most",
            ),
            (
                item(json!({"key": "k", "path": "p", "mode": 512})),
                "items[0].mode: Invalid value: 512",
            ),
            (
                json!({"configMap": {"name": "m", "defaultMode": -1}}),
                "configMap.defaultMode: Invalid value: -1",
            ),
            (
                json!({"configMap": {"name": "M!"}}),
                "configMap.name: Invalid value",
            ),
            (
                json!({"configMap": {"name": ""}}),
                "configMap.name: Required value",
            ),
            (json!({"secret": {}}), "secret.secretName: Required value"),
            (json!({"image": {}}), "image.reference: Required value"),
            (
                json!({"image": {"reference": "a", "pullPolicy": "Often"}}),
                "image.pullPolicy: Unsupported value",
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "p"}]}}),
                "one of fieldRef and resourceFieldRef is required",
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "spec.nodeName"}}]}}),
                "fieldRef.fieldPath: Unsupported value: \"spec.nodeName\"",
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"containerName": "d", "resource": "limits.cpu"}}]}}),
                "resourceFieldRef.containerName: Not found: \"d\"",
            ),
            (
                json!({"downwardAPI": {"items": [{"path": "p", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "7"}}]}}),
                "resourceFieldRef.divisor: Invalid value: \"7\": must be one of 1m, 1",
            ),
        ] {
            let found = said(volume);
            assert!(
                found.contains(want) && found.lines().count() == 1,
                "{want}: {found}"
            );
        }
    }

    #[test]
    fn two_sources_of_a_projected_volume_have_no_path_in_common() {
        let map = json!({"configMap": {"name": "m", "items": [{"key": "k", "path": "a/b"}]}});
        let secret = json!({"secret": {"name": "s", "items": [{"key": "k", "path": "a/b"}]}});
        let found = said(json!({"projected": {"sources": [map, secret]}}));
        assert_eq!(
            found,
            "volumes[0].projected.sources[1].secret.items[0].path: Invalid value: \"a/b\": conflicting duplicate paths"
        );
        let found = said(json!({"projected": {"sources": [{}]}}));
        assert!(found.contains("sources[0]: Required value"), "{found}");
    }
}
