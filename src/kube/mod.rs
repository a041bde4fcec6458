//! Manifests: from a file's bytes to objects that can be relied upon.
//!
//! [`manifest::load`] reads YAML or JSON, routes each document by its
//! `apiVersion` and `kind`, decodes it strictly, refuses what this version
//! cannot do, fills in the defaults and validates the result as an API server
//! would. What it returns needs no further checking; what it refuses gets one
//! sentence that names file, document, field and reason.
//!
//! The small languages that manifests are written in stand beside it:
//! [`quantity`] (`1.5Gi`), [`expand`] (`$(VAR)`) and [`duration`] (`7m58s`). So do
//! those that name and change objects: [`selector`], [`jsonpath`], [`strategic`].

pub mod aggregate;
mod config;
mod decode;
pub mod defaults;
pub mod duration;
pub mod error;
pub mod expand;
pub mod field;
pub mod go_duration;
pub mod huge_pages;
pub mod jsonpath;
pub mod kind;
mod kinds;
pub mod manifest;
mod near;
mod persistence;
pub mod pids;
pub mod qos;
pub mod quantity;
pub mod selector;
mod source;
pub mod strategic;
mod strict;
pub mod supported;
pub mod validate;
mod yaml;
