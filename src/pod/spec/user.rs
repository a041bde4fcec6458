//! Who the process of a container is: user, groups and home directory, from
//! the security contexts of the manifest and from the image.
//!
//! As containerd does it: a number may lack an entry in the image's passwd
//! file (its group is then 0, its home `/`), a name may not; an entry gives
//! the group, unless one is named, and its name gives the supplementary groups
//! of the image's group file.
//!
//! The image is not trusted. Its two files are found with `openat2` without
//! leaving the container's root, are looked at before they are opened for
//! reading (a named pipe would block, a device might act on being opened), and
//! are read up to a limit.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};

use k8s_openapi::api::core::v1::{Container, Pod};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::SpecError;

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// The largest passwd or group file that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// The ids and the home directory of a container's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one first, each once; never empty, because an empty list
    /// would leave the launcher's own groups in place.
    pub groups: Vec<u32>,
    /// Home directory; `/` when the image does not say.
    pub home: String,
}

/// Who `container` of `pod` runs as, when its image asks for `image_user` (the
/// empty text for root) and has its root file system at `rootfs`.
///
/// `runAsUser`, `runAsGroup` and `runAsNonRoot` of the container win over the
/// pod's, and these over the image. `supplementalGroups` and `fsGroup` are
/// added to the image's groups, which `supplementalGroupsPolicy: Strict`
/// leaves out.
///
/// # Errors
/// A user or group that the image does not have, or one that `runAsNonRoot`
/// forbids.
pub fn resolve(
    pod: &Pod,
    container: &Container,
    image_user: &str,
    rootfs: BorrowedFd,
) -> Result<Identity, SpecError> {
    let own = container.security_context.as_ref();
    let shared = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let run_as_user = own
        .and_then(|c| c.run_as_user)
        .or_else(|| shared.and_then(|c| c.run_as_user));
    let run_as_group = own
        .and_then(|c| c.run_as_group)
        .or_else(|| shared.and_then(|c| c.run_as_group));
    let must_not_be_root = own
        .and_then(|c| c.run_as_non_root)
        .or_else(|| shared.and_then(|c| c.run_as_non_root))
        .unwrap_or(false);

    let (user, mut group) = match run_as_user {
        Some(uid) => (Id::Number(id("runAsUser", uid)?), None),
        None => image_ids(image_user)?,
    };
    if must_not_be_root {
        check_not_root(pod, container, run_as_user.is_some(), user)?;
    }
    if let Some(gid) = run_as_group {
        group = Some(Id::Number(id("runAsGroup", gid)?));
    }

    let passwd = read(rootfs, PASSWD)?;
    let entry = lines(&passwd)
        .filter_map(User::parse)
        .find(|entry| match user {
            Id::Number(uid) => entry.uid == uid,
            Id::Name(name) => entry.name == name.as_bytes(),
        });
    let uid = match (user, &entry) {
        (Id::Number(uid), _) => uid,
        (Id::Name(_), Some(entry)) => entry.uid,
        (Id::Name(name), None) => return Err(SpecError::UnknownUser(name.to_owned())),
    };

    let strict = shared.and_then(|c| c.supplemental_groups_policy.as_deref()) == Some("Strict");
    let member = entry.as_ref().filter(|_| !strict).map(|entry| entry.name);
    let named = matches!(group, Some(Id::Name(_)));
    let group_file = if member.is_some() || named {
        read(rootfs, GROUP)?
    } else {
        Vec::new()
    };
    let gid = match group {
        Some(Id::Number(gid)) => gid,
        Some(Id::Name(name)) => lines(&group_file)
            .filter_map(Group::parse)
            .find(|group| group.name == name.as_bytes())
            .map(|group| group.gid)
            .ok_or_else(|| SpecError::UnknownGroup(name.to_owned()))?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };

    let mut others = Vec::new();
    if let Some(name) = member {
        others.extend(
            lines(&group_file)
                .filter_map(Group::parse)
                .filter(|group| group.name != name && group.has(name))
                .map(|group| group.gid),
        );
    }
    if let Some(context) = shared {
        for &gid in context.supplemental_groups.iter().flatten() {
            others.push(id("supplementalGroups", gid)?);
        }
        if let Some(gid) = context.fs_group {
            others.push(id("fsGroup", gid)?);
        }
    }
    others.sort_unstable();
    others.dedup();
    others.retain(|&other| other != gid);

    let home = entry
        .and_then(|entry| String::from_utf8(entry.home.to_vec()).ok())
        .filter(|home| !home.is_empty() && !home.contains('\0'))
        .unwrap_or_else(|| "/".to_owned());
    Ok(Identity {
        uid,
        gid,
        groups: std::iter::once(gid).chain(others).collect(),
        home,
    })
}

#[derive(Clone, Copy)]
enum Id<'a> {
    Number(u32),
    Name(&'a str),
}

impl<'a> Id<'a> {
    fn of(text: &'a str) -> Self {
        match text.parse::<i32>() {
            Ok(number) if number >= 0 => Self::Number(number.unsigned_abs()),
            _ => Self::Name(text),
        }
    }
}

/// The two parts of an image's `User`. Without one it is root.
fn image_ids(text: &str) -> Result<(Id<'_>, Option<Id<'_>>), SpecError> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if group.contains(':') {
        return Err(SpecError::ImageUser(text.to_owned()));
    }
    let user = if user.is_empty() {
        Id::Number(0)
    } else {
        Id::of(user)
    };
    Ok((user, (!group.is_empty()).then(|| Id::of(group))))
}

fn id(field: &'static str, value: i64) -> Result<u32, SpecError> {
    i32::try_from(value)
        .ok()
        .and_then(|value| u32::try_from(value).ok())
        .ok_or(SpecError::Id { field, value })
}

fn check_not_root(
    pod: &Pod,
    container: &Container,
    by_manifest: bool,
    user: Id,
) -> Result<(), SpecError> {
    let pod = || {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let (name, namespace, uid) = (&meta.name, &meta.namespace, &meta.uid);
        format!("{}_{}({})", text(name), text(namespace), text(uid))
    };
    let container = || container.name.clone();
    match user {
        Id::Number(0) if by_manifest => Err(SpecError::RunAsUserIsRoot {
            pod: pod(),
            container: container(),
        }),
        Id::Number(0) => Err(SpecError::ImageIsRoot {
            pod: pod(),
            container: container(),
        }),
        Id::Name(user) => Err(SpecError::ImageUserNotNumeric {
            user: user.to_owned(),
            pod: pod(),
            container: container(),
        }),
        Id::Number(_) => Ok(()),
    }
}

/// A line of passwd(5).
struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl<'a> User<'a> {
    /// None for a line that is not of the form: such a line must not become
    /// the user 0 by accident.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b':');
        let name = fields.next()?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Self {
            name,
            uid,
            gid,
            home,
        })
    }
}

/// A line of group(5).
struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl<'a> Group<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b':');
        let name = fields.next()?;
        let gid = number(fields.nth(1)?)?;
        let members = fields.next().unwrap_or_default();
        Some(Self { name, gid, members })
    }

    fn has(&self, user: &[u8]) -> bool {
        self.members.split(|&byte| byte == b',').any(|m| m == user)
    }
}

fn number(text: &[u8]) -> Option<u32> {
    let number: u32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number != u32::MAX).then_some(number)
}

/// The lines that can be entries: neither comments, nor references to name
/// services, nor nameless.
fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !matches!(line.first(), None | Some(b'#' | b'+' | b'-' | b':')))
}

fn read(rootfs: BorrowedFd, path: &'static str) -> Result<Vec<u8>, SpecError> {
    read_in(rootfs, path).map_err(|source| SpecError::AccountFile { path, source })
}

/// The content of a file in the root file system `rootfs`; nothing when it is
/// not there.
fn read_in(rootfs: BorrowedFd, path: &str) -> io::Result<Vec<u8>> {
    let found = rustix::fs::openat2(
        rootfs,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    );
    let found = match found {
        Ok(found) => found,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&found)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    let reopened = rustix::fs::open(
        format!("/proc/self/fd/{}", found.as_raw_fd()),
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut content = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(1 << 16));
    File::from(reopened)
        .take(LARGEST_FILE + 1)
        .read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests;
