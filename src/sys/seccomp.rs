//! seccomp(2): a program that decides which system calls the calling process, and
//! whatever it becomes, may still make.

use std::io;

const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;

/// One instruction of classic BPF (`struct sock_filter` of linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip when a condition holds.
    pub when_true: u8,
    /// How many instructions to skip when it does not.
    pub when_false: u8,
    /// Operand.
    pub operand: u32,
}

/// `struct sock_fprog` of linux/filter.h.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Lets `program` decide over every later system call of the calling thread and of
/// the programs that it executes. Cannot be taken back. `flags` are the
/// `SECCOMP_FILTER_FLAG_*` of linux/seccomp.h.
///
/// # Errors
/// `EACCES` without `no_new_privs` and without CAP_SYS_ADMIN, `EINVAL` for a program
/// or flags that the kernel does not take, or a kernel without filters.
pub fn load(program: &[Instruction], flags: u32) -> io::Result<()> {
    let program = Program {
        length: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr(),
    };
    // SAFETY: the kernel copies the program during the call; the pointer leads to as
    // many instructions as the length says, laid out as the kernel has them.
    let loaded = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    match loaded {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
