//! Where an image is asked for: its registry, and the mirrors before it.
//!
//! The configuration is the one that containerd reads
//! (<https://github.com/containerd/containerd/blob/main/docs/hosts.md>): for
//! each registry a file `HOST[:PORT]/hosts.toml` in one directory, and
//! `_default/hosts.toml` for those that have none. Without either a registry
//! is asked itself: by https, or by http when it is on this machine.

use std::io;
use std::path::{Path, PathBuf};

use oci_client::client::{Certificate, CertificateEncoding};
use reqwest::Url;
use toml::{Table, Value};

use super::PullError;

/// The directory of the configuration when nothing else is said.
pub const HOSTS_DIR: &str = "/etc/orlop/certs.d";

/// One server that may have an image.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// Its host, and its port unless that is the usual one.
    pub host: String,
    /// Spoken to without TLS.
    pub plain: bool,
    /// Whether it stands in for another registry.
    pub mirror: bool,
    /// What its repositories' names begin with, in front of the image's own.
    pub prefix: Option<String>,
    /// Whether it may say what a tag means.
    pub resolve: bool,
    /// Whether content may be taken from it.
    pub pull: bool,
    /// Certificates of authorities to trust besides the system's, in PEM.
    pub authorities: Vec<Vec<u8>>,
    /// Whether its certificate is believed unseen.
    pub skip_verify: bool,
}

impl Endpoint {
    fn registry(host: &str) -> Self {
        Self {
            host: host.to_owned(),
            plain: is_loopback(host),
            mirror: false,
            prefix: None,
            resolve: true,
            pull: true,
            authorities: Vec::new(),
            skip_verify: false,
        }
    }

    /// The authorities as the registry client takes them.
    pub fn certificates(&self) -> Vec<Certificate> {
        let certificate = |data: &Vec<u8>| Certificate {
            encoding: CertificateEncoding::Pem,
            data: data.clone(),
        };
        self.authorities.iter().map(certificate).collect()
    }
}

/// The servers to ask for images of a registry, in this order.
///
/// # Errors
/// [`PullError::Configuration`] when the configuration cannot be read, or asks
/// for what is not supported: it names the field.
pub(super) fn endpoints(directory: &Path, registry: &str) -> Result<Vec<Endpoint>, PullError> {
    for name in [registry, "_default"] {
        let path = directory.join(name).join("hosts.toml");
        let failed = |reason: String| PullError::Configuration {
            path: path.clone(),
            reason,
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => return parse(&text, registry, &path).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(format!("cannot read it: {error}"))),
        }
    }
    Ok(vec![Endpoint::registry(registry)])
}

fn parse(text: &str, registry: &str, path: &Path) -> Result<Vec<Endpoint>, String> {
    let mut root: Table = text
        .parse()
        .map_err(|error: toml::de::Error| format!("is not TOML: {}", error.message()))?;
    let hosts = root.remove("host");
    let server = match root.remove("server") {
        Some(Value::String(server)) => Some(server),
        Some(_) => return Err("server: must be a text".to_owned()),
        None => None,
    };
    let mut endpoints = Vec::new();
    if let Some(hosts) = hosts {
        let Value::Table(hosts) = hosts else {
            return Err("host: must be a table".to_owned());
        };
        for (url, fields) in hosts {
            let Value::Table(fields) = fields else {
                return Err(format!("host.{url:?}: must be a table"));
            };
            let at = format!("host.{url:?}.");
            let mut endpoint = located(&url, true)?;
            configure(&mut endpoint, fields, &at, path)?;
            endpoints.push(endpoint);
        }
    }
    let mut last = match server {
        Some(url) => located(&url, false)?,
        None => Endpoint::registry(registry),
    };
    last.mirror = last.host != registry && registry != "docker.io";
    configure(&mut last, root, "", path)?;
    endpoints.push(last);
    Ok(endpoints)
}

/// An endpoint from a URL, or from a host alone.
fn located(text: &str, mirror: bool) -> Result<Endpoint, String> {
    let with_scheme = match text.contains("://") {
        true => text.to_owned(),
        false if is_loopback(text) => format!("http://{text}"),
        false => format!("https://{text}"),
    };
    let url: Url = with_scheme
        .parse()
        .map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    let plain = match url.scheme() {
        "http" => true,
        "https" => false,
        _ => return Err(format!("{text:?} must be of http or https")),
    };
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| format!("{text:?} has no host"))?;
    let path = url.path().trim_matches('/');
    let path = path.strip_prefix("v2").unwrap_or(path).trim_matches('/');
    Ok(Endpoint {
        host: match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        },
        plain,
        mirror,
        prefix: (!path.is_empty()).then(|| path.to_owned()),
        ..Endpoint::registry("")
    })
}

fn configure(endpoint: &mut Endpoint, fields: Table, at: &str, path: &Path) -> Result<(), String> {
    let mut overrides = false;
    for (key, value) in fields {
        let wrong = |what: &str| format!("{at}{key}: must be {what}");
        match (key.as_str(), value) {
            ("capabilities", Value::Array(list)) => {
                let has = |word: &str| list.iter().any(|one| one.as_str() == Some(word));
                endpoint.resolve = has("resolve");
                endpoint.pull = has("pull");
            }
            ("capabilities", _) => return Err(wrong("a list, such as [\"pull\", \"resolve\"]")),
            ("skip_verify", Value::Boolean(skip)) => endpoint.skip_verify = skip,
            ("override_path", Value::Boolean(given)) => overrides = given,
            ("skip_verify" | "override_path", _) => return Err(wrong("true or false")),
            ("ca", Value::String(file)) => endpoint.authorities.push(authority(path, &file)?),
            ("ca", Value::Array(files)) => {
                for file in files {
                    let file = file
                        .as_str()
                        .ok_or_else(|| wrong("a file, or a list of files"))?;
                    endpoint.authorities.push(authority(path, file)?);
                }
            }
            ("ca", _) => return Err(wrong("a file, or a list of files")),
            _ => {
                return Err(format!(
                    "{at}{key}: this version of orlop does not support it"
                ));
            }
        }
    }
    if endpoint.prefix.is_some() && !overrides {
        return Err(format!(
            "{at}override_path: must be true for a URL with a path, which must begin with /v2/"
        ));
    }
    Ok(())
}

/// A certificate's text; its file is relative to the configuration.
fn authority(configuration: &Path, file: &str) -> Result<Vec<u8>, String> {
    let directory = configuration.parent().unwrap_or(Path::new("/"));
    let path: PathBuf = directory.join(file);
    std::fs::read(&path).map_err(|error| format!("ca: cannot read {path:?}: {error}"))
}

/// Whether a host, perhaps with a port, is this machine, which is spoken to
/// without TLS unless at the port of https.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((name, port)) => (name, port.strip_prefix(':')),
            None => return false,
        },
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let local = name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    local && port != Some("443")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Endpoint>, String> {
        parse(text, "docker.io", Path::new("/nowhere/hosts.toml"))
    }

    #[test]
    fn registries_on_this_machine_are_asked_without_tls() {
        for (host, plain) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.8.8.8", true),
            ("[::1]:5000", true),
            ("localhost:443", false),
            ("localhost.example.org", false),
            ("docker.io", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(host), plain, "{host}");
        }
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_the_registry_last() {
        let endpoints = parsed(
            r#"
            server = "https://registry-1.docker.io"
            [host."https://z.example.org:8443"]
            capabilities = ["pull"]
            [host."http://a.example.org/v2/hub"]
            override_path = true
            skip_verify = true
            "#,
        )
        .unwrap();
        let hosts: Vec<&str> = endpoints.iter().map(|one| one.host.as_str()).collect();
        assert_eq!(
            hosts,
            [
                "z.example.org:8443",
                "a.example.org",
                "registry-1.docker.io"
            ]
        );
        assert!(!endpoints[0].resolve && endpoints[0].pull && endpoints[0].mirror);
        assert!(endpoints[1].plain && endpoints[1].skip_verify);
        assert_eq!(endpoints[1].prefix.as_deref(), Some("hub"));
        assert!(!endpoints[2].mirror && !endpoints[2].plain);
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (text, field) in [
            (
                "[host.\"https://a\"]\nclient = \"x\"",
                "host.\"https://a\".client",
            ),
            (
                "[host.\"https://a\".header]\nx = \"y\"",
                "host.\"https://a\".header",
            ),
            (
                "[host.\"https://a\"]\nskip_verify = 1",
                "host.\"https://a\".skip_verify",
            ),
            (
                "[host.\"https://a/b\"]",
                "host.\"https://a/b\".override_path",
            ),
            ("ca = \"missing.pem\"", "ca"),
            ("= 1", "is not TOML"),
        ] {
            let reason = parsed(text).unwrap_err();
            assert!(reason.starts_with(field), "{text}: {reason}");
        }
    }
}
