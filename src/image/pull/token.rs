//! Identity tokens: exchanged for a token that the registry takes, at the
//! server that the registry names
//! (<https://distribution.github.io/distribution/spec/auth/oauth/>).

use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::PullError;

/// What no answer of a token server is longer than, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

#[derive(Deserialize)]
struct Answer {
    access_token: String,
}

/// Exchanges an identity token for one that allows `scope`.
///
/// # Errors
/// [`PullError::NoAnswer`], [`PullError::Denied`], and others when the registry
/// names no server of tokens.
pub(super) async fn exchange(
    http: &reqwest::Client,
    host: &str,
    base: &str,
    scope: &str,
    identity: &str,
) -> Result<String, PullError> {
    let asked = |error: reqwest::Error| PullError::request(host, &error);
    let response = http.get(base).send().await.map_err(asked)?;
    let challenges = response.headers().get_all(WWW_AUTHENTICATE);
    let mut challenges = challenges.iter().filter_map(|value| value.to_str().ok());
    let Some((realm, service)) = challenges.find_map(bearer) else {
        return Err(PullError::Client {
            host: host.to_owned(),
            reason: "it names no server for the identity token that is kept for it".to_owned(),
        });
    };
    let realm: Url = realm.parse().map_err(|_| PullError::Client {
        host: host.to_owned(),
        reason: "it names a server of tokens that is no URL".to_owned(),
    })?;
    let server = realm.host_str().unwrap_or(host).to_owned();
    let mut form = realm.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("service", service.as_deref().unwrap_or(host))
        .append_pair("client_id", "orlop")
        .append_pair("scope", scope)
        .append_pair("refresh_token", identity);
    let sent = http
        .post(realm)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.query().unwrap_or_default().to_owned())
        .send()
        .await;
    let mut response = sent.map_err(|error| PullError::request(&server, &error))?;
    let status = response.status();
    let mut text = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(asked)? {
        text.extend_from_slice(&piece);
        if text.len() > LONGEST_ANSWER {
            break;
        }
    }
    if !status.is_success() {
        return Err(match status.as_u16() {
            // Token servers answer so for tokens that they do not know.
            400 => PullError::Denied {
                host: server,
                what: "a token".to_owned(),
                reason: "the identity token is not accepted".to_owned(),
            },
            status => PullError::status(&server, "a token", status, &text),
        });
    }
    let answer: Answer = serde_json::from_slice(&text).map_err(|_| PullError::Client {
        host: server,
        reason: "its answer has no access_token".to_owned(),
    })?;
    Ok(answer.access_token)
}

/// The server of tokens and the service of a challenge, if it is one for them.
fn bearer(header: &str) -> Option<(String, Option<String>)> {
    let challenges = http_auth::parse_challenges(header).ok()?;
    let challenge = challenges
        .into_iter()
        .find(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer"))?;
    let value = |wanted: &str| {
        let mut parameters = challenge.params.iter();
        let found = parameters.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.to_unescaped())
    };
    Some((value("realm")?, value("service")))
}
