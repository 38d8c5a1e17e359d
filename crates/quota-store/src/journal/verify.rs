//! Looking whether the journal is whole: every retained batch has its checksum and follows the one before it.

use super::{Hash, JournalError, JournalReader};

/// A batch and its hash, which stands for it and everything before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The batch.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What was found whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Number of batches that were read.
    pub batches: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// The first of them.
    pub first: Option<Link>,
    /// The last of them.
    pub last: Option<Link>,
    /// Where to go on, following [`Self::last`].
    pub next: u64,
    /// There was no more to read when this began.
    pub is_end: bool,
}

/// Reads batches from `from` on until their bodies have `bytes_max` bytes or more, at most those that were durable
/// when it began. The first must follow `follows`, where that is given: so a look in several parts finds a break
/// between two of them.
///
/// # Errors
/// [`JournalError::Damaged`] and [`JournalError::Batch`] name the place of a break, [`JournalError::Trimmed`]
/// where a look can begin.
pub fn verify(
    reader: &dyn JournalReader,
    from: u64,
    follows: Option<Hash>,
    bytes_max: u64,
) -> Result<Verified, JournalError> {
    let end = reader.next_sequence();
    let broken = |sequence, why: String| JournalError::Batch { sequence, why };
    if from > end {
        let last = end.saturating_sub(1);
        let why = format!("the journal ends at batch {last}: what came after it is gone");
        return Err(broken(from, why));
    }
    if from == end
        && let Some(hash) = follows
        && from > reader.first_sequence()
    {
        let last = from.saturating_sub(1);
        let kept = reader.cursor(last)?.next()?;
        if kept.is_none_or(|kept| kept.hash != hash) {
            return Err(broken(last, "it is not the batch that was there".into()));
        }
    }
    let mut cursor = reader.cursor(from)?;
    let mut found = Verified {
        batches: 0,
        bytes: 0,
        first: None,
        last: None,
        next: from,
        is_end: from >= end,
    };
    while found.next < end && (found.batches == 0 || found.bytes < bytes_max) {
        let Some(batch) = cursor.next()? else { break };
        let sequence = batch.sequence;
        if found.first.is_none() && follows.is_some_and(|hash| hash != batch.previous) {
            let why = "it does not follow the one before it: the chain of hashes is broken";
            return Err(broken(sequence, why.into()));
        }
        let link = Link {
            sequence,
            hash: batch.hash,
        };
        found.batches = found.batches.saturating_add(1);
        found.bytes = found.bytes.saturating_add(batch.body.len() as u64);
        found.first = found.first.or(Some(link));
        found.last = Some(link);
        found.next = sequence.saturating_add(1);
        found.is_end = found.next >= end;
    }
    Ok(found)
}
