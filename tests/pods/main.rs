//! What pods do, shown on the real programs: one file for each capability.

#[path = "../common/mod.rs"]
mod common;
#[path = "../image_archives/mod.rs"]
mod image_archives;

mod commands;
mod config_maps;
mod downward_api;
mod empty_dir;
mod environment;
mod exec;
mod host_path;
mod huge_pages;
mod image;
mod image_volumes;
mod init;
mod lifecycle;
mod list_order;
mod logs;
mod messages;
mod namespaces;
mod probes;
mod process;
mod projected;
mod propagation;
mod pull;
mod recursive_read_only;
mod resources;
mod restart;
mod seccomp;
mod secrets;
mod security;
mod servers;
mod sidecars;
mod size_limit;
mod sub_path;
mod support;
mod termination;
mod tree;
mod users;
