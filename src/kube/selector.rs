//! Selectors: which objects a command means, by their labels (`-l`) or by some
//! of their fields (`--field-selector`)
//! (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>,
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/>).

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::Value;

use super::validate::names;

/// Requirements on labels, all of which must hold; none: every object is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Greater(i64),
    Less(i64),
}

impl LabelSelector {
    /// Whether an object with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let label = |key: &str| labels.and_then(|labels| labels.get(key));
        self.0.iter().all(|Requirement { key, test }| {
            let value = label(key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match test {
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Greater(limit) => number().is_some_and(|number| number > *limit),
                Test::Less(limit) => number().is_some_and(|number| number < *limit),
            }
        })
    }
}

impl From<&meta::LabelSelector> for LabelSelector {
    /// The selector of a valid object; an operator that does not exist selects nothing.
    fn from(declared: &meta::LabelSelector) -> Self {
        let equal = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            test: Test::In(BTreeSet::from([value.clone()])),
        };
        let labels = declared.match_labels.iter().flatten().map(equal);
        let expressions = declared.match_expressions.iter().flatten().map(|one| {
            let values = || one.values.iter().flatten().cloned().collect();
            Requirement {
                key: one.key.clone(),
                test: match one.operator.as_str() {
                    "In" => Test::In(values()),
                    "NotIn" => Test::NotIn(values()),
                    "Exists" => Test::Exists,
                    "DoesNotExist" => Test::Absent,
                    _ => Test::In(BTreeSet::new()),
                },
            }
        });
        Self(labels.chain(expressions).collect())
    }
}

impl FromStr for LabelSelector {
    type Err = String;

    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>5`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for part in parts(text) {
            let part = part.trim();
            if part.is_empty() && text.trim().is_empty() {
                continue;
            }
            let requirement = requirement(part)
                .map_err(|why| format!("unable to parse requirement: {why} in {text:?}"))?;
            requirements.push(requirement);
        }
        Ok(Self(requirements))
    }
}

/// The requirements, which commas outside of parentheses keep apart.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn requirement(text: &str) -> Result<Requirement, String> {
    if let Some(key) = text.strip_prefix('!') {
        return new(key.trim(), Test::Absent);
    }
    type Read = fn(&str) -> Result<Test, String>;
    let operators: [(&str, Read); 5] = [
        ("!=", |value| Ok(Test::NotIn(one(value)?))),
        ("==", |value| Ok(Test::In(one(value)?))),
        ("=", |value| Ok(Test::In(one(value)?))),
        (">", |value| Ok(Test::Greater(number(value)?))),
        ("<", |value| Ok(Test::Less(number(value)?))),
    ];
    for (operator, test) in operators {
        if let Some((key, value)) = text.split_once(operator) {
            return new(key.trim(), test(value.trim())?);
        }
    }
    let Some((key, rest)) = text.split_once(char::is_whitespace) else {
        return new(text, Test::Exists);
    };
    let rest = rest.trim_start();
    let set = |list: &str| -> Result<BTreeSet<String>, String> {
        let list = list.trim();
        let inner = list
            .strip_prefix('(')
            .and_then(|list| list.strip_suffix(')'));
        let inner =
            inner.ok_or_else(|| format!("found {list:?}, expected a list such as (a,b)"))?;
        let values: Vec<&str> = inner.split(',').map(str::trim).collect();
        values.into_iter().map(value).collect()
    };
    if let Some(list) = rest.strip_prefix("notin") {
        new(key, Test::NotIn(set(list)?))
    } else if let Some(list) = rest.strip_prefix("in") {
        new(key, Test::In(set(list)?))
    } else {
        Err(format!(
            "found {rest:?}, expected: in, notin, =, ==, !=, <, >"
        ))
    }
}

fn new(key: &str, test: Test) -> Result<Requirement, String> {
    names::qualified(key).map_err(|why| format!("invalid label key {key:?}: {why}"))?;
    Ok(Requirement {
        key: key.to_owned(),
        test,
    })
}

fn one(text: &str) -> Result<BTreeSet<String>, String> {
    Ok(BTreeSet::from([value(text)?]))
}

fn value(text: &str) -> Result<String, String> {
    names::label_value(text).map_err(|why| format!("invalid label value {text:?}: {why}"))?;
    Ok(text.to_owned())
}

fn number(text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no whole number, which < and > take"))
}

/// The fields of a pod that a field selector may name.
pub const POD_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

/// The fields of other kinds of objects that a field selector may name.
pub const COMMON_FIELDS: &[&str] = &["metadata.name", "metadata.namespace"];

/// Requirements on fields, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    /// Whether `object` is meant. A field that is not set is empty.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, equal, wanted)| {
            let found = path.split('.').fold(object, |value, name| &value[name]);
            let found = match found {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            (found == *wanted) == *equal
        })
    }

    /// The first field of the selector that is not among those `known`.
    #[must_use]
    pub fn unknown(&self, known: &[&str]) -> Option<&str> {
        let mut fields = self.0.iter().map(|(path, ..)| path.as_str());
        fields.find(|field| !known.contains(field))
    }

    /// True when it requires nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for FieldSelector {
    type Err = String;

    /// Reads `metadata.name=web,status.phase!=Running`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let requirement = |part: &str| {
            let operators = [("!=", false), ("==", true), ("=", true)];
            let found = operators
                .iter()
                .find_map(|(operator, equal)| Some((part.split_once(operator)?, *equal)));
            let ((path, value), equal) = found
                .ok_or_else(|| format!("invalid selector: {text:?}; can't understand {part:?}"))?;
            Ok((path.trim().to_owned(), equal, value.trim().to_owned()))
        };
        Ok(Self(parts.map(requirement).collect::<Result<_, String>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<String, String> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let selector: LabelSelector = selector.parse().expect(selector);
        selector.matches(Some(&labels))
    }

    #[test]
    fn labels_are_selected_by_equality_and_by_sets() {
        let web = [("app", "web"), ("tier", "front"), ("size", "7")];
        for selector in [
            "",
            "app=web",
            "app==web",
            "app = web",
            "app!=db",
            "app in (db, web)",
            "app notin (db)",
            "app",
            "!other",
            "other!=x",
            "other notin (x)",
            "app=web,tier in (front,back),!x",
            "size>6",
            "size<8",
            "tier in (front),app",
        ] {
            assert!(matches(selector, &web), "{selector}");
        }
        for selector in [
            "app=db",
            "app!=web",
            "app in (db)",
            "app notin (web,db)",
            "!app",
            "other",
            "other=x",
            "app=web,tier=back",
            "size>7",
            "app>1",
            "other in (x)",
            "app=",
        ] {
            assert!(!matches(selector, &web), "{selector}");
        }
        assert!("".parse::<LabelSelector>().expect("empty").matches(None));
    }

    #[test]
    fn what_is_no_selector_is_named() {
        for (selector, why) in [
            ("app=web,,tier", "invalid label key \"\""),
            ("app in web", "expected a list"),
            ("app within (web)", "expected: in, notin"),
            ("app=we b", "invalid label value \"we b\""),
            ("size>big", "no whole number"),
            ("=x", "invalid label key"),
        ] {
            let error = selector.parse::<LabelSelector>().expect_err(selector);
            assert!(error.contains(why), "{selector}: {error}");
        }
    }

    #[test]
    fn fields_are_compared_as_text() {
        let pod = json!({"metadata": {"name": "web"}, "spec": {"hostNetwork": true},
                         "status": {"phase": "Running"}});
        let matches = |text: &str| text.parse::<FieldSelector>().expect(text).matches(&pod);
        assert!(matches("metadata.name=web,status.phase==Running"));
        assert!(matches(
            "status.phase!=Failed,spec.hostNetwork=true,status.podIP="
        ));
        assert!(!matches("metadata.name=db"));
        let unknown: FieldSelector = "metadata.name=web,spec.x=1".parse().expect("a selector");
        assert_eq!(unknown.unknown(POD_FIELDS), Some("spec.x"));
        assert!("status.phase".parse::<FieldSelector>().is_err());
    }
}
