//! Nothing is ignored in silence: keys that the API does not know, and
//! characters that no path, argument or variable can have.

use super::decode::child;
use super::error::Problem;
use super::near::{hint, nearest};
use super::supported::Group;
use serde_json::{Map, Value};

/// Compares a manifest with what was understood of it.
///
/// `at` is where the object stands in the table of fields: empty for a pod, the
/// kind for others. `given` is the value as it was read, `understood` the decoded
/// object written back. A key that is set in the one and missing in the other is none that
/// the API knows.
///
/// # Errors
/// [`Problem::Strict`] with every unknown field.
pub(super) fn check(at: &str, given: &Value, understood: &Value) -> Result<(), Problem> {
    let mut unknown = Vec::new();
    let root = Path {
        shown: String::new(),
        pattern: at.to_owned(),
    };
    compare(given, understood, &root, &mut unknown);
    match unknown.is_empty() {
        true => Ok(()),
        false => Err(Problem::Strict(unknown)),
    }
}

/// Refuses NUL characters, which YAML can write (`"\0"`) and the kernel can't
/// take in any name, path, argument or variable.
///
/// # Errors
/// [`Problem::Value`] for the first string or key that has one.
pub(super) fn refuse_nul(value: &Value) -> Result<(), Problem> {
    match nul_in(value) {
        None => Ok(()),
        Some(steps) => Err(Problem::Value {
            field: steps.iter().rev().fold(String::new(), Step::below),
            reason: "must not contain a NUL character".to_owned(),
        }),
    }
}

/// One step from a value to a value inside it.
enum Step<'v> {
    Key(&'v str),
    Index(usize),
}

impl Step<'_> {
    fn below(parent: String, step: &Self) -> String {
        match step {
            Self::Key(key) => child(&parent, key),
            Self::Index(index) => format!("{parent}[{index}]"),
        }
    }
}

/// Where the comparison is: as sentences name it, and as the table of fields
/// does, without indices.
struct Path {
    shown: String,
    pattern: String,
}

impl Path {
    fn key(&self, key: &str) -> Self {
        let dot = if self.pattern.is_empty() { "" } else { "." };
        Self {
            shown: child(&self.shown, key),
            pattern: format!("{}{dot}{key}", self.pattern),
        }
    }

    fn index(&self, index: usize) -> Self {
        Self {
            shown: format!("{}[{index}]", self.shown),
            pattern: format!("{}[]", self.pattern),
        }
    }
}

fn compare(given: &Value, understood: &Value, path: &Path, unknown: &mut Vec<String>) {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            compare_fields(given, understood, path, unknown);
        }
        (Value::Array(given), Value::Array(understood)) => {
            for (i, (given, understood)) in given.iter().zip(understood).enumerate() {
                compare(given, understood, &path.index(i), unknown);
            }
        }
        _ => {}
    }
}

fn compare_fields(
    given: &Map<String, Value>,
    understood: &Map<String, Value>,
    path: &Path,
    unknown: &mut Vec<String>,
) {
    for (key, value) in given {
        let here = path.key(key);
        match understood.get(key) {
            Some(understood) => compare(value, understood, &here, unknown),
            None if value.is_null() && is_known(path, key) => {}
            None => unknown.push(format!(
                "unknown field \"{}\"{}",
                here.shown,
                hint(suggestion(path, key, given))
            )),
        }
    }
}

/// A key without a value leaves no trace in what was understood. It passes
/// when the table knows it, or knows nothing of the place.
fn is_known(path: &Path, key: &str) -> bool {
    Group::at(&path.pattern).is_none_or(|group| group.fields().any(|field| field == key))
}

/// The nearest field that the place has and the manifest doesn't set.
fn suggestion(path: &Path, key: &str, given: &Map<String, Value>) -> Option<&'static str> {
    let fields = Group::at(&path.pattern)?.fields();
    nearest(key, fields.filter(|field| !given.contains_key(*field)))
}

/// The way to the first NUL character, innermost step first.
fn nul_in(value: &Value) -> Option<Vec<Step<'_>>> {
    let (step, mut steps) = match value {
        Value::String(text) => return text.contains('\0').then(Vec::new),
        Value::Array(items) => {
            let mut found = items.iter().map(nul_in).enumerate();
            found.find_map(|(i, steps)| Some((Step::Index(i), steps?)))?
        }
        Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            let steps = match key.contains('\0') {
                true => Some(Vec::new()),
                false => nul_in(value),
            };
            Some((Step::Key(key), steps?))
        })?,
        Value::Null | Value::Bool(_) | Value::Number(_) => return None,
    };
    steps.push(step);
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn checked(given: Value) -> Result<(), String> {
        let pod: Pod = serde_json::from_value(given.clone()).expect("a pod");
        let understood = serde_json::to_value(pod).expect("a value");
        check("", &given, &understood).map_err(|problem| problem.to_string())
    }

    #[test]
    fn unknown_fields_are_named_with_the_field_that_was_meant() {
        let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
        for (given, want) in [
            (
                pod(json!({"containers": [{"name": "a", "imagee": "b"}]})),
                "strict decoding error: unknown field \"spec.containers[0].imagee\" (did you mean \"image\"?)",
            ),
            (
                pod(json!({"containers": [{"name": "a", "image": "b", "imagee": null}]})),
                "strict decoding error: unknown field \"spec.containers[0].imagee\"",
            ),
            (
                pod(json!({"restartpolicy": "Never", "volumes": [{"emptydir": {}}]})),
                "strict decoding error: unknown field \"spec.restartpolicy\" (did you mean \"restartPolicy\"?), \
                 unknown field \"spec.volumes[0].emptydir\" (did you mean \"emptyDir\"?)",
            ),
            (
                pod(json!({"affinity": {"nodeAfinity": {"x": 1}}})),
                "strict decoding error: unknown field \"spec.affinity.nodeAfinity\"",
            ),
            (
                json!({"specs": {}}),
                "strict decoding error: unknown field \"specs\" (did you mean \"spec\"?)",
            ),
        ] {
            assert_eq!(checked(given), Err(want.to_owned()));
        }
    }

    #[test]
    fn known_fields_pass_with_and_without_values() {
        let given = json!({
            "apiVersion": "v1", "kind": "Pod", "status": {},
            "metadata": {"name": "p", "creationTimestamp": null, "labels": {"any.thing/goes": "here", "a": ""}},
            "spec": {
                "containers": [{"name": "a", "resources": {}, "args": [], "command": null, "stdin": false}],
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": null}],
                "nodeSelector": {}, "affinity": {"nodeAffinity": null}
            }
        });
        assert_eq!(checked(given), Ok(()));
    }

    #[test]
    fn a_nul_character_is_refused_wherever_it_hides() {
        let given = json!({"spec": {"containers": [{"args": ["a", "b\0c"]}]}});
        let problem = refuse_nul(&given).expect_err("a NUL").to_string();
        assert_eq!(
            problem,
            "spec.containers[0].args[1]: must not contain a NUL character"
        );
        assert!(refuse_nul(&json!({"a\0": 1})).is_err());
        assert!(refuse_nul(&json!({"a": ["\\0"]})).is_ok());
    }
}
