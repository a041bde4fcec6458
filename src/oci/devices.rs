//! Which devices a container may use: `linux.resources.devices` (OCI runtime
//! specification, config-linux.md) as a BPF program on cgroup version 2, and as
//! lines for the devices controller on version 1.
//!
//! The rules mean the same on both: they are first worked out into a default
//! and exceptions from it, the way version 1 keeps them
//! (Documentation/admin-guide/cgroup-v1/devices.rst).

use std::fs::{self, File};
use std::io;
use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::cgroup::Cgroup;
use super::error::OciError;
use crate::sys::bpf::{Instruction, attach_device_program, load_device_program};

const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Block = 1,
    Character = 2,
}

/// Devices, and what may or may not be done with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Exception {
    fn covers(&self, other: &Self) -> bool {
        let any = |mine: Option<u32>, theirs| mine.is_none() || mine == theirs;
        self.kind == other.kind
            && any(self.major, other.major)
            && any(self.minor, other.minor)
            && self.access & other.access != 0
    }

    fn same_devices(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }
}

/// What all rules together come to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Policy {
    allow: bool,
    exceptions: Vec<Exception>,
}

impl Policy {
    fn from_rules(rules: &[LinuxDeviceCgroup]) -> Result<Self, String> {
        let mut policy = Self {
            allow: true,
            exceptions: Vec::new(),
        };
        for (index, rule) in rules.iter().enumerate() {
            policy
                .add(rule)
                .map_err(|reason| format!("linux.resources.devices[{index}]: {reason}"))?;
        }
        // What every container needs for its own /dev (config-linux.md,
        // "Default Devices"), and making nodes that it then can't open.
        for (kind, major, minor, access) in [
            (Kind::Character, None, None, MKNOD),
            (Kind::Block, None, None, MKNOD),
            (Kind::Character, Some(1), Some(3), ALL),
            (Kind::Character, Some(1), Some(5), ALL),
            (Kind::Character, Some(1), Some(7), ALL),
            (Kind::Character, Some(1), Some(8), ALL),
            (Kind::Character, Some(1), Some(9), ALL),
            (Kind::Character, Some(5), Some(0), ALL),
            (Kind::Character, Some(5), Some(1), ALL),
            (Kind::Character, Some(5), Some(2), ALL),
            (Kind::Character, Some(136), None, ALL),
        ] {
            policy.change(
                true,
                Exception {
                    kind,
                    major,
                    minor,
                    access,
                },
            );
        }
        Ok(policy)
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup) -> Result<(), String> {
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => {
                self.allow = rule.allow();
                self.exceptions.clear();
                return Ok(());
            }
            Some(LinuxDeviceType::B) => Kind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Kind::Character,
            // A named pipe is no device: there is nothing to allow or deny.
            Some(LinuxDeviceType::P) => return Ok(()),
        };
        let exception = Exception {
            kind,
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            access: access(rule.access().as_deref().unwrap_or_default())?,
        };
        let punched = self.exceptions.iter().find(|wider| {
            rule.allow() == self.allow
                && wider.covers(&exception)
                && !wider.same_devices(&exception)
        });
        if let Some(wider) = punched {
            return Err(format!(
                "{} takes back a part of an earlier rule for {}: list the parts instead",
                line(&exception),
                line(wider)
            ));
        }
        self.change(rule.allow(), exception);
        Ok(())
    }

    fn change(&mut self, allow: bool, change: Exception) {
        let known = self
            .exceptions
            .iter_mut()
            .find(|known| known.same_devices(&change));
        match (allow == self.allow, known) {
            (true, Some(known)) => known.access &= !change.access,
            (true, None) => {}
            (false, Some(known)) => known.access |= change.access,
            (false, None) => self.exceptions.push(change),
        }
        self.exceptions.retain(|exception| exception.access != 0);
    }

    fn restricts(&self) -> bool {
        !self.allow || !self.exceptions.is_empty()
    }
}

fn number(number: Option<i64>) -> Result<Option<u32>, String> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| format!("{number} is not a device number")),
    }
}

fn access(text: &str) -> Result<u8, String> {
    if text.is_empty() {
        return Ok(ALL);
    }
    text.chars().try_fold(0, |access, letter| match letter {
        'r' => Ok(access | READ),
        'w' => Ok(access | WRITE),
        'm' => Ok(access | MKNOD),
        _ => Err(format!("access {text:?} is not made of r, w and m")),
    })
}

/// An exception as the version 1 controller reads it: `c 1:3 rwm`.
fn line(exception: &Exception) -> String {
    let kind = match exception.kind {
        Kind::Block => 'b',
        Kind::Character => 'c',
    };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
    let access: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
        .into_iter()
        .filter(|(bit, _)| exception.access & bit != 0)
        .map(|(_, letter)| letter)
        .collect();
    let (major, minor) = (number(exception.major), number(exception.minor));
    format!("{kind} {major}:{minor} {access}")
}

/// Makes `rules` the law in a group that exists. Without rules nothing is
/// restricted. In a user namespace, where the kernel lets nobody make such
/// laws, the ones of the machine around it hold.
///
/// # Errors
/// [`OciError::Unsupported`] naming a rule that makes no sense, and when the
/// kernel refuses the law: a container is never started with more devices than
/// its configuration allows.
pub(crate) fn apply(cgroup: &Cgroup, rules: &[LinuxDeviceCgroup]) -> Result<(), OciError> {
    if rules.is_empty() {
        return Ok(());
    }
    let policy = Policy::from_rules(rules).map_err(OciError::Unsupported)?;
    if !policy.restricts() {
        return Ok(());
    }
    let applied = match (cgroup, cgroup.directory("devices")) {
        (Cgroup::Unified(_), Some(directory)) => load_device_program(&program(&policy))
            .and_then(|program| attach_device_program(File::open(directory)?, program)),
        (Cgroup::Legacy(_), Some(directory)) => write_lines(directory, &policy),
        (_, None) => Err(io::Error::other("there is no devices controller")),
    };
    match applied {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && in_user_namespace() => {
            Ok(())
        }
        other => other.map_err(OciError::step::<io::Error>(
            "restrict the container's devices as linux.resources.devices asks",
        )),
    }
}

fn in_user_namespace() -> bool {
    // The first namespace maps all ids there are, in one line.
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.contains("4294967295"))
}

fn write_lines(directory: &Path, policy: &Policy) -> io::Result<()> {
    let (default, exceptions) = match policy.allow {
        true => ("devices.allow", "devices.deny"),
        false => ("devices.deny", "devices.allow"),
    };
    fs::write(directory.join(default), "a")?;
    for exception in &policy.exceptions {
        fs::write(directory.join(exceptions), line(exception))?;
    }
    Ok(())
}

// Registers: the context on entry, then the fields of bpf_cgroup_dev_ctx.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Operations of linux/bpf.h and linux/bpf_common.h.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: u32) -> Instruction {
    Instruction {
        code,
        registers: from << 4 | to,
        offset,
        immediate: immediate as i32,
    }
}

/// A policy as a program: each exception is a run of tests that a request has
/// to pass; the first that it passes decides, else the default does.
fn program(policy: &Policy) -> Vec<Instruction> {
    let simple = |code, to, immediate| instruction(code, to, 0, 0, immediate);
    let verdict = |allow: bool| [simple(MOVE, RESULT, allow.into()), simple(EXIT, 0, 0)];
    let mut program = vec![
        instruction(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, ACCESS, TYPE, 0, 0),
        simple(AND, TYPE, 0xffff),
        simple(SHIFT_RIGHT, ACCESS, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for exception in &policy.exceptions {
        let mut tests = vec![simple(JUMP_UNLESS_EQUAL, TYPE, exception.kind as u32)];
        for (register, number) in [(MAJOR, exception.major), (MINOR, exception.minor)] {
            tests.extend(number.map(|number| simple(JUMP_UNLESS_EQUAL, register, number)));
        }
        tests.push(instruction(MOVE_REGISTER, SCRATCH, ACCESS, 0, 0));
        if policy.allow {
            // Any part of the request that is denied denies it.
            tests.push(simple(AND, SCRATCH, exception.access.into()));
            tests.push(simple(JUMP_IF_EQUAL, SCRATCH, 0));
        } else {
            // Every part of the request must be allowed.
            tests.push(simple(AND, SCRATCH, (ALL & !exception.access).into()));
            tests.push(simple(JUMP_UNLESS_EQUAL, SCRATCH, 0));
        }
        let next = tests.len() + 2;
        for (index, test) in tests.iter_mut().enumerate() {
            if matches!(test.code, JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL) {
                // At most seven instructions: it fits.
                test.offset = (next - index - 1) as i16;
            }
        }
        program.extend(tests);
        program.extend(verdict(!policy.allow));
    }
    program.extend(verdict(policy.allow));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::defaults;

    fn rules(json: serde_json::Value) -> Vec<LinuxDeviceCgroup> {
        serde_json::from_value(json).expect("rules")
    }

    /// What the kernel would answer: an interpreter for the operations used.
    fn permits(program: &[Instruction], kind: Kind, access: u8, major: u32, minor: u32) -> bool {
        let context = [u32::from(access) << 16 | kind as u32, major, minor];
        let mut registers = [0u32; 6];
        let mut next = 0;
        loop {
            let Instruction {
                code,
                registers: pair,
                offset,
                immediate,
            } = program[next];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let immediate = immediate as u32;
            next += 1;
            match code {
                LOAD_WORD => registers[to] = context[offset as usize / 4],
                MOVE => registers[to] = immediate,
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= immediate,
                SHIFT_RIGHT => registers[to] >>= immediate,
                JUMP_IF_EQUAL if registers[to] == immediate => next += offset as usize,
                JUMP_UNLESS_EQUAL if registers[to] != immediate => next += offset as usize,
                JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("operation {other:#x}"),
            }
        }
    }

    #[test]
    fn an_ordinary_container_opens_null_and_not_the_disk() {
        let policy = Policy::from_rules(&defaults::device_rules()).expect("policy");
        let program = program(&policy);
        let may = |kind, access, major, minor| permits(&program, kind, access, major, minor);
        assert!(may(Kind::Character, READ | WRITE, 1, 3));
        assert!(may(Kind::Character, READ | WRITE, 136, 77));
        assert!(may(Kind::Block, MKNOD, 8, 0));
        assert!(!may(Kind::Block, READ, 8, 0));
        assert!(!may(Kind::Block, READ | MKNOD, 8, 0));
        assert!(!may(Kind::Character, READ, 1, 1), "/dev/mem");
    }

    #[test]
    fn what_was_allowed_piece_by_piece_is_allowed_together() {
        let policy = Policy::from_rules(&rules(serde_json::json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "w"},
        ])));
        let program = program(&policy.expect("policy"));
        assert!(permits(&program, Kind::Character, READ | WRITE, 10, 229));
        assert!(!permits(&program, Kind::Character, READ, 10, 230));
    }

    #[test]
    fn a_privileged_container_with_one_device_denied_keeps_the_others() {
        let policy = Policy::from_rules(&rules(serde_json::json!([
            {"allow": true, "type": "a"},
            {"allow": false, "type": "b", "major": 8, "access": "w"},
        ])));
        let program = program(&policy.expect("policy"));
        assert!(permits(&program, Kind::Block, READ, 8, 0));
        assert!(!permits(&program, Kind::Block, READ | WRITE, 8, 3));
        assert!(permits(&program, Kind::Character, ALL, 8, 3));
    }

    #[test]
    fn a_rule_that_would_silently_do_nothing_is_refused() {
        for (json, part) in [
            (
                serde_json::json!([
                    {"allow": false},
                    {"allow": true, "type": "c"},
                    {"allow": false, "type": "c", "major": 1, "minor": 1},
                ]),
                "devices[2]: c 1:1 rwm takes back a part of an earlier rule for c *:* rwm",
            ),
            (
                serde_json::json!([{"allow": true, "type": "c", "access": "x"}]),
                "devices[0]: access \"x\" is not made of r, w and m",
            ),
            (
                serde_json::json!([{"allow": true, "type": "c", "major": -2}]),
                "devices[0]: -2 is not a device number",
            ),
        ] {
            let refused = Policy::from_rules(&rules(json)).expect_err("accepted");
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn allowing_everything_restricts_nothing() {
        let everything = rules(serde_json::json!([{"allow": true, "type": "a", "access": "rwm"}]));
        assert!(!Policy::from_rules(&everything).expect("policy").restricts());
    }

    #[test]
    fn the_kernel_takes_the_program_where_it_takes_any() {
        let policy = Policy::from_rules(&defaults::device_rules()).expect("policy");
        match load_device_program(&program(&policy)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("skipped: this kernel lets nobody load programs here ({error})");
            }
            Err(error) => panic!("rejected: {error}"),
        }
    }
}
