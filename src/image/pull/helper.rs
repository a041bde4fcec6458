//! Programs that keep credentials: `docker-credential-NAME`
//! (<https://github.com/docker/docker-credential-helpers>).

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use super::PullError;
use super::credentials::Credential;
use super::error::printable;

/// A helper may ask a person or a server, but not for ever.
const LIMIT: Duration = Duration::from_secs(30);

/// What no helper's answer is longer than, in bytes.
const LONGEST_ANSWER: u64 = 1 << 20;

/// The user name with which a helper marks an identity token.
const TOKEN: &str = "<token>";

/// What a helper answers when it has no credentials for a server.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks the helper of this name for the credentials of a server; none when it
/// has none.
///
/// # Errors
/// [`PullError::Helper`]
pub(super) async fn ask(name: &str, server: &str) -> Result<Option<Credential>, PullError> {
    let program = format!("docker-credential-{name}");
    let failed = |reason: String| PullError::Helper {
        helper: program.clone(),
        reason,
    };
    if name.contains('/') {
        return Err(failed("its name has a slash".to_owned()));
    }
    let (command, server) = (program.clone(), server.to_owned());
    let answer = tokio::task::spawn_blocking(move || run(&command, &server));
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(Ok(answer)) => answer.map_err(failed),
        Ok(Err(_)) => Err(failed("it could not be waited for".to_owned())),
        Err(_) => Err(failed(format!("no answer in {} s", LIMIT.as_secs()))),
    }
}

fn run(program: &str, server: &str) -> Result<Option<Credential>, String> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot execute it: {error}"))?;
    let mut text = String::new();
    if let Some(mut input) = child.stdin.take() {
        // One that does not read its input answers for itself.
        let _ = input.write_all(server.as_bytes());
    }
    let read = child
        .stdout
        .take()
        .map(|output| output.take(LONGEST_ANSWER).read_to_string(&mut text));
    let status = child
        .wait()
        .map_err(|error| format!("cannot wait for it: {error}"))?;
    if !status.success() {
        return match text.contains(NOT_FOUND) {
            true => Ok(None),
            false => Err(printable(text.trim())),
        };
    }
    if let Some(Err(error)) = read {
        return Err(format!("cannot read its answer: {error}"));
    }
    let answer: Answer = serde_json::from_str(&text)
        .map_err(|_| "its answer is not the JSON it must be".to_owned())?;
    Ok(Some(match answer.username.as_str() {
        TOKEN => Credential::Identity(answer.secret),
        _ => Credential::Basic(answer.username, answer.secret),
    }))
}
