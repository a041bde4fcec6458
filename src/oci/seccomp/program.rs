//! The program of a filter: which architecture, then which number (a tree of
//! comparisons, so that a call costs a dozen instructions however many are named),
//! then what the rules say.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};

use super::{Machine, conditions, numbers};
use crate::sys::seccomp::Instruction;

/// Operations (linux/bpf_common.h): classes, sizes and modes put together.
pub(super) mod op {
    /// Loads a word of `struct seccomp_data`.
    pub(crate) const LOAD: u16 = 0x20;
    pub(crate) const AND: u16 = 0x54;
    pub(crate) const JUMP: u16 = 0x05;
    pub(crate) const EQUAL: u16 = 0x15;
    pub(crate) const GREATER: u16 = 0x25;
    pub(crate) const AT_LEAST: u16 = 0x35;
    pub(crate) const RETURN: u16 = 0x06;
}

/// `SECCOMP_RET_*` of linux/seccomp.h.
mod answers {
    pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
    pub(super) const KILL_THREAD: u32 = 0;
    pub(super) const TRAP: u32 = 0x0003_0000;
    pub(super) const ERRNO: u32 = 0x0005_0000;
    pub(super) const TRACE: u32 = 0x7ff0_0000;
    pub(super) const LOG: u32 = 0x7ffc_0000;
    pub(super) const ALLOW: u32 = 0x7fff_0000;
    /// The bits for a value, such as an error number.
    pub(super) const DATA: u32 = 0xffff;
}

/// Where `struct seccomp_data` has the number and the architecture.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Numbers of x32 begin here (`__X32_SYSCALL_BIT`).
const X32: u32 = 1 << 30;

/// Numbers of ARM's own begin here; they say nothing about how new a call is.
const PRIVATE: u32 = 0x000f_0000;

/// The number that a tracer leaves behind for a call that shall not be made.
const SKIPPED: u32 = u32::MAX;

pub(super) fn with_jumps(code: u16, operand: u32, when_true: u8, when_false: u8) -> Instruction {
    Instruction {
        code,
        when_true,
        when_false,
        operand,
    }
}

pub(super) fn answer(action: u32) -> Instruction {
    with_jumps(op::RETURN, action, 0, 0)
}

/// The whole program; its length may be more than the kernel takes.
pub(super) fn write(
    seccomp: &LinuxSeccomp,
    rules: &[LinuxSyscall],
    machines: &[Machine],
) -> Vec<Instruction> {
    let default = value(seccomp.default_action(), seccomp.default_errno_ret());
    let allows = matches!(
        default & !answers::DATA,
        answers::ALLOW | answers::LOG | answers::TRACE
    );
    let unknown = match allows {
        true => default,
        false => answers::ERRNO | libc::ENOSYS.cast_unsigned(),
    };
    let named = Named::new(rules);
    let mut program = vec![with_jumps(op::LOAD, ARCHITECTURE, 0, 0)];
    for machine in machines.iter().filter(|machine| **machine != Machine::X32) {
        let mut ranges = named.ranges(*machine, default, unknown);
        if *machine == Machine::X86_64 {
            match machines.contains(&Machine::X32) {
                true => ranges.extend(named.ranges(Machine::X32, default, unknown)),
                false => ranges.push((X32, Leaf::Answer(answers::KILL_PROCESS))),
            }
            ranges.push((SKIPPED, Leaf::Answer(default)));
        }
        let body = named.tree(&ranges, machine.has_64_bits(), default);
        program.push(with_jumps(op::EQUAL, machine.token(), 1, 0));
        program.push(jump(body.len() + 1));
        program.push(with_jumps(op::LOAD, NUMBER, 0, 0));
        program.extend(body);
    }
    program.push(answer(answers::KILL_PROCESS));
    program
}

/// What the kernel is to answer for an action.
fn value(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    let data = errno
        .unwrap_or(libc::EPERM.cast_unsigned())
        .min(answers::DATA);
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            answers::KILL_THREAD
        }
        LinuxSeccompAction::ScmpActKillProcess => answers::KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => answers::TRAP,
        LinuxSeccompAction::ScmpActErrno => answers::ERRNO | data,
        LinuxSeccompAction::ScmpActTrace => answers::TRACE | data,
        LinuxSeccompAction::ScmpActLog => answers::LOG,
        LinuxSeccompAction::ScmpActAllow => answers::ALLOW,
        LinuxSeccompAction::ScmpActNotify => unreachable!("refused before"),
    }
}

fn jump(over: usize) -> Instruction {
    // A program of that length is refused in the end.
    with_jumps(op::JUMP, u32::try_from(over).unwrap_or(u32::MAX), 0, 0)
}

/// What is to be done for the numbers from one to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Leaf {
    Answer(u32),
    /// The rules with these indices, the first that holds.
    Rules(Vec<usize>),
}

/// The system calls that rules name.
struct Named<'a> {
    rules: &'a [LinuxSyscall],
    /// Rows of the table of numbers, each with the index of a rule.
    rows: Vec<(usize, usize)>,
}

impl<'a> Named<'a> {
    fn new(rules: &'a [LinuxSyscall]) -> Self {
        let names = rules.iter().map(LinuxSyscall::names).enumerate();
        let rows = names.flat_map(|(index, names)| {
            let rows = names.iter().filter_map(|name| numbers::row(name));
            rows.map(move |row| (row, index))
        });
        Self {
            rules,
            rows: rows.collect(),
        }
    }

    fn action(&self, rule: usize) -> u32 {
        let rule = &self.rules[rule];
        value(rule.action(), rule.errno_ret())
    }

    /// Every number of an architecture, in order: where a range begins and what is
    /// done in it.
    fn ranges(&self, machine: Machine, default: u32, unknown: u32) -> Vec<(u32, Leaf)> {
        let numbered = self.rows.iter().filter_map(|(row, rule)| {
            let number = numbers::number(*row, machine.column())?;
            Some((number, *rule))
        });
        let mut calls: Vec<(u32, usize)> = numbered.collect();
        calls.sort_unstable();
        let known = calls.iter().map(|(number, _)| *number);
        let newest = known.filter(|number| *number & !X32 < PRIVATE).max();
        let behind = |number: u32| match newest {
            Some(newest) if number <= newest => default,
            _ => unknown,
        };
        let first = match machine {
            Machine::X32 => X32,
            _ => 0,
        };
        let mut ranges: Vec<(u32, Leaf)> = Vec::with_capacity(calls.len());
        let mut add = |number: u32, leaf: Leaf| match ranges.last_mut() {
            Some((_, last)) if *last == leaf => {}
            Some((start, last)) if *start == number => *last = leaf,
            _ => ranges.push((number, leaf)),
        };
        add(first, Leaf::Answer(behind(first)));
        for calls in calls.chunk_by(|one, other| one.0 == other.0) {
            let number = calls[0].0;
            add(number, self.leaf(calls, default));
            add(number + 1, Leaf::Answer(behind(number + 1)));
        }
        ranges
    }

    /// What is done for one call, given with each rule that names it.
    fn leaf(&self, calls: &[(u32, usize)], default: u32) -> Leaf {
        let rules = calls.iter().map(|(_, rule)| *rule);
        let rules: Vec<usize> = rules.filter(|rule| self.action(*rule) != default).collect();
        let always = rules
            .iter()
            .copied()
            .find(|rule| conditions::are_none(&self.rules[*rule]));
        match always {
            Some(rule) => Leaf::Answer(self.action(rule)),
            None if rules.is_empty() => Leaf::Answer(default),
            None => Leaf::Rules(rules),
        }
    }

    /// The comparisons that lead to the leaves of `ranges`, of which there is one at
    /// least.
    fn tree(&self, ranges: &[(u32, Leaf)], wide: bool, default: u32) -> Vec<Instruction> {
        let mut out = Vec::new();
        match ranges {
            [(_, Leaf::Answer(action))] => out.push(answer(*action)),
            [(_, Leaf::Rules(rules))] => {
                for rule in rules {
                    conditions::write(&self.rules[*rule], self.action(*rule), wide, &mut out);
                }
                out.push(answer(default));
            }
            ranges => {
                let (below, above) = ranges.split_at(ranges.len() / 2);
                let start = above[0].0;
                let below = self.tree(below, wide, default);
                match u8::try_from(below.len()) {
                    Ok(length) => out.push(with_jumps(op::AT_LEAST, start, length, 0)),
                    Err(_) => {
                        out.extend([with_jumps(op::AT_LEAST, start, 0, 1), jump(below.len())])
                    }
                }
                out.extend(below);
                out.extend(self.tree(above, wide, default));
            }
        }
        out
    }
}
