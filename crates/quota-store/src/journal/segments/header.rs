//! The header of a segment: whose it is, where it begins and what it follows.

use super::{ENDING, SegmentOptions};
use crate::disk::Disk;
use crate::journal::{Hash, JournalError};

const MAGIC: [u8; 8] = *b"QUOTAJNL";
const VERSION: u8 = 1;
/// The header has a block of its own, so that appending never rewrites it.
pub(super) const HEADER_BYTES: usize = 4096;
const HEADER_FIELDS: usize = 8 + 1 + 16 + 8 + 8 + 32;

/// What is known of a segment without reading its batches.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) ordinal: u64,
    /// The sequence of its first batch.
    pub(super) first: u64,
    /// The hash of the batch before that one.
    pub(super) previous: Hash,
    /// Bytes that it takes.
    pub(super) bytes: u64,
}

impl Segment {
    pub(super) fn name(&self) -> String {
        segment_name(self.ordinal)
    }
}

pub(super) fn segment_name(ordinal: u64) -> String {
    format!("{ordinal:010}{ENDING}")
}

/// The header of a segment, with what fills up its block.
pub(super) fn write(options: &SegmentOptions, segment: &Segment) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&options.store_id);
    bytes.extend_from_slice(&segment.ordinal.to_le_bytes());
    bytes.extend_from_slice(&segment.first.to_le_bytes());
    bytes.extend_from_slice(&segment.previous);
    debug_assert_eq!(bytes.len(), HEADER_FIELDS);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes
}

/// Reads the header of the segment in a file.
pub(super) fn read(
    disk: &dyn Disk,
    options: &SegmentOptions,
    name: &str,
) -> Result<Segment, JournalError> {
    let io = |error| JournalError::io(name, error);
    let damaged = || JournalError::damaged(name, 0, "its header is not one");
    let file = disk.open(name).map_err(io)?;
    let mut bytes = vec![0; HEADER_BYTES];
    file.read_at(0, &mut bytes).map_err(io)?;
    let fields = bytes.get(..HEADER_FIELDS).ok_or_else(damaged)?;
    let checksum = bytes
        .get(HEADER_FIELDS..HEADER_FIELDS.saturating_add(4))
        .ok_or_else(damaged)?;
    if fields.get(..8) != Some(&MAGIC) || crc32c::crc32c(fields).to_le_bytes() != *checksum {
        return Err(damaged());
    }
    let number = |at: usize| -> Option<u64> {
        let end = at.checked_add(8)?;
        Some(u64::from_le_bytes(fields.get(at..end)?.try_into().ok()?))
    };
    match fields.get(8) {
        Some(&VERSION) => {}
        found => {
            return Err(JournalError::Newer {
                file: name.into(),
                found: found.copied().unwrap_or_default(),
                newest: VERSION,
            });
        }
    }
    if fields.get(9..25) != Some(&options.store_id) {
        return Err(JournalError::Foreign { file: name.into() });
    }
    let ordinal = number(25).ok_or_else(damaged)?;
    if segment_name(ordinal) != name {
        return Err(damaged());
    }
    Ok(Segment {
        ordinal,
        first: number(33).ok_or_else(damaged)?,
        previous: fields
            .get(41..73)
            .and_then(|hash| hash.try_into().ok())
            .ok_or_else(damaged)?,
        bytes: file.size().map_err(io)?,
    })
}
