//! `create` and `run`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};

use super::{BundleOptions, write_pid_file};
use crate::oci::config;
use crate::oci::container::{self, Create, Created, Options};
use crate::oci::error::OciError;
use crate::sys::pidfd;
use crate::sys::signals::Signals;

/// `orlop-oci create`: the container's program waits for `start`.
pub(super) fn create(
    root: &Path,
    options: BundleOptions,
    systemd_cgroup: bool,
) -> Result<Created, OciError> {
    let bundle = options
        .bundle
        .canonicalize()
        .map_err(OciError::step::<io::Error>(format!(
            "find the bundle {:?}",
            options.bundle
        )))?;
    let spec = config::load(&bundle)?;
    let created = container::create_with(
        Create {
            id: &options.id,
            bundle: &bundle,
            spec: &spec,
            state_root: &absolute(root)?,
            stdin: None,
            stdout: None,
            stderr: None,
            console_socket: options.console_socket,
            as_sibling: false,
        },
        Options {
            preserve_fds: options.preserve_fds,
            no_pivot: options.no_pivot,
            systemd_cgroup,
        },
    )?;
    if let Some(path) = &options.pid_file
        && let Err(error) = write_pid_file(path, created.pid)
    {
        return Err(take_back(root, &options.id, error));
    }
    Ok(created)
}

/// `orlop-oci run`: returns the exit status to end with.
pub(super) fn run(
    root: &Path,
    options: BundleOptions,
    systemd_cgroup: bool,
    detach: bool,
) -> Result<u8, OciError> {
    let id = options.id.clone();
    // Signals that come from now on are the container's.
    let signals = match detach {
        true => None,
        false => {
            Some(Signals::take_over().map_err(OciError::step::<io::Error>("take over signals"))?)
        }
    };
    let created = create(root, options, systemd_cgroup)?;
    if let Err(error) = container::start(root, &id) {
        return Err(take_back(root, &id, error));
    }
    let Some(signals) = signals else {
        return executed(created.exec_failure.into())
            .map(|()| 0)
            .map_err(|error| take_back(root, &id, error));
    };
    let status = attend(&created, signals);
    // Its end is known now; what is left to say is why it never began.
    let executed = executed(created.exec_failure.into());
    let deleted = container::delete(root, &id, true);
    let status = status.map_err(OciError::step::<io::Error>(format!(
        "wait for container {id:?}"
    )))?;
    executed.and(deleted).map(|()| status)
}

/// Passes signals on until the container's process has ended, and reaps it.
pub(super) fn attend(created: &Created, mut signals: Signals) -> io::Result<u8> {
    loop {
        let mut ready = [
            PollFd::new(&created.pidfd, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let ended = !ready[0].revents().is_empty();
        while let Some(signal) = signals.receive()? {
            // It may have ended meanwhile.
            let _ = pidfd::send_signal(&created.pidfd, signal);
        }
        if ended {
            let code = pidfd::wait(&created.pidfd)?.code();
            return Ok(u8::try_from(code).unwrap_or(u8::MAX));
        }
    }
}

/// Waits until the program has been executed.
pub(super) fn executed(mut failure: File) -> Result<(), OciError> {
    let mut reason = String::new();
    failure
        .read_to_string(&mut reason)
        .map_err(OciError::step::<io::Error>(
            "hear from the container's process",
        ))?;
    match reason.is_empty() {
        true => Ok(()),
        false => Err(OciError::Init {
            reason,
            sibling: None,
        }),
    }
}

/// Deletes a container that could not be brought to life, and returns why.
fn take_back(root: &Path, id: &str, error: OciError) -> OciError {
    // The first failure is the one to report.
    let _ = container::delete(root, id, true);
    error
}

fn absolute(path: &Path) -> Result<PathBuf, OciError> {
    std::path::absolute(path).map_err(OciError::step::<io::Error>(format!("find {path:?}")))
}
