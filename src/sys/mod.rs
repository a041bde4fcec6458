//! Typed wrappers over the kernel's interfaces; the only module with `unsafe` code.

pub mod dir;
