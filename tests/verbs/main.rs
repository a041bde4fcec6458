//! kubectl's verbs, shown on the real programs: one file for each group.

#[path = "../common/mod.rs"]
mod common;
#[path = "../pods/support.rs"]
#[expect(dead_code, reason = "the tests of pods use all of it")]
mod support;

mod attach;
mod change;
mod completion;
mod cp;
mod get;
mod kinds;
mod logs;
mod terminal;
