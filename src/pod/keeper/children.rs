//! The keeper's children, and the reaping of those that nobody waits for:
//! workers of the launcher, and processes that containers left behind.
//!
//! A process that somebody will wait for must not be reaped before: so while the
//! id of a child is still on its way, nothing is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::process::Pid;
use tokio::sync::mpsc;

use super::{Event, start};
use crate::sys::{pidfd, process};

/// Which children are waited for. Clones share what they know.
#[derive(Clone, Default)]
pub(super) struct Children {
    expected: Rc<Cell<usize>>,
    known: Rc<RefCell<BTreeSet<i32>>>,
}

/// A child whose id is on its way.
pub(super) struct Expected(Children);

/// A child that is waited for.
pub(super) struct Child {
    pid: i32,
    pidfd: Rc<OwnedFd>,
    children: Children,
}

impl Children {
    /// Announces a child, before it is asked for.
    pub(super) fn expect(&self) -> Expected {
        self.expected.set(self.expected.get() + 1);
        Expected(self.clone())
    }

    /// Reaps every child that has ended and that nobody waits for.
    pub(super) fn reap_strays(&self) {
        while self.expected.get() == 0
            && let Ok(Some(pid)) = process::ended_child()
        {
            let is_known = self.known.borrow().contains(&pid.as_raw_nonzero().get());
            if is_known || process::reap(pid).is_err() {
                return;
            }
        }
    }
}

impl Expected {
    /// The child is there.
    ///
    /// # Errors
    /// What pidfd_open(2) says.
    pub(super) fn arrived(self, pid: i32) -> io::Result<Child> {
        // It was not waited for yet, so nobody else can have its number.
        let pidfd = Rc::new(pidfd::open(pid)?);
        self.0.known.borrow_mut().insert(pid);
        Ok(Child {
            pid,
            pidfd,
            children: self.0.clone(),
        })
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.expected.set(self.0.expected.get() - 1);
        // Those that ended meanwhile sent their signal in vain.
        self.0.reap_strays();
    }
}

impl Child {
    /// A descriptor of the process.
    pub(super) fn pidfd(&self) -> Rc<OwnedFd> {
        Rc::clone(&self.pidfd)
    }

    /// Waits for the end of the process and returns its exit code.
    ///
    /// # Errors
    /// What waitid(2) says.
    pub(super) async fn exit_code(self) -> io::Result<i32> {
        start::exit_code(&*self.pidfd).await
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.children.known.borrow_mut().remove(&self.pid);
        self.children.reap_strays();
    }
}

/// The launcher, as the first child.
///
/// # Errors
/// What pidfd_open(2) says.
pub(super) fn launcher(children: &Children, pid: Pid) -> io::Result<Child> {
    children.expect().arrived(pid.as_raw_nonzero().get())
}

/// Tells when the launcher has ended.
pub(super) async fn watch_launcher(launcher: Child, events: mpsc::UnboundedSender<Event>) {
    // Whatever the reason why it can't be watched: without it nothing goes on.
    let _ = launcher.exit_code().await;
    let _ = events.send(Event::LauncherEnded);
}
