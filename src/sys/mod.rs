//! Typed wrappers over the kernel's interfaces; the only module with `unsafe`
//! code.
//!
//! One small file per topic of the kernel. Whatever `rustix` offers is used as
//! it is; what it lacks is wrapped here, each `unsafe` block with the reason
//! why it is sound.

#![allow(unsafe_code)]

pub mod aside;
pub mod bpf;
pub mod capability;
pub mod cgroup;
pub mod clone;
pub mod dir;
pub mod exec;
pub mod file_user;
pub mod idmap;
pub mod loop_device;
pub mod memory;
pub mod mount;
pub mod mount_table;
pub mod namespace;
pub mod network;
pub mod node;
pub mod pidfd;
pub mod process;
pub mod project_quota;
pub mod readable;
pub mod real_path;
pub mod seccomp;
pub mod signals;
pub mod socket;
pub mod sysctl;
pub mod systemd;
pub mod terminal;
pub mod timer;
pub mod user_namespace;
