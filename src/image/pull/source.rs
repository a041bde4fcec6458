//! One server of images: requests with credentials, and answers that are
//! bounded (distribution specification, `spec.md`).
//!
//! Tokens and blobs go through `oci-client`. Manifests are requested here: that
//! library reads them whole, however long a server makes them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_client::RegistryOperation;
use oci_client::client::{BlobResponse, SizedStream};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, NoProxy, Proxy, Response};

use super::PullError;
use super::credentials::{Credential, Known};
use super::hosts::Endpoint;
use super::token;
use crate::image::{Reference, digest};

/// The largest manifest or index, in bytes: twice what registries accept.
pub(super) const LARGEST_MANIFEST: u64 = 8 << 20;
/// How much of an error's text is read, in bytes.
const LONGEST_REFUSAL: usize = 16 << 10;
/// Redirects that one request may go through.
const MOST_REDIRECTS: usize = 5;

const USER_AGENT: &str = concat!("orlop/", env!("CARGO_PKG_VERSION"));
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// How long a server may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until the connection is there, names looked up and TLS agreed on.
    pub connect: Duration,
    /// Between two pieces of an answer.
    pub read: Duration,
}

impl Patience {
    /// For a person or a pod that cannot go on without the image.
    pub const LONG: Self = Self {
        connect: Duration::from_secs(30),
        read: Duration::from_secs(60),
    };
    /// For a pod that has the image, and only wants to know whether it is new.
    pub const SHORT: Self = Self {
        connect: Duration::from_secs(3),
        read: Duration::from_secs(5),
    };
}

/// A manifest or an index as a server sent it.
pub(super) struct Document {
    pub text: Vec<u8>,
    /// The digest of the text.
    pub digest: String,
    pub content_type: Option<String>,
}

/// A server that may have the image.
pub(super) struct Source {
    pub endpoint: Endpoint,
    reference: oci_client::Reference,
    repository: String,
    http: reqwest::Client,
    patience: Patience,
    credentials: Vec<Credential>,
    /// Why there may be too few of them.
    trouble: RefCell<Option<PullError>>,
    /// Which of the credentials is in use.
    chosen: Cell<usize>,
    session: RefCell<Option<Rc<Session>>>,
}

struct Session {
    client: oci_client::Client,
    authorization: Option<HeaderValue>,
}

impl Source {
    pub fn new(
        endpoint: Endpoint,
        image: &Reference,
        known: Known,
        patience: Patience,
    ) -> Result<Self, PullError> {
        // Who links this in without a default has none; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let repository = match &endpoint.prefix {
            Some(prefix) => format!("{prefix}/{}", image.repository()),
            None => image.repository().to_owned(),
        };
        let tag = image.tag().unwrap_or("latest").to_owned();
        let mut reference =
            oci_client::Reference::with_tag(image.registry().to_owned(), repository.clone(), tag);
        if endpoint.host != image.registry() {
            reference.set_mirror_registry(endpoint.host.clone());
        }
        let http = client(&endpoint, patience)?;
        Ok(Self {
            endpoint,
            reference,
            repository,
            http,
            patience,
            credentials: known.credentials,
            trouble: RefCell::new(known.trouble),
            chosen: Cell::new(0),
            session: RefCell::new(None),
        })
    }

    /// The host in messages.
    pub fn host(&self) -> &str {
        &self.endpoint.host
    }

    fn base(&self) -> String {
        let scheme = if self.endpoint.plain { "http" } else { "https" };
        let host = self.reference.resolve_registry();
        format!("{scheme}://{host}/v2/")
    }

    /// The manifest or index under a tag or digest.
    pub async fn manifest(&self, what: &str) -> Result<Document, PullError> {
        let response = self.ask(Method::GET, what).await?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.map(str::to_owned);
        let text = self.bounded(response, what).await?;
        Ok(Document {
            digest: digest::of(&text),
            text,
            content_type,
        })
    }

    /// The digest of what is under a tag now.
    pub async fn digest(&self, tag: &str) -> Result<String, PullError> {
        let response = self.ask(Method::HEAD, tag).await?;
        let header = response.headers().get("Docker-Content-Digest");
        match header.and_then(|value| value.to_str().ok()) {
            Some(given) if digest::hex(given).is_some() => Ok(given.to_owned()),
            _ => Ok(self.manifest(tag).await?.digest),
        }
    }

    async fn bounded(&self, mut response: Response, what: &str) -> Result<Vec<u8>, PullError> {
        let mut text = Vec::new();
        loop {
            let piece = response.chunk().await;
            let Some(piece) = piece.map_err(|e| PullError::request(self.host(), &e))? else {
                return Ok(text);
            };
            if text.len() as u64 + piece.len() as u64 > LARGEST_MANIFEST {
                return Err(PullError::Damaged {
                    what: format!("the manifest {what:?}"),
                    reason: "is larger than 8 MiB".to_owned(),
                });
            }
            text.extend_from_slice(&piece);
        }
    }

    async fn ask(&self, method: Method, what: &str) -> Result<Response, PullError> {
        loop {
            match self.ask_once(method.clone(), what).await {
                Err(PullError::Denied { .. }) if self.next_credential() => {}
                Err(denied @ PullError::Denied { .. }) => {
                    return Err(self.trouble.take().unwrap_or(denied));
                }
                other => return other,
            }
        }
    }

    async fn ask_once(&self, method: Method, what: &str) -> Result<Response, PullError> {
        let session = self.session().await?;
        let mut url = format!("{}{}/manifests/{what}", self.base(), self.repository);
        if self.endpoint.mirror {
            url = format!("{url}?ns={}", self.reference.registry());
        }
        let mut request = self.http.request(method, url).header(ACCEPT, MANIFESTS);
        if let Some(authorization) = &session.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let sent = request.send().await;
        let mut response = sent.map_err(|error| PullError::request(self.host(), &error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let mut body = Vec::new();
        // The status says enough where the text cannot be read.
        while let Ok(Some(piece)) = response.chunk().await {
            body.extend_from_slice(&piece);
            if body.len() > LONGEST_REFUSAL {
                break;
            }
        }
        let name = self.named(what);
        Err(PullError::status(
            self.host(),
            &name,
            status.as_u16(),
            &body,
        ))
    }

    fn named(&self, what: &str) -> String {
        let sign = if what.contains(':') { '@' } else { ':' };
        format!("image {}{sign}{what}", self.repository)
    }

    /// Opens a blob at an offset. The boolean tells whether the stream begins
    /// there: a server may begin at the beginning all the same.
    pub async fn blob(&self, blob: &str, from: u64) -> Result<(bool, SizedStream), PullError> {
        let mut renewed = false;
        loop {
            let session = self.session().await?;
            let opened = session
                .client
                .pull_blob_stream_partial(&self.reference, blob, from, None)
                .await;
            match opened {
                Ok(BlobResponse::Full(stream)) => return Ok((false, stream)),
                Ok(BlobResponse::Partial(stream)) => return Ok((true, stream)),
                Err(error) => {
                    match PullError::client(self.host(), &format!("blob {blob}"), error) {
                        // A token may have run out in the meantime.
                        PullError::Denied { .. } if !renewed => {
                            renewed = true;
                            self.session.replace(None);
                        }
                        error => return Err(error),
                    }
                }
            }
        }
    }

    fn next_credential(&self) -> bool {
        let next = self.chosen.get() + 1;
        let more = next < self.credentials.len();
        if more {
            self.chosen.set(next);
            self.session.replace(None);
        }
        more
    }

    async fn session(&self) -> Result<Rc<Session>, PullError> {
        if let Some(session) = &*self.session.borrow() {
            return Ok(Rc::clone(session));
        }
        let session = Rc::new(self.log_in().await?);
        self.session.replace(Some(Rc::clone(&session)));
        Ok(session)
    }

    /// Presents the chosen credential to the registry, or to the server of
    /// tokens that it names.
    async fn log_in(&self) -> Result<Session, PullError> {
        let auth = match self.credentials.get(self.chosen.get()) {
            None => RegistryAuth::Anonymous,
            Some(Credential::Basic(name, password)) => {
                RegistryAuth::Basic(name.clone(), password.clone())
            }
            Some(Credential::Bearer(token)) => RegistryAuth::Bearer(token.clone()),
            Some(Credential::Identity(identity)) => {
                let scope = format!("repository:{}:pull", self.repository);
                let base = self.base();
                let token = token::exchange(&self.http, self.host(), &base, &scope, identity);
                RegistryAuth::Bearer(token.await?)
            }
        };
        let client = self.oci_client()?;
        let token = client
            .auth(&self.reference, &auth, RegistryOperation::Pull)
            .await
            .map_err(|error| PullError::client(self.host(), &self.repository, error))?;
        let (client, header) = match (token, auth) {
            (Some(token), _) => (client, Some(format!("Bearer {token}"))),
            (None, RegistryAuth::Basic(name, password)) => {
                let pair = STANDARD.encode(format!("{name}:{password}"));
                (client, Some(format!("Basic {pair}")))
            }
            // One that knows of no credentials does not ask before each
            // request whether some are wanted.
            (None, _) => (self.oci_client()?, None),
        };
        let authorization = header.map(|text| {
            let mut value = HeaderValue::from_str(&text).map_err(|_| PullError::Client {
                host: self.host().to_owned(),
                reason: "its token has characters that no request can carry".to_owned(),
            })?;
            value.set_sensitive(true);
            Ok::<_, PullError>(value)
        });
        Ok(Session {
            client,
            authorization: authorization.transpose()?,
        })
    }

    fn oci_client(&self) -> Result<oci_client::Client, PullError> {
        let endpoint = &self.endpoint;
        let protocol = match endpoint.plain {
            true => ClientProtocol::Http,
            false => ClientProtocol::Https,
        };
        let proxies = Proxies::of_environment();
        let config = ClientConfig {
            protocol,
            accept_invalid_certificates: believes(endpoint),
            extra_root_certificates: endpoint.certificates(),
            read_timeout: Some(self.patience.read),
            connect_timeout: Some(self.patience.connect),
            user_agent: USER_AGENT,
            https_proxy: proxies.https,
            http_proxy: proxies.http,
            no_proxy: Some(proxies.except),
            ..ClientConfig::default()
        };
        oci_client::Client::try_from(config).map_err(|error| PullError::Client {
            host: endpoint.host.clone(),
            reason: without_authorities(&error.to_string()),
        })
    }
}

fn client(endpoint: &Endpoint, patience: Patience) -> Result<reqwest::Client, PullError> {
    let failed = |error: reqwest::Error| PullError::Client {
        host: endpoint.host.clone(),
        reason: without_authorities(&error.to_string()),
    };
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(patience.connect)
        .read_timeout(patience.read)
        .redirect(reqwest::redirect::Policy::limited(MOST_REDIRECTS))
        .danger_accept_invalid_certs(believes(endpoint))
        .no_proxy();
    let proxies = Proxies::of_environment();
    let except = NoProxy::from_string(&proxies.except);
    let https = proxies.https.map(Proxy::https);
    for proxy in https.into_iter().chain(proxies.http.map(Proxy::http)) {
        builder = builder.proxy(proxy.map_err(failed)?.no_proxy(except.clone()));
    }
    for authority in &endpoint.authorities {
        let certificates = reqwest::Certificate::from_pem_bundle(authority).map_err(failed)?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(failed)
}

/// Without TLS there is no certificate to be looked at, and the machine needs
/// to know no authorities.
fn believes(endpoint: &Endpoint) -> bool {
    endpoint.skip_verify || endpoint.plain
}

fn without_authorities(reason: &str) -> String {
    format!(
        "{reason} (does this machine have certificate authorities, Debian's package ca-certificates?)"
    )
}

/// The proxies that the environment names, in the usual variables. What is on
/// this machine is never asked for through one.
struct Proxies {
    http: Option<String>,
    https: Option<String>,
    except: String,
}

impl Proxies {
    fn of_environment() -> Self {
        let set = |names: [&str; 2]| {
            let values = names
                .into_iter()
                .filter_map(|name| std::env::var(name).ok());
            values.into_iter().find(|value| !value.is_empty())
        };
        let except = set(["NO_PROXY", "no_proxy"]).unwrap_or_default();
        Self {
            http: set(["HTTP_PROXY", "http_proxy"]),
            https: set(["HTTPS_PROXY", "https_proxy"]),
            except: format!("{except},localhost,127.0.0.0/8,::1"),
        }
    }
}
