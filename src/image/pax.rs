//! Extended header records of the pax interchange format (POSIX.1-2001,
//! `pax(1)`), each `LENGTH KEY=VALUE\n` with the length of the whole record,
//! so that values may hold any bytes.

use std::io;

use super::entries::{damaged, decimal};
use super::sparse::Segments;

/// Where `tar` and Go's archive/tar keep extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of one extended header, in order.
#[derive(Debug, Default)]
pub(super) struct Pax {
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What pax records say about a sparse file (formats 0.0, 0.1 and 1.0 of GNU tar).
pub(super) struct Sparse {
    /// The file's real name, when the header's is a stand-in.
    pub name: Option<Vec<u8>>,
    /// The file's length with its holes.
    pub real_size: u64,
    /// Where the data goes; none when the map stands before the data.
    pub segments: Option<Segments>,
}

impl Pax {
    pub fn parse(mut data: &[u8]) -> io::Result<Self> {
        let wrong = || damaged("a pax record is malformed");
        let mut records = Vec::new();
        while !data.is_empty() {
            let blank = data.iter().position(|b| *b == b' ').ok_or_else(wrong)?;
            let length = usize::try_from(decimal(&data[..blank])?).map_err(|_| wrong())?;
            if length <= blank + 1 || length > data.len() || data[length - 1] != b'\n' {
                return Err(wrong());
            }
            let record = &data[blank + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            data = &data[length..];
        }
        Ok(Pax { records })
    }

    pub fn extend(&mut self, other: Pax) {
        self.records.extend(other.records);
    }

    /// The last value of a key; an empty one takes the key back.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.records
            .iter()
            .rev()
            .find(|(name, _)| name == key.as_bytes())
            .map(|(_, value)| value.as_slice())
            .filter(|value| !value.is_empty())
    }

    pub fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.records
            .iter()
            .filter_map(|(key, value)| {
                let name = key.strip_prefix(XATTR)?;
                Some((name.to_vec(), value.clone()))
            })
            .collect()
    }

    pub fn sparse(&self) -> io::Result<Option<Sparse>> {
        let name = self.get("GNU.sparse.name").map(<[u8]>::to_vec);
        if self.get("GNU.sparse.major").is_some() {
            if self.get("GNU.sparse.major") != Some(b"1") {
                return Err(damaged("a sparse file has an unknown format"));
            }
            let real_size = self.required("GNU.sparse.realsize")?;
            return Ok(Some(Sparse {
                name,
                real_size,
                segments: None,
            }));
        }
        if self.get("GNU.sparse.size").is_none() {
            return Ok(None);
        }
        let numbers: Vec<u64> = match self.get("GNU.sparse.map") {
            Some(map) => map
                .split(|b| *b == b',')
                .map(decimal)
                .collect::<io::Result<_>>()?,
            None => self
                .records
                .iter()
                .filter(|(key, _)| key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes")
                .map(|(_, value)| decimal(value))
                .collect::<io::Result<_>>()?,
        };
        if !numbers.len().is_multiple_of(2) {
            return Err(damaged("a sparse file's map is incomplete"));
        }
        Ok(Some(Sparse {
            name,
            real_size: self.required("GNU.sparse.size")?,
            segments: Some(numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect()),
        }))
    }

    fn required(&self, key: &str) -> io::Result<u64> {
        decimal(
            self.get(key)
                .ok_or_else(|| damaged("a sparse file has no size"))?,
        )
    }
}
