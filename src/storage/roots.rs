//! Where orlop keeps things on this machine.
//!
//! Three roots: durable *data*, *run*-time state that a reboot may take, and
//! the containers' *logs*. Everything else is a path below one of them. The
//! directories whose contents must not be reachable by ordinary users are
//! closed to them whatever the modes of the directories above: an emptyDir is
//! mode 0777 and an unpacked image holds set-user-ID programs.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{self, Mode, OFlags};

/// The data root when nothing else is said.
pub const DATA_ROOT: &str = "/var/lib/orlop";
/// The run root when nothing else is said.
pub const RUN_ROOT: &str = "/run/orlop";
/// The log root when neither it nor the data root is overridden; where kubelet keeps its logs too.
pub const LOG_ROOT: &str = "/var/log/pods";

/// Why a root could not be named or made.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// A root given as an option or in the environment cannot become an absolute path.
    #[error("the {which} root {path:?} is not usable as a path")]
    Path {
        /// `data`, `run` or `log`.
        which: &'static str,
        /// As the user gave it.
        path: PathBuf,
        /// Empty path, or no current directory.
        source: io::Error,
    },
    /// A directory could not be made.
    #[error("cannot create the directory {path:?}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// One of orlop's own directories cannot be opened as a directory.
    #[error("cannot use {path:?}: it must be a directory, not a symbolic link or a file")]
    Open {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A directory that must be closed to ordinary users could not be closed.
    #[error("cannot close the directory {path:?} to other users")]
    Close {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The three roots, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Durable: the database, images, the pods' volumes.
    pub data: PathBuf,
    /// Gone after a reboot: sockets, bundles, mount points.
    pub run: PathBuf,
    /// The containers' logs.
    pub logs: PathBuf,
}

impl Roots {
    /// The roots from what the user gave (`--root`, `--run`, `--log-root` or
    /// `ORLOP_ROOT`, `ORLOP_RUN`, `ORLOP_LOG_ROOT`), relative paths being
    /// relative to the current directory. Logs go below the data root when
    /// that is overridden and the log root is not. Nothing is created.
    ///
    /// # Errors
    /// [`RootsError::Path`] for an empty path, or a relative one when the
    /// current directory is gone.
    pub fn new(
        data: Option<&Path>,
        run: Option<&Path>,
        logs: Option<&Path>,
    ) -> Result<Self, RootsError> {
        let logs = match (logs, data) {
            (Some(logs), _) => absolute("log", logs)?,
            (None, Some(data)) => absolute("data", data)?.join("logs"),
            (None, None) => PathBuf::from(LOG_ROOT),
        };
        Ok(Self {
            data: absolute("data", data.unwrap_or(Path::new(DATA_ROOT)))?,
            run: absolute("run", run.unwrap_or(Path::new(RUN_ROOT)))?,
            logs,
        })
    }

    /// The database of objects.
    pub fn database(&self) -> PathBuf {
        self.data.join("orlop.db")
    }

    /// A pod's durable directory, which holds its `volumes`.
    ///
    /// `uid`: as the store gave it to the pod.
    pub fn pod_data(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// The directory that holds one durable directory per pod.
    pub fn pods(&self) -> PathBuf {
        self.data.join("pods")
    }

    /// A pod's run directory: bundles, sockets, and `mounts`, whose contents
    /// exist only in the pod's mount namespace.
    ///
    /// `uid`: as the store gave it to the pod.
    pub fn pod_run(&self, uid: &str) -> PathBuf {
        self.run.join("pods").join(uid)
    }

    /// The directory of a pod's logs, `<namespace>_<name>_<uid>`, which is the
    /// form kubelet uses and log collectors look for.
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs.join(format!("{namespace}_{name}_{uid}"))
    }

    /// The image store.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// Where `local-path.orlop.dev` makes volumes, unless their class says otherwise.
    pub fn local_path(&self) -> PathBuf {
        self.data.join("local-path")
    }

    /// The seccomp profiles of this machine, which its administrator puts there and
    /// pods name with the type `Localhost`.
    #[must_use]
    pub fn seccomp(&self) -> PathBuf {
        self.data.join("seccomp")
    }

    /// Where directories wait for their deletion. On the data root, so that
    /// moving a pod's directory there is one rename.
    pub fn trash(&self) -> PathBuf {
        self.data.join("trash")
    }

    /// Makes every directory that is not there: the roots themselves and
    /// `run/pods` passable but not listable (0711), the logs as kubelet makes
    /// them (0755), and `pods`, `images` and `trash` closed to everybody but
    /// their owner (0700), also when they exist with a wider mode.
    ///
    /// # Errors
    /// One that names the directory; nothing made before it is taken away.
    pub fn create(&self) -> Result<(), RootsError> {
        make(&self.data, 0o711)?;
        for closed in [self.pods(), self.images(), self.trash()] {
            make(&closed, 0o700)?;
            close(&closed)?;
        }
        make(&self.run, 0o711)?;
        make(&self.run.join("pods"), 0o711)?;
        make(&self.logs, 0o755)
    }
}

fn absolute(which: &'static str, path: &Path) -> Result<PathBuf, RootsError> {
    std::path::absolute(path).map_err(|source| RootsError::Path {
        which,
        path: path.to_owned(),
        source,
    })
}

/// Makes a directory and, when they are missing, those above it (0755 as the
/// file system's own hierarchy has them).
pub(super) fn make(path: &Path, mode: u32) -> Result<(), RootsError> {
    let failed = |source: io::Error| RootsError::Create {
        path: path.to_owned(),
        source,
    };
    let made = fs::mkdir(path, Mode::from_raw_mode(mode));
    let made = match (made, path.parent()) {
        (Err(rustix::io::Errno::NOENT), Some(parent)) => {
            make(parent, 0o755)?;
            fs::mkdir(path, Mode::from_raw_mode(mode))
        }
        (made, _) => made,
    };
    match made {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) if path.is_dir() => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(failed(rustix::io::Errno::NOTDIR.into())),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn close(path: &Path) -> Result<(), RootsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::open(path, flags, Mode::empty()).map_err(|errno| RootsError::Open {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let failed = |errno: rustix::io::Errno| RootsError::Close {
        path: path.to_owned(),
        source: errno.into(),
    };
    let mode = fs::fstat(&directory).map_err(failed)?.st_mode & 0o7777;
    if mode & 0o077 != 0 {
        fs::fchmod(&directory, Mode::from_raw_mode(mode & 0o700)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let roots = Roots::new(None, None, None).unwrap();
        assert_eq!(roots.database(), Path::new("/var/lib/orlop/orlop.db"));
        assert_eq!(roots.pod_data("u-1"), Path::new("/var/lib/orlop/pods/u-1"));
        assert_eq!(roots.images(), Path::new("/var/lib/orlop/images"));
        assert_eq!(roots.trash(), Path::new("/var/lib/orlop/trash"));
        assert_eq!(roots.pod_run("u-1"), Path::new("/run/orlop/pods/u-1"));
        assert_eq!(
            roots.pod_logs("default", "web", "u-1"),
            Path::new("/var/log/pods/default_web_u-1")
        );
    }

    #[test]
    fn logs_follow_an_overridden_data_root_unless_they_are_overridden_too() {
        let data = Path::new("/srv/orlop");
        let roots = Roots::new(Some(data), None, None).unwrap();
        assert_eq!(roots.logs, Path::new("/srv/orlop/logs"));
        let roots = Roots::new(Some(data), None, Some(Path::new("/srv/logs"))).unwrap();
        assert_eq!(roots.logs, Path::new("/srv/logs"));
    }

    #[test]
    fn relative_roots_become_absolute_and_empty_ones_are_refused() {
        let here = std::env::current_dir().unwrap();
        let roots = Roots::new(Some(Path::new("data")), None, None).unwrap();
        assert_eq!(roots.data, here.join("data"));
        let refused = Roots::new(None, Some(Path::new("")), None).unwrap_err();
        assert_eq!(
            refused.to_string(),
            r#"the run root "" is not usable as a path"#
        );
    }

    #[test]
    fn ordinary_users_reach_neither_volumes_nor_images_nor_trash() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(
            Some(&dir.path().join("a/data")),
            Some(&dir.path().join("run")),
            None,
        )
        .unwrap();
        std::fs::create_dir_all(roots.pods()).unwrap();
        std::fs::set_permissions(roots.pods(), PermissionsExt::from_mode(0o755)).unwrap();
        roots.create().unwrap();
        roots.create().unwrap();
        for closed in [roots.pods(), roots.images(), roots.trash()] {
            assert_eq!(mode(&closed), 0o700, "{closed:?}");
        }
        assert_eq!(mode(&roots.run), 0o711);
        assert!(roots.logs.is_dir());
    }

    #[test]
    fn a_symbolic_link_in_the_place_of_pods_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(Some(dir.path()), Some(&dir.path().join("run")), None).unwrap();
        symlink("/tmp", roots.pods()).unwrap();
        let refused = roots.create().unwrap_err();
        assert!(matches!(refused, RootsError::Open { .. }), "{refused}");
    }

    #[test]
    fn a_file_in_the_place_of_a_root_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let roots = Roots::new(Some(&file), None, None).unwrap();
        let refused = roots.create().unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("cannot create the directory {file:?}")
        );
    }
}
