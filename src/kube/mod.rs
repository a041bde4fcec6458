//! Manifests: loading, strict checking, defaults and validation.

pub mod qos;
pub mod duration;
mod error;
pub mod quantity;
