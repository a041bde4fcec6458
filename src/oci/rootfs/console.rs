//! A container's terminal (config.md, "process.terminal"): made in the
//! container's own devpts, its master sent to whoever asked for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, fstat, fstatfs, makedev, openat2};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::error::RootfsError;
use super::place::{Missing, find_or_make};
use crate::sys::mount::{attach, clone_at};

/// `DEVPTS_SUPER_MAGIC` of the kernel's linux/magic.h.
const DEVPTS: u64 = 0x1cd1;

/// Makes a terminal, shows it as `/dev/console`, makes it the three standard
/// streams of the caller and sends its master over `socket`.
///
/// It becomes the controlling terminal later, with the new session.
///
/// # Errors
/// The step at fault.
pub(super) fn make(root: BorrowedFd, socket: BorrowedFd) -> Result<(), RootfsError> {
    let failed = |step: &'static str| RootfsError::step::<Errno>(step);
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let master = openat2(root, "dev/pts/ptmx", flags, Mode::empty(), resolve)
        .map_err(failed("open \"/dev/pts/ptmx\" of the container"))?;
    let is_multiplexer = fstatfs(&master).is_ok_and(|stat| stat.f_type as u64 == DEVPTS)
        && fstat(&master).is_ok_and(|stat| stat.st_rdev == makedev(5, 2));
    if !is_multiplexer {
        return Err(RootfsError::Refused(
            "\"/dev/pts/ptmx\" of the container makes no terminals: mount devpts on \"/dev/pts\""
                .into(),
        ));
    }
    unlockpt(&master).map_err(failed("unlock the terminal"))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).map_err(failed("open the terminal"))?;

    let show = || -> io::Result<()> {
        let tree = clone_at(slave.as_fd(), Path::new(""), false)?;
        let place = find_or_make(root, Path::new("/dev/console"), Missing::File)?;
        attach(tree.as_fd(), place.as_fd())
    };
    show().map_err(RootfsError::step::<io::Error>("mount \"/dev/console\""))?;

    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let name = [io::IoSlice::new(b"/dev/ptmx")];
    sendmsg(socket, &name, &mut ancillary, SendFlags::NOSIGNAL)
        .map_err(failed("send the terminal's master to the console socket"))?;

    rustix::stdio::dup2_stdin(&slave)
        .and_then(|()| rustix::stdio::dup2_stdout(&slave))
        .and_then(|()| rustix::stdio::dup2_stderr(&slave))
        .map_err(failed("connect the standard streams to the terminal"))
}
