//! What pods do, shown on the real programs: one file for each capability.

#[path = "../common/mod.rs"]
mod common;

mod commands;
mod empty_dir;
mod exec;
mod host_path;
mod image;
mod init;
mod lifecycle;
mod list_order;
mod logs;
mod messages;
mod namespaces;
mod probes;
mod process;
mod restart;
mod servers;
mod sidecars;
mod support;
mod termination;
