//! What a pod brings along for the registries that its images come from
//! (<https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/>).

use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::{Value, json};

use crate::storage::store::{Store, StoreError};

/// What was found of a pod's image pull secrets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PullSecrets {
    /// Docker configurations (`{"auths": …}`), in the order in which the pod names
    /// them.
    pub configurations: Vec<String>,
    /// Names of those that are not there, or hold no such thing.
    pub missing: Vec<String>,
}

/// The image pull secrets of `pod`, as they are stored now.
///
/// # Errors
/// The store's.
pub fn of(pod: &Pod, store: &Store) -> Result<PullSecrets, StoreError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let spec = pod.spec.iter();
    let mut found = PullSecrets::default();
    for reference in spec.flat_map(|spec| spec.image_pull_secrets.iter().flatten()) {
        let secret: Option<Secret> = store.object(namespace, &reference.name)?;
        match secret.as_ref().and_then(configuration) {
            Some(configuration) => found.configurations.push(configuration),
            None => found.missing.push(reference.name.clone()),
        }
    }
    Ok(found)
}

/// A secret's docker configuration; the older type holds the part below `auths`.
fn configuration(secret: &Secret) -> Option<String> {
    let entry = |key| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        serde_json::from_slice::<Value>(bytes).ok()
    };
    let configuration = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => entry(".dockerconfigjson")?,
        Some("kubernetes.io/dockercfg") => json!({"auths": entry(".dockercfg")?}),
        _ => return None,
    };
    Some(configuration.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(type_: &str, key: &str, text: &str) -> Secret {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "type": type_,
            "data": {key: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text)},
        }))
        .expect("a secret")
    }

    #[test]
    fn both_types_give_the_same_form_and_others_none() {
        let auths = r#"{"example.org":{"auth":"dTpw"}}"#;
        let whole = format!(r#"{{"auths":{auths}}}"#);
        let new = secret(
            "kubernetes.io/dockerconfigjson",
            ".dockerconfigjson",
            &whole,
        );
        assert_eq!(configuration(&new), Some(whole.clone()));
        let old = secret("kubernetes.io/dockercfg", ".dockercfg", auths);
        assert_eq!(configuration(&old), Some(whole.clone()));
        let other = secret("Opaque", ".dockerconfigjson", &whole);
        assert_eq!(configuration(&other), None);
        let broken = secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", "{");
        assert_eq!(configuration(&broken), None);
    }
}
