//! What this machine is called, and where it is reached.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The machine's host name, in lower case as Kubernetes wants its nodes' names.
#[must_use]
pub fn name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .to_lowercase()
}

/// The address that this machine would use towards others; `None` when it has
/// no network.
///
/// Nothing is sent: connecting a datagram socket only asks the routing table.
#[must_use]
pub fn address() -> Option<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // 192.0.2.0/24 is kept for documentation (RFC 5737) and routed like any
    // address outside.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    Some(address)
        .filter(|address: &IpAddr| !address.is_unspecified())
        .map(|ip| ip.to_string())
}
