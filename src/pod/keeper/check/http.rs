//! One HTTP/1.1 request, as far as a probe needs it: the status of the answer.
//!
//! Redirects are followed within the same host, ten at most, as kubelet does;
//! certificates are not checked
//! (<https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/#http-probes>).

use std::io;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Finding, Reach, connect, port, tls};

/// The longest head of an answer, in bytes.
const LONGEST_HEAD: usize = 64 << 10;
const MOST_HEADERS: usize = 128;
const MOST_REDIRECTS: usize = 10;

/// What programs that look for probes in their logs know.
const USER_AGENT: &str = "kube-probe/1.36";

/// A request.
#[derive(Clone)]
pub(in crate::pod::keeper) struct Request {
    secure: bool,
    host: Option<String>,
    port: u16,
    path: String,
    headers: Vec<(String, String)>,
}

/// What was answered.
pub(in crate::pod::keeper) struct Answered {
    status: u16,
    /// True when the answer leads to another host, where nobody went.
    leads_away: bool,
}

impl Request {
    /// What `get` of `container` asks for.
    ///
    /// # Errors
    /// A port name that the container does not have.
    pub(in crate::pod::keeper) fn of(
        get: &HTTPGetAction,
        container: &Container,
    ) -> Result<Self, String> {
        let path = get.path.as_deref().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let headers = get.http_headers.iter().flatten();
        Ok(Self {
            secure: get.scheme.as_deref() == Some("HTTPS"),
            host: get.host.clone().filter(|host| !host.is_empty()),
            port: port(&get.port, container)?,
            path: format!("{slash}{path}"),
            headers: headers
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
        })
    }

    /// The URL that is asked for.
    pub(super) fn url(&self, reach: &Reach) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        let host = self.host.as_deref().unwrap_or(&reach.host);
        let authority = connect::authority(host, self.port);
        format!("{scheme}://{authority}{}", self.path)
    }

    /// The request to which a redirect to `location` leads; `None` when that is
    /// on another host.
    fn redirected(&self, location: &str, host: &str) -> Option<Self> {
        let mut next = self.clone();
        if location.starts_with('/') && !location.starts_with("//") {
            next.path = location.to_owned();
            return Some(next);
        }
        let (secure, rest) = if let Some(rest) = location.strip_prefix("//") {
            (self.secure, rest)
        } else if let Some(rest) = location.strip_prefix("http://") {
            (false, rest)
        } else if let Some(rest) = location.strip_prefix("https://") {
            (true, rest)
        } else {
            // Relative to the directory of the present path.
            let directory = self.path.rsplit_once('/').map_or("", |(before, _)| before);
            next.path = format!("{directory}/{location}");
            return Some(next);
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (name, number) = match authority.rsplit_once(':') {
            Some((name, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                (name, number.parse().ok()?)
            }
            _ => (authority, if secure { 443 } else { 80 }),
        };
        if name.trim_matches(['[', ']']) != host {
            return None;
        }
        next.secure = secure;
        next.port = number;
        next.path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        Some(next)
    }

    fn text(&self, host: &str) -> String {
        let is = |name: &str| {
            let mut headers = self.headers.iter();
            headers.any(|(given, _)| given.eq_ignore_ascii_case(name))
        };
        let mut text = format!("GET {} HTTP/1.1\r\n", self.path);
        if !is("Host") {
            text += &format!("Host: {}\r\n", connect::authority(host, self.port));
        }
        if !is("User-Agent") {
            text += &format!("User-Agent: {USER_AGENT}\r\n");
        }
        if !is("Accept") {
            text += "Accept: */*\r\n";
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text + "Connection: close\r\n\r\n"
    }
}

impl Answered {
    /// What the answer says of the server's health.
    pub(super) fn finding(&self) -> Finding {
        match self.status {
            200..400 if self.leads_away => {
                Finding::Warning("Probe terminated redirects".to_owned())
            }
            200..400 => Finding::Healthy,
            status => Finding::Unhealthy(format!("HTTP probe failed with statuscode: {status}")),
        }
    }
}

/// Asks, and follows redirects.
///
/// # Errors
/// Why there was no answer, in one sentence that names the URL.
pub(in crate::pod::keeper) async fn get(
    reach: &Reach,
    request: &Request,
) -> Result<Answered, String> {
    let host = request.host.as_deref().unwrap_or(&reach.host).to_owned();
    let mut request = request.clone();
    let name_url =
        |request: &Request, error: String| format!("Get \"{}\": {error}", request.url(reach));
    for _ in 0..=MOST_REDIRECTS {
        let answer = ask(reach, &request, &host).await;
        let head = answer.map_err(|error| name_url(&request, error))?;
        let moved = matches!(head.status, 301 | 302 | 303 | 307 | 308);
        let Some(location) = head.location.filter(|_| moved) else {
            return Ok(Answered {
                status: head.status,
                leads_away: false,
            });
        };
        match request.redirected(&location, &host) {
            Some(next) => request = next,
            None => {
                return Ok(Answered {
                    status: head.status,
                    leads_away: true,
                });
            }
        }
    }
    let error = format!("stopped after {MOST_REDIRECTS} redirects");
    Err(name_url(&request, error))
}

/// What matters of the head of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    location: Option<String>,
}

async fn ask(reach: &Reach, request: &Request, host: &str) -> Result<Head, String> {
    let stream = connect::connect(reach, host, request.port).await?;
    let text = request.text(host);
    let head = if request.secure {
        let stream = tls::wrap(stream, host).await?;
        exchange(stream, &text).await
    } else {
        exchange(stream, &text).await
    };
    head.map_err(|error| connect::words(&error))
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, text: &str) -> io::Result<Head> {
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await?;
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(head) = parse(&bytes)? {
            return Ok(head);
        }
        if bytes.len() > LONGEST_HEAD {
            return Err(io::Error::other("the head of the answer is too long"));
        }
    }
}

/// The head in `bytes`, once it is complete. Interim answers are passed over.
fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut rest = bytes;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response
            .parse(rest)
            .map_err(|error| io::Error::other(format!("malformed HTTP response: {error}")))?;
        let httparse::Status::Complete(length) = parsed else {
            return Ok(None);
        };
        let status = response.code.unwrap_or_default();
        if (100..200).contains(&status) && status != 101 {
            rest = &rest[length..];
            continue;
        }
        let mut headers = response.headers.iter();
        let location = headers.find(|header| header.name.eq_ignore_ascii_case("Location"));
        let location = location.map(|header| String::from_utf8_lossy(header.value).into_owned());
        return Ok(Some(Head { status, location }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            secure: false,
            host: None,
            port: 8080,
            path: "/a/b".to_owned(),
            headers: vec![("host".to_owned(), "web.example".to_owned())],
        }
    }

    #[test]
    fn a_request_has_the_manifests_headers_once() {
        let text = request().text("127.0.0.1");
        assert!(
            text.starts_with("GET /a/b HTTP/1.1\r\nUser-Agent: kube-probe/"),
            "{text}"
        );
        assert!(text.contains("\r\nhost: web.example\r\n"), "{text}");
        assert!(!text.contains("Host: "), "{text}");
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
    }

    #[test]
    fn redirects_are_followed_within_the_host_only() {
        let to = |location: &str| {
            let next = request().redirected(location, "127.0.0.1")?;
            Some((next.secure, next.port, next.path))
        };
        let at = |secure, port, path: &str| Some((secure, port, path.to_owned()));
        assert_eq!(to("/c?d=1"), at(false, 8080, "/c?d=1"));
        assert_eq!(to("c"), at(false, 8080, "/a/c"));
        assert_eq!(to("http://127.0.0.1:81/c"), at(false, 81, "/c"));
        assert_eq!(to("https://127.0.0.1?x"), at(true, 443, "/?x"));
        assert_eq!(to("//127.0.0.1/c"), at(false, 80, "/c"));
        assert_eq!(to("http://elsewhere.example/c"), None);
    }

    #[test]
    fn the_head_is_read_however_it_arrives() {
        let text = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 302 Found\r\nlocation: /x\r\n\r\nbody";
        let head = parse(text).expect("a head");
        let location = Some("/x".to_owned());
        assert_eq!(
            head,
            Some(Head {
                status: 302,
                location
            })
        );
        assert_eq!(parse(&text[..60]).expect("a part"), None);
        assert!(parse(b"SSH-2.0-server\r\n\r\n").is_err());
    }
}
