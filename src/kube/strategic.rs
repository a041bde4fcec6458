//! Strategic merge patches: like merge patches (RFC 7386), but lists of objects
//! are merged by the key that tells their items apart, and directives say more
//! (<https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/>).

use serde_json::{Map, Value};

/// The key by which the items of a list are told apart; none for a list that is
/// replaced as a whole. By the field's name: no two lists of one name differ.
fn merge_key(field: &str) -> Option<&'static str> {
    Some(match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates" => "name",
        "ports" => "containerPort",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "ownerReferences" => "uid",
        "conditions" => "type",
        _ => return None,
    })
}

/// Applies `patch` to `object`.
///
/// # Errors
/// One sentence for a directive that is not known, or an item without its key.
pub fn apply(object: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Object(patch) = patch else {
        return Err("a strategic merge patch must be a mapping".to_owned());
    };
    let mut fields = match object.take() {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let merged = merge_fields(&mut fields, patch);
    *object = Value::Object(fields);
    merged
}

fn merge_fields(fields: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), String> {
    match patch.get("$patch").map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => {
            *fields = without_directives(patch);
            return Ok(());
        }
        Some(Some("delete")) => {
            fields.clear();
            return Ok(());
        }
        Some(other) => return Err(unknown(other)),
    }
    for (name, value) in patch {
        if let Some(field) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let (Some(Value::Array(items)), Value::Array(gone)) = (fields.get_mut(field), value)
            else {
                continue;
            };
            items.retain(|item| !gone.contains(item));
        }
        if name.starts_with('$') {
            continue;
        }
        match value {
            Value::Null => {
                fields.remove(name);
            }
            Value::Object(_) => {
                let place = fields.entry(name.clone()).or_insert(Value::Null);
                apply(place, value)?;
            }
            Value::Array(items) => {
                let place = fields.entry(name.clone()).or_insert(Value::Null);
                *place = Value::Array(merge_list(name, place.take(), items)?);
            }
            plain => {
                fields.insert(name.clone(), plain.clone());
            }
        }
    }
    if let Some(Value::Array(kept)) = patch.get("$retainKeys") {
        fields.retain(|name, _| kept.iter().any(|one| one == name));
    }
    for (name, order) in patch {
        if let (Some(field), Value::Array(order)) = (name.strip_prefix("$setElementOrder/"), order)
            && let Some(Value::Array(items)) = fields.get_mut(field)
        {
            let key = merge_key(field);
            let place = |item: &Value| order.iter().position(|one| same(key, one, item));
            // What the order does not name keeps its place behind.
            items.sort_by_key(|item| place(item).unwrap_or(usize::MAX));
        }
    }
    Ok(())
}

fn merge_list(field: &str, current: Value, patch: &[Value]) -> Result<Vec<Value>, String> {
    let directive = |item: &Value| {
        item.get("$patch")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let plain = || {
        patch
            .iter()
            .filter(|item| directive(item).is_none())
            .cloned()
    };
    let Value::Array(mut items) = current else {
        return Ok(plain().collect());
    };
    if patch
        .iter()
        .any(|item| directive(item).as_deref() == Some("replace"))
    {
        return Ok(plain().collect());
    }
    if field == "finalizers" {
        for item in patch {
            if !items.contains(item) {
                items.push(item.clone());
            }
        }
        return Ok(items);
    }
    let Some(key) = merge_key(field) else {
        return Ok(patch.to_vec());
    };
    for item in patch {
        if item.get(key).is_none() {
            return Err(format!(
                "map: {item} does not contain declared merge key: {key}"
            ));
        }
        let found = items.iter().position(|one| same(Some(key), one, item));
        match (directive(item).as_deref(), found) {
            (Some("delete"), Some(at)) => {
                items.remove(at);
            }
            (Some("delete"), None) => {}
            (None | Some("merge"), Some(at)) => apply(&mut items[at], item)?,
            (None | Some("merge"), None) => {
                let new = item.as_object().map(without_directives);
                items.push(Value::Object(new.unwrap_or_default()));
            }
            (other, _) => return Err(unknown(other)),
        }
    }
    Ok(items)
}

fn same(key: Option<&str>, one: &Value, other: &Value) -> bool {
    match key {
        Some(key) => one.get(key).is_some() && one.get(key) == other.get(key),
        None => one == other,
    }
}

fn without_directives(fields: &Map<String, Value>) -> Map<String, Value> {
    let plain = fields.iter().filter(|(name, _)| !name.starts_with('$'));
    plain
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn unknown(directive: Option<&str>) -> String {
    format!(
        "unknown patch type {:?}: it is one of delete, merge, replace",
        directive.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(patch: Value) -> Result<Value, String> {
        let mut pod = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x"]},
            "spec": {
                "containers": [
                    {"name": "c", "image": "one", "env": [{"name": "E", "value": "1"}], "args": ["1", "2"]},
                    {"name": "d", "image": "two", "ports": [{"containerPort": 80}]},
                ],
                "tolerations": [{"key": "k"}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        });
        apply(&mut pod, &patch)?;
        Ok(pod)
    }

    #[test]
    fn lists_of_objects_are_merged_by_their_keys() {
        let pod = patched(json!({"spec": {"containers": [
            {"name": "d", "image": "three", "ports": [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 81}]},
            {"name": "c", "env": [{"name": "F", "value": "2"}], "args": ["3"]},
            {"name": "e", "image": "new"},
        ]}}));
        let pod = pod.expect("patched");
        let containers = &pod["spec"]["containers"];
        assert_eq!(
            containers[0],
            json!({"name": "c", "image": "one", "args": ["3"],
            "env": [{"name": "E", "value": "1"}, {"name": "F", "value": "2"}]})
        );
        assert_eq!(containers[1]["image"], "three");
        assert_eq!(
            containers[1]["ports"],
            json!([{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 81}])
        );
        assert_eq!(containers[2], json!({"name": "e", "image": "new"}));
    }

    #[test]
    fn null_takes_away_and_other_lists_are_replaced() {
        let pod = patched(json!({
            "metadata": {"labels": {"a": null, "c": "3"}, "finalizers": ["y", "x"]},
            "spec": {"tolerations": [{"key": "other"}]},
        }));
        let pod = pod.expect("patched");
        assert_eq!(pod["metadata"]["labels"], json!({"b": "2", "c": "3"}));
        assert_eq!(pod["metadata"]["finalizers"], json!(["x", "y"]));
        assert_eq!(pod["spec"]["tolerations"], json!([{"key": "other"}]));
    }

    #[test]
    fn directives_delete_replace_order_and_retain() {
        let pod = patched(json!({
            "metadata": {"labels": {"$patch": "replace", "z": "26"}, "$deleteFromPrimitiveList/finalizers": ["x"]},
            "spec": {
                "containers": [{"name": "c", "$patch": "delete"}, {"name": "e"}],
                "$setElementOrder/containers": [{"name": "e"}, {"name": "d"}],
                "volumes": [{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}],
            },
        }));
        let pod = pod.expect("patched");
        assert_eq!(
            pod["metadata"],
            json!({"labels": {"z": "26"}, "finalizers": []})
        );
        assert_eq!(pod["spec"]["containers"][0], json!({"name": "e"}));
        assert_eq!(pod["spec"]["containers"][1]["name"], "d");
        assert_eq!(
            pod["spec"]["volumes"],
            json!([{"name": "v", "hostPath": {"path": "/"}}])
        );
        let all =
            patched(json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "only"}]}}));
        assert_eq!(
            all.expect("patched")["spec"]["containers"],
            json!([{"name": "only"}])
        );
    }

    #[test]
    fn items_without_a_key_and_unknown_directives_are_refused() {
        let error = patched(json!({"spec": {"containers": [{"image": "x"}]}})).expect_err("no key");
        assert!(
            error.ends_with("does not contain declared merge key: name"),
            "{error}"
        );
        let error = patched(json!({"spec": {"$patch": "eat"}})).expect_err("unknown");
        assert!(error.contains("\"eat\""), "{error}");
        assert!(apply(&mut json!({}), &json!([1])).is_err());
    }
}
