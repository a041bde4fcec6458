//! Why an image could not be pulled, and whether any registry answered.

use std::io;
use std::path::PathBuf;

use oci_client::errors::OciDistributionError;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::image::{ImageError, UnpackError};

/// What servers say is cut off after this many characters.
const LONGEST_QUOTE: usize = 300;

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The image store could not be used.
    #[error(transparent)]
    Store(#[from] ImageError),
    /// A file of the user's configuration cannot be used.
    #[error("{path:?}: {reason}")]
    Configuration {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A text names no platform.
    #[error(
        "{platform:?} is not a platform: write OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, such as linux/arm64"
    )]
    BadPlatform {
        /// What the user typed.
        platform: String,
    },
    /// A client for the registry could not be made.
    #[error("cannot prepare a connection to registry {host}: {reason}")]
    Client {
        /// The registry, or its mirror.
        host: String,
        /// Why not.
        reason: String,
    },
    /// Nobody answers, or the connection breaks.
    #[error("registry {host} does not answer: {reason}")]
    NoAnswer {
        /// The registry, or its mirror.
        host: String,
        /// What the network said.
        reason: String,
    },
    /// There is no such image.
    #[error("registry {host} has no {what}: {reason}")]
    NotFound {
        /// The registry, or its mirror.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's own words.
        reason: String,
    },
    /// The registry wants other credentials, or any.
    #[error(
        "registry {host} denies access to {what}: {reason}; log in with `docker login {host}`, or give the pod an imagePullSecret"
    )]
    Denied {
        /// The registry, or its mirror.
        host: String,
        /// What was asked for.
        what: String,
        /// The registry's own words.
        reason: String,
    },
    /// Any other refusal.
    #[error("registry {host} answers {status} for {what}: {reason}")]
    Refused {
        /// The registry, or its mirror.
        host: String,
        /// What was asked for.
        what: String,
        /// The status of HTTP.
        status: u16,
        /// The registry's own words.
        reason: String,
    },
    /// A document of the image breaks the rules of its format.
    #[error("{what} {reason}")]
    Damaged {
        /// The document.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Content does not have the digest under which it was asked for.
    #[error("{what} is damaged or forged: its digest is {actual}, not {expected}")]
    Digest {
        /// What was asked for.
        what: String,
        /// The digest that was announced.
        expected: String,
        /// The digest of what came.
        actual: String,
    },
    /// A server sends more or less than was announced.
    #[error(
        "{what} must have {announced} bytes as its descriptor says, but registry {host} sends {sent}"
    )]
    Size {
        /// What was asked for.
        what: String,
        /// The registry, or its mirror.
        host: String,
        /// Bytes by the descriptor.
        announced: u64,
        /// What comes instead.
        sent: String,
    },
    /// No image of that name runs on the wanted platform.
    #[error("image {image:?} has no variant for {wanted}; it has {found}")]
    Platform {
        /// The image.
        image: String,
        /// The platform that was wanted.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A layer could not be unpacked.
    #[error("cannot unpack layer {number} of {of}")]
    Unpack {
        /// The layer's place, from 1 at the bottom.
        number: usize,
        /// How many layers the image has.
        of: usize,
        /// The entry and what is wrong with it.
        source: UnpackError,
    },
    /// A file of what is being downloaded could not be used.
    #[error("image store: cannot {step} {path:?}")]
    Staging {
        /// What was being done.
        step: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program that keeps credentials failed.
    #[error("credential helper {helper:?} failed: {reason}")]
    Helper {
        /// The program.
        helper: String,
        /// What it said.
        reason: String,
    },
    /// Other processes took finished layers away again and again.
    #[error("layers of image {image:?} were removed while it was pulled: pull it again")]
    Removed {
        /// The image.
        image: String,
    },
}

impl PullError {
    /// True when no registry answered at all, as opposed to one that said no.
    pub fn is_no_answer(&self) -> bool {
        matches!(
            self,
            Self::NoAnswer { .. }
                | Self::Refused {
                    status: 502..=504,
                    ..
                }
        )
    }

    /// True when the same request may succeed a moment later.
    pub(super) fn is_passing(&self) -> bool {
        self.is_no_answer()
            || matches!(
                self,
                Self::Refused {
                    status: 500 | 429,
                    ..
                }
            )
    }

    /// What a failed request means.
    pub(super) fn request(host: &str, error: &reqwest::Error) -> Self {
        Self::NoAnswer {
            host: host.to_owned(),
            reason: root_of(error),
        }
    }

    /// What a stream that broke off means.
    pub(super) fn stream(host: &str, error: &io::Error) -> Self {
        let inner = error.get_ref();
        Self::NoAnswer {
            host: host.to_owned(),
            reason: inner.map_or_else(|| error.to_string(), |inner| root_of(inner)),
        }
    }

    /// What an error of the registry client means.
    pub(super) fn client(host: &str, what: &str, error: OciDistributionError) -> Self {
        let (host, what) = (host.to_owned(), what.to_owned());
        match error {
            OciDistributionError::RequestError(error) => Self::request(&host, &error),
            OciDistributionError::UnauthorizedError { .. } => Self::Denied {
                host,
                what,
                reason: "unauthorized".to_owned(),
            },
            OciDistributionError::AuthenticationFailure(reason) => Self::Denied {
                host,
                what,
                reason: words_of(reason.as_bytes()),
            },
            OciDistributionError::ServerError { code, message, .. } => {
                Self::status(&host, &what, code, message.as_bytes())
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let text: Vec<String> = envelope
                    .errors
                    .iter()
                    .map(|error| error.message.clone())
                    .collect();
                use oci_client::errors::OciErrorCode as Code;
                let reason = printable(&text.join(", "));
                match envelope.errors.first().map(|error| &error.code) {
                    Some(Code::Unauthorized | Code::Denied) => Self::Denied { host, what, reason },
                    Some(Code::Toomanyrequests) => Self::Refused {
                        host,
                        what,
                        status: 429,
                        reason,
                    },
                    _ => Self::NotFound { host, what, reason },
                }
            }
            other => Self::Client {
                host,
                reason: printable(&other.to_string()),
            },
        }
    }

    /// What a status other than success means.
    pub(super) fn status(host: &str, what: &str, status: u16, body: &[u8]) -> Self {
        let (host, what) = (host.to_owned(), what.to_owned());
        let mut reason = words_of(body);
        if reason.is_empty() {
            let known = StatusCode::from_u16(status).ok();
            let known = known.and_then(|status| status.canonical_reason());
            reason = known.unwrap_or("no reason given").to_lowercase();
        }
        match status {
            404 => Self::NotFound { host, what, reason },
            401 | 403 => Self::Denied { host, what, reason },
            _ => Self::Refused {
                host,
                what,
                status,
                reason,
            },
        }
    }
}

/// The innermost reason of an error of the network.
fn root_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error.to_string();
    let mut at = error.source();
    while let Some(source) = at {
        innermost = source.to_string();
        at = source.source();
    }
    printable(&innermost)
}

/// What the body of an error answer says: the messages of the distribution
/// specification's JSON, or the text itself.
fn words_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        message: String,
        #[serde(default)]
        code: String,
    }
    let text = match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) => {
            let words = envelope.errors.into_iter().map(|error| {
                if error.message.is_empty() {
                    error.code.to_lowercase()
                } else {
                    error.message
                }
            });
            words.collect::<Vec<_>>().join(", ")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    printable(text.trim())
}

/// A server's text, harmless to a terminal and of bearable length.
pub(super) fn printable(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LONGEST_QUOTE).collect()
}
