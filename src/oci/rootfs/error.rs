//! Why a root file system could not be prepared: the step, the path, the reason.

use std::io;
use std::path::PathBuf;

use super::super::error::sentence;

/// A failed step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootfsError {
    /// The kernel refused.
    #[error("cannot {step}: {}", sentence(source))]
    Step {
        /// What was being done, with the path.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is to be bound cannot be opened.
    #[error("mount source {path:?} for {destination:?}: {}", sentence(source))]
    Source {
        /// The source.
        path: PathBuf,
        /// Where it should have been mounted.
        destination: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could be done, but would be dangerous or meaningless.
    #[error("{0}")]
    Refused(String),
}

impl RootfsError {
    /// A closure for `map_err` that names the step.
    pub(super) fn step<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Step {
            step: step.into(),
            source: source.into(),
        }
    }
}
