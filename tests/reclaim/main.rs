//! What becomes of volumes whose claims are gone, and volumes that are made for
//! claims, shown on the real programs.

#[path = "../common/mod.rs"]
mod common;
#[path = "../claims/support.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod support;

mod crash;
mod delete;
mod local_path;
mod nfs;
mod recycle;
