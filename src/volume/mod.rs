//! The kinds of volumes, one file each, and safe deletion.

pub mod remove;
pub mod trash;
