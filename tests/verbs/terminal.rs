//! A user's terminal, and orlop in it.

use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::common::{LIMIT, Machine};

pub struct Terminal {
    master: OwnedFd,
    slave: OwnedFd,
    pub seen: String,
}

impl Terminal {
    pub fn new(rows: u16, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("openpt");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = openat(CWD, name, flags, Mode::empty()).expect("open the terminal");
        let terminal = Self {
            master,
            slave,
            seen: String::new(),
        };
        terminal.resize(rows, columns);
        terminal
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).expect("resize");
    }

    pub fn type_in(&self, text: &str) {
        rustix::io::write(&self.master, text.as_bytes()).expect("type");
    }

    /// Whether the terminal is as a shell leaves it: line by line, with echo.
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.slave).expect("tcgetattr").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Reads until `text` has been shown.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let start = Instant::now();
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        while !self.seen.contains(text) {
            assert!(
                start.elapsed() < LIMIT / 2,
                "no {text:?} in {:?}",
                self.seen
            );
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

    /// Starts orlop in a session of its own with this terminal: the kernel tells
    /// a new size to the terminal's own session alone.
    pub fn start(&self, machine: &Machine, arguments: &[&str]) -> Child {
        let orlop = machine.command(arguments);
        let slave = || self.slave.try_clone().expect("dup");
        Command::new("setsid")
            .arg("--ctty")
            .arg(orlop.get_program())
            .args(orlop.get_args())
            .envs(
                orlop
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("TERM", "vt220")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .expect("setsid")
    }
}
