//! The journal: batches in order, each durable before it is acknowledged (C11.1).

mod durable;
mod extent;
mod frame;
mod memory;
mod pins;
mod reader;
mod segments;
mod verify;

use std::io;
use std::sync::Arc;

pub use memory::MemoryJournal;
pub use pins::{Pin, Pins};
pub use reader::{Cursor, IsBefore, JournalReader, KeptBatch, Listener};
pub use segments::{SegmentJournal, SegmentOptions};
pub use verify::{Link, Verified, verify};

/// Largest body of a batch, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// Largest segment, in bytes: one is read into memory whole.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Hash of a batch: over the hash of the batch before (zeros before the first), the sequence and the body.
pub type Hash = [u8; 32];

/// What is shown each batch: its sequence and its body.
pub type Reader<'a> = dyn FnMut(u64, &[u8]) -> Result<(), JournalError> + 'a;

/// A log of batches that one writer appends to.
pub trait Journal: Send {
    /// The sequence that the next batch has.
    fn next_sequence(&self) -> u64;

    /// The first sequence that can still be read; the next one where there is none.
    fn first_sequence(&self) -> u64;

    /// Appends a batch and makes it durable.
    ///
    /// After [`AppendError::Unknown`] the batch may or may not be there; the only batch that may then be
    /// appended is the same one again, whole, and its success decides that it is.
    fn append(&mut self, sequence: u64, body: &[u8]) -> Result<(), AppendError>;

    /// Does what can wait until the callers of the last batch have their answers; otherwise the next append does it.
    fn catch_up(&mut self) {}

    /// Reads beside the writer, from any thread.
    fn reader(&self) -> Arc<dyn JournalReader>;

    /// Shows every batch from `sequence` on to `each`, in order: each has its checksum and follows the one
    /// before it.
    fn read_from(&self, sequence: u64, each: &mut Reader<'_>) -> Result<(), JournalError> {
        let mut cursor = self.reader().cursor(sequence.max(self.first_sequence()))?;
        while let Some(batch) = cursor.next()? {
            each(batch.sequence, &batch.body)?;
        }
        Ok(())
    }

    /// Drops batches before `sequence`, oldest first, as far as that is cheap and while it takes more than
    /// `bytes_kept` bytes; says how many bytes that gave back.
    fn trim(&mut self, sequence: u64, bytes_kept: u64) -> Result<u64, JournalError>;

    /// Bytes that it takes.
    fn size_bytes(&self) -> u64;
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another writer has appended: this one must stop.
    #[error("the journal is at {actual}; another writer has appended to it")]
    Fenced {
        /// The sequence that the next batch has.
        actual: u64,
    },
    /// It may or may not be there.
    #[error("{0}")]
    Unknown(#[source] io::Error),
}

/// Why a journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk failed.
    #[error("{file}: {error}")]
    Io {
        /// The file.
        file: String,
        /// What it said.
        error: io::Error,
    },
    /// It holds something else than what was acknowledged.
    #[error(
        "{file} is damaged at byte {offset}: {what}; restore the journal from a copy of the data directory"
    )]
    Damaged {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A newer version wrote it.
    #[error("{file} has the format version {found}; this program reads up to {newest}")]
    Newer {
        /// The file.
        file: String,
        /// The version found.
        found: u8,
        /// The newest version that can be read.
        newest: u8,
    },
    /// It belongs to another store.
    #[error(
        "{file} belongs to another store; restore the journal from a copy of the data directory"
    )]
    Foreign {
        /// The file.
        file: String,
    },
    /// A batch that is asked for is not there any more.
    #[error("the journal begins at batch {first} by now")]
    Trimmed {
        /// The first batch that is there.
        first: u64,
    },
    /// Whoever reads it cannot go on.
    #[error("{0}")]
    Reader(String),
    /// A batch is not what was written.
    #[error("batch {sequence}: {why}")]
    Batch {
        /// The batch.
        sequence: u64,
        /// Why.
        why: String,
    },
}

impl JournalError {
    /// What to make of an error about a batch.
    pub fn of_batch<E: std::fmt::Display>(sequence: u64) -> impl FnOnce(E) -> Self {
        move |error| Self::Batch {
            sequence,
            why: error.to_string(),
        }
    }
}

impl JournalError {
    fn io(file: &str, error: io::Error) -> Self {
        let file = file.to_owned();
        Self::Io { file, error }
    }

    fn damaged(file: &str, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.to_owned(),
            offset,
            what: what.into(),
        }
    }
}
