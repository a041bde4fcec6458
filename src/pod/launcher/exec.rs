//! A further process in a running container (`orlop exec`), done in a worker.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result};
use oci_spec::runtime::{Process, Spec};

use super::Started;
use crate::oci;
use crate::pod::home::Home;
use crate::pod::protocol::{ExecOrder, Failure, FailureKind};
use crate::sys::socket;

/// Starts the process. `stdio` are its stdin, stdout and stderr; with a
/// terminal there are none, and the terminal's other side is returned.
pub(super) fn start(
    home: &Home,
    order: &ExecOrder,
    stdio: Vec<OwnedFd>,
) -> Result<Started, Failure> {
    start_process(home, order, stdio).map_err(|error| Failure::new(FailureKind::Start, &error))
}

fn start_process(home: &Home, order: &ExecOrder, stdio: Vec<OwnedFd>) -> Result<Started> {
    let process = process(home, order)?;
    let console = order.terminal.then(|| Console::listen(home)).transpose()?;
    let mut stdio = stdio.into_iter();
    let created = oci::container::exec(oci::container::Exec {
        id: &order.id,
        state_root: &home.state(),
        process: &process,
        stdin: stdio.next(),
        stdout: stdio.next(),
        stderr: stdio.next(),
        console_socket: console.as_ref().map(|console| console.path.clone()),
        as_sibling: true,
    })?;
    let mut descriptors = vec![created.exec_failure];
    if let Some(console) = console {
        descriptors.push(console.terminal()?);
    }
    Ok((created.pid, descriptors))
}

/// What the container's own process is, with another command.
fn process(home: &Home, order: &ExecOrder) -> Result<Process> {
    let config = fs::read(home.bundle(&order.name).join("config.json"))
        .with_context(|| format!("cannot read the bundle of container {:?}", order.name))?;
    let spec: Spec = serde_json::from_slice(&config)?;
    let mut process = spec
        .process()
        .clone()
        .context("the bundle has no process")?;
    let mut env = process.env().clone().unwrap_or_default();
    if order.terminal {
        let term = order.term.as_deref().unwrap_or("xterm");
        env.retain(|variable| !variable.starts_with("TERM="));
        env.push(format!("TERM={term}"));
    }
    process
        .set_args(Some(order.command.clone()))
        .set_env(Some(env))
        .set_terminal(Some(order.terminal));
    Ok(process)
}

/// The socket on which the runtime hands a terminal over.
pub(super) struct Console {
    listener: UnixListener,
    pub(super) path: std::path::PathBuf,
}

impl Console {
    pub(super) fn listen(home: &Home) -> Result<Self> {
        let path = home.run().join(format!("console-{}", std::process::id()));
        let listener = socket::listen(&path).context("cannot make a console socket")?;
        Ok(Self { listener, path })
    }

    pub(super) fn terminal(&self) -> Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let terminal = socket::receive_descriptor(stream.as_fd())?;
        terminal.context("the runtime handed no terminal over")
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // A socket that stays is removed with the pod's run directory.
        let _ = fs::remove_file(&self.path);
    }
}
