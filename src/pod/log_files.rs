//! The files of a container's log: the one that grows, and those before it.
//!
//! A start's log is `<start>.log`. When it has reached 10 MiB it becomes
//! `<start>.log.<time>` and a new one begins; of five files in all the oldest goes.
//! All but the growing one and the one before are compressed (`.gz`), by a
//! thread of its own. Names and numbers are kubelet's
//! (<https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation>),
//! so what collects logs on a node collects these.
//!
//! An entry is in one file, once: a reader that follows [`Directory::segments`]
//! misses nothing and sees nothing twice, however often the log is rotated
//! meanwhile.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Bytes after which a log is rotated, for tests only.
const TEST_SIZE: &str = "ORLOP_TEST_LOG_SIZE";

/// When a log is rotated, and how much of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one file at most, unless a single piece of output has more.
    pub size: u64,
    /// Files of one start at most, the growing one included.
    pub files: usize,
}

impl Limits {
    /// kubelet's: 10 MiB and five files. `ORLOP_TEST_LOG_SIZE` in the keeper's
    /// environment sets another size; it is there for tests.
    #[must_use]
    pub fn of_this_process() -> Self {
        let size = std::env::var(TEST_SIZE).ok();
        Self {
            size: size.and_then(|size| size.parse().ok()).unwrap_or(10 << 20),
            files: 5,
        }
    }
}

/// The directory of one container's logs.
#[derive(Debug)]
pub struct Directory {
    directory: OwnedFd,
}

/// One file of a log, and how to read it.
#[derive(Debug)]
pub struct Segment {
    /// The name it was given when it was rotated; none for the growing one.
    pub rotated: Option<String>,
    file: File,
    compressed: bool,
}

impl Segment {
    /// The file itself, unless it is compressed.
    ///
    /// # Errors
    /// The segment, when it is compressed.
    pub fn into_file(self) -> Result<File, Self> {
        if self.compressed {
            Err(self)
        } else {
            Ok(self.file)
        }
    }

    /// Its entries from the first.
    #[must_use]
    pub fn into_reader(self) -> Box<dyn Read + Send> {
        if self.compressed {
            Box::new(GzDecoder::new(self.file))
        } else {
            Box::new(self.file)
        }
    }
}

impl Directory {
    /// Opens the logs of `container` in the directory of its pod's logs. `None`
    /// when there are none.
    ///
    /// # Errors
    /// What openat2(2) says; `ELOOP` for a symbolic link.
    pub fn open(pod: &Path, container: &str) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = fs::open(pod, flags, Mode::empty())
            .and_then(|pod| fs::openat(pod, container, flags, Mode::empty()));
        match opened {
            Ok(directory) => Ok(Some(Self { directory })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A path to it that holds for as long as it is open, for inotify(7).
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.directory.as_raw_fd())
    }

    /// Whether the start `attempt` has a log.
    ///
    /// # Errors
    /// What openat(2) or getdents64(2) say.
    pub fn has(&self, attempt: u32) -> io::Result<bool> {
        let growing = self.open_file(&growing(attempt))?;
        Ok(growing.is_some() || !self.rotated(attempt)?.is_empty())
    }

    /// The files of a start's log that come after the one named `after`, all
    /// without it; the oldest first. They are one state of the log: together
    /// they hold every entry once.
    ///
    /// # Errors
    /// What openat(2) or getdents64(2) say.
    pub fn segments(&self, attempt: u32, after: Option<&str>) -> io::Result<Vec<Segment>> {
        loop {
            let growing_file = self.open_file(&growing(attempt))?;
            let mut segments = Vec::new();
            for name in self.rotated(attempt)? {
                if after.is_some_and(|after| name.as_str() <= after) {
                    continue;
                }
                segments.extend(self.open_rotated(name)?);
            }
            // A rotation in between is seen by the growing file being another
            // one; it cannot have the number of one that is open here.
            let before = growing_file.as_ref().map(identity).transpose()?;
            let now = self.open_file(&growing(attempt))?;
            if before != now.as_ref().map(identity).transpose()? {
                continue;
            }
            segments.extend(growing_file.map(|file| Segment {
                rotated: None,
                file,
                compressed: false,
            }));
            return Ok(segments);
        }
    }

    /// Whether `file` is the one to which a start's entries are written now.
    ///
    /// # Errors
    /// What openat(2) or fstat(2) say.
    pub fn is_growing(&self, attempt: u32, file: &File) -> io::Result<bool> {
        match self.open_file(&growing(attempt))? {
            Some(now) => Ok(identity(&now)? == identity(file)?),
            None => Ok(false),
        }
    }

    /// The names of a start's rotated files without `.gz`, the oldest first.
    fn rotated(&self, attempt: u32) -> io::Result<Vec<String>> {
        let prefix = growing(attempt) + ".";
        let mut names: Vec<String> = self
            .names()?
            .into_iter()
            .filter(|name| name.starts_with(&prefix) && !name.ends_with(".tmp"))
            .map(|name| name.strip_suffix(".gz").map(str::to_owned).unwrap_or(name))
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::Dir::read_from(&self.directory)?;
        let name = |entry: Result<fs::DirEntry, Errno>| {
            let name = entry?.file_name().to_string_lossy().into_owned();
            Ok(name)
        };
        entries.map(name).collect()
    }

    fn open_rotated(&self, name: String) -> io::Result<Option<Segment>> {
        // It may be compressed while it is looked for, and go when it is old.
        for (path, compressed) in [(name.clone(), false), (format!("{name}.gz"), true)] {
            if let Some(file) = self.open_file(&path)? {
                return Ok(Some(Segment {
                    rotated: Some(name),
                    file,
                    compressed,
                }));
            }
        }
        Ok(None)
    }

    fn open_file(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match fs::openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn create_file(&self, name: &str, flags: OFlags) -> rustix::io::Result<File> {
        let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o640);
        fs::openat(&self.directory, name, flags, mode).map(File::from)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Compresses all of a start's rotated files but the newest.
    fn compress(&self, attempt: u32) -> io::Result<()> {
        let mut names = self.rotated(attempt)?;
        names.pop();
        for name in names {
            let Some(mut from) = self.open_file(&name)? else {
                continue;
            };
            let unfinished = format!("{name}.tmp");
            let to = self.create_file(&unfinished, OFlags::TRUNC)?;
            let mut encoder = GzEncoder::new(to, Compression::default());
            io::copy(&mut from, &mut encoder)?;
            encoder.finish()?;
            let whole = format!("{name}.gz");
            fs::renameat(&self.directory, &unfinished, &self.directory, &whole)?;
            self.remove(&name)?;
        }
        Ok(())
    }

    /// Removes the logs of starts that nobody can ask for any more: of those
    /// before the latest, one is kept.
    fn forget_before(&self, attempt: u32) -> io::Result<()> {
        for name in self.names()? {
            let start = name
                .split_once(".log")
                .and_then(|(start, _)| start.parse().ok());
            if start.is_some_and(|start: u32| start + 1 < attempt) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }
}

fn growing(attempt: u32) -> String {
    format!("{attempt}.log")
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let stat = fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The name that `file` has now, without the directories above it.
///
/// # Errors
/// What readlink(2) says.
pub fn present_name(file: &File) -> io::Result<String> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // What the kernel adds when the file has been removed.
    Ok(name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned())
}

/// The log of one start, as its keeper writes it.
pub struct Log {
    directory: Arc<Directory>,
    attempt: u32,
    file: File,
    size: u64,
    written: u64,
    limits: Limits,
    compressing: Arc<AtomicBool>,
}

impl Log {
    /// Opens the log of one start; what it has already stays. Logs of starts
    /// before the last one are removed.
    ///
    /// # Errors
    /// What mkdir(2), open(2) or fstat(2) say.
    pub fn open(pod: &Path, container: &str, attempt: u32, limits: Limits) -> io::Result<Self> {
        std::fs::create_dir_all(pod.join(container))?;
        let directory = Directory::open(pod, container)?.ok_or(io::ErrorKind::NotFound)?;
        if attempt > 1 {
            directory.forget_before(attempt)?;
        }
        let file = directory.create_file(&growing(attempt), OFlags::APPEND)?;
        let size = file.metadata()?.len();
        Ok(Self {
            directory: Arc::new(directory),
            attempt,
            file,
            size,
            written: size,
            limits,
            compressing: Arc::default(),
        })
    }

    /// Bytes of the log in all its files, those that have gone included.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes whole entries. What cannot be written whole is not written at all.
    ///
    /// # Errors
    /// What write(2) says, or the rotation's steps; the entries are written
    /// then, if they can be, to the file that there is.
    pub fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let length = entries.len() as u64;
        let rotated = if self.size > 0 && self.size + length > self.limits.size {
            self.rotate()
        } else {
            Ok(())
        };
        if let Err(error) = self.file.write_all(entries) {
            // Half an entry would spoil the one after it.
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.size += length;
        self.written += length;
        rotated
    }

    fn rotate(&mut self) -> io::Result<()> {
        let directory = &self.directory;
        let growing = growing(self.attempt);
        let mut names = directory.rotated(self.attempt)?;
        let name = next_name(&growing, names.last().map(String::as_str), Timestamp::now());
        let flags = RenameFlags::NOREPLACE;
        fs::renameat_with(
            &directory.directory,
            &growing,
            &directory.directory,
            &name,
            flags,
        )?;
        match directory.create_file(&growing, OFlags::APPEND | OFlags::EXCL) {
            Ok(file) => self.file = file,
            Err(error) => {
                // The old file is still open: it goes on under its old name.
                fs::renameat(&directory.directory, &name, &directory.directory, &growing)?;
                return Err(error.into());
            }
        }
        self.size = 0;
        names.push(name);
        let excess = (names.len() + 1).saturating_sub(self.limits.files);
        for old in &names[..excess] {
            directory.remove(old)?;
            directory.remove(&format!("{old}.gz"))?;
        }
        if names.len() - excess > 1 && !self.compressing.swap(true, Ordering::AcqRel) {
            let (directory, attempt) = (Arc::clone(directory), self.attempt);
            let compressing = Arc::clone(&self.compressing);
            std::thread::Builder::new().spawn(move || {
                // What is not compressed is a log all the same, and tried again
                // after the next rotation.
                let _ = directory.compress(attempt);
                compressing.store(false, Ordering::Release);
            })?;
        }
        Ok(())
    }
}

/// A name that sorts after all that were given before, whatever the clock says.
fn next_name(growing: &str, last: Option<&str>, now: Timestamp) -> String {
    let zoned = now.to_zoned(jiff::tz::TimeZone::UTC);
    let is_later = |name: &String| last.is_none_or(|last| name.as_str() > last);
    let names = ["%Y%m%d-%H%M%S", "%Y%m%d-%H%M%S.%9f"]
        .map(|format| format!("{growing}.{}", zoned.strftime(format)));
    let later = names.into_iter().find(is_later);
    later.unwrap_or_else(|| format!("{}.1", last.unwrap_or(growing)))
}

#[cfg(test)]
mod tests;
