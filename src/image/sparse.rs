//! Maps of sparse files in tar streams: where their data goes. The formats
//! are described in GNU tar's manual, "Storing Sparse Files".

use std::io;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::entries::{Block, damaged, decimal};

/// The most pieces of data that a sparse file may have.
const MOST_SEGMENTS: usize = 1 << 20;
/// The most digits of a number in a map.
const LONGEST_NUMBER: usize = 20;

/// Pieces of data, each as offset and length.
pub(super) type Segments = Vec<(u64, u64)>;

/// The map in GNU's old format, in the header and in blocks that follow it,
/// and the file's length with its holes.
pub(super) fn gnu(
    header: &Header,
    mut next_block: impl FnMut(&mut Block) -> io::Result<()>,
) -> io::Result<(Segments, u64)> {
    let gnu = header
        .as_gnu()
        .ok_or_else(|| damaged("a sparse file has no GNU header"))?;
    let mut segments = Vec::new();
    let mut add = |parts: &[GnuSparseHeader]| -> io::Result<()> {
        for part in parts.iter().filter(|part| !part.is_empty()) {
            segments.push((part.offset()?, part.length()?));
        }
        match segments.len() > MOST_SEGMENTS {
            true => Err(too_many()),
            false => Ok(()),
        }
    };
    add(&gnu.sparse)?;
    let mut more = gnu.is_extended();
    while more {
        let mut extended = GnuExtSparseHeader::new();
        let mut block = [0; 512];
        next_block(&mut block)?;
        extended.as_mut_bytes().copy_from_slice(&block);
        add(&extended.sparse)?;
        more = extended.is_extended();
    }
    Ok((segments, gnu.real_size()?))
}

/// The map in pax format 1.0: whole blocks of decimal lines before the data.
pub(super) fn inline(
    mut next_block: impl FnMut(&mut Block) -> io::Result<()>,
) -> io::Result<Segments> {
    let mut numbers = Vec::new();
    let mut line = Vec::new();
    let mut wanted = 1;
    while numbers.len() < wanted {
        let mut block = [0; 512];
        next_block(&mut block)?;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            numbers.push(decimal(&line)?);
            line.clear();
            if numbers.len() == 1 {
                wanted = usize::try_from(numbers[0])
                    .ok()
                    .filter(|count| *count <= MOST_SEGMENTS)
                    .map(|count| 2 * count + 1)
                    .ok_or_else(too_many)?;
            }
            if numbers.len() == wanted {
                // Zeros fill up the block.
                break;
            }
        }
        if numbers.len() < wanted && line.len() > LONGEST_NUMBER {
            return Err(damaged("a sparse file's map is not made of numbers"));
        }
    }
    let pairs = numbers[1..].chunks_exact(2);
    Ok(pairs.map(|pair| (pair[0], pair[1])).collect())
}

/// A sparse file's map, once it was seen to fit the data and the file's size.
pub(super) fn checked(segments: Segments, stored: u64, real: u64) -> io::Result<Segments> {
    let mut end = 0_u64;
    let mut total = 0_u64;
    for &(offset, length) in &segments {
        if offset < end {
            return Err(damaged("the pieces of a sparse file overlap"));
        }
        end = offset
            .checked_add(length)
            .filter(|end| *end <= real)
            .ok_or_else(|| damaged("a sparse file's data lies beyond its end"))?;
        total += length;
    }
    if total != stored {
        return Err(damaged("a sparse file's map does not fit its data"));
    }
    Ok(segments)
}

fn too_many() -> io::Error {
    damaged("a sparse file has over a million pieces")
}
