//! Giving a server up that is away.
//!
//! Who waits for it can be killed, with one exception: a process that ends waits,
//! deaf to every signal, for what it wrote to arrive. The kernel's way out is a
//! forced unmount (umount2(2), `MNT_FORCE`): it fails the requests that are on
//! their way, and with them ends the wait. What the server has not taken is lost
//! then, so that is done only to servers that do not answer.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::UnshareFlags;

use super::options::Options;
use super::{NfsSource, rpc};
use crate::sys::aside::Aside;
use crate::sys::{mount_table, namespace};

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
/// to the servers of the mounts at `points`, in the mount namespace `there` or else in
/// the caller's. The mounts stay: each round works in a copy of the calling process
/// and of the namespace.
///
/// # Errors
/// What clone3(2) says.
pub fn fail_requests(
    points: &[impl AsRef<Path>],
    there: Option<BorrowedFd>,
    limit: Duration,
) -> io::Result<()> {
    let round = || {
        if let Some(there) = there {
            namespace::join_mounts(there)?;
        }
        namespace::leave(UnshareFlags::NEWNS)?;
        for point in points {
            // Busy or not, the requests have failed by then.
            let _ = unmount(point.as_ref(), UnmountFlags::FORCE | UnmountFlags::NOFOLLOW);
        }
        Ok::<_, io::Error>(())
    };
    let end = Instant::now() + limit;
    while Instant::now() < end {
        let round = Aside::begin(|| vec![u8::from(round().is_ok())])?;
        if round.result_until(end)? == Some(vec![0]) {
            return Err(io::Error::other("the mounts cannot be entered"));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Ends what the processes `pids` wait for on servers that do not answer: for those
/// that were killed and do not end, when nobody is left who knows of their volumes.
/// It takes `limit` for each table of mounts that they have.
///
/// # Errors
/// What clone3(2) says: `EBUSY` when the caller has several threads.
pub fn waited_for_by(pids: &BTreeSet<i32>, limit: Duration) -> io::Result<()> {
    let mut tables = BTreeSet::new();
    let mut jobs = Vec::new();
    let end = Instant::now() + PATIENCE + limit;
    for pid in pids {
        // One that has ended meanwhile waits for nothing.
        let Ok(table) = fs::read_link(format!("/proc/{pid}/ns/mnt")) else {
            continue;
        };
        if tables.insert(table) {
            jobs.push(Aside::begin(|| {
                // What cannot be done for one is not done for it alone.
                let _ = give_up_mounts_of(*pid, limit);
                Vec::new()
            })?);
        }
    }
    for job in jobs {
        job.result_until(end)?;
    }
    Ok(())
}

/// Fails the requests to servers that are away of all mounts that a process has.
fn give_up_mounts_of(pid: i32, limit: Duration) -> io::Result<()> {
    let table = fs::read(format!("/proc/{pid}/mountinfo"))?;
    let table = String::from_utf8_lossy(&table);
    let namespace = fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
    let mounts = table.lines().filter_map(nfs_mount);
    let away = mounts.filter(|(_, server)| !rpc::is_alive(*server, PATIENCE));
    let points: Vec<PathBuf> = away.map(|(point, _)| point).collect();
    if points.is_empty() {
        return Ok(());
    }
    fail_requests(&points, Some(namespace.as_fd()), limit)
}

/// Mount point and server of a line of mountinfo (proc_pid_mountinfo(5)), if it is
/// of an NFS mount.
fn nfs_mount(line: &str) -> Option<(PathBuf, SocketAddr)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut words = file_system.split(' ');
    if !matches!(words.next()?, "nfs" | "nfs4") {
        return None;
    }
    let options = words.nth(1)?;
    let value = |key: &str| {
        let mut options = options.split(',');
        options.find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    };
    let address: IpAddr = value("addr")?.parse().ok()?;
    let port = value("port").and_then(|port| port.parse().ok());
    let point = mount.split(' ').nth(4)?;
    Some((
        mount_table::path(point.as_bytes()),
        SocketAddr::new(address, port.unwrap_or(rpc::NFS_PORT)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_servers_are_told_from_others() {
        let line = "36 35 0:51 / /data\\040dir rw,relatime - nfs4 10.0.0.1:/e rw,vers=4.2,hard,proto=tcp,\
                    clientaddr=10.0.0.2,local_lock=none,addr=10.0.0.1";
        let server = "10.0.0.1:2049".parse().expect("address");
        assert_eq!(nfs_mount(line), Some((PathBuf::from("/data dir"), server)));
        let line =
            "36 35 0:51 / /d rw shared:5 - nfs [fd99::1]:/e rw,vers=3,port=2050,addr=fd99::1";
        let server = "[fd99::1]:2050".parse().expect("address");
        assert_eq!(nfs_mount(line), Some((PathBuf::from("/d"), server)));
        assert_eq!(
            nfs_mount("36 35 0:51 / /proc/fs/nfsd rw - nfsd nfsd rw"),
            None
        );
    }
}
