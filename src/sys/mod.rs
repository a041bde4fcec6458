//! Typed wrappers over the kernel's interfaces; the only module with `unsafe`
//! code.
//!
//! One small file per topic of the kernel. Whatever `rustix` offers is used as
//! it is; what it lacks is wrapped here, each `unsafe` block with the reason
//! why it is sound.

pub mod capability;
pub mod cgroup;
pub mod mount;
pub mod namespace;
pub mod network;
pub mod node;
pub mod process;
pub mod socket;
pub mod terminal;
pub mod dir;
pub mod clone;
pub mod exec;
pub mod pidfd;
pub mod signals;
