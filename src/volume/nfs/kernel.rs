//! The kernel's own client, through the mount API (nfs(5), fsconfig(2)).
//!
//! mount.nfs(8) is not needed for it: what that program does before it calls the
//! kernel is done here. It looks the name up, finds out which version the server
//! speaks and, for version 3, where its services listen. No text is ever put
//! together of which a comma could make two options, no helper is left running in
//! the pod's namespaces, and what comes back is attached nowhere.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen,
};

use super::options::{Options, Version};
use super::{Mounter, NfsError, NfsSource, rpc, words};

/// How long a server may take for one answer before it counts as away.
const PATIENCE: Duration = Duration::from_secs(5);

/// The kernel's client.
pub struct KernelClient;

/// A server that has just answered.
struct Server {
    address: SocketAddr,
    /// Whether it speaks version 4.
    four: bool,
}

/// Why the kernel could not mount.
enum Refusal {
    /// An option is wrong, with what the kernel says of it.
    Option(String),
    /// The error of the attempt itself.
    Attempt(Errno),
}

/// Whether the kernel has the client. Its module is loaded for the answer.
///
/// # Errors
/// `ENODEV` when it has none, else what fsopen(2) says.
pub fn probe() -> io::Result<()> {
    fsopen("nfs4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    Ok(())
}

impl Mounter for KernelClient {
    fn mount(&self, source: &NfsSource) -> Result<OwnedFd, NfsError> {
        let options = Options::of(source)?;
        if let Err(Errno::NODEV) = fsopen("nfs", FsOpenFlags::FSOPEN_CLOEXEC) {
            return Err(NfsError::NoClient);
        }
        let server = find(source, &options)?;
        // A path of version 4 is relative to the server's own root, which may be
        // another than that of version 3.
        let mut absent = None;
        for version in &options.versions {
            if version.0 == 4 && (!server.four || absent.is_some()) {
                continue;
            }
            let mounted = match version.0 {
                3 => mount_three(source, &options, server.address),
                _ => attempt(source, &options, server.address, *version, &[])
                    .map_err(|refusal| meaning(refusal, source)),
            };
            match mounted {
                Ok(tree) => return Ok(tree),
                Err(NfsError::Version(_)) => {}
                Err(error @ NfsError::Absent(_)) if options.any_version && version.0 == 4 => {
                    absent = Some(error);
                }
                Err(error) => return Err(absent.unwrap_or(error)),
            }
        }
        Err(absent.unwrap_or_else(|| NfsError::Version(source.export())))
    }
}

/// The first of the server's addresses that answers.
fn find(source: &NfsSource, options: &Options) -> Result<Server, NfsError> {
    let name = source.server_name();
    let port = options.port.unwrap_or(rpc::NFS_PORT);
    let lookup = |error: io::Error| NfsError::Lookup {
        server: name.to_owned(),
        reason: lookup_words(&error),
    };
    let addresses: Vec<SocketAddr> = (name, port).to_socket_addrs().map_err(lookup)?.collect();
    let mut unreachable = NfsError::Lookup {
        server: name.to_owned(),
        reason: "the name has no address".to_owned(),
    };
    let only_three = options.versions.iter().all(|version| version.0 == 3);
    for address in addresses {
        if !options.tcp {
            return Ok(Server {
                address,
                four: true,
            });
        }
        let asked = if only_three { 3 } else { 4 };
        match rpc::serves(address, asked, PATIENCE) {
            Ok(serves) => {
                return Ok(Server {
                    address,
                    four: serves && !only_three,
                });
            }
            Err(error) => {
                unreachable = NfsError::Unreachable {
                    export: source.export(),
                    port,
                    reason: connection_words(&error),
                };
            }
        }
    }
    Err(unreachable)
}

/// Version 3 has services beside it, which are found through the server's rpcbind,
/// and locks that need a helper here.
fn mount_three(
    source: &NfsSource,
    options: &Options,
    address: SocketAddr,
) -> Result<OwnedFd, NfsError> {
    if options.lock && !rpc::has_statd(PATIENCE) {
        return Err(NfsError::NoStatd(source.export()));
    }
    let registered = |program, service| {
        let port = rpc::port(address, program, 3, PATIENCE);
        let port = port.map_err(|error| NfsError::Unreachable {
            export: source.export(),
            port: 111,
            reason: connection_words(&error),
        })?;
        port.ok_or_else(|| NfsError::NotRegistered {
            export: source.export(),
            service,
        })
    };
    let mut ports = Vec::new();
    if options.tcp {
        // On its usual port it has just answered.
        let nfs = match options.port {
            Some(port) => port,
            None if matches!(rpc::serves(address, 3, PATIENCE), Ok(true)) => rpc::NFS_PORT,
            None => registered(rpc::NFS, "version 3 of NFS")?,
        };
        ports.push(("port", nfs));
        let mount = match options.mount_port {
            Some(port) => port,
            None => registered(rpc::MOUNT, "mountd")?,
        };
        ports.push(("mountport", mount));
    }
    attempt(source, options, address, (3, 0), &ports).map_err(|refusal| meaning(refusal, source))
}

/// Has the kernel mount the export with one version.
fn attempt(
    source: &NfsSource,
    options: &Options,
    address: SocketAddr,
    version: Version,
    ports: &[(&str, u16)],
) -> Result<OwnedFd, Refusal> {
    let context = fsopen("nfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(Refusal::Attempt)?;
    let set = |key: &str, value: &str| {
        fsconfig_set_string(context.as_fd(), key, value)
            .map_err(|error| refused_option(&context, &format!("{key}={value}"), error))
    };
    let flag = |key: &str| {
        fsconfig_set_flag(context.as_fd(), key)
            .map_err(|error| refused_option(&context, key, error))
    };
    set("source", &source.export())?;
    match version {
        (3, _) => set("vers", "3")?,
        (major, minor) => set("vers", &format!("{major}.{minor}"))?,
    }
    set("addr", &address_text(address))?;
    if version == (4, 0)
        && let Ok(own) = own_address(address)
    {
        // Where the server calls back; later versions do that on the connection.
        set("clientaddr", &own)?;
    }
    if version.0 == 4
        && let Some(port) = options.port
    {
        set("port", &port.to_string())?;
    }
    for (key, port) in ports {
        set(key, &port.to_string())?;
    }
    for (key, value) in &options.passed {
        match value {
            Some(value) => set(key, value)?,
            None => flag(key)?,
        }
    }
    if options.read_only {
        flag("ro")?;
    }
    fsconfig_create(context.as_fd()).map_err(|error| {
        let log = log(&context);
        match error {
            Errno::INVAL if !log.is_empty() => Refusal::Option(log),
            _ => Refusal::Attempt(error),
        }
    })?;
    fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        options.attributes,
    )
    .map_err(Refusal::Attempt)
}

fn refused_option(context: &OwnedFd, option: &str, error: Errno) -> Refusal {
    let log = log(context);
    Refusal::Option(match log.is_empty() {
        true => format!("{option} ({})", words(error)),
        false => format!("{option} ({log})"),
    })
}

/// What the kernel has to say of a mount that it is preparing (fsopen(2)): messages
/// such as `e nfs: Unknown parameter 'x'`, one for each read.
fn log(context: &OwnedFd) -> String {
    let mut messages = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        let text = text.trim_end();
        messages.push(text.get(2..).unwrap_or(text).to_owned());
    }
    messages.join("; ")
}

fn meaning(refusal: Refusal, source: &NfsSource) -> NfsError {
    let export = source.export();
    match refusal {
        Refusal::Option(what) => NfsError::Option(what),
        Refusal::Attempt(Errno::ACCESS | Errno::PERM) => NfsError::Denied(export),
        Refusal::Attempt(Errno::PROTONOSUPPORT | Errno::INVAL | Errno::OPNOTSUPP) => {
            NfsError::Version(export)
        }
        Refusal::Attempt(error @ (Errno::NODEV | Errno::NOMEM | Errno::NOSYS)) => NfsError::Step {
            step: "mount",
            export,
            source: error.into(),
        },
        Refusal::Attempt(Errno::NOENT) => NfsError::Absent(export),
        Refusal::Attempt(error) => NfsError::Server {
            export,
            reason: words(error),
        },
    }
}

/// An address as the kernel reads it, with the interface of one that needs it.
fn address_text(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(six) if six.scope_id() != 0 => format!("{}%{}", six.ip(), six.scope_id()),
        _ => address.ip().to_string(),
    }
}

/// The address from which this machine speaks to `address`. Nothing is sent.
fn own_address(address: SocketAddr) -> io::Result<String> {
    let any = if address.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(address)?;
    Ok(socket.local_addr()?.ip().to_string())
}

/// Why a name was not found, without the name of the C library's function.
fn lookup_words(error: &io::Error) -> String {
    let text = error.to_string();
    let detail = text
        .split_once(": ")
        .map_or(text.as_str(), |(_, rest)| rest);
    detail.to_owned()
}

/// How a connection failed, in the words of the C library.
fn connection_words(error: &io::Error) -> String {
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => words(Errno::from_raw_os_error(number)),
        (None, io::ErrorKind::TimedOut) => words(Errno::TIMEDOUT),
        (None, io::ErrorKind::UnexpectedEof) => words(Errno::CONNRESET),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn source(server: &str) -> NfsSource {
        NfsSource {
            name: "v".to_owned(),
            server: server.to_owned(),
            path: "/e".to_owned(),
            read_only: false,
            mount_options: Vec::new(),
        }
    }

    fn options(port: u16) -> Options {
        let mut source = source("s");
        source.mount_options = vec![format!("port={port}")];
        Options::of(&source).expect("options")
    }

    #[test]
    fn a_server_that_is_not_there_is_named_with_the_reason() {
        let closed = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = closed.local_addr().expect("address").port();
        drop(closed);
        let Err(error) = find(&source("127.0.0.1"), &options(port)) else {
            panic!("somebody answers");
        };
        assert_eq!(
            error.to_string(),
            format!(
                "mount failed: mount.nfs: Connection refused for 127.0.0.1:/e: the server does not answer on port {port}"
            )
        );
        let Err(error) = find(&source("no.such.host.invalid"), &options(port)) else {
            panic!("somebody has that name");
        };
        let text = error.to_string();
        let start = "mount failed: mount.nfs: Failed to resolve server no.such.host.invalid: ";
        assert!(
            text.starts_with(start) && text.len() > start.len(),
            "{text}"
        );
    }

    #[test]
    fn addresses_are_told_with_their_interface() {
        let text = |address: &str| address_text(address.parse().expect("an address"));
        assert_eq!(text("10.0.0.1:2049"), "10.0.0.1");
        assert_eq!(text("[fe80::1%3]:2049"), "fe80::1%3");
        assert_eq!(
            own_address("127.0.0.1:9".parse().expect("address")).expect("own"),
            "127.0.0.1"
        );
    }
}
