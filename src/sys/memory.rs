//! Giving memory back that a process which waits has no use for.

use std::io;
use std::mem::MaybeUninit;

unsafe extern "C" {
    /// First byte of the program, as the linker places it.
    static __executable_start: u8;
    /// First byte behind the program's text.
    static etext: u8;
}

/// How much of the stack below the caller stays as it is: the frames of this
/// call and of what is called next.
const FRAMES: usize = 8 << 10;

/// Gives back what the calling process has touched and does not use: free heap
/// (malloc_trim(3)), the caller's stack below its frame, and the program's own
/// pages. Those stay in the page cache, and what of them is needed again comes
/// back one by one. For a long-lived process that has done something and waits.
///
/// # Errors
/// What pthread_getattr_np(3) or madvise(2) say. What was given back by then
/// stays so.
pub fn release_unused() -> io::Result<()> {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointers and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
    let here = 0_u8;
    let stack = stack_begin()?;
    // SAFETY: below every live frame of this thread, and within its own stack:
    // what lies there is nobody's.
    unsafe { discard(stack, &raw const here as usize - FRAMES) }?;
    // SAFETY: private mappings of the program's file to which nobody can write:
    // what is dropped is read from the file again.
    unsafe {
        discard(
            &raw const __executable_start as usize,
            &raw const etext as usize,
        )
    }
}

/// The lowest address that the calling thread's stack may grow to.
fn stack_begin() -> io::Result<usize> {
    let check = |result| match result {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    };
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut begin = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: `attributes` is initialised by the first call, read by the second
    // and given back by the third; all pointers live across the calls.
    unsafe {
        check(libc::pthread_getattr_np(
            libc::pthread_self(),
            attributes.as_mut_ptr(),
        ))?;
        let read = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut begin, &raw mut size);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        check(read)?;
    }
    Ok(begin as usize)
}

/// Drops the whole pages from `begin` to `end`.
///
/// # Safety
/// Nobody may rely on what they contain, or it must be the content of a file.
unsafe fn discard(begin: usize, end: usize) -> io::Result<()> {
    let page = rustix::param::page_size();
    let (begin, end) = (begin.next_multiple_of(page), end & !(page - 1));
    if end <= begin {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    let result =
        unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_DONTNEED) };
    match result {
        -1 => match io::Error::last_os_error() {
            // A stack is mapped as far as it has grown; what is mapped was dropped.
            error if error.raw_os_error() == Some(libc::ENOMEM) => Ok(()),
            error => Err(error),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(levels: u32) -> u64 {
        let page = std::hint::black_box([levels; 1024]);
        if levels == 0 {
            return 0;
        }
        depth(levels - 1) + u64::from(page[17])
    }

    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/smaps_rollup").expect("smaps_rollup");
        let line = status
            .lines()
            .find(|line| line.starts_with("Rss:"))
            .expect("Rss");
        line.split_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("a number")
    }

    #[test]
    fn what_was_used_once_is_given_back_and_what_is_in_use_stays() {
        let kept: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        assert_eq!(depth(200), (0..=200).sum::<u64>());
        let before = resident();
        release_unused().expect("release");
        let after = resident();
        // 800 KiB of stack, and some of the program.
        assert!(after + 700 < before, "{before} KiB, then {after} KiB");
        assert_eq!(depth(200), (0..=200).sum::<u64>());
        assert!(kept.iter().copied().eq((0..=255).cycle().take(1 << 20)));
    }
}
