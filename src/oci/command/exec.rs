//! `exec`.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use oci_spec::runtime::{Process, User};

use super::run::{attend, executed};
use super::write_pid_file;
use crate::oci::config::{self, FILE};
use crate::oci::container::{self, Exec};
use crate::oci::error::OciError;
use crate::sys::pidfd;
use crate::sys::signals::Signals;

/// Run one more process in a container.
#[derive(Debug, Args)]
pub(super) struct ExecOptions {
    /// Read the whole process description from this file
    #[arg(long, short, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Return when it has been executed instead of when it has ended
    #[arg(long, short)]
    detach: bool,
    /// Write the process id to this file
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Send the terminal's master to this socket
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Give it a terminal
    #[arg(long, short)]
    tty: bool,
    /// Its working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Set an environment variable
    #[arg(long, short, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Run it as this user
    #[arg(long, short, value_name = "UID[:GID]", value_parser = parse_user)]
    user: Option<(u32, Option<u32>)>,
    /// The container's id
    id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Ids are digits and nothing else: whatever is not quite one is refused, never
/// taken for user 0.
fn parse_user(text: &str) -> Result<(u32, Option<u32>), String> {
    let id = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().ok().filter(|id| *id != u32::MAX),
        false => None,
    };
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (id(uid), Some(id(gid))),
        None => (id(text), None),
    };
    match (uid, gid) {
        (Some(uid), None) => Ok((uid, None)),
        (Some(uid), Some(Some(gid))) => Ok((uid, Some(gid))),
        _ => Err("a user is written UID or UID:GID, in digits".into()),
    }
}

/// `orlop-oci exec`: returns the exit status to end with.
pub(super) fn exec(root: &Path, options: ExecOptions) -> Result<u8, OciError> {
    let process = describe(root, &options)?;
    let signals = match options.detach {
        true => None,
        false => {
            Some(Signals::take_over().map_err(OciError::step::<io::Error>("take over signals"))?)
        }
    };
    let created = container::exec(Exec {
        id: &options.id,
        state_root: root,
        process: &process,
        stdin: None,
        stdout: None,
        stderr: None,
        console_socket: options.console_socket,
        as_sibling: false,
    })?;
    if let Some(path) = &options.pid_file
        && let Err(error) = write_pid_file(path, created.pid)
    {
        // It may have ended already.
        let _ = pidfd::send_signal(&created.pidfd, 9);
        return Err(error);
    }
    let Some(signals) = signals else {
        return executed(created.exec_failure.into()).map(|()| 0);
    };
    let status = attend(&created, signals);
    executed(created.exec_failure.into())?;
    status.map_err(OciError::step::<io::Error>("wait for the process"))
}

/// The process to run: from a file, or the container's own with changes.
fn describe(root: &Path, options: &ExecOptions) -> Result<Process, OciError> {
    if let Some(path) = &options.process {
        return config::load_process(path);
    }
    let (record, _) = container::state(root, &options.id)?;
    let spec = config::load(&record.bundle)?;
    let mut process = spec.process().clone().ok_or_else(|| OciError::Config {
        path: record.bundle.join(FILE),
        reason: "field \"process\" is missing".into(),
    })?;
    process
        .set_args(Some(options.args.clone()))
        .set_terminal(Some(options.tty));
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.clone());
    }
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let environment = process.env_mut().get_or_insert_default();
    for entry in &options.env {
        environment.retain(|known| name(known) != name(entry));
        environment.push(entry.clone());
    }
    if let Some((uid, gid)) = options.user {
        let mut user = User::default();
        user.set_uid(uid).set_gid(gid.unwrap_or(0));
        process.set_user(user);
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_is_not_quite_a_number_is_refused() {
        assert_eq!(parse_user("1000"), Ok((1000, None)));
        assert_eq!(parse_user("1000:100"), Ok((1000, Some(100))));
        for text in [
            "",
            "1000x",
            "1000:abc",
            "1000:",
            ":0",
            "-1",
            "+1",
            "4294967295",
            "4294967296",
        ] {
            assert!(parse_user(text).is_err(), "{text:?}");
        }
    }
}
