//! What the writer of the segments and their readers share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::header::Segment;
use crate::disk::Disk;
use crate::journal::JournalError;
use crate::journal::durable::Durable;

/// The segments and how far they are durable. A segment is in the list before a batch of it is published, so
/// whoever has seen the sequence of a batch finds its segment here.
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    /// Oldest first. Changed by the writer with a rotation and a trim, not with a batch.
    pub(super) segments: RwLock<VecDeque<Segment>>,
    pub(super) durable: Durable,
    /// Batches before this one may be gone: set before their file goes, which takes a while.
    trimmed: AtomicU64,
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            segments: RwLock::default(),
            durable: Durable::default(),
            trimmed: AtomicU64::new(0),
        }
    }

    /// The first batch that is there; the next one where there is none.
    pub(super) fn first(&self) -> u64 {
        let oldest = self.segments.read().front().map(|oldest| oldest.first);
        let trimmed = self.trimmed.load(Ordering::SeqCst);
        oldest.map_or_else(|| self.durable.next(), |first| first.max(trimmed))
    }

    pub(super) fn trim(&self, first: u64) {
        self.trimmed.store(first, Ordering::SeqCst);
    }

    /// An error where this batch is not there any more.
    pub(super) fn check_kept(&self, sequence: u64) -> Result<(), JournalError> {
        match self.first() {
            first if sequence < first => Err(JournalError::Trimmed { first }),
            _ => Ok(()),
        }
    }

    /// The segment that a durable batch is in, and the first batch that is not in it, as far as that is known.
    pub(super) fn find(&self, sequence: u64) -> Result<(Segment, u64), JournalError> {
        self.check_kept(sequence)?;
        let segments = self.segments.read();
        let after = segments.partition_point(|segment| segment.first <= sequence);
        let found = after.checked_sub(1).and_then(|at| segments.get(at));
        let limit = segments.get(after).map_or(u64::MAX, |next| next.first);
        // Trimmed since it was looked at.
        let first = segments.front().map_or(0, |oldest| oldest.first);
        let gone = JournalError::Trimmed { first };
        found.map(|found| (found.clone(), limit)).ok_or(gone)
    }

    /// The first batches of the segments that have a durable one, in order.
    pub(super) fn firsts(&self) -> Vec<u64> {
        let (first, next) = (self.first(), self.durable.next());
        let segments = self.segments.read();
        let firsts = segments.iter().map(|segment| segment.first);
        firsts.filter(|at| (first..next).contains(at)).collect()
    }
}
