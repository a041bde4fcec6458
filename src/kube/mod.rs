//! Manifests: from a file's bytes to objects that can be relied upon.

pub mod duration;
mod error;
pub mod qos;
pub mod quantity;
