//! AppArmor profiles in the kernel: the one of type `RuntimeDefault` is loaded when it
//! is asked for and not there yet; those of type `Localhost` are the administrator's.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::pod::spec::labels::DEFAULT_PROFILE;

/// The names of the profiles in the kernel, a line each with its mode in brackets.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Where the program that loads profiles may be.
const PARSERS: [&str; 2] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];

/// What containers have no business with, whatever else their privileges are: the
/// kernel's own parameters and memory, mounts, and other profiles' processes.
const DEFAULT: &str = include_str!("orlop-default.apparmor");

/// Makes sure that the kernel has the profile `name`.
///
/// # Errors
/// A profile that is not loaded, or the default one when it cannot be.
pub(super) fn provide(name: &str) -> Result<()> {
    if is_loaded(name).context("cannot list the AppArmor profiles of this machine")? {
        return Ok(());
    }
    if name != DEFAULT_PROFILE {
        bail!("AppArmor profile {name:?} is not loaded: load it with apparmor_parser");
    }
    load().context("cannot load the AppArmor profile of type RuntimeDefault")
}

fn is_loaded(name: &str) -> io::Result<bool> {
    let loaded = fs::read_to_string(LOADED)?;
    let mut names = loaded.lines().filter_map(|line| line.rsplit_once(" ("));
    Ok(names.any(|(loaded, _)| loaded == name))
}

fn load() -> Result<()> {
    let parser = parser().context("apparmor_parser is missing: install the package apparmor")?;
    let mut running = Command::new(&parser)
        .args(["--replace", "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot execute {parser:?}"))?;
    if let Some(mut stdin) = running.stdin.take() {
        stdin.write_all(DEFAULT.as_bytes())?;
    }
    let ended = running.wait_with_output()?;
    if !ended.status.success() {
        bail!("{}", String::from_utf8_lossy(&ended.stderr).trim_end());
    }
    Ok(())
}

fn parser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|directory| directory.join("apparmor_parser"));
    let known = PARSERS.iter().map(|parser| Path::new(parser).to_owned());
    known.chain(in_path).find(|parser| parser.exists())
}
