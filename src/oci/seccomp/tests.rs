use super::*;
use crate::oci::defaults;
use oci_spec::runtime::Capability;
use serde_json::{Value, json};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

fn compiled(json: Value) -> Filter {
    let seccomp = serde_json::from_value(json).expect("a seccomp section");
    Filter::compile(&seccomp).expect("a filter")
}

/// What the kernel would answer: its interpreter, in a few lines.
fn ask(filter: &Filter, machine: Machine, number: u32, arguments: [u64; 6]) -> u32 {
    let word = |offset: u32| match offset {
        0 => number,
        4 => machine.token(),
        _ => {
            let argument = arguments[(offset as usize - 16) / 8];
            (argument >> (8 * (offset % 8))) as u32
        }
    };
    let (mut at, mut held) = (0, 0);
    loop {
        let one = filter.program[at];
        let branch = |holds: bool| usize::from(if holds { one.when_true } else { one.when_false });
        at += 1 + match one.code {
            program::op::LOAD => {
                held = word(one.operand);
                0
            }
            program::op::AND => {
                held &= one.operand;
                0
            }
            program::op::JUMP => one.operand as usize,
            program::op::EQUAL => branch(held == one.operand),
            program::op::GREATER => branch(held > one.operand),
            program::op::AT_LEAST => branch(held >= one.operand),
            program::op::RETURN => return one.operand,
            code => panic!("operation {code:#x}"),
        };
    }
}

fn number(name: &str, machine: Machine) -> u32 {
    let row = numbers::row(name).expect(name);
    numbers::number(row, machine.column()).expect(name)
}

fn call(filter: &Filter, name: &str, arguments: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let native = Machine::native().expect("a known machine");
    ask(filter, native, number(name, native), all)
}

#[test]
fn every_operator_compares_all_64_bits() {
    let big = 0x1_0000_0005_u64;
    let near = [0, 5, 6, big - 1, big, big + 1, big + (1 << 32), u64::MAX];
    type Holds = fn(u64, u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("SCMP_CMP_EQ", |a, b| a == b),
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_GT", |a, b| a > b),
        ("SCMP_CMP_GE", |a, b| a >= b),
    ];
    for (operator, holds) in operators {
        let filter = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 2, "value": big, "op": operator}]},
        ]}));
        for argument in near {
            let want = if holds(argument, big) { EPERM } else { ALLOW };
            let got = call(&filter, "read", &[0, 0, argument]);
            assert_eq!(got, want, "{argument:#x} {operator} {big:#x}");
        }
        assert_eq!(call(&filter, "write", &[0, 0, big]), ALLOW);
    }
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
         "args": [{"index": 0, "value": 0xff_0000_00f0_u64, "valueTwo": 0x1_0000_0010_u64, "op": "SCMP_CMP_MASKED_EQ"}]},
    ]}));
    assert_eq!(call(&filter, "read", &[0xf01_0000_0f1f]), ENOSYS);
    assert_eq!(call(&filter, "read", &[0xf02_0000_0f1f]), ALLOW);
    assert_eq!(call(&filter, "read", &[0xf01_0000_0f2f]), ALLOW);
}

#[test]
fn conditions_must_all_hold_unless_they_are_about_one_argument() {
    let rule = |second: u32| {
        compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
            "names": ["socket"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": second, "value": 2, "op": "SCMP_CMP_EQ"}],
        }]}))
    };
    let (both, either) = (rule(1), rule(0));
    for (arguments, all, any) in [
        ([1, 2], ALLOW, ALLOW),
        ([1, 0], EPERM, ALLOW),
        ([2, 2], EPERM, ALLOW),
        ([3, 2], EPERM, EPERM),
    ] {
        assert_eq!(call(&both, "socket", &arguments), all, "{arguments:?}");
        assert_eq!(call(&either, "socket", &arguments), any, "{arguments:?}");
    }
}

#[test]
fn a_rule_without_conditions_wins_and_unknown_names_are_ignored() {
    let filter = compiled(
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": [
            {"names": ["clone", "no_such_call"], "action": "SCMP_ACT_KILL",
             "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW"},
        ]}),
    );
    assert_eq!(call(&filter, "clone", &[1]), ALLOW);
    assert_eq!(call(&filter, "read", &[]), EPERM);
}

#[test]
fn calls_newer_than_all_named_are_unknown_instead_of_forbidden() {
    let rules = json!([{"names": ["openat2"], "action": "SCMP_ACT_ALLOW"}]);
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}));
    let native = Machine::native().expect("a known machine");
    let newest = number("openat2", native);
    assert_eq!(ask(&filter, native, newest - 1, [0; 6]), EPERM);
    assert_eq!(ask(&filter, native, newest, [0; 6]), ALLOW);
    assert_eq!(ask(&filter, native, newest + 1, [0; 6]), ENOSYS);
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}));
    assert_eq!(ask(&filter, native, newest + 1, [0; 6]), ALLOW);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn calls_of_architectures_that_are_not_named_end_the_process() {
    let rules = json!([{"names": ["read"], "action": "SCMP_ACT_ERRNO"}]);
    let alone = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
    let all = compiled(json!({
        "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules,
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_S390X"],
    }));
    for machine in [Machine::X86, Machine::X32] {
        let read = number("read", machine);
        assert_eq!(ask(&alone, machine, read, [0; 6]), KILL);
        assert_eq!(ask(&all, machine, read, [0; 6]), EPERM);
        assert_eq!(ask(&all, machine, read + 1, [0; 6]), ALLOW);
    }
    assert_eq!(ask(&all, Machine::Aarch64, 0, [0; 6]), KILL);
    // A tracer's way to skip a call.
    assert_eq!(ask(&alone, Machine::X86_64, u32::MAX, [0; 6]), ALLOW);
}

#[test]
fn the_default_profile_follows_the_capabilities() {
    let plain = Filter::compile(&default::profile(&defaults::capabilities())).expect("plain");
    let namespaces = libc::CLONE_NEWUSER as u64 | 17;
    for (name, arguments, want) in [
        ("execve", &[][..], ALLOW),
        ("unshare", &[], EPERM),
        ("mount", &[], EPERM),
        ("keyctl", &[], EPERM),
        ("bpf", &[], EPERM),
        ("io_uring_setup", &[], EPERM),
        ("clone3", &[], ENOSYS),
        ("clone", &[17], ALLOW),
        ("clone", &[namespaces], EPERM),
        ("socket", &[2], ALLOW),
        ("socket", &[40], EPERM),
        ("personality", &[0xffff_ffff], ALLOW),
        ("personality", &[4], EPERM),
        // The default set has CAP_SYS_CHROOT.
        ("chroot", &[], ALLOW),
    ] {
        assert_eq!(call(&plain, name, arguments), want, "{name} {arguments:?}");
    }
    let mut capabilities = defaults::capabilities();
    capabilities.insert(Capability::SysAdmin);
    let admin = Filter::compile(&default::profile(&capabilities)).expect("admin");
    for name in ["unshare", "mount", "clone3"] {
        assert_eq!(call(&admin, name, &[namespaces]), ALLOW, "{name}");
    }
    assert_eq!(call(&admin, "init_module", &[]), EPERM);
    let length = plain.program.len();
    assert!(length < MOST_INSTRUCTIONS * 3 / 4, "{length} instructions");
}

#[test]
fn a_program_is_kept_as_it_is() {
    let directory = tempfile::tempdir().expect("tempdir");
    assert_eq!(Filter::saved(directory.path()).expect("nothing"), None);
    let filter = Filter::compile(&default::profile(&defaults::capabilities())).expect("a filter");
    filter.save(directory.path()).expect("saved");
    let saved = Filter::saved(directory.path()).expect("read");
    assert_eq!(saved, Some(filter));
    fs::write(directory.path().join(FILE), b"xyz").expect("write");
    assert!(Filter::saved(directory.path()).is_err());
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (field, json) in [
        (
            "listenerPath",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s"}),
        ),
        (
            "SCMP_ACT_NOTIFY",
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
        ),
        (
            "argument 6",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_TRAP",
                   "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
        ),
    ] {
        let seccomp = serde_json::from_value(json).expect("a seccomp section");
        let error = Filter::compile(&seccomp).expect_err(field).to_string();
        assert!(
            error.starts_with("linux.seccomp.") && error.contains(field),
            "{error}"
        );
    }
}
