//! `mountOptions` of a volume: what of them is the client's, what the mount's, and
//! what mount.nfs(8) takes for itself.

use rustix::mount::MountAttrFlags;

use super::{NfsError, NfsSource};

/// A version of the protocol, major and minor.
pub(super) type Version = (u32, u32);

/// The versions to try, the best first.
const VERSIONS: [Version; 4] = [(4, 2), (4, 1), (4, 0), (3, 0)];

/// The options of one mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// The versions that the user allows, the best first.
    pub(super) versions: Vec<Version>,
    /// True when the user left the version open.
    pub(super) any_version: bool,
    pub(super) port: Option<u16>,
    pub(super) mount_port: Option<u16>,
    /// False with `nolock`.
    pub(super) lock: bool,
    /// False for a transport that is none of TCP's: its server cannot be asked
    /// whether it is there.
    pub(super) tcp: bool,
    pub(super) read_only: bool,
    /// What the kernel's client is told, as it stands.
    pub(super) passed: Vec<(String, Option<String>)>,
    pub(super) attributes: MountAttrFlags,
}

impl Options {
    /// The options of `source`.
    ///
    /// # Errors
    /// [`NfsError::Option`] with the word that is wrong.
    pub(super) fn of(source: &NfsSource) -> Result<Self, NfsError> {
        let mut options = Self {
            versions: VERSIONS.to_vec(),
            any_version: true,
            port: None,
            mount_port: None,
            lock: true,
            tcp: true,
            read_only: source.read_only,
            passed: Vec::new(),
            attributes: MountAttrFlags::empty(),
        };
        let mut minor = None;
        let all = source.mount_options.iter().flat_map(|one| one.split(','));
        for option in all.map(str::trim).filter(|option| !option.is_empty()) {
            options.add(option, &mut minor)?;
        }
        if let Some(minor) = minor {
            options.keep(|version| *version == (4, minor));
            if options.versions.is_empty() {
                return Err(NfsError::Option(format!("minorversion={minor}")));
            }
        }
        if options.read_only {
            options.attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        Ok(options)
    }

    fn keep(&mut self, wanted: impl Fn(&Version) -> bool) {
        self.any_version = false;
        self.versions.retain(wanted);
    }

    fn add(&mut self, option: &str, minor: &mut Option<u32>) -> Result<(), NfsError> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        let wrong = || NfsError::Option(option.to_owned());
        let port = || value.and_then(|value| value.parse().ok()).ok_or_else(wrong);
        match (name, value) {
            ("ro", None) => self.read_only = true,
            // Of two contradicting wishes the careful one wins.
            ("rw", None) => {}
            ("vers" | "nfsvers", Some(version)) => self.version(version).ok_or_else(wrong)?,
            ("v3" | "v4" | "v4.0" | "v4.1" | "v4.2", None) => {
                self.version(&name[1..]).ok_or_else(wrong)?;
            }
            ("minorversion", Some(number)) => {
                *minor = Some(number.parse().map_err(|_| wrong())?);
            }
            ("port", _) => self.port = Some(port()?).filter(|port| *port != 0),
            ("mountport", _) => self.mount_port = Some(port()?).filter(|port| *port != 0),
            // The server's address follows from its name, and from nothing else.
            ("addr" | "source", _) => return Err(wrong()),
            _ if is_for_mount_command(name) => {}
            _ => match attribute(name).filter(|_| value.is_none()) {
                Some((attribute, true)) => self.attributes |= attribute,
                Some((attribute, false)) => self.attributes -= attribute,
                None => self.pass(name, value),
            },
        }
        Ok(())
    }

    fn pass(&mut self, name: &str, value: Option<&str>) {
        match (name, value) {
            ("nolock", None) => self.lock = false,
            ("lock", None) => self.lock = true,
            ("local_lock", Some(kind)) => self.lock = !matches!(kind, "all" | "posix"),
            ("proto", Some(transport)) => self.tcp = transport.starts_with("tcp"),
            ("udp" | "rdma", None) => self.tcp = false,
            _ => {}
        }
        self.passed
            .push((name.to_owned(), value.map(str::to_owned)));
    }

    fn version(&mut self, text: &str) -> Option<()> {
        match text.split_once('.') {
            None => {
                let major: u32 = text.parse().ok()?;
                self.keep(|version| version.0 == major);
            }
            Some((major, minor)) => {
                let exact = (major.parse().ok()?, minor.parse().ok()?);
                self.keep(|version| *version == exact);
            }
        }
        (!self.versions.is_empty()).then_some(())
    }
}

/// What mount(8) and mount.nfs(8) take for themselves: when to mount, and how often
/// to try, is not for a volume to say.
fn is_for_mount_command(name: &str) -> bool {
    let known = [
        "defaults", "auto", "noauto", "bg", "fg", "retry", "_netdev", "nofail", "user", "nouser",
        "users", "nousers", "owner", "noowner", "group", "nogroup", "comment",
    ];
    known.contains(&name) || name.starts_with("x-")
}

/// An option of every mount: what it means, and whether it sets or clears that.
fn attribute(name: &str) -> Option<(MountAttrFlags, bool)> {
    Some(match name {
        "nosuid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, true),
        "suid" => (MountAttrFlags::MOUNT_ATTR_NOSUID, false),
        "nodev" => (MountAttrFlags::MOUNT_ATTR_NODEV, true),
        "dev" => (MountAttrFlags::MOUNT_ATTR_NODEV, false),
        "noexec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, true),
        "exec" => (MountAttrFlags::MOUNT_ATTR_NOEXEC, false),
        "noatime" => (MountAttrFlags::MOUNT_ATTR_NOATIME, true),
        "atime" | "relatime" => (MountAttrFlags::MOUNT_ATTR_NOATIME, false),
        "strictatime" => (MountAttrFlags::MOUNT_ATTR_STRICTATIME, true),
        "nodiratime" => (MountAttrFlags::MOUNT_ATTR_NODIRATIME, true),
        "diratime" => (MountAttrFlags::MOUNT_ATTR_NODIRATIME, false),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Result<Options, NfsError> {
        Options::of(&NfsSource {
            name: "v".to_owned(),
            server: "s".to_owned(),
            path: "/".to_owned(),
            read_only: false,
            mount_options: options.iter().map(|one| (*one).to_owned()).collect(),
        })
    }

    #[test]
    fn versions_are_said_in_many_ways() {
        let versions = |options: &[&str]| of(options).expect("options").versions;
        assert_eq!(versions(&[]), VERSIONS);
        assert_eq!(versions(&["nfsvers=3"]), [(3, 0)]);
        assert_eq!(versions(&["v4"]), [(4, 2), (4, 1), (4, 0)]);
        assert_eq!(versions(&["vers=4", "minorversion=1"]), [(4, 1)]);
        assert_eq!(versions(&["hard,nfsvers=4.1"]), [(4, 1)]);
        assert_eq!(versions(&["v4.2"]), [(4, 2)]);
        for wrong in ["vers=2", "vers=4.3", "nfsvers=four", "minorversion=x"] {
            let error = of(&[wrong]).expect_err(wrong).to_string();
            assert!(error.ends_with(&format!("specified: {wrong}")), "{error}");
        }
    }

    #[test]
    fn each_option_goes_where_it_belongs() {
        let options = of(&[
            "soft",
            "timeo=30,nolock, noatime",
            "_netdev,retry=3,x-a=b",
            "ro",
        ]);
        let options = options.expect("options");
        assert_eq!(
            options.passed,
            [
                ("soft".to_owned(), None),
                ("timeo".to_owned(), Some("30".to_owned())),
                ("nolock".to_owned(), None),
            ]
        );
        assert!(!options.lock && options.read_only && options.any_version);
        assert_eq!(
            options.attributes,
            MountAttrFlags::MOUNT_ATTR_NOATIME | MountAttrFlags::MOUNT_ATTR_RDONLY
        );
        assert!(of(&["addr=10.0.0.9"]).is_err() && of(&["port=x"]).is_err());
        assert_eq!(of(&["port=2050"]).expect("port").port, Some(2050));
    }
}
