//! Another program in a container that runs: for `exec`, probes and hooks.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow, bail};

use super::children::{Child, Children};
use super::orders;
use crate::pod::protocol::{Answer, ExecOrder, Order};

/// Has the launcher start a program with these descriptors as its standard input,
/// output and error. Returns once it runs, with the terminal if one was ordered.
///
/// # Errors
/// The launcher's reason, or the program's that could not be executed.
pub(super) async fn execute(
    launcher: &OwnedFd,
    children: &Children,
    order: ExecOrder,
    stdio: Vec<OwnedFd>,
) -> Result<(Child, Option<OwnedFd>)> {
    let expected = children.expect();
    let order = Order::Exec(Box::new(order));
    let given: Vec<_> = stdio.iter().map(AsFd::as_fd).collect();
    let (answer, descriptors) = orders::order(launcher.as_fd(), &order, &given).await?;
    drop(stdio);
    let Answer::Started { pid } = answer else {
        bail!("the launcher gave no process");
    };
    let process = expected.arrived(pid)?;
    let mut descriptors = descriptors.into_iter();
    let refusal = descriptors
        .next()
        .context("the launcher gave no word of the process")?;
    let refusal = orders::read_to_end(refusal).await?;
    if !refusal.is_empty() {
        process.exit_code().await?;
        return Err(anyhow!(refusal));
    }
    Ok((process, descriptors.next()))
}
