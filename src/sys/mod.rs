//! Typed wrappers over the kernel's interfaces; the only module with `unsafe` code.

#![allow(unsafe_code)]

pub mod bpf;
pub mod clone;
pub mod exec;
pub mod namespace;
pub mod pidfd;
pub mod signals;
