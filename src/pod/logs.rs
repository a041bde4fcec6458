//! Logs in the format of the Kubernetes container runtime interface: a line is
//! `<time> <stream> <tag> <text>`, the tag `F` for a full line and `P` for a
//! part of one (<https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md>).
//!
//! A container's logs are the files `<start>.log` in a directory of its name,
//! one for every start, counted from 0, and what was rotated out of them
//! ([`super::log_files`]).

use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Bytes of text in one entry; a longer line becomes several.
pub const LONGEST_PART: usize = 16 << 10;

/// One of a container's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// As it is called in an entry.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The file to which the entries of one start are written; what was rotated out
/// of it has other names.
#[must_use]
pub fn file(directory: &Path, container: &str, attempt: u32) -> PathBuf {
    directory.join(container).join(format!("{attempt}.log"))
}

/// Turns the bytes of one stream into entries.
pub struct Entries {
    stream: Stream,
    rest: Vec<u8>,
}

impl Entries {
    /// Entries of this stream.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            rest: Vec::new(),
        }
    }

    /// Takes `bytes` as they arrived at `now`, and appends all entries that are
    /// complete to `output`.
    pub fn push(&mut self, bytes: &[u8], now: Timestamp, output: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(piece);
            let full = self.rest.last() == Some(&b'\n');
            if full {
                self.rest.pop();
            }
            let text = std::mem::take(&mut self.rest);
            let mut parts = text.chunks(LONGEST_PART).peekable();
            if full && text.is_empty() {
                entry(output, now, self.stream, "F", b"");
            }
            while let Some(part) = parts.next() {
                match (parts.peek().is_some(), full) {
                    (true, _) => entry(output, now, self.stream, "P", part),
                    (false, true) => entry(output, now, self.stream, "F", part),
                    (false, false) => self.rest = part.to_vec(),
                }
            }
        }
    }

    /// What has arrived of a line whose end has not, and is in no entry yet.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.rest
    }

    /// Appends what the stream ended with without an end of line.
    pub fn finish(&mut self, now: Timestamp, output: &mut Vec<u8>) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            entry(output, now, self.stream, "P", &rest);
        }
    }
}

fn entry(output: &mut Vec<u8>, now: Timestamp, stream: Stream, tag: &str, text: &[u8]) {
    // Writing to a vector cannot fail.
    let _ = write!(output, "{now:.9} {} {tag} ", stream.name());
    output.extend_from_slice(text);
    output.push(b'\n');
}

/// An entry as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it was written, RFC 3339.
    pub time: &'a [u8],
    /// Whether the program wrote it to standard error.
    pub stderr: bool,
    /// The text, with the end of line that the program wrote, if it did.
    pub text: &'a [u8],
}

/// Reads one line of a log file, `line` with its end. `None` for a line that
/// is no entry.
#[must_use]
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag, text) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    let stderr = stream == b"stderr";
    let text = match tag {
        b"F" => text,
        b"P" => text.strip_suffix(b"\n").unwrap_or(text),
        _ => return None,
    };
    Some(Entry { time, stderr, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(pieces: &[&[u8]]) -> String {
        let now: Timestamp = "2026-01-02T03:04:05.6Z".parse().expect("time");
        let mut output = Vec::new();
        let mut entries = Entries::new(Stream::Stdout);
        for piece in pieces {
            entries.push(piece, now, &mut output);
        }
        entries.finish(now, &mut output);
        String::from_utf8(output).expect("text")
    }

    #[test]
    fn lines_become_entries_however_they_arrive() {
        let expected = "2026-01-02T03:04:05.600000000Z stdout F hello\n\
                        2026-01-02T03:04:05.600000000Z stdout F \n\
                        2026-01-02T03:04:05.600000000Z stdout P end\n";
        assert_eq!(write(&[b"hello\n\nend"]), expected);
        assert_eq!(write(&[b"he", b"llo", b"\n", b"\nen", b"d"]), expected);
    }

    #[test]
    fn a_long_line_is_written_in_parts_and_read_as_one() {
        let long = vec![b'x'; LONGEST_PART * 2 + 5];
        let mut text = long.clone();
        text.push(b'\n');
        let written = write(&[&text]);
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains(" P ") && lines[1].contains(" P ") && lines[2].contains(" F "));
        let read: Vec<u8> = written
            .split_inclusive('\n')
            .flat_map(|line| parse(line.as_bytes()).expect("entry").text.to_vec())
            .collect();
        assert_eq!(read, text);
    }
}
