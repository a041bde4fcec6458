//! What a pod's keeper and the process that pulls an image for it say to each
//! other. The keeper's memory is counted, and it must never wait: so it
//! executes `orlop image pull --for-pod`, gives it a [`Question`] on its
//! standard input, and takes an [`Answer`] from the last line of its output.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the keeper wants.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Question {
    /// Decoded docker configurations of the pod's image pull secrets, in list
    /// order. They go through a pipe: arguments and environments are seen by others.
    pub secrets: Vec<String>,
}

/// What became of a pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "outcome",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Answer {
    /// The image is here, as the registry has it.
    Pulled {
        /// Bytes of file data in it.
        size: u64,
        /// The time that went by while somebody else pulled the same.
        waited: Duration,
    },
    /// No registry answers, but the image is here from before.
    Kept {
        /// What the network said.
        reason: String,
    },
    /// There is no image.
    Failed {
        /// One sentence.
        reason: String,
    },
}
