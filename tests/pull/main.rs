//! `orlop image pull`, shown on a real registry server and on lying ones.

#[path = "../common/mod.rs"]
mod common;

#[path = "../image_archives/mod.rs"]
mod image_archives;

mod content;
mod credentials;
mod hostile;
mod interrupted;
mod names;
mod support;
