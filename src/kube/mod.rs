//! Manifests: loading, strict checking, defaults and validation.
