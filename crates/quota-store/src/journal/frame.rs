//! One batch in a segment: a header, the body, and padding to eight bytes.
//!
//! The header names the batch before by its hash (a chain over all records) and the sequence that was
//! durable when this one was written, which is how recovery tells a torn tail from damage before it.

use super::Hash;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"QFRM";
const ALIGN: usize = 8;

/// The header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) sequence: u64,
    pub(super) durable: u64,
    pub(super) previous: Hash,
    pub(super) body_bytes: usize,
}

/// The hash of a batch.
pub(super) fn hash(previous: &Hash, sequence: u64, body: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    hasher.update(&sequence.to_le_bytes());
    hasher.update(body);
    *hasher.finalize().as_bytes()
}

/// The bytes of a frame, in place of whatever is in `bytes`.
pub(super) fn write(
    sequence: u64,
    durable: u64,
    previous: &Hash,
    body: &[u8],
    bytes: &mut Vec<u8>,
) {
    bytes.clear();
    bytes.reserve(padded(body.len()));
    let size = u32::try_from(body.len()).expect("bodies are bounded by BODY_BYTES_MAX");
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&size.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&durable.to_le_bytes());
    bytes.extend_from_slice(previous);
    let checksum = crc32c::crc32c_append(crc32c::crc32c(bytes), body);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend_from_slice(body);
    bytes.resize(padded(body.len()), 0);
}

/// The body in a frame that was written.
pub(super) fn body(frame: &[u8], bytes: usize) -> &[u8] {
    let end = HEADER_BYTES.saturating_add(bytes);
    frame
        .get(HEADER_BYTES..end)
        .expect("a frame holds what was written to it")
}

/// Bytes that a frame takes.
pub(super) fn padded(body_bytes: usize) -> usize {
    HEADER_BYTES
        .saturating_add(body_bytes)
        .next_multiple_of(ALIGN)
}

/// Reads the frame that starts at `offset`, if a whole and undamaged one does.
pub(super) fn read(bytes: &[u8], offset: usize) -> Option<(Header, &[u8])> {
    let bytes = bytes.get(offset..)?;
    let (fields, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    if fields.get(..4)? != MAGIC {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        Some(u64::from_le_bytes(fields.get(range)?.try_into().ok()?))
    };
    let word = |range: std::ops::Range<usize>| -> Option<u32> {
        Some(u32::from_le_bytes(fields.get(range)?.try_into().ok()?))
    };
    let body_bytes = usize::try_from(word(4..8)?).ok()?;
    let body = rest.get(..body_bytes)?;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(fields.get(..56)?), body);
    if checksum != word(56..60)? {
        return None;
    }
    let header = Header {
        sequence: number(8..16)?,
        durable: number(16..24)?,
        previous: fields.get(24..56)?.try_into().ok()?,
        body_bytes,
    };
    Some((header, body))
}

/// The sequence and the size of the body that a header states. The checksum covers the body too: nothing here
/// is certain.
pub(super) fn outline(header: &[u8]) -> Option<(u64, usize)> {
    let size = u32::from_le_bytes(header.get(4..8)?.try_into().ok()?);
    let sequence = u64::from_le_bytes(header.get(8..16)?.try_into().ok()?);
    let is_one = header.get(..4)? == MAGIC;
    is_one.then_some((sequence, usize::try_from(size).ok()?))
}

/// Whether a frame starts at `offset` that the file ends within. A segment has its whole room before a frame is
/// written to it, so no torn write looks like that: the file was cut off.
pub(super) fn is_cut_off(bytes: &[u8], offset: usize) -> bool {
    let Some(rest) = bytes.get(offset..) else {
        return false;
    };
    let Some((fields, rest)) = rest.split_at_checked(HEADER_BYTES) else {
        return !rest.is_empty() && rest.iter().zip(MAGIC).all(|(is, due)| *is == due);
    };
    let size = fields.get(4..8).and_then(|size| size.try_into().ok());
    let size = size.map_or(0, u32::from_le_bytes);
    fields.get(..4) == Some(&MAGIC) && usize::try_from(size).is_ok_and(|size| size > rest.len())
}

/// Looks behind a frame that cannot be read for one that says that it was durable.
pub(super) fn proof_of_damage(bytes: &[u8], offset: usize, sequence: u64) -> Option<usize> {
    let mut at = offset.next_multiple_of(ALIGN);
    while at < bytes.len() {
        match read(bytes, at) {
            Some((header, _)) if header.durable >= sequence => return Some(at),
            _ => at = at.saturating_add(ALIGN),
        }
    }
    None
}
