//! NFS volumes, against the kernel's own server. On a kernel without NFS what is
//! said about that is shown, and the rest is skipped.

#[path = "../common/mod.rs"]
mod common;

mod client;
mod dead;
mod kernel;
mod support;
mod volumes;
