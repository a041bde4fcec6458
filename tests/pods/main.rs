//! What pods do, shown on the real programs: one file for each capability.

#[path = "../common/mod.rs"]
mod common;

mod commands;
mod empty_dir;
mod exec;
mod host_path;
mod huge_pages;
mod image;
mod list_order;
mod logs;
mod namespaces;
mod process;
mod propagation;
mod recursive_read_only;
mod restart;
mod size_limit;
mod sub_path;
mod support;
mod termination;
mod tree;
