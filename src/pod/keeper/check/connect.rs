//! Connections from inside the pod.
//!
//! A socket belongs to the network namespace of the process that makes it: the
//! launcher makes it and hands it over, and the keeper connects it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream as StdStream};
use std::os::fd::AsFd;

use tokio::net::{TcpSocket, TcpStream};

use super::Reach;
use crate::pod::keeper::orders;
use crate::pod::protocol::Order;

/// Connects to a server of the pod, or one that the pod can reach.
///
/// # Errors
/// Why not, as `dial tcp 127.0.0.1:80: connect: connection refused`.
pub(super) async fn connect(reach: &Reach, host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses = resolve(host, port)
        .await
        .map_err(|error| format!("dial tcp: lookup {host}: {error}"))?;
    let mut refusal = format!("dial tcp: lookup {host}: no such host");
    for address in addresses {
        match connect_to(reach, address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                refusal = format!("dial tcp {address}: connect: {}", words(&error));
            }
        }
    }
    Err(refusal)
}

/// `host:port`, with brackets where they are needed.
pub(super) fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// An error in the words in which the C library has it, without its number.
pub(super) fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => error.to_string(),
    }
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if host == "localhost" {
        return Ok(vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)]);
    }
    // As with kubelet, names are those of the machine.
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

async fn connect_to(reach: &Reach, address: SocketAddr) -> io::Result<TcpStream> {
    let order = Order::Socket {
        ipv6: address.is_ipv6(),
    };
    let answer = orders::order(reach.launcher.as_fd(), &order, &[]).await;
    let (_, mut descriptors) = answer.map_err(io::Error::other)?;
    let socket = descriptors
        .pop()
        .ok_or_else(|| io::Error::other("the launcher gave no socket"))?;
    let socket = TcpSocket::from_std_stream(StdStream::from(socket));
    socket.connect(address).await
}
