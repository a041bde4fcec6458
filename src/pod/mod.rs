//! One pod from plan to clean-up: launcher, keeper, status and logs.

pub mod spec;
