//! Image references: what people write after `image:`, and the one full form
//! under which the store files it.
//!
//! The grammar is that of the distribution project's `reference` package,
//! which container tools share: `[registry/]repository[:tag][@digest]`. A
//! reference without a registry means docker.io, one without a slash means
//! docker.io's `library`, and one without tag and digest means `:latest`.

use std::fmt;
use std::str::FromStr;

/// The registry meant by a reference that names none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where docker.io keeps repositories whose name has a single part.
const DEFAULT_NAMESPACE: &str = "library";
/// The tag meant by a reference that has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// The longest registry and repository together, in bytes.
const LONGEST_NAME: usize = 255;

/// A complete image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reference:?} is not an image reference: {reason}")]
pub struct ReferenceError {
    /// What the user typed.
    pub reference: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Reference {
    /// The registry's host, with its port if it has one: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in its registry: `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; none when a digest stands in its place.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, as `sha256:` and 64 hexadecimal digits.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Registry and repository without tag and digest: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// [`Self::name`] as people write it: `busybox`, `localhost/tool`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.split_once('/') {
            Some((DEFAULT_NAMESPACE, short)) if !short.contains('/') => short.to_owned(),
            Some((first, _)) if is_host(first) => self.name(),
            _ => self.repository.clone(),
        }
    }

    /// The shortest text that means this reference: `busybox:latest`.
    pub fn familiar(&self) -> String {
        self.with_suffixes(self.familiar_name())
    }

    fn with_suffixes(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest);
        }
        text
    }
}

impl fmt::Display for Reference {
    /// The full form: `docker.io/library/busybox:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffixes(self.name()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|reason| ReferenceError {
            reference: text.to_owned(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.trim() != text {
        return Err("it begins or ends with a blank");
    }
    if text.contains("://") {
        return Err("it begins with a URL scheme; leave that out");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(check_digest(digest)?.to_owned())),
        None => (text, None),
    };
    // A colon after the last slash starts the tag; one before it is a port.
    let path_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[path_start..].find(':') {
        Some(colon) => (
            &rest[..path_start + colon],
            Some(check_tag(&rest[path_start + colon + 1..])?.to_owned()),
        ),
        None => (rest, None),
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_host(first) => (check_registry(first)?, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    check_repository(path)?;
    if registry == DEFAULT_REGISTRY && path.len() == 64 && is_hex(path) {
        return Err("64 hexadecimal digits are an image ID, not a name");
    }
    let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
        format!("{DEFAULT_NAMESPACE}/{path}")
    } else {
        path.to_owned()
    };
    if registry.len() + 1 + repository.len() > LONGEST_NAME {
        return Err("its name is longer than 255 characters");
    }
    let tag = match (&tag, &digest) {
        (None, None) => Some(DEFAULT_TAG.to_owned()),
        _ => tag,
    };
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag,
        digest,
    })
}

/// Whether the first part of a name is a registry's host rather than a
/// namespace on docker.io.
fn is_host(part: &str) -> bool {
    part == "localhost"
        || part.contains(['.', ':', '['])
        || part.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_registry(host: &str) -> Result<&str, &'static str> {
    if matches!(host, "index.docker.io" | "registry-1.docker.io") {
        return Ok(DEFAULT_REGISTRY);
    }
    let (name, port) = match host.strip_prefix('[') {
        Some(v6) => {
            let (address, port) = v6
                .split_once(']')
                .ok_or("the registry's \"[\" has no \"]\"")?;
            address
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| "the registry in \"[…]\" is not an IPv6 address")?;
            let port = match port {
                "" => None,
                port => Some(
                    port.strip_prefix(':')
                        .ok_or("after the registry's \"]\" only a port may follow")?,
                ),
            };
            (None, port)
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), None),
        },
    };
    if let Some(port) = port
        && (port.starts_with('+') || port.parse::<u16>().is_err())
    {
        return Err("the registry's port is not a number up to 65535");
    }
    let fits = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if name.is_some_and(|name| !name.split('.').all(fits)) {
        return Err("the registry is not a host name");
    }
    Ok(host)
}

fn check_repository(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("the name is missing");
    }
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("a repository's name must be in lower case");
    }
    for part in path.split('/') {
        let Some(first) = part.bytes().next() else {
            return Err("there is nothing between two slashes");
        };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let last = part.bytes().next_back().unwrap_or(first);
        if !plain(first) || !plain(last) {
            return Err(
                "each part of a name must begin and end with a lower-case letter or a digit",
            );
        }
        let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        for separator in separators.filter(|run| !run.is_empty()) {
            let known =
                matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
            if !known {
                return Err(
                    "between letters and digits only \".\", \"_\", \"__\" or dashes may stand",
                );
            }
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<&str, &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match tag.bytes().next() {
        None => return Err("there is no tag after the colon"),
        Some(first) if !word(first) => {
            return Err("a tag must begin with a letter, a digit or \"_\"");
        }
        Some(_) => {}
    }
    if tag.len() > 128 {
        return Err("its tag is longer than 128 characters");
    }
    if !tag
        .bytes()
        .all(|byte| word(byte) || byte == b'.' || byte == b'-')
    {
        return Err("a tag may hold letters, digits, \"_\", \".\" and \"-\" only");
    }
    Ok(tag)
}

fn check_digest(digest: &str) -> Result<&str, &'static str> {
    match digest.split_once(':') {
        Some(("sha256", hex)) if hex.len() == 64 && is_hex(hex) => Ok(digest),
        Some(("sha256", _)) => Err("a sha256 digest must have 64 hexadecimal digits in lower case"),
        _ => Err("after \"@\" a digest must follow, such as sha256:0123…"),
    }
}

/// Whether a text consists of lower-case hexadecimal digits alone.
pub(super) fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    fn familiar(text: &str) -> String {
        text.parse::<Reference>().unwrap().familiar()
    }

    fn reason(text: &str) -> &'static str {
        text.parse::<Reference>().unwrap_err().reason
    }

    #[test]
    fn short_names_mean_docker_io() {
        for text in [
            "busybox",
            "busybox:latest",
            "library/busybox",
            "docker.io/busybox",
            "docker.io/library/busybox",
            "index.docker.io/library/busybox:latest",
        ] {
            assert_eq!(full(text), "docker.io/library/busybox:latest", "{text}");
            assert_eq!(familiar(text), "busybox:latest", "{text}");
        }
        assert_eq!(full("grafana/loki:3"), "docker.io/grafana/loki:3");
        assert_eq!(familiar("docker.io/grafana/loki:3"), "grafana/loki:3");
    }

    #[test]
    fn other_registries_are_kept() {
        for text in [
            "localhost/x:tag",
            "localhost:5000/a/b:1.0",
            "registry.k8s.io/pause:3.9",
            "[::1]:5000/x:y",
            "192.168.0.1:80/x:y",
        ] {
            assert_eq!(full(text), text);
            assert_eq!(familiar(text), text);
        }
    }

    #[test]
    fn a_digest_takes_the_place_of_the_default_tag() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        assert_eq!(
            full(&format!("busybox@{digest}")),
            format!("docker.io/library/busybox@{digest}")
        );
        assert_eq!(
            familiar(&format!("busybox:1.36@{digest}")),
            format!("busybox:1.36@{digest}")
        );
    }

    #[test]
    fn the_familiar_form_means_the_same_image() {
        for text in [
            "docker.io/library/a",
            "docker.io/a.b/c",
            "x.org/library/c:d",
        ] {
            assert_eq!(full(&familiar(text)), full(text));
        }
    }

    #[test]
    fn bad_references_are_told_apart() {
        assert_eq!(reason(""), "it is empty");
        assert_eq!(reason(" busybox"), "it begins or ends with a blank");
        assert_eq!(
            reason("https://docker.io/busybox"),
            "it begins with a URL scheme; leave that out"
        );
        assert_eq!(reason("busybox:"), "there is no tag after the colon");
        assert_eq!(
            reason("BusyBox"),
            "a repository's name must be in lower case"
        );
        assert_eq!(reason("a//b"), "there is nothing between two slashes");
        assert_eq!(reason("localhost/"), "the name is missing");
        assert!(reason("../etc/passwd").starts_with("the registry is not"));
        assert!(reason("a/../b").starts_with("each part of a name"));
        assert!(reason("a/b c").starts_with("between letters and digits"));
        assert!(reason("busybox:-x").starts_with("a tag must begin"));
        assert!(reason("busybox:a$b").starts_with("a tag may hold"));
        assert!(reason("busybox@sha256:12").starts_with("a sha256 digest"));
        assert!(reason("busybox@md5:12").starts_with("after \"@\""));
        assert!(reason(&"0a".repeat(32)).starts_with("64 hexadecimal digits"));
        assert!(reason("host.tld:99999/x").starts_with("the registry's port"));
        assert!(reason(&format!("a/{}", "b".repeat(255))).starts_with("its name is longer"));
        assert_eq!(
            "a b".parse::<Reference>().unwrap_err().to_string(),
            "\"a b\" is not an image reference: between letters and digits only \
             \".\", \"_\", \"__\" or dashes may stand"
        );
    }
}
