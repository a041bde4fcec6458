//! `orlop cp`: files and directories into containers and out of them.
//!
//! Nothing is executed in the container, so it works with images that have no
//! tar, nor anything else. The container's root comes from its keeper as a
//! descriptor; paths in it are resolved by the kernel with that root as their end
//! (openat2(2), `RESOLVE_IN_ROOT`), and trees are walked by descriptors: whatever
//! links a container holds or swaps in, nothing outside of its root is read or
//! written, nor anything on the host but below the destination.

mod tree;

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

use self::tree::{Copier, Links, Place, Source};
use super::{Machine, choose_container, print};
use crate::pod::control::{Client, Reply, Request};
use crate::sys::file_user;

/// `orlop cp` on the command line.
#[derive(Args, Debug)]
pub struct CpArgs {
    /// What to copy: a path, or [NAMESPACE/]POD:PATH
    #[arg(value_name = "FROM")]
    from: OsString,
    /// Where to: a path, or [NAMESPACE/]POD:PATH
    #[arg(value_name = "TO")]
    to: OsString,
    /// The container; the pod's first if none is named
    #[arg(short, long)]
    container: Option<String>,
    /// Namespace of the pod
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Keep neither modes nor times
    #[arg(long)]
    no_preserve: bool,
}

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side {
    Host(PathBuf),
    Pod {
        namespace: Option<String>,
        pod: String,
        path: PathBuf,
    },
}

/// A container that is copied from or to.
struct Inside {
    root: OwnedFd,
    /// User and group of its process.
    owner: (u32, u32),
    /// Whether root of the machine is nobody there (`hostUsers: false`).
    has_own_users: bool,
}

/// Copies one file or directory.
///
/// # Errors
/// What is not there, what cannot be read or written, or a container that does
/// not run. What was copied before an error stays.
pub fn run(args: &CpArgs, machine: &Machine) -> Result<ExitCode> {
    let (from, to) = (side(&args.from)?, side(&args.to)?);
    let mut copier = Copier::new(!args.no_preserve);
    match (&from, &to) {
        (Side::Host(source), Side::Pod { path, .. }) => {
            let inside = inside(args, machine, &to)?;
            copier.owner = Some(inside.owner);
            let from_host = host_source(source)?;
            if inside.has_own_users {
                let (user, group) = inside.owner;
                file_user::make_files_for(user, group)
                    .context("cannot make files for a user of the pod")?;
            }
            let target = target_inside(&inside.root, path, &from_host.name)?;
            copier.copy(&from_host, &target)?;
        }
        (Side::Pod { path, .. }, Side::Host(target)) => {
            let inside = inside(args, machine, &from)?;
            copier.links = Links::LeaveOut;
            copier.modes = 0o777;
            let source = source_inside(&inside.root, path)?;
            let target = host_target(target, &source)?;
            copier.copy(&source, &target)?;
        }
        (Side::Host(_), Side::Host(_)) => {
            bail!("one of src or dest must be a remote file specification, such as POD:PATH")
        }
        _ => bail!("one of src or dest must be a local file specification"),
    }
    for note in copier.notes {
        print::note(format_args!("warning: {note}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn side(typed: &OsStr) -> Result<Side> {
    let bytes = typed.as_bytes();
    let plainly_local = [&b"/"[..], b"./", b"../"]
        .iter()
        .any(|start| bytes.starts_with(start));
    let colon = bytes
        .iter()
        .position(|byte| *byte == b':')
        .filter(|_| !plainly_local);
    let Some(colon) = colon else {
        if bytes.is_empty() {
            bail!("filepath can not be empty");
        }
        return Ok(Side::Host(typed.into()));
    };
    let path = PathBuf::from(OsStr::from_bytes(&bytes[colon + 1..]));
    let pod = std::str::from_utf8(&bytes[..colon]).context("a pod's name is not of these bytes")?;
    let (namespace, pod) = match pod.split_once('/') {
        Some((namespace, pod)) => (Some(namespace.to_owned()), pod),
        None => (None, pod),
    };
    if pod.is_empty() || path.as_os_str().is_empty() {
        bail!("{typed:?} is not of the form [NAMESPACE/]POD:PATH: filepath can not be empty");
    }
    Ok(Side::Pod {
        namespace,
        pod: pod.to_owned(),
        path,
    })
}

/// Asks the keeper for the container's root.
fn inside(args: &CpArgs, machine: &Machine, side: &Side) -> Result<Inside> {
    let Side::Pod { namespace, pod, .. } = side else {
        bail!("one of src or dest must be a remote file specification, such as POD:PATH");
    };
    let namespace = namespace.as_deref().unwrap_or(&args.namespace);
    let found = machine.pod(namespace, pod)?;
    let container = choose_container(&found, args.container.as_deref())?;
    let keeper = Client::connect(&machine.home(&found))?;
    let keeper = keeper.with_context(|| format!("pod {pod:?} does not run"))?;
    keeper.send(&Request::Root(container), &[])?;
    match keeper.receive()? {
        Some((Reply::Root { uid, gid }, mut descriptors)) => Ok(Inside {
            root: descriptors.pop().context("the keeper sent no root")?,
            owner: (uid, gid),
            has_own_users: found.spec.as_ref().and_then(|spec| spec.host_users) == Some(false),
        }),
        Some((Reply::Failed(reason), _)) => bail!("{reason}"),
        _ => bail!("the pod's keeper ended before it answered"),
    }
}

fn host_source(path: &Path) -> Result<Source> {
    let missing = || format!("{path:?} doesn't exist in local filesystem");
    // A link that is named is followed; those in a tree are copied as links.
    let whole = path.canonicalize().with_context(missing)?;
    let handle =
        open(&whole, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).with_context(missing)?;
    let name = path.file_name().or(whole.file_name());
    Ok(Source {
        handle,
        name: c_name(name.unwrap_or(OsStr::new(".")))?,
        shown: path.to_owned(),
    })
}

fn host_target(path: &Path, source: &Source) -> Result<Place> {
    let is_directory = path.is_dir();
    let source_is_directory = source.is_directory()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let at = |directory: &Path, name: &OsStr| -> Result<Place> {
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        let opened = open(directory, flags, Mode::empty());
        Ok(Place {
            directory: opened
                .with_context(|| format!("cannot open the directory {directory:?}"))?,
            name: c_name(name)?,
            shown: path.to_owned(),
        })
    };
    match (is_directory, source_is_directory) {
        // What is in the one comes into the other.
        (true, true) => at(path, OsStr::new(".")),
        (true, false) => at(path, OsStr::from_bytes(source.name.to_bytes())),
        (false, _) => {
            let name = path.file_name();
            let name = name.with_context(|| format!("{path:?} does not name a file"))?;
            at(path.parent().unwrap_or(Path::new(".")), name)
        }
    }
}

fn source_inside(root: &OwnedFd, path: &Path) -> Result<Source> {
    let handle = find(root, path, OFlags::PATH)
        .with_context(|| format!("cannot find {path:?} in the container"))?;
    Ok(Source {
        // From here on this very file, whatever its name comes to stand for.
        handle,
        name: c_name(path.file_name().unwrap_or(OsStr::new(".")))?,
        shown: path.to_owned(),
    })
}

fn target_inside(root: &OwnedFd, path: &Path, source: &CString) -> Result<Place> {
    match find(root, path, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(directory) => Ok(Place {
            directory,
            name: source.clone(),
            shown: path.join(OsStr::from_bytes(source.to_bytes())),
        }),
        Err(Errno::NOENT | Errno::NOTDIR) if !path.as_os_str().as_bytes().ends_with(b"/") => {
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let directory =
                find(root, parent, OFlags::PATH | OFlags::DIRECTORY).with_context(|| {
                    format!("cannot find the directory {parent:?} in the container")
                })?;
            let name = path.file_name();
            let name = name.with_context(|| format!("{path:?} does not name a file"))?;
            Ok(Place {
                directory,
                name: c_name(name)?,
                shown: path.to_owned(),
            })
        }
        Err(error) => Err(error)
            .with_context(|| format!("cannot find the directory {path:?} in the container")),
    }
}

/// Opens what is at `path` in a container's root.
fn find(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(
            root.as_fd(),
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        ) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            found => return found,
        }
    }
}

fn c_name(name: &OsStr) -> Result<CString> {
    Ok(CString::new(name.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_paths_or_pods_with_paths() {
        let pod = |namespace: Option<&str>, pod: &str, path: &str| Side::Pod {
            namespace: namespace.map(str::to_owned),
            pod: pod.to_owned(),
            path: path.into(),
        };
        for (typed, wanted) in [
            ("/tmp/x", Side::Host("/tmp/x".into())),
            ("x", Side::Host("x".into())),
            ("./a:b", Side::Host("./a:b".into())),
            ("web:/tmp/x", pod(None, "web", "/tmp/x")),
            ("shop/web:x:y", pod(Some("shop"), "web", "x:y")),
        ] {
            assert_eq!(side(OsStr::new(typed)).expect(typed), wanted, "{typed}");
        }
        for typed in ["", ":x", "web:", "shop/:x"] {
            assert!(side(OsStr::new(typed)).is_err(), "{typed}");
        }
    }
}
