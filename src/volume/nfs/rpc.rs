//! As much of ONC RPC (RFC 5531) as it takes to ask a server whether it is there,
//! and its rpcbind (RFC 1833) where a service listens.
//!
//! The kernel's client waits for ever for a server that is away, and some of that
//! waiting nothing can end. It is given only servers that have just answered here.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// The port of a server of NFS.
pub(super) const NFS_PORT: u16 = 2049;
const RPCBIND_PORT: u16 = 111;

/// Numbers of programs (RFC 1833, RFC 1813, RFC 7530).
const RPCBIND: u32 = 100_000;
pub(super) const NFS: u32 = 100_003;
pub(super) const MOUNT: u32 = 100_005;
const STATD: u32 = 100_024;

/// The version of rpcbind that knows both kinds of addresses, and its procedure.
const RPCBIND_VERSION: u32 = 3;
const GETADDR: u32 = 3;

/// No reply asked for here is longer.
const LONGEST: usize = 4096;

/// What a program answers to a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The result.
    Done(Vec<u8>),
    /// The program, or this version of it, is not there.
    NotThere,
}

/// Asks `address` whether it serves `version` of NFS.
///
/// # Errors
/// What connect(2), read(2) or write(2) say; `TimedOut` after `limit` for each.
pub(super) fn serves(address: SocketAddr, version: u32, limit: Duration) -> io::Result<bool> {
    Ok(call(address, (NFS, version, 0), &[], limit)? != Answer::NotThere)
}

/// True when the server at `address` answers within `limit`, whatever its answer.
#[must_use]
pub fn is_alive(address: SocketAddr, limit: Duration) -> bool {
    serves(address, 4, limit).is_ok()
}

/// The TCP port on which the server has `version` of a program; `None` when it is
/// not registered.
///
/// # Errors
/// As [`serves`], of the server's rpcbind.
pub(super) fn port(
    server: SocketAddr,
    program: u32,
    version: u32,
    limit: Duration,
) -> io::Result<Option<u16>> {
    let network = if server.is_ipv6() { "tcp6" } else { "tcp" };
    let mut arguments = Vec::new();
    arguments.extend(program.to_be_bytes());
    arguments.extend(version.to_be_bytes());
    for text in [network, "", ""] {
        put_text(&mut arguments, text);
    }
    let mut rpcbind = server;
    rpcbind.set_port(RPCBIND_PORT);
    let answer = call(
        rpcbind,
        (RPCBIND, RPCBIND_VERSION, GETADDR),
        &arguments,
        limit,
    )?;
    match answer {
        Answer::NotThere => Ok(None),
        Answer::Done(result) => Ok(universal_port(&result)),
    }
}

/// Whether this machine has a statd, without which locks of version 3 fail.
pub(super) fn has_statd(limit: Duration) -> bool {
    let here = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    matches!(port(here, STATD, 1, limit), Ok(Some(_)))
}

fn call(
    address: SocketAddr,
    (program, version, procedure): (u32, u32, u32),
    arguments: &[u8],
    limit: Duration,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let id = std::process::id();
    // A call of RPC version 2, without credentials and verifier.
    let mut message = Vec::with_capacity(64);
    for number in [id, 0, 2, program, version, procedure, 0, 0, 0, 0] {
        message.extend(number.to_be_bytes());
    }
    message.extend(arguments);
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&(length | LAST_FRAGMENT).to_be_bytes())?;
    stream.write_all(&message)?;
    let reply = receive(&mut stream).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    })?;
    parse(&reply, id).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

const LAST_FRAGMENT: u32 = 1 << 31;

fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut reply = Vec::new();
    loop {
        let mut mark = [0; 4];
        stream.read_exact(&mut mark)?;
        let mark = u32::from_be_bytes(mark);
        let length = (mark & !LAST_FRAGMENT) as usize;
        let start = reply.len();
        if start + length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        reply.resize(start + length, 0);
        stream.read_exact(&mut reply[start..])?;
        if mark & LAST_FRAGMENT != 0 {
            return Ok(reply);
        }
    }
}

/// A reply to the call `id`; `None` for anything else.
fn parse(reply: &[u8], id: u32) -> Option<Answer> {
    let mut rest = reply;
    if (number(&mut rest)?, number(&mut rest)?) != (id, 1) {
        return None;
    }
    if number(&mut rest)? != 0 {
        // Refused for its credentials: somebody is there.
        return Some(Answer::Done(Vec::new()));
    }
    let _verifier = (number(&mut rest)?, bytes(&mut rest)?);
    match number(&mut rest)? {
        1 | 2 => Some(Answer::NotThere),
        _ => Some(Answer::Done(rest.to_vec())),
    }
}

/// The port of a universal address such as `10.0.0.1.8.1` (RFC 5665).
fn universal_port(result: &[u8]) -> Option<u16> {
    let mut rest = result;
    let text = std::str::from_utf8(bytes(&mut rest)?).ok()?;
    let mut parts = text.rsplit('.');
    let low: u8 = parts.next()?.parse().ok()?;
    let high: u8 = parts.next()?.parse().ok()?;
    Some(u16::from_be_bytes([high, low])).filter(|port| *port != 0)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*first))
}

/// Bytes with their number before them, padded to four (RFC 4506, section 4.10).
fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)? as usize;
    let found = rest.get(..length)?;
    *rest = rest.get(length.next_multiple_of(4)..)?;
    Some(found)
}

fn put_text(into: &mut Vec<u8>, text: &str) {
    into.extend((text.len() as u32).to_be_bytes());
    into.extend(text.as_bytes());
    into.resize(into.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const SOON: Duration = Duration::from_millis(300);

    fn words(numbers: &[u32]) -> Vec<u8> {
        numbers.iter().flat_map(|one| one.to_be_bytes()).collect()
    }

    #[test]
    fn replies_are_read_as_they_stand_in_the_standard() {
        let done = parse(&words(&[7, 1, 0, 0, 0, 0, 42]), 7);
        assert_eq!(done, Some(Answer::Done(words(&[42]))));
        let other_version = parse(&words(&[7, 1, 0, 0, 0, 2, 3, 3]), 7);
        assert_eq!(other_version, Some(Answer::NotThere));
        assert_eq!(parse(&words(&[8, 1, 0, 0, 0, 0]), 7), None);
        assert_eq!(parse(&words(&[7, 1, 0, 0, u32::MAX, 0]), 7), None);
        let mut address = Vec::new();
        put_text(&mut address, "fd00::1.8.1");
        assert_eq!(universal_port(&address), Some(2049));
        assert_eq!(universal_port(&words(&[0])), None);
    }

    #[test]
    fn a_server_that_is_silent_or_not_there_is_not_waited_for() {
        let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = silent.local_addr().expect("address");
        let error = serves(address, 4, SOON).expect_err("silent");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(silent);
        let error = serves(address, 4, SOON).expect_err("nobody");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(!is_alive(address, SOON));
    }
}
