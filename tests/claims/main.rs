//! Volumes that outlive pods, shown on the real programs: claims, binding, phases,
//! protection, and what pods see of it.

#[path = "../common/mod.rs"]
mod common;

mod binding;
mod crash;
mod pods;
mod retain;
mod support;
mod verbs;
mod waiting;
