//! From the entries of a log to lines on standard output.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};

use jiff::Timestamp;

use crate::pod::log_files::{Directory, Segment};
use crate::pod::logs::{self, Entry};

/// What is printed of a log, and how.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Lines from the end; none for all.
    pub(super) tail: Option<usize>,
    pub(super) since: Option<Timestamp>,
    pub(super) timestamps: bool,
    /// Bytes at most.
    pub(super) limit: Option<u64>,
}

/// Prints one log.
pub(super) struct Printer {
    options: Options,
    prefix: Option<String>,
    /// True when the next entry begins a line.
    begins: bool,
    /// Entries to be passed over, once the first files have been left out.
    skip: usize,
    output: Vec<u8>,
}

impl Printer {
    pub(super) fn new(options: Options, prefix: Option<String>) -> Self {
        Self {
            options,
            prefix,
            begins: true,
            skip: 0,
            output: Vec::new(),
        }
    }

    /// Prints what there is of a start's log.
    ///
    /// # Errors
    /// What reading or writing say; `BrokenPipe` when nobody reads any more.
    pub(super) fn print_all(&mut self, directory: &Directory, attempt: u32) -> io::Result<()> {
        for segment in self.begin(directory, attempt)? {
            self.print(&mut Lines::new(segment.into_reader()))?;
        }
        Ok(())
    }

    /// The files of a start's log in which there is something to print.
    ///
    /// # Errors
    /// What reading says.
    pub(super) fn begin(
        &mut self,
        directory: &Directory,
        attempt: u32,
    ) -> io::Result<Vec<Segment>> {
        let mut segments = directory.segments(attempt, None)?;
        let Some(mut wanted) = self.options.tail.take() else {
            return Ok(segments);
        };
        // Read from the newest file on, until there are lines enough; each is
        // opened anew, to be printed from its beginning.
        let again = directory.segments(attempt, None)?;
        let mut from = segments.len();
        for segment in again.into_iter().rev() {
            if from == 0 || wanted == 0 {
                break;
            }
            from -= 1;
            let (skip, found) = last_lines(segment.into_reader(), wanted)?;
            self.skip = skip;
            wanted -= found;
        }
        if from == segments.len()
            && let Some(last) = segments.last()
            && last.rotated.is_none()
        {
            // Not a line of what is there; what comes later is printed.
            from -= 1;
            self.skip = usize::MAX;
        }
        segments.drain(..from);
        Ok(segments)
    }

    /// Prints all whole entries that `lines` has now.
    ///
    /// # Errors
    /// As [`Printer::print_all`].
    pub(super) fn print(&mut self, lines: &mut Lines) -> io::Result<()> {
        while let Some(line) = lines.next()? {
            let Some(entry) = logs::parse(line) else {
                continue;
            };
            if self.skip > 0 {
                self.skip -= 1;
            } else if self.is_wanted(&entry) {
                self.entry(&entry)?;
            }
            if self.output.len() > 32 << 10 {
                self.flush()?;
            }
        }
        if self.skip > usize::MAX / 2 {
            self.skip = 0;
        }
        self.flush()
    }

    fn is_wanted(&mut self, entry: &Entry) -> bool {
        let Some(since) = self.options.since else {
            return true;
        };
        let time = std::str::from_utf8(entry.time).ok();
        let time = time.and_then(|time| time.parse::<Timestamp>().ok());
        let wanted = time.is_some_and(|time| time >= since);
        if wanted {
            // Entries are in the order of time: all others are, too.
            self.options.since = None;
        }
        wanted
    }

    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let start = self.output.len();
        if self.begins {
            self.output
                .extend(self.prefix.iter().flat_map(|prefix| prefix.bytes()));
            if self.options.timestamps {
                self.output.extend_from_slice(entry.time);
                self.output.push(b' ');
            }
        }
        self.output.extend_from_slice(entry.text);
        self.begins = entry.text.last() == Some(&b'\n');
        if let Some(left) = &mut self.options.limit {
            let length = (self.output.len() - start) as u64;
            let allowed = length.min(*left);
            *left -= allowed;
            let cut = usize::try_from(length - allowed).unwrap_or(usize::MAX);
            self.output.truncate(self.output.len() - cut);
            if *left == 0 {
                self.flush()?;
                // For the caller as if nobody wanted to read more.
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.output)?;
        self.output.clear();
        stdout.flush()
    }
}

/// The entries of a file, whole ones only.
pub(super) struct Lines {
    from: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    done: bool,
}

impl Lines {
    pub(super) fn new(from: Box<dyn Read + Send>) -> Self {
        Self {
            from: BufReader::with_capacity(64 << 10, from),
            line: Vec::new(),
            done: false,
        }
    }

    /// The next entry's line; none when it is not there yet.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if std::mem::take(&mut self.done) {
            self.line.clear();
        }
        self.from.read_until(b'\n', &mut self.line)?;
        self.done = self.line.last() == Some(&b'\n');
        Ok(self.done.then_some(&self.line))
    }
}

/// How many entries of a file stand before its last `wanted` lines, and how many
/// lines of those it has. A line that was written in parts counts once.
fn last_lines(from: Box<dyn Read + Send>, wanted: usize) -> io::Result<(usize, usize)> {
    let mut lines = Lines::new(from);
    let mut starts = VecDeque::new();
    let mut entries = 0;
    let mut begins = true;
    while let Some(line) = lines.next()? {
        let Some(entry) = logs::parse(line) else {
            continue;
        };
        if begins {
            if starts.len() == wanted {
                starts.pop_front();
            }
            starts.push_back(entries);
        }
        begins = entry.text.last() == Some(&b'\n');
        entries += 1;
    }
    let skip = starts.front().copied().unwrap_or(0);
    Ok((skip, starts.len()))
}
