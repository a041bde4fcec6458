//! The verbs of `orlop`, one file each.

pub mod describe;
pub mod get;
pub mod pod_row;
pub mod print;
