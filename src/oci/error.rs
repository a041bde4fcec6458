//! What can go wrong with a container, one sentence each.
//!
//! Programs that call an OCI runtime read these texts: `does not exist`,
//! `container not running`, `executable file not found in`, `permission denied`
//! and `no such file or directory` are part of the interface.

use std::error::Error;
use std::io;
use std::path::PathBuf;

/// A failed operation on a container.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The id could not be the name of a directory.
    #[error(
        "container id {id:?} is not valid: use letters, digits, '_', '+', '-' and '.', at most 1024 of them"
    )]
    InvalidId {
        /// What was given.
        id: String,
    },
    /// The id is taken.
    #[error("container with id {id:?} already exists: delete it first or choose another id")]
    Exists {
        /// The id.
        id: String,
    },
    /// There is no such container.
    #[error("container {id:?} does not exist")]
    NotFound {
        /// The id.
        id: String,
    },
    /// A signal or an exec for a container whose init is gone.
    #[error("container not running")]
    NotRunning,
    /// The operation does not fit what the container is doing.
    #[error("cannot {action} container {id:?}: it is {status}")]
    Status {
        /// The verb.
        action: &'static str,
        /// The id.
        id: String,
        /// What the container is doing (created, running, stopped).
        status: String,
    },
    /// The configuration cannot be read or makes no sense.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        reason: String,
    },
    /// The configuration asks for what this build cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// systemd does not do what it was asked to.
    #[error(transparent)]
    Systemd(#[from] crate::sys::systemd::SystemdError),
    /// A step in the runtime's own process failed.
    #[error("cannot {step}: {}", sentence(source))]
    Step {
        /// What was being done, with names.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The container's own first process gave up before it executed anything.
    #[error("{reason}")]
    Init {
        /// What it was doing and why that failed.
        reason: String,
        /// Its process id where the caller asked for a sibling: the caller's
        /// parent has to reap it.
        sibling: Option<i32>,
    },
}

impl OciError {
    /// A closure for `map_err` that names the step.
    pub(crate) fn step<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Step {
            step: step.into(),
            source: source.into(),
        }
    }
}

/// An error and its causes in one line: each said once, in lower case, without
/// the number that the standard library appends.
pub(crate) fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let full = error.to_string();
        let part = full.split(" (os error ").next().unwrap_or_default();
        // Names of error codes come as `EACCES: Permission denied`.
        let part = match part.split_once(": ") {
            Some((code, rest))
                if code.len() > 2
                    && code.starts_with('E')
                    && !code.contains(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit()) =>
            {
                rest
            }
            _ => part,
        };
        let part = lower_first(part);
        if !part.is_empty() && !text.ends_with(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        next = error.source();
    }
    text
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_reads_as_one_sentence() {
        let error = OciError::step::<io::Error>("create directory \"/x\"")(
            io::Error::from_raw_os_error(libc_eacces()),
        );
        assert_eq!(
            error.to_string(),
            "cannot create directory \"/x\": permission denied"
        );
    }

    fn libc_eacces() -> i32 {
        rustix::io::Errno::ACCESS.raw_os_error()
    }

    #[derive(Debug, thiserror::Error)]
    #[error("mount failed")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_follow_the_failure_and_are_said_once() {
        let inner = io::Error::from(rustix::io::Errno::NOENT);
        assert_eq!(
            sentence(&Outer(inner)),
            "mount failed: no such file or directory"
        );
    }
}
