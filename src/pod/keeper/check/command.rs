//! A command in a container, for its exit code and the beginning of its output.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::Reach;
use crate::oci::signal::KILL;
use crate::pod::keeper::children::Child;
use crate::pod::keeper::execute::execute;
use crate::pod::protocol::ExecOrder;
use crate::sys::pidfd;

/// Bytes of output that are kept.
const KEPT: usize = 10 << 10;

/// How a command ended.
pub(in crate::pod::keeper) struct Ended {
    pub(in crate::pod::keeper) code: i32,
    /// The beginning of what it wrote, to both streams.
    pub(in crate::pod::keeper) output: String,
}

/// Why a command has no exit code.
#[derive(Debug, thiserror::Error)]
pub(in crate::pod::keeper) enum Trouble {
    #[error("the command took too long")]
    TimedOut,
    #[error("{0}")]
    Failed(String),
}

/// Runs `words` in the container. A command that takes longer than `limit` is
/// killed.
///
/// # Errors
/// [`Trouble`].
pub(in crate::pod::keeper) async fn run(
    reach: Reach,
    words: Vec<String>,
    limit: Option<Duration>,
) -> Result<Ended, Trouble> {
    // A task of its own: whoever asks may go away, but a process that was started
    // must be waited for.
    let work = tokio::task::spawn_local(async move {
        let start = tokio::time::Instant::now();
        let (process, output) = launch(&reach, words).await.map_err(failed)?;
        let pidfd = process.pidfd();
        let ended = wait(process, output);
        let Some(limit) = limit else {
            return ended.await.map_err(failed);
        };
        tokio::pin!(ended);
        match tokio::time::timeout_at(start + limit, &mut ended).await {
            Ok(ended) => ended.map_err(failed),
            Err(_) => {
                // One that has ended meanwhile needs no signal.
                let _ = pidfd::send_signal(&*pidfd, KILL);
                ended.await.map_err(failed)?;
                Err(Trouble::TimedOut)
            }
        }
    });
    work.await
        .unwrap_or_else(|error| Err(Trouble::Failed(error.to_string())))
}

fn failed(error: anyhow::Error) -> Trouble {
    Trouble::Failed(format!("{error:#}"))
}

async fn launch(reach: &Reach, words: Vec<String>) -> Result<(Child, Receiver)> {
    let nothing = std::fs::File::open("/dev/null").context("cannot open /dev/null")?;
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let order = ExecOrder {
        name: reach.name.clone(),
        id: reach.id.clone(),
        command: words,
        terminal: false,
        term: None,
    };
    let stdio = vec![nothing.into(), write.try_clone()?, write];
    let (process, _) = execute(&reach.launcher, &reach.children, order, stdio).await?;
    Ok((process, Receiver::from_owned_fd(read)?))
}

/// Waits for the end of the process, not of what it may have left behind.
async fn wait(process: Child, mut output: Receiver) -> Result<Ended> {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    let mut open = true;
    let end = process.exit_code();
    tokio::pin!(end);
    let code = loop {
        tokio::select! {
            code = &mut end => break code?,
            read = output.read(&mut buffer), if open => match read? {
                0 => open = false,
                count => keep(&mut kept, &buffer[..count]),
            },
        }
    };
    while let Ok(count @ 1..) = output.try_read(&mut buffer) {
        keep(&mut kept, &buffer[..count]);
        if kept.len() == KEPT {
            break;
        }
    }
    Ok(Ended {
        code,
        output: String::from_utf8_lossy(&kept).into_owned(),
    })
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = KEPT - kept.len();
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}
