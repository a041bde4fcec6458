//! What pods do, shown on the real programs: one file for each capability.

#[path = "../common/mod.rs"]
mod common;
#[path = "../image_archives/mod.rs"]
mod image_archives;

mod commands;
mod empty_dir;
mod exec;
mod host_path;
mod image;
mod list_order;
mod logs;
mod namespaces;
mod process;
mod pull;
mod restart;
mod support;
mod termination;
