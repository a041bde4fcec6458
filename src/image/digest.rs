//! Content digests, checked while content streams by, and decompression.
//! (OCI image-spec, `descriptor.md` and `layer.md`.)

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use super::reference::is_hex;

/// The digest of bytes in memory, as `sha256:` and 64 hexadecimal digits.
pub(super) fn of(bytes: &[u8]) -> String {
    written(Sha256::digest(bytes).as_slice())
}

/// The 64 digits of a well-formed sha256 digest.
pub(super) fn hex(digest: &str) -> Option<&str> {
    digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && is_hex(hex))
}

fn written(hash: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in hash {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Passes a stream on and computes the digest of what passed.
pub(super) struct Hashing<R> {
    input: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    pub fn new(input: R) -> Self {
        Hashing {
            input,
            hash: Sha256::new(),
        }
    }

    /// Reads the rest and gives the digest of the whole stream.
    pub fn finish(mut self) -> io::Result<String> {
        let mut buffer = vec![0; 64 << 10];
        while self.read(&mut buffer)? > 0 {}
        Ok(written(self.hash.finalize().as_slice()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

/// How a stream is compressed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    /// A kind that is recognised but not read, with the command that undoes it.
    Unsupported(&'static str, &'static str),
}

/// Looks at the first bytes of a stream.
pub(super) fn compression(head: &[u8]) -> Compression {
    match head {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        // Zstandard's skippable frames, with which some writers begin.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Compression::Unsupported("xz", "xz -d"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => {
            Compression::Unsupported("bzip2", "bzip2 -d")
        }
        _ => Compression::None,
    }
}

/// The plain content of a stream that may be compressed with gzip or zstd.
pub(super) fn decompressed<'a>(mut input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match compression(input.fill_buf()?) {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        Compression::Unsupported(name, command) => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("it is compressed with {name}; undo that with `{command}` first"),
            ));
        }
    })
}
