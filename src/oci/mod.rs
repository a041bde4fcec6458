//! One container: from an OCI specification to a process, through libcontainer.

mod adapt;
pub mod cgroup;
mod child;
pub mod command;
pub mod config;
mod confinement;
pub mod container;
pub mod defaults;
mod devices;
pub mod error;
mod executor;
mod launch;
mod limits;
mod namespaces;
mod rootfs;
pub mod seccomp;
pub mod signal;
pub mod state;
pub mod systemd;
mod users;

pub use error::OciError;
