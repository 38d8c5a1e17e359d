//! From where to where the journal reaches: up to which batch it was trimmed, written before a segment goes,
//! and its newest segment, written when that has its name. So segments that went by accident, at either end,
//! are noticed instead of taking acknowledged batches or remembered answers with them.

use std::io;

use crate::disk::{Disk, read_whole};

const NAME: &str = "extent";
const UNFINISHED: &str = "extent.tmp";
const MAGIC: [u8; 8] = *b"QUOTAEXT";
const FIELDS: usize = 24;

/// The extent of a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    /// Batches before this one may be gone.
    pub(super) first: u64,
    /// Ordinal of a segment that was made; there may be newer ones.
    pub(super) newest: u64,
}

/// The extent as it was last written; absent where no segment was ever made.
pub(super) fn read(disk: &dyn Disk) -> io::Result<Option<Extent>> {
    if !disk.list()?.iter().any(|name| name == NAME) {
        return Ok(None);
    }
    let bytes = read_whole(&*disk.open(NAME)?, 64)?;
    let extent = || -> Option<Extent> {
        let (fields, checksum) = bytes.split_at_checked(FIELDS)?;
        let whole = fields.get(..8)? == MAGIC && checksum == crc32c::crc32c(fields).to_le_bytes();
        let number = |range: std::ops::Range<usize>| -> Option<u64> {
            Some(u64::from_le_bytes(fields.get(range)?.try_into().ok()?))
        };
        let (first, newest) = (number(8..16)?, number(16..24)?);
        whole.then_some(Extent { first, newest })
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its checksum is another");
    extent().map(Some).ok_or_else(damaged)
}

/// Writes the extent, durably.
pub(super) fn write(disk: &dyn Disk, extent: Extent) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&extent.first.to_le_bytes());
    bytes.extend_from_slice(&extent.newest.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let mut file = disk.create(UNFINISHED, 0)?;
    file.write_at(0, &bytes)?;
    file.sync()?;
    disk.rename(UNFINISHED, NAME)?;
    disk.sync_dir()
}
