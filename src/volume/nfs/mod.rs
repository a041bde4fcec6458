//! nfs: a directory that a server exports
//! (<https://kubernetes.io/docs/concepts/storage/volumes/#nfs>).
//!
//! A server may be away, and whoever asks it for anything may wait for ever. So
//! nothing here is to be called but in a process that can be killed
//! ([`crate::sys::aside`]); a wait for a server ends with the process that waits.
//!
//! Who speaks to the server is behind [`Mounter`]; the kernel does
//! ([`kernel::KernelClient`]).

pub mod abandon;
pub mod kernel;
mod options;
mod rpc;
mod squash;

use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use k8s_openapi::api::core::v1;
use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Persistent;

pub use rpc::is_alive;
pub use squash::look as what_root_may;

/// The directory in a pod's `volumes` that is named after this kind of volume.
pub const PLUGIN: &str = "kubernetes.io~nfs";

/// A directory of a server, as a pod or a PersistentVolume names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NfsSource {
    /// The name of the volume in its pod, or of the PersistentVolume.
    pub name: String,
    /// The server's name or address, without brackets.
    pub server: String,
    /// The path that the server exports.
    pub path: String,
    /// True when nobody may write: `nfs.readOnly` of a pod, or `readOnly` of a
    /// claim in a pod (never `nfs.readOnly` of a PersistentVolume).
    pub read_only: bool,
    /// `mountOptions` of a PersistentVolume, in the words of nfs(5); several may
    /// stand in one entry, with commas between them.
    pub mount_options: Vec<String>,
}

impl NfsSource {
    /// What a volume of a pod says, if it is of this kind; `persistent` is what its
    /// PersistentVolume adds.
    #[must_use]
    pub fn of(volume: &v1::Volume, persistent: Option<&Persistent>) -> Option<Self> {
        let source = volume.nfs.as_ref()?;
        let (name, mount_options) = match persistent {
            Some(persistent) => (persistent.name.clone(), persistent.mount_options.clone()),
            None => (volume.name.clone(), Vec::new()),
        };
        Some(Self {
            name,
            server: source.server.clone(),
            path: source.path.clone(),
            read_only: source.read_only.unwrap_or(false),
            mount_options,
        })
    }

    /// Server and path as mount(8) takes them: an IPv6 address is in brackets.
    #[must_use]
    pub fn export(&self) -> String {
        let server = self.server_name();
        let address = server.split('%').next().unwrap_or_default();
        match address.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => format!("[{server}]:{}", self.path),
            _ => format!("{server}:{}", self.path),
        }
    }

    /// True when nobody may write, for whatever reason.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        options::Options::of(self).is_ok_and(|options| options.read_only)
    }

    /// The server without the brackets that somebody may have put there.
    fn server_name(&self) -> &str {
        let inside = self.server.strip_prefix('[');
        let inside = inside.and_then(|rest| rest.strip_suffix(']'));
        inside.unwrap_or(&self.server)
    }

    /// Makes the directory that stands for the volume in `volumes`, the pod's
    /// directory of volumes. Nothing is ever mounted there where the host could
    /// see it.
    ///
    /// # Errors
    /// What mkdirat(2) says.
    pub fn make_directory(&self, volumes: BorrowedFd) -> io::Result<()> {
        for path in [PLUGIN.to_owned(), format!("{PLUGIN}/{}", self.name)] {
            match mkdirat(volumes, path, Mode::from_raw_mode(0o750)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Something that can mount an NFS export.
pub trait Mounter {
    /// Mounts `source` and returns it as a detached mount. The calling process is
    /// in the network from which the server is to be reached; it waits as long as
    /// the server makes it wait.
    ///
    /// # Errors
    /// A sentence for the pod's `FailedMount` event.
    fn mount(&self, source: &NfsSource) -> Result<OwnedFd, NfsError>;
}

/// Why an export could not be mounted. The words are those of mount.nfs(8), which
/// people search for.
#[derive(Debug, thiserror::Error)]
pub enum NfsError {
    /// The kernel cannot do it.
    #[error(
        "this kernel has no NFS client: load it with `modprobe nfsv4` (and nfsv3), or run a kernel that is built \
         with CONFIG_NFS_V4; `orlop doctor` tells when it is there"
    )]
    NoClient,
    /// A mount option that is wrong, with the reason.
    #[error("mount failed: mount.nfs: an incorrect mount option was specified: {0}")]
    Option(String),
    /// The server's name leads nowhere.
    #[error("mount failed: mount.nfs: Failed to resolve server {server}: {reason}")]
    Lookup {
        /// The name.
        server: String,
        /// Why not.
        reason: String,
    },
    /// The server does not answer.
    #[error(
        "mount failed: mount.nfs: {reason} for {export}: the server does not answer on port {port}"
    )]
    Unreachable {
        /// Server and path.
        export: String,
        /// The port that was tried.
        port: u16,
        /// How that ended.
        reason: String,
    },
    /// The server does not know the client, or the directory is not exported to it.
    #[error("mount failed: mount.nfs: access denied by server while mounting {0}")]
    Denied(String),
    /// The server does not speak the wanted version.
    #[error(
        "mount failed: mount.nfs: requested NFS version or transport protocol is not supported for {0}"
    )]
    Version(String),
    /// NFS version 3 has locks only with a helper on this machine.
    #[error(
        "mount failed: mount.nfs: rpc.statd is not running but is required for remote locking of {0}: use the \
         mount option nolock to keep locks local, or start statd"
    )]
    NoStatd(String),
    /// A service of NFS version 3 that the server does not have.
    #[error("mount failed: mount.nfs: the server of {export} has not registered {service}")]
    NotRegistered {
        /// Server and path.
        export: String,
        /// The service.
        service: &'static str,
    },
    /// The server has no such directory.
    #[error(
        "mount failed: mount.nfs: mounting {0} failed, reason given by server: No such file or directory"
    )]
    Absent(String),
    /// Another reason of the server's.
    #[error("mount failed: mount.nfs: mounting {export} failed, reason given by server: {reason}")]
    Server {
        /// Server and path.
        export: String,
        /// The reason.
        reason: String,
    },
    /// A step on this machine failed.
    #[error("mount failed: cannot {step} {export}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// Server and path.
        export: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// An error of the kernel's in the words of the C library, without its number.
fn words(error: Errno) -> String {
    let text = io::Error::from(error).to_string();
    let number = text.rfind(" (os error ");
    text[..number.unwrap_or(text.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_version_6_is_named_in_brackets() {
        let named = |server: &str| {
            let source = NfsSource {
                name: "v".to_owned(),
                server: server.to_owned(),
                path: "/e".to_owned(),
                read_only: false,
                mount_options: Vec::new(),
            };
            source.export()
        };
        assert_eq!(named("10.0.0.1"), "10.0.0.1:/e");
        assert_eq!(named("server.example"), "server.example:/e");
        assert_eq!(named("fd00::1"), "[fd00::1]:/e");
        assert_eq!(named("[fd00::1]"), "[fd00::1]:/e");
        assert_eq!(named("fe80::1%eth0"), "[fe80::1%eth0]:/e");
    }

    #[test]
    fn errors_have_no_numbers() {
        assert_eq!(words(Errno::NOENT), "No such file or directory");
    }
}
