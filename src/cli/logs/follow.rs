//! Following a log: over its rotation, and over restarts of its container.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use k8s_openapi::api::core::v1::ContainerStatus;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::Source;
use super::printer::{Lines, Printer};
use crate::pod::control::{Client, Reply, Request};
use crate::pod::home::Home;
use crate::pod::log_files::{Directory, present_name};
use crate::pod::status::BACK_OFF;

/// A log that grows.
struct Growing<'s> {
    directory: &'s Directory,
    printer: Printer,
    attempt: u32,
    /// The file that grows, and how far it was read.
    file: Option<(File, Lines)>,
}

/// Prints a log and what is added to it, until its container has ended for good
/// or waits to be started again.
///
/// # Errors
/// As the printer's.
pub(super) fn follow(home: &Home, source: &Source, mut printer: Printer) -> io::Result<()> {
    let changes = watch(&source.directory)?;
    let keeper = Client::connect(home)?;
    let Some(keeper) = keeper else {
        return printer.print_all(&source.directory, source.attempt);
    };
    keeper.send(&Request::Watch, &[])?;
    let mut log = Growing {
        directory: &source.directory,
        printer,
        attempt: source.attempt,
        file: None,
    };
    log.begin()?;
    loop {
        log.print()?;
        let mut interest = [
            PollFd::new(&changes, PollFlags::IN),
            PollFd::new(&keeper, PollFlags::IN),
        ];
        rustix::io::retry_on_intr(|| poll(&mut interest, None))?;
        let [written, told] = interest.map(|fd| !fd.revents().is_empty());
        if written {
            // What changed is read from the files themselves.
            rustix::io::read(&changes, &mut [0_u8; 4096])?;
        }
        if !told {
            continue;
        }
        let status = match keeper.receive()? {
            Some((Reply::Status(status), _)) => status,
            Some(_) => continue,
            None => return log.print(),
        };
        let init = status.init_container_statuses.iter().flatten();
        let mut all = init.chain(status.container_statuses.iter().flatten());
        let Some(status) = all.find(|status| status.name == source.container) else {
            return log.print();
        };
        let present = u32::try_from(status.restart_count).unwrap_or(0);
        while log.attempt < present {
            log.print()?;
            log.attempt += 1;
            log.file = None;
        }
        if has_ended(status) {
            return log.print();
        }
    }
}

impl Growing<'_> {
    fn begin(&mut self) -> io::Result<()> {
        let segments = self.printer.begin(self.directory, self.attempt)?;
        self.take(segments)
    }

    /// Prints everything that is there.
    fn print(&mut self) -> io::Result<()> {
        loop {
            let Some((file, lines)) = &mut self.file else {
                let segments = self.directory.segments(self.attempt, None)?;
                return self.take(segments);
            };
            let grows = self.directory.is_growing(self.attempt, file)?;
            // After it was rotated nothing is added to it.
            self.printer.print(lines)?;
            if grows {
                return Ok(());
            }
            let name = present_name(file)?;
            let segments = self.directory.segments(self.attempt, Some(&name))?;
            if segments.is_empty() {
                // Its successor is about to be made, which will be told.
                return Ok(());
            }
            self.take(segments)?;
        }
    }

    /// Prints files that are new; the last of them is the one that grows.
    fn take(&mut self, segments: Vec<crate::pod::log_files::Segment>) -> io::Result<()> {
        for segment in segments {
            match segment.into_file() {
                Ok(file) => {
                    let mut lines = Lines::new(Box::new(file.try_clone()?));
                    self.printer.print(&mut lines)?;
                    self.file = Some((file, lines));
                }
                Err(compressed) => self
                    .printer
                    .print(&mut Lines::new(compressed.into_reader()))?,
            }
        }
        Ok(())
    }
}

fn has_ended(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| {
        let waiting = state.waiting.as_ref();
        let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
        state.terminated.is_some() || reason == Some(BACK_OFF)
    })
}

fn watch(directory: &Directory) -> io::Result<OwnedFd> {
    let changes = inotify::init(CreateFlags::CLOEXEC)?;
    let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
    inotify::add_watch(&changes, directory.path(), flags)?;
    Ok(changes)
}
