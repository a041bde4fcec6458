//! What a container leaves to say why it ended
//! (<https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>).
//!
//! The file that it may write to is the container's, and what is in it hostile:
//! it is opened by a name of the keeper's own, and read up to a limit.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated};

use super::Keeper;
use crate::pod::logs;

/// Bytes of a message at most, from its end.
const LONGEST: u64 = 4096;

/// Bytes and lines of a log that stand in for a message.
const LONGEST_TAIL: usize = 2048;
const MOST_LINES: usize = 80;

/// Bytes of all messages of a pod together.
const LONGEST_OF_POD: usize = 12 << 10;

/// Bytes from the end of a log file among which the last lines are looked for.
const LOOKED_AT: u64 = 512 << 10;

impl Keeper {
    /// Adds the message of a container that has ended to what is known of its end.
    pub(super) fn add_message(&self, index: usize, ended: &mut ContainerStateTerminated) {
        let Some(specification) = self.specification(index) else {
            return;
        };
        let container = &self.containers[index];
        let path = specification.termination_message_path.as_deref();
        if path.unwrap_or_default().is_empty() {
            return;
        }
        let file = self
            .home
            .termination_message(&container.name, container.restarts);
        let said = match read_end(&file, LONGEST) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("cannot read the termination message: {error}"),
        };
        let falls_back = falls_back(specification) && ended.exit_code != 0 && said.is_empty();
        let mut said = if falls_back {
            let log = logs::file(&self.log_directory(), &container.name, container.restarts);
            // A log that cannot be read says nothing.
            tail(&log).unwrap_or_default()
        } else {
            said
        };
        let share = LONGEST_OF_POD / self.containers.len().max(1);
        said.truncate(said.floor_char_boundary(share));
        if said.is_empty() {
            return;
        }
        ended.message = Some(match ended.message.take() {
            Some(message) => format!("{message}: {said}"),
            None => said,
        });
    }
}

fn falls_back(container: &Container) -> bool {
    container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
}

/// The last `limit` bytes of a file; nothing when there is no such file.
fn read_end(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of the last lines of a log.
fn tail(log: &Path) -> io::Result<String> {
    let bytes = read_end(log, LOOKED_AT)?;
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let lines = &lines[lines.len().saturating_sub(MOST_LINES)..];
    let entries = lines.iter().filter_map(|line| logs::parse(line));
    let text: Vec<u8> = entries.flat_map(|entry| entry.text.to_vec()).collect();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(LONGEST_TAIL)..]);
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_log_is_its_last_lines_without_their_times() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = directory.path().join("0.log");
        let line = |number| format!("2026-01-02T03:04:05.6Z stdout F line {number}\n");
        let text: String = (0..100).map(line).collect();
        std::fs::write(&log, text).expect("write");
        let tail = tail(&log).expect("a tail");
        assert_eq!(tail.lines().count(), MOST_LINES);
        assert!(tail.starts_with("line 20\n") && tail.ends_with("line 99\n"));

        let long = format!("2026-01-02T03:04:05.6Z stderr F {}\n", "x".repeat(5000));
        std::fs::write(&log, long).expect("write");
        assert_eq!(super::tail(&log).expect("a tail").len(), LONGEST_TAIL);
    }

    #[test]
    fn a_message_is_the_end_of_its_file_and_never_behind_a_link() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("message");
        assert_eq!(read_end(&file, 3).expect("no file"), b"");
        std::fs::write(&file, "abcdef").expect("write");
        assert_eq!(read_end(&file, 3).expect("a file"), b"def");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("symlink");
        assert!(read_end(&link, 3).is_err());
    }
}
