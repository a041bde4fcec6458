//! From untyped values to the API's types, with errors that name the field.

use super::error::{Problem, quote};
use super::field::entry;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// Decodes `value`; fields that the type does not know pass (see
/// [`super::strict`] for those).
pub(super) fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (field, culprit) = locate(error.path(), value);
        explain(field, culprit, &error.inner().to_string())
    })
}

/// The culprit's path in words and the value that stands there.
fn locate<'v>(path: &Path, root: &'v Value) -> (String, &'v Value) {
    let mut field = String::new();
    let mut value = root;
    for segment in path {
        let next = match segment {
            Segment::Seq { index } => {
                field.push_str(&format!("[{index}]"));
                value.get(index)
            }
            Segment::Map { key } => {
                field = child(&field, key);
                value.get(key)
            }
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
    }
    (field, value)
}

/// `parent.key`, or `parent[key]` for a key that is not a field's name.
pub(super) fn child(parent: &str, key: &str) -> String {
    let plain = key.len() <= 64 && key.bytes().all(|b| b.is_ascii_alphanumeric());
    match (plain, parent) {
        (true, "") => key.to_owned(),
        (true, _) => format!("{parent}.{key}"),
        (false, _) => entry(parent, key),
    }
}

fn explain(field: String, culprit: &Value, message: &str) -> Problem {
    let found = describe(culprit);
    let Some((_, expected)) = message.rsplit_once(", expected ") else {
        let reason = quote(message);
        return Problem::Value { field, reason };
    };
    let expected = match expected {
        "i32" => "a whole number from -2147483648 to 2147483647".to_owned(),
        "i64" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        "Quantity" => "a quantity such as 100m or 1Gi".to_owned(),
        "a string" if culprit.is_number() || culprit.is_boolean() => {
            "a string (put it in quotation marks)".to_owned()
        }
        "a string" => "a string".to_owned(),
        "IntOrString" | "a 32-bit integer" => "a whole number or a string".to_owned(),
        "Time" | "MicroTime" => "a time such as 2026-01-31T12:00:00Z".to_owned(),
        kind if kind.starts_with(|c: char| c.is_ascii_uppercase()) => {
            format!("a mapping ({kind})")
        }
        other => other.to_owned(),
    };
    Problem::Type {
        field,
        expected,
        found,
    }
}

/// What a value is, as sentences name it.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {}", quote(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    #[test]
    fn a_wrong_type_names_the_field_and_what_it_takes() {
        let container = |fields: Value| json!({"spec": {"containers": [{"name": "a"}, fields]}});
        for (pod, want) in [
            (
                container(json!({"image": 5})),
                "spec.containers[1].image: expected a string (put it in quotation marks), found the number 5",
            ),
            (
                container(json!({"args": "sleep"})),
                "spec.containers[1].args: expected a list, found the string \"sleep\"",
            ),
            (
                container(json!({"args": ["sleep", null]})),
                "spec.containers[1].args[1]: expected a string, found nothing",
            ),
            (
                container(json!({"tty": "yes"})),
                "spec.containers[1].tty: expected true or false, found the string \"yes\"",
            ),
            (
                container(Value::Null),
                "spec.containers[1]: expected a mapping (Container), found nothing",
            ),
            (
                container(json!({"resources": {"limits": {"cpu": []}}})),
                "spec.containers[1].resources.limits.cpu: expected a quantity such as 100m or 1Gi, found a list",
            ),
            (
                container(json!({"ports": [{"containerPort": 99_999_999_999_i64}]})),
                "spec.containers[1].ports[0].containerPort: expected a whole number from -2147483648 to 2147483647, found the number 99999999999",
            ),
            (
                json!({"spec": []}),
                "spec: expected a mapping (PodSpec), found a list",
            ),
            (
                json!({"metadata": {"labels": {"example.com/x": 1}}}),
                "metadata.labels[example.com/x]: expected a string (put it in quotation marks), found the number 1",
            ),
            (
                json!({"spec": {"terminationGracePeriodSeconds": "soon, expected i64"}}),
                "spec.terminationGracePeriodSeconds: expected a whole number, found the string \"soon, expected i64\"",
            ),
        ] {
            let problem = decode::<Pod>(&pod).expect_err(want);
            assert_eq!(problem.to_string(), want);
        }
    }
}
