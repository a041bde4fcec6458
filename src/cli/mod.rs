//! The verbs of `orlop`, one file each.

pub mod image;
