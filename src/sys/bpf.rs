//! bpf(2), as far as control groups need it: a program that decides which
//! devices the processes of a cgroup v2 group may open.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const LICENSE: &CStr = c"Apache-2.0";

/// One instruction (`struct bpf_insn` of linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source in the high four.
    pub registers: u8,
    /// Offset of a load or a jump.
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads here.
#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that BPF_PROG_ATTACH reads here.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Loads a device program (BPF_PROG_TYPE_CGROUP_DEVICE).
///
/// # Errors
/// `EPERM` without CAP_BPF and CAP_NET_ADMIN or in a nested machine, `EINVAL`
/// or `EACCES` when the verifier rejects the program.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let load = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads the size of `load` from it, and what its two
    // pointers lead to: both outlive the call, the count fits the array and the
    // licence ends in a zero byte.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const load,
            std::mem::size_of::<Load>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned it: it is open, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a loaded device program to a directory of the cgroup v2 tree, where
/// it stays until the directory is removed. Programs of groups above keep
/// their say.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN, or when a group above forbids programs below.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let attach = Attach {
        target: cgroup.as_fd().as_raw_fd() as u32,
        program: program.as_fd().as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the kernel reads the size of `attach` from it and keeps nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attach,
            std::mem::size_of::<Attach>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
