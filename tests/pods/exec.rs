//! Commands in running containers.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;

use crate::common::{LIMIT, Machine};
use crate::support::{idle, pod};

fn machine() -> Machine {
    let machine = Machine::new();
    machine.run_pod(&pod(&json!({"containers": [idle("c"), idle("d")]})));
    machine
}

#[test]
fn a_command_gets_its_input_only_when_asked() {
    let machine = machine();
    let text = "first\nsecond\n";
    let given = machine.orlop_with(["exec", "-i", "web", "-c", "d", "--", "cat"], text);
    assert_eq!(given.ok(), text);
    let without = machine.orlop_with(["exec", "web", "-c", "d", "--", "cat"], text);
    assert_eq!(without.ok(), "");
    let much = "x".repeat(1 << 20);
    let count = machine.orlop_with(["exec", "-i", "web", "-c", "d", "--", "wc", "-c"], &much);
    assert_eq!(count.ok().trim(), much.len().to_string());
}

#[test]
fn output_errors_and_exit_code_are_the_commands_own() {
    let machine = machine();
    let exec = |script: &str| machine.orlop(["exec", "web", "-c", "c", "--", "sh", "-c", script]);
    let outcome = exec("echo out; echo err >&2; exit 7");
    assert_eq!(outcome.status.code(), Some(7));
    assert_eq!(outcome.stdout, "out\n");
    assert_eq!(outcome.stderr, "err\ncommand terminated with exit code 7\n");
    assert_eq!(exec("kill -9 $$").status.code(), Some(137));
    assert_eq!(exec("head -c 3000000 /dev/zero").ok().len(), 3_000_000);

    let defaulted = machine.orlop(["exec", "web", "hostname"]);
    assert_eq!(defaulted.stderr, "Defaulted container \"c\" out of: c, d\n");
    assert_eq!(defaulted.ok(), "web\n");
}

#[test]
fn what_cannot_be_executed_is_named() {
    let machine = machine();
    let missing = machine
        .orlop(["exec", "web", "-c", "c", "--", "no-such-program"])
        .refused();
    assert!(missing.contains("no-such-program"), "{missing}");
    assert_eq!(missing.lines().count(), 1, "{missing}");
    let nobody = machine.orlop(["exec", "nobody", "--", "true"]).refused();
    assert_eq!(
        nobody,
        "Error from server (NotFound): pods \"nobody\" not found\n"
    );
    let container = machine
        .orlop(["exec", "web", "-c", "z", "--", "true"])
        .refused();
    assert!(
        container.contains("container z is not valid for pod web"),
        "{container}"
    );
    // The keeper has come through all of it.
    assert_eq!(machine.sh("web", "c", "echo well"), "well\n");
}

#[test]
fn a_command_has_the_containers_rights_environment_and_directory() {
    let machine = Machine::new();
    let mut c = idle("c");
    c["workingDir"] = json!("/tmp");
    c["env"] = json!([{"name": "A", "value": "b"}]);
    c["securityContext"] = json!({"runAsUser": 1000, "runAsGroup": 2000});
    machine.run_pod(&pod(&json!({"containers": [c]})));
    let said = machine.sh(
        "web",
        "c",
        "id -u; id -g; pwd; echo $A; grep CapEff /proc/self/status",
    );
    assert_eq!(said, "1000\n2000\n/tmp\nb\nCapEff:\t0000000000000000\n");
}

/// A user's terminal.
struct Terminal {
    master: OwnedFd,
    seen: String,
}

impl Terminal {
    fn new(rows: u16, columns: u16) -> (Self, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("openpt");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = openat(CWD, name, flags, Mode::empty()).expect("open the terminal");
        let terminal = Self {
            master,
            seen: String::new(),
        };
        terminal.resize(rows, columns);
        (terminal, slave)
    }

    fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).expect("resize");
    }

    fn type_in(&self, text: &str) {
        rustix::io::write(&self.master, text.as_bytes()).expect("type");
    }

    /// Reads until `text` has been shown.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let start = Instant::now();
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        while !self.seen.contains(text) {
            assert!(start.elapsed() < LIMIT, "no {text:?} in {:?}", self.seen);
            let mut interest = [PollFd::new(&self.master, PollFlags::IN)];
            if poll(&mut interest, Some(&second)).expect("poll") > 0 {
                let mut buffer = [0; 4096];
                let count = rustix::io::read(&self.master, &mut buffer).unwrap_or(0);
                assert!(
                    count > 0,
                    "the terminal is closed; no {text:?} in {:?}",
                    self.seen
                );
                self.seen
                    .push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
        let end = self.seen.find(text).map_or(0, |start| start + text.len());
        self.seen.drain(..end);
    }
}

#[test]
fn an_interactive_shell_has_a_terminal_of_the_windows_size() {
    let machine = machine();
    let (mut terminal, slave) = Terminal::new(33, 111);
    let orlop = machine.command(["exec", "-it", "web", "-c", "c", "--", "sh"]);
    // The kernel tells a new size to the terminal's own session alone.
    let mut session = Command::new("setsid");
    session
        .arg("--ctty")
        .arg(orlop.get_program())
        .args(orlop.get_args())
        .envs(
            orlop
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("TERM", "vt220")
        .stdin(slave.try_clone().expect("dup"))
        .stdout(slave.try_clone().expect("dup"))
        .stderr(slave);
    let mut child = session.spawn().expect("setsid");
    drop(session);

    terminal.type_in("echo on $(tty) is $(stty size) $TERM end\n");
    terminal.expect("on /dev/pts/0 is 33 111 vt220 end");
    terminal.resize(44, 122);
    terminal
        .type_in("while [ \"$(stty size)\" != '44 122' ]; do sleep 0.1; done; echo re''sized\n");
    terminal.expect("resized");
    // Ctrl-C ends what runs in the foreground, not the session.
    terminal.type_in("echo sleep''ing; sleep 1000\n");
    terminal.expect("sleeping");
    std::thread::sleep(std::time::Duration::from_secs(1));
    terminal.type_in("\x03");
    terminal.type_in("echo awa''ke; exit 5\n");
    terminal.expect("awake");
    terminal.expect("command terminated with exit code 5");
    assert_eq!(child.wait().expect("wait").code(), Some(5));
}

#[test]
fn a_terminal_is_not_had_without_one() {
    let machine = machine();
    let outcome = machine.orlop_with(["exec", "-it", "web", "-c", "c", "--", "cat"], "text");
    assert!(
        outcome.stderr.starts_with("Unable to use a TTY"),
        "{outcome:?}"
    );
    assert_eq!(outcome.ok(), "text");
}

#[test]
fn a_client_that_goes_away_leaves_the_pod_in_order() {
    let machine = machine();
    let mut command = machine.command(["exec", "-i", "web", "-c", "c", "--", "cat"]);
    command.stdin(Stdio::piped());
    let mut child = command.spawn().expect("spawn");
    let mut input = child.stdin.take().expect("stdin");
    input.write_all(b"x").expect("write");
    let mut one = [0];
    child
        .stdout
        .take()
        .expect("stdout")
        .read_exact(&mut one)
        .expect("read");
    child.kill().expect("kill");
    child.wait().expect("wait");
    drop(input);
    assert_eq!(machine.sh("web", "c", "echo well"), "well\n");
    machine.orlop(["delete", "pod", "web", "--now"]).ok();
    machine.assert_nothing_is_left();
}
