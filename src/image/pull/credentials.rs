//! Who pulls: credentials from docker's configuration file, from the programs
//! that it names, and from a pod's image pull secrets.
//!
//! Keys of `auths` are matched as kubelet does
//! (<https://kubernetes.io/docs/concepts/containers/images/#config-json>): a
//! host, perhaps with `*` for a part of it, perhaps followed by a path that
//! the repository must begin with. The most specific comes first.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::{PullError, helper};

/// The key under which docker keeps what belongs to docker.io.
pub(super) const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// What a registry, or its token server, wants to see.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// A name and a password.
    Basic(String, String),
    /// A token that the token server exchanges for another one.
    Identity(String),
    /// A token that the registry itself takes.
    Bearer(String),
}

/// What a user has for a registry.
#[derive(Default)]
pub(super) struct Known {
    pub credentials: Vec<Credential>,
    /// Why a program that keeps credentials gave none. As with docker, this
    /// matters only to a registry that wants some.
    pub trouble: Option<PullError>,
}

/// Docker's `config.json`, as far as it is about credentials.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>, String> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::Bearer(self.registrytoken.clone())));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::Identity(self.identitytoken.clone())));
        }
        if self.auth.is_empty() {
            let pair = (self.username.clone(), self.password.clone());
            return Ok((!pair.0.is_empty()).then_some(Credential::Basic(pair.0, pair.1)));
        }
        let auth = self.auth.trim_end_matches(['\0', '\n']);
        let decoded = STANDARD
            .decode(auth)
            .or_else(|_| STANDARD_NO_PAD.decode(auth));
        let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|text| text.split_once(':')) {
            Some((name, password)) => Ok(Some(Credential::Basic(
                name.to_owned(),
                password.trim_end_matches('\0').to_owned(),
            ))),
            None => Err("its auth is not the base64 of NAME:PASSWORD".to_owned()),
        }
    }
}

/// The credentials for a repository in one decoded docker configuration: the
/// content of a Secret of type `kubernetes.io/dockerconfigjson`. Programs that
/// it names are not executed.
///
/// # Errors
/// A text that says what is wrong with it; it quotes nothing of it.
pub(super) fn from_secret(
    text: &str,
    host: &str,
    repository: &str,
) -> Result<Vec<Credential>, String> {
    let config: DockerConfig = serde_json::from_str(text).map_err(malformed)?;
    matching(&config, host, repository)
}

/// The credentials for a repository in docker's own configuration of the user
/// who runs this: `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`.
/// Programs that it names are asked first, as docker does.
///
/// # Errors
/// [`PullError::Configuration`]
pub(super) async fn of_user(host: &str, repository: &str) -> Result<Known, PullError> {
    let path = user_file();
    let failed = |reason: String| PullError::Configuration {
        path: path.clone(),
        reason,
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Known::default()),
        Err(error) => return Err(failed(format!("cannot read it: {error}"))),
    };
    let config: DockerConfig =
        serde_json::from_str(&text).map_err(|error| failed(malformed(error)))?;
    let mut helpers = config.cred_helpers.iter();
    let own = helpers.find(|(key, _)| names(key) == names(host));
    let helper = own.map(|(_, helper)| helper.as_str());
    let helper = helper.or(Some(config.creds_store.as_str()).filter(|name| !name.is_empty()));
    let mut known = Known::default();
    if let Some(helper) = helper {
        let key = match names(host) {
            "docker.io" => DOCKER_KEY,
            host => host,
        };
        match helper::ask(helper, key).await {
            Ok(credential) => known.credentials.extend(credential),
            Err(error) => known.trouble = Some(error),
        }
    }
    let listed = matching(&config, host, repository).map_err(failed)?;
    known.credentials.extend(listed);
    Ok(known)
}

fn user_file() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let directory = match set("DOCKER_CONFIG") {
        Some(directory) => PathBuf::from(directory),
        // A keeper that was started at boot has no home in its environment.
        None => PathBuf::from(set("HOME").unwrap_or_else(|| "/root".into())).join(".docker"),
    };
    directory.join("config.json")
}

/// Where a document is wrong, without its content: that is secret.
fn malformed(error: serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    format!("is not docker's config.json (line {line}, column {column})")
}

fn matching(
    config: &DockerConfig,
    host: &str,
    repository: &str,
) -> Result<Vec<Credential>, String> {
    let mut fitting: Vec<(&String, &Entry)> = config
        .auths
        .iter()
        .filter(|(key, _)| fits(key, host, repository))
        .collect();
    fitting.sort_by_key(|(key, _)| {
        let (host, path) = split(key);
        (std::cmp::Reverse(path.len()), host.contains('*'))
    });
    let mut found = Vec::new();
    for (key, entry) in fitting {
        let credential = entry.credential();
        found.extend(credential.map_err(|reason| format!("auths.{key:?}: {reason}"))?);
    }
    Ok(found)
}

/// A key's host and the path behind it, without the scheme and the API's version.
fn split(key: &str) -> (&str, &str) {
    let plain = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let (host, path) = plain.split_once('/').unwrap_or((plain, ""));
    let path = path.trim_matches('/');
    let path = ["v1", "v2"]
        .into_iter()
        .find_map(|version| match path.strip_prefix(version) {
            Some("") => Some(""),
            Some(rest) => rest.strip_prefix('/'),
            None => None,
        })
        .unwrap_or(path);
    (names(host), path)
}

/// One name for the hosts that are docker.io.
fn names(host: &str) -> &str {
    match split_scheme(host) {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

fn split_scheme(key: &str) -> &str {
    let plain = key.split_once("://").map_or(key, |(_, rest)| rest);
    plain.split_once('/').map_or(plain, |(host, _)| host)
}

fn fits(key: &str, host: &str, repository: &str) -> bool {
    let (key_host, key_path) = split(key);
    let below = repository
        .strip_prefix(key_path)
        .is_some_and(|rest| key_path.is_empty() || rest.is_empty() || rest.starts_with('/'));
    let (pattern, target): (Vec<&str>, Vec<&str>) = (
        key_host.split('.').collect(),
        names(host).split('.').collect(),
    );
    below
        && pattern.len() == target.len()
        && pattern
            .iter()
            .zip(&target)
            .all(|(pattern, part)| globbed(pattern, part))
}

/// Whether one part of a host fits a pattern, in which `*` is any text.
fn globbed(pattern: &str, part: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == part;
    };
    let Some(rest) = part.strip_prefix(before) else {
        return false;
    };
    (0..=rest.len()).any(|at| rest.is_char_boundary(at) && globbed(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fit_hosts_and_repositories_as_with_kubelet() {
        for (key, host, repository, fit) in [
            (
                "https://index.docker.io/v1/",
                "docker.io",
                "library/busybox",
                true,
            ),
            ("docker.io", "docker.io", "a/b", true),
            ("localhost:5000", "localhost:5000", "a", true),
            ("localhost", "localhost:5000", "a", false),
            ("http://localhost:5000/v2/", "localhost:5000", "a", true),
            ("*.example.org", "r.example.org", "a", true),
            ("*.example.org", "a.r.example.org", "a", false),
            ("r*.example.org:5000", "reg.example.org:5000", "a", true),
            ("r.example.org/team", "r.example.org", "team/app", true),
            ("r.example.org/team", "r.example.org", "teams/app", false),
            ("r.example.org/team", "r.example.org", "other", false),
        ] {
            assert_eq!(
                fits(key, host, repository),
                fit,
                "{key} {host}/{repository}"
            );
        }
    }

    #[test]
    fn the_most_specific_entry_comes_first() {
        let text = r#"{"auths": {
            "*.example.org": {"auth": "YTph"},
            "r.example.org": {"username": "b", "password": "b"},
            "r.example.org/team": {"identitytoken": "c"},
            "elsewhere.org": {"auth": "!"}
        }}"#;
        let found = from_secret(text, "r.example.org", "team/app").unwrap();
        let wanted = [
            Credential::Identity("c".into()),
            Credential::Basic("b".into(), "b".into()),
            Credential::Basic("a".into(), "a".into()),
        ];
        assert!(found == wanted);
    }

    #[test]
    fn malformed_secrets_are_not_quoted() {
        let text = r#"{"auths": {"a.org": {"auth": "c2VjcmV0"}}}"#;
        let error = from_secret(text, "a.org", "x").err().unwrap();
        assert_eq!(
            error,
            "auths.\"a.org\": its auth is not the base64 of NAME:PASSWORD"
        );
        let error = from_secret("{\"auths\": secret}", "a.org", "x")
            .err()
            .unwrap();
        assert!(!error.contains("secret"), "{error}");
    }
}
