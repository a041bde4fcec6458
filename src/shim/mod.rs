//! The command line of `containerd-shim-orlop-v2`.
//!
//! `orlop` starts it as a pod's keeper, to delete what is in the trash, or to do what
//! volumes ask for; each goes on when the command that started it has ended. containerd's own
//! calls are refused by name until they are served.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use rustix::fs::Mode;

use crate::pod::{cleanup, keeper, steward};
use crate::storage::roots::Roots;

const USAGE: &str = "usage: containerd-shim-orlop-v2 -v | keep DATA RUN LOGS UID | sweep DATA RUN LOGS | steward DATA RUN LOGS";

/// Does what the arguments (without the program's name) ask for. What goes wrong
/// is said on stderr.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match run(arguments.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("containerd-shim-orlop-v2: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<OsString>) -> Result<()> {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    match words.as_slice() {
        ["-v" | "--version"] => {
            println!("containerd-shim-orlop-v2 {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        ["keep", data, run, logs, uid] => {
            detach()?;
            keeper::run(&roots(data, run, logs), uid)
        }
        ["sweep", data, run, logs] => {
            detach()?;
            cleanup::sweep(&roots(data, run, logs))
        }
        ["steward", data, run, logs] => {
            detach()?;
            steward::run(&roots(data, run, logs))
        }
        words
            if words
                .iter()
                .any(|word| matches!(*word, "start" | "delete" | "-info")) =>
        {
            bail!("this version of orlop does not serve containerd yet: use `orlop apply`")
        }
        _ => bail!(USAGE),
    }
}

fn roots(data: &str, run: &str, logs: &str) -> Roots {
    Roots {
        data: PathBuf::from(data),
        run: PathBuf::from(run),
        logs: PathBuf::from(logs),
    }
}

/// Leaves the session, the directory and the umask of whoever started this.
fn detach() -> Result<()> {
    // Fails only for the leader of a group, who has a session of its own.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    Ok(())
}
