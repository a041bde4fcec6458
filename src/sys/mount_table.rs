//! The calling thread's table of mounts (proc_pid_mountinfo(5)), read where
//! nothing else tells. It may have thousands of lines: not for hot paths.

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::mount::{mount_id, unescape};

/// One mount of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Whether mounts made in it show in its peers (`shared:N`).
    pub is_shared: bool,
    /// Whether mounts made in its master show in it (`master:N`).
    pub is_slave: bool,
}

/// The mount that `file` lies on; `None` when it is not in the caller's mount
/// namespace.
///
/// # Errors
/// What statx(2) or read(2) say.
pub fn entry_of(file: BorrowedFd) -> io::Result<Option<Entry>> {
    let id = mount_id(file)?.to_string();
    let table = std::fs::read("/proc/thread-self/mountinfo")?;
    let mut lines = table.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.split(|byte| *byte == b' ').next() == Some(id.as_bytes()));
    Ok(line.map(parse))
}

/// A path as the table has it, in which `\040` stands for a space.
#[must_use]
pub fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(unescape(field)))
}

fn parse(line: &[u8]) -> Entry {
    let mut fields = line.split(|byte| *byte == b' ').skip(4);
    let point = path(fields.next().unwrap_or_default());
    let tags: Vec<&[u8]> = fields.skip(1).take_while(|field| *field != b"-").collect();
    let has = |tag: &[u8]| tags.iter().any(|field| field.starts_with(tag));
    Entry {
        point,
        is_shared: has(b"shared:"),
        is_slave: has(b"master:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_point_and_the_sharing_are_read_from_a_line() {
        let entry = |line: &str| parse(line.as_bytes());
        let plain = entry("36 35 98:0 /m /mnt/a\\040b rw,noatime - ext4 /dev/root rw,shared:1");
        assert_eq!(plain.point, PathBuf::from("/mnt/a b"));
        assert!(!plain.is_shared && !plain.is_slave);
        let both = entry("36 35 98:0 / / rw shared:7 master:1 - ext4 /dev/root rw");
        assert!(both.is_shared && both.is_slave);
    }
}
