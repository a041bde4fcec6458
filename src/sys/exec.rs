//! execve(2) with the signals a fresh process expects.

use std::ffi::{CStr, CString, c_char};
use std::io;

/// Replaces the calling process by the program in the file `path`, with no
/// signal blocked and SIGPIPE at its default again (Rust programs ignore it,
/// and children inherit that).
///
/// `arguments` begins with the name the program sees itself called by;
/// `environment` has `NAME=value` strings. `last` is done when nothing but the call
/// itself is left. Returns only when it failed, or `last` did.
pub fn execve(
    path: &CStr,
    arguments: &[CString],
    environment: &[CString],
    last: impl FnOnce() -> io::Result<()>,
) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: the set is initialised by sigemptyset before use.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    if let Err(error) = last() {
        return error;
    }
    // SAFETY: the arrays end in a null pointer and outlive the call, as do the strings
    // they point to.
    unsafe {
        libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
    }
    io::Error::last_os_error()
}
