//! ConfigMaps and Secrets: from an untyped value to an object that is complete
//! and valid.

use super::decode::decode;
use super::error::{Problem, quote};
use super::field::{FieldError, entry};
use super::{defaults, strict, supported, validate};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

/// The type of a Secret that names none.
const OPAQUE: &str = "Opaque";

/// The ConfigMap that `value` is; `settle` puts it into its namespace.
pub(super) fn config_map(
    value: &Value,
    settle: impl FnOnce(&mut ObjectMeta) -> Result<(), Problem>,
) -> Result<ConfigMap, Problem> {
    strict::refuse_nul(&without_data(value, "data"))?;
    refuse_bad_base64(value, "binaryData", "")?;
    let mut map: ConfigMap = decode(value)?;
    check_fields("ConfigMap", value, &map)?;
    settle(&mut map.metadata)?;
    defaults::namespace(&mut map.metadata);
    let findings = validate::config_map(&map);
    finish("ConfigMap", map.metadata.name.clone(), findings)?;
    Ok(map)
}

/// The Secret that `value` is, its `stringData` moved into `data`.
pub(super) fn secret(
    value: &Value,
    settle: impl FnOnce(&mut ObjectMeta) -> Result<(), Problem>,
) -> Result<Secret, Problem> {
    strict::refuse_nul(&without_data(value, "stringData"))?;
    refuse_bad_base64(value, "data", ", or put plain text under stringData")?;
    let mut secret: Secret = decode(value)?;
    check_fields("Secret", value, &secret)?;
    settle(&mut secret.metadata)?;
    defaults::namespace(&mut secret.metadata);
    if secret.type_.as_deref().unwrap_or("").is_empty() {
        secret.type_ = Some(OPAQUE.to_owned());
    }
    if let Some(texts) = secret.string_data.take() {
        let bytes = texts
            .into_iter()
            .map(|(key, text)| (key, ByteString(text.into_bytes())));
        secret.data.get_or_insert_default().extend(bytes);
    }
    let findings = validate::secret(&secret);
    finish("Secret", secret.metadata.name.clone(), findings)?;
    Ok(secret)
}

fn check_fields(kind: &str, value: &Value, object: &impl Serialize) -> Result<(), Problem> {
    let understood =
        serde_json::to_value(object).map_err(|error| Problem::Syntax(quote(&error.to_string())))?;
    strict::check(kind, value, &understood)?;
    supported::check_configuration(kind, value)
}

fn finish(
    kind: &'static str,
    name: Option<String>,
    findings: Vec<FieldError>,
) -> Result<(), Problem> {
    match findings.is_empty() {
        true => Ok(()),
        false => Err(Problem::Invalid {
            kind,
            name: name.unwrap_or_default(),
            findings,
        }),
    }
}

/// The value without the texts in `field`, which become files and may hold
/// whatever they like; its keys stay.
fn without_data(value: &Value, field: &str) -> Value {
    let mut value = value.clone();
    if let Some(Value::Object(texts)) = value.get_mut(field) {
        for text in texts.values_mut() {
            *text = Value::Null;
        }
    }
    value
}

/// Says which entry of `field` is not base64; its content is not shown.
fn refuse_bad_base64(value: &Value, field: &str, hint: &str) -> Result<(), Problem> {
    let entries = value.get(field).and_then(Value::as_object);
    for (key, text) in entries.into_iter().flatten() {
        let bad = text.is_string() && decode::<ByteString>(text).is_err();
        if bad || !(text.is_string() || text.is_null()) {
            return Err(Problem::Value {
                field: entry(field, key),
                reason: format!(
                    "the value must be a string of base64 (RFC 4648, section 4): encode it with `base64 -w0`{hint}"
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(kind: &str, fields: Value) -> Value {
        let mut value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "x"}});
        for (key, field) in fields.as_object().expect("fields") {
            value[key] = field.clone();
        }
        value
    }

    fn map(fields: Value) -> Result<ConfigMap, String> {
        let value = object("ConfigMap", fields);
        config_map(&value, |_| Ok(())).map_err(|problem| problem.to_string())
    }

    fn made(fields: Value) -> Result<Secret, String> {
        let value = object("Secret", fields);
        secret(&value, |_| Ok(())).map_err(|problem| problem.to_string())
    }

    #[test]
    fn plain_text_wins_over_what_is_encoded() {
        let secret = made(json!({
            "data": {"user": "YWRtaW4=", "other": "eA=="},
            "stringData": {"user": "root"},
        }))
        .expect("a secret");
        assert_eq!(secret.type_.as_deref(), Some("Opaque"));
        assert_eq!(secret.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(secret.string_data, None);
        let data = secret.data.expect("data");
        assert_eq!(data["user"].0, b"root");
        assert_eq!(data["other"].0, b"x");
    }

    #[test]
    fn keys_are_file_names_that_lead_nowhere() {
        let long = "k".repeat(254);
        for (key, why) in [
            ("..", "must not be '..'"),
            (".", "must not be '.'"),
            ("..data", "must not start with '..'"),
            ("../x", "a valid config key must consist of"),
            ("a/b", "a valid config key must consist of"),
            ("", "a valid config key must consist of"),
            ("a b", "a valid config key must consist of"),
            (&long, "must be no more than 253 bytes"),
        ] {
            for field in ["data", "binaryData"] {
                let said = map(json!({field: {key: "eA=="}})).expect_err(key);
                assert!(said.contains(why) && said.contains(field), "{said}");
            }
            let said = made(json!({"stringData": {key: "x"}})).expect_err(key);
            assert!(said.contains(why), "{said}");
        }
        let said = map(json!({"data": {"a\0b": "x"}})).expect_err("a NUL");
        assert!(said.contains("NUL"), "{said}");
        for good in ["a", "A_b-c.d", ".hidden", "0", "a..b"] {
            map(json!({"data": {good: "x"}})).expect(good);
        }
    }

    #[test]
    fn a_text_may_have_any_character() {
        let map = map(json!({"data": {"a": "x\0y"}})).expect("a map");
        assert_eq!(map.data.expect("data")["a"], "x\0y");
    }

    #[test]
    fn what_is_no_base64_is_refused_and_not_shown() {
        let said = made(json!({"data": {"password": "hunter2!"}})).expect_err("no base64");
        assert!(
            said.starts_with("data[password]: the value must be a string of base64"),
            "{said}"
        );
        assert!(
            said.contains("stringData") && !said.contains("hunter2"),
            "{said}"
        );
        let said = made(json!({"data": {"pin": 12345}})).expect_err("a number");
        assert!(
            said.contains("data[pin]") && !said.contains("12345"),
            "{said}"
        );
        let said = map(json!({"binaryData": {"a": "%%"}})).expect_err("no base64");
        assert!(said.contains("binaryData[a]"), "{said}");
    }

    #[test]
    fn a_key_has_one_value_and_all_of_them_a_mebibyte() {
        let said =
            map(json!({"data": {"a": "x"}, "binaryData": {"a": "eA=="}})).expect_err("twice");
        assert!(
            said.contains("binaryData: Invalid value: \"a\": duplicate of key present in data"),
            "{said}"
        );
        let half = "x".repeat(512 << 10);
        map(json!({"data": {"a": half, "b": half}})).expect("just enough");
        let said = map(json!({"data": {"a": half, "b": half, "c": "x"}})).expect_err("too much");
        assert!(
            said.contains("data: Too long: may not be more than 1048576 bytes"),
            "{said}"
        );
        let said =
            made(json!({"stringData": {"a": half, "b": half, "c": "x"}})).expect_err("too much");
        assert!(said.contains("1048576"), "{said}");
    }

    #[test]
    fn fields_that_are_not_there_are_named() {
        let said = map(json!({"dta": {"a": "x"}})).expect_err("unknown");
        assert!(
            said.contains("unknown field \"dta\" (did you mean \"data\"?)"),
            "{said}"
        );
        map(json!({"data": null, "immutable": null})).expect("known fields without values");
        let said = map(json!({"metadata": {"name": "x", "finalizers": ["a/b"]}})).expect_err("no");
        assert!(said.contains("metadata.finalizers"), "{said}");
    }

    #[test]
    fn each_type_of_secret_has_its_keys() {
        let config = "eyJhdXRocyI6e319"; // {"auths":{}}
        for (type_, good, missing) in [
            (
                "kubernetes.io/dockerconfigjson",
                json!({".dockerconfigjson": config}),
                "data[.dockerconfigjson]: Required value",
            ),
            (
                "kubernetes.io/dockercfg",
                json!({".dockercfg": config}),
                "data[.dockercfg]: Required value",
            ),
            (
                "kubernetes.io/basic-auth",
                json!({"password": config}),
                "data[username]: Required value",
            ),
            (
                "kubernetes.io/ssh-auth",
                json!({"ssh-privatekey": config}),
                "data[ssh-privatekey]: Required value",
            ),
            (
                "kubernetes.io/tls",
                json!({"tls.crt": config, "tls.key": config}),
                "data[tls.crt]: Required value",
            ),
        ] {
            made(json!({"type": type_, "data": good})).expect(type_);
            let said = made(json!({"type": type_})).expect_err(type_);
            assert!(said.contains(missing), "{type_}: {said}");
        }
        let bad = json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{oops"}});
        let said = made(bad).expect_err("no JSON");
        assert!(
            said.contains("<secret contents redacted>") && !said.contains("oops"),
            "{said}"
        );
        made(json!({"type": "example.com/own", "stringData": {"a": "b"}})).expect("any type");
        let token = json!({"type": "kubernetes.io/service-account-token"});
        let said = made(token).expect_err("no account");
        assert!(
            said.contains("metadata.annotations[kubernetes.io/service-account.name]"),
            "{said}"
        );
    }
}
