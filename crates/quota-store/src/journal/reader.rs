//! Reading beside the writer: watchers, audit and history look at durable batches while the writer goes on.
//!
//! A reader never waits for the writer and the writer never for a reader: they share a list of segments that
//! changes with a rotation or a trim, and one number. The alternative, handing every batch to every reader
//! as it is written, needs a queue per reader with a bound, and a way to catch up for whoever exceeds it: that
//! way is this one, and it is enough.

use super::{Hash, JournalError};

/// What is told when more is durable: the sequence of the next batch.
pub type Listener = Box<dyn Fn(u64) + Send + Sync>;

/// Says of a batch, by its sequence and body, whether it is still before what is looked for.
pub type IsBefore<'a> = dyn FnMut(u64, &[u8]) -> Result<bool, JournalError> + 'a;

/// Reads what is durable of a journal, from any thread, while its writer goes on.
pub trait JournalReader: Send + Sync {
    /// The first sequence that can still be read; the next one where there is none.
    fn first_sequence(&self) -> u64;

    /// The sequence that the next batch has: all before are durable.
    fn next_sequence(&self) -> u64;

    /// A cursor whose first batch is `sequence`, which may not be there yet.
    ///
    /// # Errors
    /// [`JournalError::Trimmed`] where it is not there any more, [`JournalError::Damaged`] where what leads to
    /// it within its segment cannot be read.
    fn cursor(&self, sequence: u64) -> Result<Box<dyn Cursor>, JournalError>;

    /// Finds a place by what is in batches: a cursor at the last of the places that are cheap to look at
    /// (the first batches of segments) whose batch is before what is looked for, or at the first batch of all
    /// where none is. From there the caller reads on. `is_before` must not turn from no to yes along the
    /// journal; it is asked about as often as the number of segments can be halved.
    fn seek(&self, is_before: &mut IsBefore<'_>) -> Result<Box<dyn Cursor>, JournalError>;

    /// Has `listener` told, in order, whenever more is durable. The writer calls it, between two batches: it
    /// must be quick and must neither wait nor panic. It stays as long as the journal; whoever looks at
    /// [`Self::next_sequence`] after this call misses nothing.
    fn on_durable(&self, listener: Listener);
}

/// A place in the journal that moves forward.
pub trait Cursor: Send {
    /// The sequence of the batch that [`Self::next`] gives.
    fn sequence(&self) -> u64;

    /// The next batch; none while it is not durable yet. Its checksum holds, and it follows the one before
    /// it, where this cursor has read that one or it begins a segment. After an error the cursor has not
    /// moved.
    ///
    /// # Errors
    /// [`JournalError::Trimmed`] where a trim overtook it, [`JournalError::Damaged`] where it is not what was
    /// written.
    fn next(&mut self) -> Result<Option<KeptBatch>, JournalError>;
}

/// A batch as the journal keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptBatch {
    /// Its sequence.
    pub sequence: u64,
    /// Its bytes.
    pub body: Vec<u8>,
    /// The hash of the batch before it.
    pub previous: Hash,
    /// Its own: over the one before, its sequence and its body.
    pub hash: Hash,
}
