//! Manifests: loading, strict checking, defaults and validation.

pub mod qos;
