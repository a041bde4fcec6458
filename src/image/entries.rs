//! The entries of a tar stream, as a layer needs them.
//!
//! The `tar` crate's own iterator splits PAX records at newlines, so it loses
//! every extended attribute whose value holds one (`security.capability` often
//! does), and it reads a sparse file's holes as zeros one by one. This reader
//! takes headers from the crate and does the framing itself: POSIX.1-2001
//! (pax) records with their exact lengths, GNU long names, and sparse files as
//! a map of their data. It reads forward only and keeps one entry in memory.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::pax::Pax;
use super::sparse::{self, Segments};

const BLOCK: u64 = 512;
/// The unit in which tar streams are written.
pub(super) type Block = [u8; BLOCK as usize];
/// The most bytes that the names and attributes of one entry may take.
const LONGEST_EXTENSION: u64 = 4 << 20;

/// One entry of a tar stream; its data is read from the [`Entries`] it came from.
#[derive(Debug)]
pub(super) struct Entry {
    /// The name as the archive has it: untrusted, and any bytes but NUL.
    pub path: Vec<u8>,
    /// The target of a symbolic or hard link; empty for other kinds.
    pub link: Vec<u8>,
    pub kind: EntryType,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Length of the file in bytes, holes included.
    pub size: u64,
    /// Where a sparse file has data, as offset and length, ascending.
    pub segments: Option<Segments>,
    /// Extended attributes, with their full names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// A copy that can wait for the end of the archive; it holds no file's map.
    pub fn attributes_only(&self) -> Entry {
        Entry {
            path: self.path.clone(),
            link: Vec::new(),
            segments: None,
            xattrs: self.xattrs.clone(),
            ..*self
        }
    }
}

/// Reads a tar stream entry by entry.
pub(super) struct Entries<R> {
    input: R,
    /// Bytes of the current entry's data that were not read yet.
    remaining: u64,
    /// Bytes that fill up the last block of the current entry.
    padding: u64,
    /// Records that hold for all entries that follow.
    global: Pax,
    ended: bool,
}

impl<R: Read> Entries<R> {
    pub fn new(input: R) -> Self {
        Entries {
            input,
            remaining: 0,
            padding: 0,
            global: Pax::default(),
            ended: false,
        }
    }

    /// Whether the archive's end mark was seen: without one it may have been
    /// cut off between two entries.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Steps to the next entry; what is left of the current one's data is skipped.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut local = Pax::default();
        let mut long_path = None;
        let mut long_link = None;
        loop {
            self.skip_rest()?;
            let Some(header) = self.read_header()? else {
                return Ok(None);
            };
            match header.entry_type() {
                EntryType::XHeader => local = Pax::parse(&self.extension(&header)?)?,
                EntryType::XGlobalHeader => {
                    let records = Pax::parse(&self.extension(&header)?)?;
                    self.global.extend(records);
                }
                EntryType::GNULongName => long_path = Some(self.long_text(&header)?),
                EntryType::GNULongLink => long_link = Some(self.long_text(&header)?),
                _ => return self.entry(&header, &local, long_path, long_link).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        local: &Pax,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Entry> {
        let record = |key: &str| local.get(key).or_else(|| self.global.get(key));
        let number =
            |key: &str| -> io::Result<Option<u64>> { record(key).map(decimal).transpose() };

        let mut path = record("path")
            .map(<[u8]>::to_vec)
            .or(long_path)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = record("linkpath")
            .map(<[u8]>::to_vec)
            .or(long_link)
            .or_else(|| header.link_name_bytes().map(|name| name.into_owned()))
            .unwrap_or_default();
        let mut kind = header.entry_type();
        if kind.is_file() && path.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let old = header.as_old();
        let uid = match number("uid")? {
            Some(uid) => uid,
            None => field(&old.uid, || header.uid())?,
        };
        let gid = match number("gid")? {
            Some(gid) => gid,
            None => field(&old.gid, || header.gid())?,
        };
        let mtime = match record("mtime") {
            Some(value) => timestamp(value)?,
            None => (field(&old.mtime, || header.mtime())?.cast_signed(), 0),
        };
        let stored = match number("size")? {
            Some(size) => size,
            None => field(&old.size, || header.entry_size())?,
        };
        let device = if matches!(kind, EntryType::Char | EntryType::Block) {
            (
                header.device_major()?.unwrap_or(0),
                header.device_minor()?.unwrap_or(0),
            )
        } else {
            (0, 0)
        };
        let carries_data = matches!(
            kind,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
        );
        let stored = if carries_data { stored } else { 0 };
        let pax_sparse = local.sparse()?;
        let mut entry = Entry {
            link,
            kind,
            mode: field(&old.mode, || header.mode().map(u64::from))? as u32 & 0o7777,
            uid: narrow(uid)?,
            gid: narrow(gid)?,
            mtime,
            device,
            size: stored,
            segments: None,
            xattrs: local.xattrs(),
            path: Vec::new(),
        };
        self.remaining = stored;
        self.padding = padding(stored)?;
        if kind == EntryType::GNUSparse {
            let (segments, real) = sparse::gnu(header, |block| self.next_block(block))?;
            entry.segments = Some(sparse::checked(segments, stored, real)?);
            entry.size = real;
        } else if let Some(map) = pax_sparse {
            if let Some(name) = map.name {
                path = name;
            }
            let segments = match map.segments {
                Some(segments) => segments,
                None => sparse::inline(|block| self.read_exact(block))?,
            };
            entry.segments = Some(sparse::checked(segments, self.remaining, map.real_size)?);
            entry.size = map.real_size;
        }
        if path.contains(&0) || entry.link.contains(&0) {
            return Err(damaged("a name contains a NUL byte"));
        }
        entry.path = path;
        Ok(entry)
    }

    /// The next header block; none at the end of the archive.
    fn read_header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.read_block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let sum = bytes[..148].iter().chain(&bytes[156..]);
        let sum: u32 = sum.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(sum) {
            return Err(damaged("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// Reads one block; `false` when the stream ends before it.
    fn read_block(&mut self, block: &mut Block) -> io::Result<bool> {
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(cut_off()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads one block that must be there.
    fn next_block(&mut self, block: &mut Block) -> io::Result<()> {
        match self.read_block(block)? {
            true => Ok(()),
            false => Err(cut_off()),
        }
    }

    fn extension(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = header.entry_size()?;
        if size > LONGEST_EXTENSION {
            return Err(damaged(
                "the names and attributes of an entry take over 4 MiB",
            ));
        }
        self.remaining = size;
        self.padding = padding(size)?;
        let mut data = vec![0; size as usize];
        self.read_exact(&mut data)?;
        Ok(data)
    }

    fn long_text(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let mut text = self.extension(header)?;
        let end = text.iter().position(|byte| *byte == 0);
        text.truncate(end.unwrap_or(text.len()));
        Ok(text)
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let rest = self.remaining + self.padding;
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())?;
        if skipped < rest {
            return Err(cut_off());
        }
        self.remaining = 0;
        self.padding = 0;
        Ok(())
    }
}

impl<R: Read> Read for Entries<R> {
    /// Reads the current entry's data; its early end is an error, not an end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(cut_off());
        }
        self.remaining -= read as u64;
        Ok(read)
    }
}

/// How many bytes fill up the last block of `size` bytes.
fn padding(size: u64) -> io::Result<u64> {
    size.checked_next_multiple_of(BLOCK)
        .filter(|end| *end <= i64::MAX.cast_unsigned())
        .map(|end| end - size)
        .ok_or_else(|| damaged("a file's size is out of range"))
}

/// A header's number; some writers leave a field that they don't use blank.
fn field(raw: &[u8], parse: impl FnOnce() -> io::Result<u64>) -> io::Result<u64> {
    if raw.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    parse()
}

fn narrow(id: u64) -> io::Result<u32> {
    // The highest number means "leave as it is" to chown(2).
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| damaged("an owner's number is out of range"))
}

pub(super) fn decimal(value: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| damaged("a pax record is not a number"))
}

/// A pax time: seconds with an optional fraction, possibly negative.
fn timestamp(value: &[u8]) -> io::Result<(i64, u32)> {
    let wrong = || damaged("a pax time is not a number");
    let text = std::str::from_utf8(value).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| wrong())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().map_err(|_| wrong())?;
    if whole.starts_with('-') && nanoseconds > 0 {
        let seconds = seconds.checked_sub(1).ok_or_else(wrong)?;
        return Ok((seconds, 1_000_000_000 - nanoseconds));
    }
    Ok((seconds, nanoseconds))
}

pub(super) fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off")
}
