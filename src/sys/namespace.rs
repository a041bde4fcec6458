//! Leaving namespaces (unshare(2)).

#![allow(unsafe_code)]

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling process, which must have one thread, into new namespaces
/// of the kinds in `flags`.
///
/// # Errors
/// What unshare(2) says.
pub fn leave(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the flags that can break a process are those which unshare memory
    // resources between threads (FILES, FS); with one thread nothing is shared.
    Ok(unsafe { unshare_unsafe(flags) }?)
}
