//! Giving a server up that is away.
//!
//! Who waits for it can be killed, with one exception: a process that ends waits,
//! deaf to every signal, for what it wrote to arrive. The kernel's way out is a
//! forced unmount (umount2(2), `MNT_FORCE`): it fails the requests that are on
//! their way, and with them ends the wait. What the server has not taken is lost
//! then, so that is done only to servers that do not answer.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::UnshareFlags;

use super::options::Options;
use super::{NfsSource, rpc};
use crate::sys::aside::Aside;
use crate::sys::namespace;

/// How long a server may take to show that it is there.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait between two attempts to end what waits for a server.
const PAUSE: Duration = Duration::from_millis(100);

/// True when the server of `source` answers within [`PATIENCE`]. One of which this
/// cannot be told (another transport than TCP) counts as there.
#[must_use]
pub fn is_there(source: &NfsSource) -> bool {
    let Ok(options) = Options::of(source) else {
        return true;
    };
    if !options.tcp {
        return true;
    }
    let port = options.port.unwrap_or(rpc::NFS_PORT);
    let addresses = (source.server_name(), port).to_socket_addrs();
    let addresses: Vec<SocketAddr> = addresses.into_iter().flatten().collect();
    addresses
        .into_iter()
        .any(|address| rpc::is_alive(address, PATIENCE))
}

/// Fails, again and again until `limit` is over, all requests that are on their way
/// to the servers of the mounts at `points`. The mounts stay: each round works in
/// a copy of the calling process and of its mount namespace.
///
/// # Errors
/// What clone3(2) says.
pub fn fail_requests(points: &[impl AsRef<Path>], limit: Duration) -> io::Result<()> {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        let round = Aside::begin(|| {
            if namespace::leave(UnshareFlags::NEWNS).is_ok() {
                for point in points {
                    // Busy or not, the requests have failed by then.
                    let _ = unmount(point.as_ref(), UnmountFlags::FORCE | UnmountFlags::NOFOLLOW);
                }
            }
            Vec::new()
        })?;
        round.result_until(end)?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
