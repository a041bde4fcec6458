//! The keeper's side of the launcher's socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;

use crate::pod::protocol::{Answer, Failure, FailureKind, Order};
use crate::sys::readable;
use crate::sys::socket::{self, Message, Partial};

/// No order takes this long on a machine that works.
const LIMIT: Duration = Duration::from_secs(60);

/// Gives the launcher an order and waits for what becomes of it.
///
/// # Errors
/// The launcher's own failure, or that no answer came.
pub(super) async fn order(
    launcher: BorrowedFd<'_>,
    order: &Order,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(Answer, Vec<OwnedFd>), Failure> {
    let broken = |error: io::Error| Failure {
        kind: FailureKind::Other,
        message: format!("the pod's launcher does not answer: {error}"),
    };
    let reply = send(launcher, order, descriptors).map_err(broken)?;
    let message = match tokio::time::timeout(LIMIT, receive(&reply)).await {
        Ok(Ok(Some(message))) => message,
        Ok(Ok(None)) => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
        Ok(Err(error)) => return Err(broken(error)),
        Err(_) => return Err(broken(io::ErrorKind::TimedOut.into())),
    };
    match serde_json::from_slice(&message.0).map_err(|error| broken(error.into()))? {
        Answer::Failed(failure) => Err(failure),
        answer => Ok((answer, message.1)),
    }
}

fn send(
    launcher: BorrowedFd,
    order: &Order,
    descriptors: &[BorrowedFd],
) -> io::Result<AsyncFd<OwnedFd>> {
    let (ours, theirs) = socket::pair()?;
    let mut all = vec![theirs.as_fd()];
    all.extend(descriptors);
    socket::send(launcher, &serde_json::to_vec(order)?, &all)?;
    drop(theirs);
    rustix::io::ioctl_fionbio(&ours, true)?;
    readable::watch(ours)
}

/// Receives one message on a socket that does not block.
///
/// # Errors
/// What recvmsg(2) says.
pub(super) async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<Option<Message>> {
    let mut partial = Partial::default();
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|socket| partial.read(socket)) {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}

/// Reads a pipe to its end.
///
/// # Errors
/// What read(2) says.
pub(super) async fn read_to_end(pipe: OwnedFd) -> io::Result<String> {
    use tokio::io::AsyncReadExt;
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe)?;
    let mut text = Vec::new();
    pipe.read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
