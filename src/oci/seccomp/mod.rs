//! Filters for system calls: from `linux.seccomp` of a container's configuration
//! (OCI runtime specification, config-linux.md, "Seccomp") to the program that the
//! kernel runs before each call (seccomp(2)).
//!
//! What the specification leaves open is as people know it from other runtimes:
//! names that no known architecture has are ignored; the machine's own architecture
//! is always among those allowed; a call of any other ends the process; a rule
//! without conditions wins over those with; conditions of one rule must all hold,
//! unless two are about the same argument, then one of them is enough. And a call
//! that is newer than every one named gets `ENOSYS`, where it would be refused
//! otherwise: programs then do without it, instead of giving up.
//!
//! A container's program is kept beside its record, so that later processes
//! (`exec`) get the same.

mod conditions;
pub mod default;
mod numbers;
mod program;

use std::fs;
use std::io;
use std::path::Path;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSyscall,
};

use self::numbers::Column;
use super::error::OciError;
use crate::sys::seccomp::{Instruction, load};

/// The file with a container's program, in the directory of its record.
pub(super) const FILE: &str = "seccomp.bpf";

/// `BPF_MAXINSNS` of linux/bpf_common.h.
const MOST_INSTRUCTIONS: usize = 4096;

/// Bytes of an instruction in [`FILE`].
const INSTRUCTION: usize = 8;

/// A program for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    program: Vec<Instruction>,
    flags: u32,
}

/// What system calls are numbered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
}

impl Machine {
    /// The one that orlop was built for.
    fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            "riscv64" => Some(Self::Riscv64),
            _ => None,
        }
    }

    fn of(architecture: Arch) -> Option<Self> {
        match architecture {
            Arch::ScmpArchNative => Self::native(),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            Arch::ScmpArchRiscv64 => Some(Self::Riscv64),
            _ => None,
        }
    }

    fn column(self) -> Column {
        match self {
            Self::X86_64 => Column::X86_64,
            Self::X86 => Column::X86,
            Self::X32 => Column::X32,
            Self::Aarch64 => Column::Aarch64,
            Self::Arm => Column::Arm,
            Self::Riscv64 => Column::Riscv64,
        }
    }

    /// `AUDIT_ARCH_*` of linux/audit.h.
    fn token(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    fn has_64_bits(self) -> bool {
        !matches!(self, Self::X86 | Self::Arm)
    }
}

impl Filter {
    /// The program for a configuration.
    ///
    /// # Errors
    /// [`OciError::Unsupported`] naming the field that cannot be honoured.
    pub(crate) fn compile(seccomp: &LinuxSeccomp) -> Result<Self, OciError> {
        let refused = |reason: &str| Err(OciError::Unsupported(format!("linux.seccomp.{reason}")));
        if seccomp.listener_path().is_some() || seccomp.listener_metadata().is_some() {
            return refused("listenerPath is not supported: remove it from the configuration");
        }
        let rules = seccomp.syscalls().as_deref().unwrap_or_default();
        let mut actions = rules.iter().map(LinuxSyscall::action);
        let notify = LinuxSeccompAction::ScmpActNotify;
        if seccomp.default_action() == notify || actions.any(|action| action == notify) {
            return refused("syscalls: SCMP_ACT_NOTIFY is not supported: choose another action");
        }
        if let Some(index) = conditions::bad_index(rules) {
            return refused(&format!(
                "syscalls: argument {index} does not exist: system calls have arguments 0 to 5"
            ));
        }
        let Some(native) = Machine::native() else {
            return refused("syscalls: no filter can be made for this machine's architecture");
        };
        let mut machines = vec![native];
        for architecture in seccomp.architectures().iter().flatten() {
            // Others are none that this kernel could run.
            if let Some(machine) = Machine::of(*architecture)
                && !machines.contains(&machine)
            {
                machines.push(machine);
            }
        }
        let mut flags = 0;
        for flag in seccomp.flags().iter().flatten() {
            flags |= match flag {
                LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 1 << 0,
                LinuxSeccompFilterFlag::SeccompFilterFlagLog => 1 << 1,
                LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 1 << 2,
                LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                    return refused(
                        "flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is not supported: it needs SCMP_ACT_NOTIFY",
                    );
                }
            };
        }
        let program = program::write(seccomp, rules, &machines);
        match program.len() {
            0..=MOST_INSTRUCTIONS => Ok(Self { program, flags }),
            length => refused(&format!(
                "syscalls: {length} instructions would be needed, and the kernel takes {MOST_INSTRUCTIONS}: use fewer rules"
            )),
        }
    }

    /// Lets the program decide over every later call of this process.
    ///
    /// # Errors
    /// As [`load`].
    pub(crate) fn load(&self) -> io::Result<()> {
        load(&self.program, self.flags)
    }

    /// Keeps the program in `directory`, that of a container's record.
    ///
    /// # Errors
    /// [`OciError::Step`].
    pub(super) fn save(&self, directory: &Path) -> Result<(), OciError> {
        let mut bytes = Vec::with_capacity(4 + self.program.len() * INSTRUCTION);
        bytes.extend(self.flags.to_le_bytes());
        for instruction in &self.program {
            bytes.extend(instruction.code.to_le_bytes());
            bytes.extend([instruction.when_true, instruction.when_false]);
            bytes.extend(instruction.operand.to_le_bytes());
        }
        let path = directory.join(FILE);
        fs::write(&path, bytes).map_err(OciError::step::<io::Error>(format!("write {path:?}")))
    }

    /// The program of the container whose record is in `directory`; `None` when it
    /// has none.
    ///
    /// # Errors
    /// [`OciError::Step`]: a container's process must not run without its filter.
    pub(super) fn saved(directory: &Path) -> Result<Option<Self>, OciError> {
        let path = directory.join(FILE);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(OciError::step::<io::Error>(format!("read {path:?}")))?,
        };
        Self::parse(&bytes)
            .map(Some)
            .ok_or(io::ErrorKind::InvalidData.into())
            .map_err(OciError::step::<io::Error>(format!("read {path:?}")))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first_chunk()?;
        let (instructions, []) = rest.as_chunks::<INSTRUCTION>() else {
            return None;
        };
        let instruction = |&[a, b, t, f, k @ ..]: &[u8; INSTRUCTION]| Instruction {
            code: u16::from_le_bytes([a, b]),
            when_true: t,
            when_false: f,
            operand: u32::from_le_bytes(k),
        };
        Some(Self {
            program: instructions.iter().map(instruction).collect(),
            flags: u32::from_le_bytes(*flags),
        })
    }
}

#[cfg(test)]
mod tests;
