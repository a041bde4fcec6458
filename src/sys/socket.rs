//! Messages with descriptors over Unix sockets.
//!
//! A message is four bytes of length (little endian), then that many bytes; the
//! descriptors travel with its first byte (`SCM_RIGHTS`, unix(7)). Each side
//! reads exactly what was sent, so nothing is ever split or merged.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Descriptors in one message at most.
pub const MAX_DESCRIPTORS: usize = 128;

/// Bytes in one message at most; a pod's manifest has 1.5 MiB at most.
pub const MAX_LENGTH: usize = 16 << 20;

const HEADER: usize = 4;

/// A connected pair of stream sockets, closed when a program is executed.
///
/// # Errors
/// What socketpair(2) says.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Makes a socket at `path` and listens on it. The path may be longer than the
/// 107 bytes that a socket's address takes.
///
/// # Errors
/// What open(2) says of the directory, or bind(2).
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let (_directory, short) = shorten(path)?;
    UnixListener::bind(short)
}

/// Connects to the socket at `path`, however long that is.
///
/// # Errors
/// What open(2) says of the directory, or connect(2).
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (_directory, short) = shorten(path)?;
    UnixStream::connect(short)
}

/// The same place through a descriptor of its directory, as long as that is open.
fn shorten(path: &Path) -> io::Result<(std::fs::File, PathBuf)> {
    let directory = std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?;
    let name = path.file_name().unwrap_or_default();
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, short))
}

/// A message as it arrived: its bytes and the descriptors that came with it.
pub type Message = (Vec<u8>, Vec<OwnedFd>);

/// Sends one message and blocks until all of it is written.
///
/// # Errors
/// `EPIPE` when the other side is gone; `E2BIG` for more bytes or descriptors
/// than one message takes; otherwise what sendmsg(2) says.
pub fn send(socket: BorrowedFd, payload: &[u8], descriptors: &[BorrowedFd]) -> io::Result<()> {
    let header = header(payload, descriptors)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let parts = [IoSlice::new(&header), IoSlice::new(payload)];
    let mut sent = retry(|| sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL))?;
    while sent < HEADER + payload.len() {
        let rest: &[u8] = match sent.checked_sub(HEADER) {
            Some(offset) => &payload[offset..],
            None => &header[sent..],
        };
        sent += retry(|| rustix::net::send(socket, rest, SendFlags::NOSIGNAL))?;
    }
    Ok(())
}

/// Receives one message and blocks until all of it is there. `None` when the
/// other side has closed.
///
/// # Errors
/// `UnexpectedEof` when the other side went away within a message; otherwise
/// what recvmsg(2) says.
pub fn receive(socket: BorrowedFd) -> io::Result<Option<Message>> {
    let mut partial = Partial::default();
    loop {
        match partial.read(socket) {
            Ok(Some(message)) => return Ok(Some(message)),
            Ok(None) if partial.is_untouched() => return Ok(None),
            Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether something arrives on `socket`, or it closes, within `patience`.
///
/// # Errors
/// What poll(2) says.
pub fn stirs_within(socket: BorrowedFd, patience: Duration) -> io::Result<bool> {
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    let mut watched = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
    Ok(retry(|| poll(&mut watched, Some(&patience)))? > 0)
}

/// Receives the one descriptor that a foreign program sends beside some bytes of
/// its own, as OCI runtimes do with a container's terminal.
///
/// # Errors
/// What recvmsg(2) says.
pub fn receive_descriptor(socket: BorrowedFd) -> io::Result<Option<OwnedFd>> {
    let mut descriptors = Vec::new();
    receive_some(socket, &mut [0; 4096], &mut descriptors)?;
    Ok(descriptors.pop())
}

/// A message that is still arriving on a socket which does not block.
#[derive(Default)]
pub struct Partial {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Partial {
    /// True while not a byte has arrived.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads until the message is whole and returns it; `None` when the other
    /// side has closed.
    ///
    /// # Errors
    /// `WouldBlock` when more is still to come: call again when the socket is
    /// readable; otherwise what recvmsg(2) says.
    pub fn read(&mut self, socket: impl AsFd) -> io::Result<Option<Message>> {
        loop {
            let wanted = self.wanted()?;
            if wanted == 0 {
                let mut bytes = std::mem::take(&mut self.bytes);
                bytes.drain(..HEADER);
                return Ok(Some((bytes, std::mem::take(&mut self.descriptors))));
            }
            let start = self.bytes.len();
            self.bytes.resize(start + wanted, 0);
            let result = receive_some(&socket, &mut self.bytes[start..], &mut self.descriptors);
            let received = result.as_ref().copied().unwrap_or(0);
            self.bytes.truncate(start + received);
            if result? == 0 {
                return Ok(None);
            }
        }
    }

    fn wanted(&self) -> io::Result<usize> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else {
            return Ok(HEADER - self.bytes.len());
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MAX_LENGTH {
            return Err(io::Error::from(rustix::io::Errno::MSGSIZE));
        }
        Ok(HEADER + length - self.bytes.len())
    }
}

fn header(payload: &[u8], descriptors: &[BorrowedFd]) -> io::Result<[u8; HEADER]> {
    if payload.len() > MAX_LENGTH || descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::Error::from(rustix::io::Errno::TOOBIG));
    }
    u32::try_from(payload.len())
        .map(u32::to_le_bytes)
        .map_err(|_| io::Error::from(rustix::io::Errno::TOOBIG))
}

fn receive_some(
    socket: impl AsFd,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(arrived) = message {
            descriptors.extend(arrived);
        }
    }
    Ok(received.bytes)
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(&mut call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors() {
        let (left, right) = pair().expect("socketpair");
        let file = tempfile::tempfile().expect("file");
        let payload = vec![7; 1 << 20];
        let sender = {
            let payload = payload.clone();
            std::thread::spawn(move || {
                send(left.as_fd(), &payload, &[file.as_fd(), file.as_fd()]).expect("send");
                send(left.as_fd(), b"", &[]).expect("send an empty message");
            })
        };
        let (bytes, descriptors) = receive(right.as_fd()).expect("receive").expect("message");
        assert_eq!((bytes, descriptors.len()), (payload, 2));
        let (bytes, descriptors) = receive(right.as_fd()).expect("receive").expect("message");
        assert_eq!((bytes.len(), descriptors.len()), (0, 0));
        sender.join().expect("sender");
        assert!(receive(right.as_fd()).expect("end").is_none());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused() {
        let (left, right) = pair().expect("socketpair");
        rustix::io::write(&left, &u32::MAX.to_le_bytes()).expect("write");
        let error = receive(right.as_fd()).expect_err("too long");
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }
}
