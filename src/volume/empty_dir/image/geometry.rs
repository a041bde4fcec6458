//! How large an ext4 file system must be to hold a given amount
//! (Documentation/filesystems/ext4 of the kernel: "Layout").

/// Bytes of an inode.
const INODE: u64 = 256;
/// Bytes of a group's descriptor.
const DESCRIPTOR: u64 = 32;
/// Below this, in bytes, blocks are small.
const SMALL: u64 = 4 << 20;
/// A file system with less content than this, in blocks, is none to mke2fs.
const LEAST: u64 = 64;
/// Blocks for directories and for the maps of large files.
const SLACK: u64 = 16;
/// What mke2fs sets aside for `lost+found`, in bytes, and the root directory.
const DIRECTORIES: u64 = (16 << 10) + 4096;
/// The most blocks that the kernel keeps back to be able to go on when a file system
/// is full: a fiftieth, but not more than this.
const KEPT_BACK: u64 = 4096;
/// A last group with less room than this, in blocks, is left out by mke2fs.
const LEAST_IN_GROUP: u64 = 64;

/// The shape of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Bytes of a block.
    pub(super) block_size: u64,
    /// Blocks in all.
    pub(super) blocks: u64,
    /// Inodes: one for each block of content, so that they never run out first.
    pub(super) inodes: u64,
}

/// The shape of a file system that takes `bytes` of content (64 KiB at the least) and
/// little more (a thirtieth, where a last group would be too small to be used); none
/// when it would have more blocks than ext4 counts in 32 bits.
pub(super) fn of(bytes: u64) -> Option<Geometry> {
    let block_size = if bytes < SMALL { 1024 } else { 4096 };
    let content = bytes.div_ceil(block_size).max(LEAST);
    u32::try_from(content).ok()?;
    let wanted = content + SLACK;
    let inodes = content.clamp(16, u64::from(u32::MAX) / 4);
    let mut blocks = wanted;
    // The larger it is, the more it needs for itself: until both agree.
    loop {
        let needed = wanted + overhead(blocks, block_size, inodes) + (blocks / 50).min(KEPT_BACK);
        if needed <= blocks {
            break;
        }
        blocks = needed;
        if u32::try_from(blocks).is_err() {
            return None;
        }
    }
    Some(Geometry {
        block_size,
        blocks,
        inodes,
    })
}

/// The blocks that a file system of so many needs for itself.
fn overhead(blocks: u64, block_size: u64, inodes: u64) -> u64 {
    // A bitmap of one block covers a group.
    let per_group = 8 * block_size;
    let first = u64::from(block_size == 1024);
    let groups = (blocks - first).div_ceil(per_group);
    let inodes_per_group = inodes.div_ceil(groups).next_multiple_of(block_size / INODE);
    let table = (inodes_per_group * INODE).div_ceil(block_size);
    let descriptors = 1 + (groups * DESCRIPTOR).div_ceil(block_size);
    let own = 2 + table;
    let last = (blocks - first) % per_group;
    let lost = match last {
        0 => 0,
        last if groups > 1 && last < own + descriptors + LEAST_IN_GROUP => last,
        _ => 0,
    };
    let copies = (0..groups).filter(|&group| has_copy(group)).count() as u64;
    first + groups * own + copies * descriptors + lost + DIRECTORIES.div_ceil(block_size)
}

/// Whether a group has a copy of the superblock (`sparse_super`): the first two, and
/// the powers of 3, 5 and 7.
fn has_copy(group: u64) -> bool {
    let power_of = |base: u64| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_none_and_does_not_overflow() {
        assert_eq!(of(u64::MAX), None);
        assert_eq!(of(17 << 40), None);
        assert!(of(14 << 40).is_some());
    }

    #[test]
    fn the_smallest_volume_has_room_for_something() {
        let geometry = of(1).expect("a geometry");
        assert!(
            geometry.blocks > 64 && geometry.blocks < 160,
            "{geometry:?}"
        );
    }
}
