//! Conditions on the arguments of a system call.
//!
//! The kernel's program works on 32 bits at a time; arguments have 64. Where the
//! architecture has 32, the lower half alone is looked at.

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::program::{self, op, with_jumps};
use crate::sys::seccomp::Instruction;

/// How many arguments a system call has.
const ARGUMENTS: usize = 6;

/// Where the arguments begin in `struct seccomp_data` (linux/seccomp.h).
const OFFSET: u32 = 16;

/// Stands for the end of the rule until its length is known.
const ELSE: u8 = u8::MAX;

/// An argument that no system call has.
pub(super) fn bad_index(rules: &[LinuxSyscall]) -> Option<usize> {
    let all = rules.iter().filter_map(|rule| rule.args().as_ref());
    let mut indices = all.flatten().map(LinuxSeccompArg::index);
    indices.find(|index| *index >= ARGUMENTS)
}

/// Whether a rule holds for every call of its names.
pub(super) fn are_none(rule: &LinuxSyscall) -> bool {
    rule.args().as_ref().is_none_or(Vec::is_empty)
}

/// What returns `action` when the conditions of `rule` hold, and goes on behind
/// itself when they do not.
pub(super) fn write(rule: &LinuxSyscall, action: u32, wide: bool, out: &mut Vec<Instruction>) {
    let conditions = rule.args().as_deref().unwrap_or_default();
    let repeats = |(at, condition): (usize, &LinuxSeccompArg)| {
        let before = &conditions[..at];
        before
            .iter()
            .any(|other| other.index() == condition.index())
    };
    if conditions.iter().enumerate().any(repeats) {
        for condition in conditions {
            together(std::slice::from_ref(condition), action, wide, out);
        }
    } else {
        together(conditions, action, wide, out);
    }
}

fn together(conditions: &[LinuxSeccompArg], action: u32, wide: bool, out: &mut Vec<Instruction>) {
    let mut all = Vec::new();
    for condition in conditions {
        check(condition, wide, &mut all);
    }
    all.push(program::answer(action));
    let end = all.len();
    for (at, instruction) in all.iter_mut().enumerate() {
        // Six conditions of six instructions each at most.
        let distance = u8::try_from(end - at - 1).unwrap_or_else(|_| unreachable!("a short rule"));
        for jump in [&mut instruction.when_true, &mut instruction.when_false] {
            if *jump == ELSE {
                *jump = distance;
            }
        }
    }
    out.append(&mut all);
}

/// Goes on behind itself when the condition holds.
fn check(condition: &LinuxSeccompArg, wide: bool, out: &mut Vec<Instruction>) {
    use LinuxSeccompOperator::{
        ScmpCmpEq, ScmpCmpGe, ScmpCmpGt, ScmpCmpLe, ScmpCmpLt, ScmpCmpMaskedEq, ScmpCmpNe,
    };
    // Arguments have at most six numbers.
    let low = OFFSET + 8 * u32::try_from(condition.index()).unwrap_or_default();
    let high = low + 4;
    let load = |at| with_jumps(op::LOAD, at, 0, 0);
    let test = with_jumps;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (upper, lower) = halves(condition.value());
    match condition.op() {
        ScmpCmpEq => {
            if wide {
                out.extend([load(high), test(op::EQUAL, upper, 0, ELSE)]);
            }
            out.extend([load(low), test(op::EQUAL, lower, 0, ELSE)]);
        }
        ScmpCmpNe => {
            if wide {
                out.extend([load(high), test(op::EQUAL, upper, 0, 2)]);
            }
            out.extend([load(low), test(op::EQUAL, lower, ELSE, 0)]);
        }
        ScmpCmpMaskedEq => {
            let (upper_want, lower_want) = halves(condition.value_two().unwrap_or_default());
            if wide {
                let mask = with_jumps(op::AND, upper, 0, 0);
                out.extend([load(high), mask, test(op::EQUAL, upper_want, 0, ELSE)]);
            }
            let mask = with_jumps(op::AND, lower, 0, 0);
            out.extend([load(low), mask, test(op::EQUAL, lower_want, 0, ELSE)]);
        }
        greater @ (ScmpCmpGt | ScmpCmpGe) => {
            if wide {
                let equal = test(op::EQUAL, upper, 0, ELSE);
                out.extend([load(high), test(op::GREATER, upper, 3, 0), equal]);
            }
            let code = match greater {
                ScmpCmpGt => op::GREATER,
                _ => op::AT_LEAST,
            };
            out.extend([load(low), test(code, lower, 0, ELSE)]);
        }
        less @ (ScmpCmpLt | ScmpCmpLe) => {
            if wide {
                let equal = test(op::EQUAL, upper, 0, 2);
                out.extend([load(high), test(op::GREATER, upper, ELSE, 0), equal]);
            }
            let code = match less {
                ScmpCmpLt => op::AT_LEAST,
                _ => op::GREATER,
            };
            out.extend([load(low), test(code, lower, ELSE, 0)]);
        }
    }
}
