//! The profile `RuntimeDefault`: what containers usually need, and nothing that
//! reaches around a container's borders, as runtimes have long agreed on
//! (<https://docs.docker.com/engine/security/seccomp/> says what is left out and why;
//! <https://kubernetes.io/docs/tutorials/security/seccomp/>).
//!
//! Not in it without the capability that they are meant for: namespaces and mounts,
//! kernel modules, clocks, `bpf`, tracing of others. Never in it: keyrings, `kexec`,
//! `userfaultfd`, `io_uring`, and sockets that reach the virtual machine's host.

use std::sync::LazyLock;

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// Every container may call these. Most architectures lack some of them.
const ALWAYS: &str = "\
    _llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 \
    arm_sync_file_range bind breakpoint brk cacheflush cachestat capget capset chdir chmod chown chown32 \
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 \
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 \
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl \
    fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 \
    fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait \
    futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 \
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername \
    getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 \
    getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr \
    getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy \
    io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set ipc \
    kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link \
    linkat listen listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise \
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock \
    mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive \
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv \
    msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 \
    pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll \
    ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv \
    process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink \
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr \
    removexattrat rename renameat renameat2 restart_syscall riscv_flush_icache rmdir rseq rt_sigaction \
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min \
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler \
    sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 \
    sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 \
    setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid \
    setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid \
    setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack \
    signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 \
    statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime \
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 \
    times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat \
    utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

/// Calls that go with a capability.
const WITH: &[(Capability, &str)] = &[
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr \
         move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname \
         setns syslog umount umount2 unshare",
    ),
    (Capability::Bpf, "bpf"),
    (Capability::DacReadSearch, "open_by_handle_at"),
    (Capability::Perfmon, "perf_event_open"),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (
        Capability::SysModule,
        "delete_module finit_module init_module",
    ),
    (
        Capability::SysNice,
        "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    ),
    (Capability::SysPacct, "acct"),
    (
        Capability::SysPtrace,
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    (Capability::SysRawio, "ioperm iopl"),
    (
        Capability::SysTime,
        "clock_settime clock_settime64 settimeofday stime",
    ),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::Syslog, "syslog"),
];

/// The flags of clone(2) that make namespaces (linux/sched.h): all but the one for
/// time, whose bit means a signal there.
const NAMESPACES: u64 = 0x7e02_0000;

/// `AF_VSOCK` of linux/socket.h.
const VSOCK: u64 = 40;

/// What personality(2) may be asked for: Linux, 32 bits of it, both with `UNAME26`,
/// and which it is.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The profile of a container whose bounding set is `capabilities`.
pub fn profile(capabilities: &Capabilities) -> LinuxSeccomp {
    /// The longest list, cut into names once.
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| names(ALWAYS));
    let with = WITH
        .iter()
        .filter(|(needed, _)| capabilities.contains(needed));
    let mut allowed = NAMES.clone();
    allowed.extend(with.flat_map(|(_, calls)| names(calls)));
    let allow = LinuxSeccompAction::ScmpActAllow;
    let mut rules = vec![
        rule(allowed, allow, None),
        rule(
            names("socket"),
            allow,
            Some(argument(LinuxSeccompOperator::ScmpCmpNe, VSOCK, None)),
        ),
    ];
    for personality in PERSONALITIES {
        let is = argument(LinuxSeccompOperator::ScmpCmpEq, personality, None);
        rules.push(rule(names("personality"), allow, Some(is)));
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        let none = argument(LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACES, Some(0));
        rules.push(rule(names("clone"), allow, Some(none)));
        // Its flags are in memory, where no filter can look: libraries that hear of
        // no such call use clone(2).
        let mut absent = rule(names("clone3"), LinuxSeccompAction::ScmpActErrno, None);
        absent.set_errno_ret(Some(libc::ENOSYS.cast_unsigned()));
        rules.push(absent);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM.cast_unsigned()))
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(rules));
    profile
}

/// The machine's architecture, and those that its kernel runs besides.
fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => vec![Arch::ScmpArchNative],
    }
}

fn names(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

fn argument(op: LinuxSeccompOperator, value: u64, two: Option<u64>) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .value(value)
        .op(op);
    let builder = match two {
        Some(two) => builder.value_two(two),
        None => builder,
    };
    builder
        .build()
        .unwrap_or_else(|_| unreachable!("every field is given"))
}

fn rule(
    names: Vec<String>,
    action: LinuxSeccompAction,
    argument: Option<LinuxSeccompArg>,
) -> LinuxSyscall {
    let builder = LinuxSyscallBuilder::default().names(names).action(action);
    let builder = match argument {
        Some(argument) => builder.args(vec![argument]),
        None => builder,
    };
    builder
        .build()
        .unwrap_or_else(|_| unreachable!("every field is given"))
}
