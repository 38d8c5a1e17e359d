//! A journal in memory: for tests of what stands above the trait.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::RwLock;

use super::durable::Durable;
use super::frame;
use super::reader::{Cursor, IsBefore, JournalReader, KeptBatch, Listener};
use super::{AppendError, Journal, JournalError};

/// Batches in a queue.
pub struct MemoryJournal(Arc<Shared>);

/// What the journal and its readers share.
struct Shared {
    kept: RwLock<Kept>,
    durable: Durable,
}

struct Kept {
    first: u64,
    batches: VecDeque<KeptBatch>,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        let shared = Shared {
            kept: RwLock::new(Kept {
                first: 1,
                batches: VecDeque::new(),
            }),
            durable: Durable::default(),
        };
        shared.durable.publish(1);
        Self(Arc::new(shared))
    }
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal for MemoryJournal {
    fn next_sequence(&self) -> u64 {
        self.0.durable.next()
    }

    fn first_sequence(&self) -> u64 {
        self.0.kept.read().first
    }

    fn append(&mut self, sequence: u64, body: &[u8]) -> Result<(), AppendError> {
        let actual = self.next_sequence();
        if sequence != actual {
            return Err(AppendError::Fenced { actual });
        }
        {
            let mut kept = self.0.kept.write();
            let previous = kept.batches.back().map_or([0; 32], |last| last.hash);
            kept.batches.push_back(KeptBatch {
                sequence,
                body: body.to_vec(),
                previous,
                hash: frame::hash(&previous, sequence, body),
            });
        }
        self.0.durable.publish(sequence.saturating_add(1));
        Ok(())
    }

    fn reader(&self) -> Arc<dyn JournalReader> {
        Arc::new(MemoryReader(self.0.clone()))
    }

    fn trim(&mut self, sequence: u64, bytes_kept: u64) -> Result<u64, JournalError> {
        let mut size = self.size_bytes();
        let mut given_back: u64 = 0;
        let mut kept = self.0.kept.write();
        // The last one stays: the next is chained to it.
        while kept.first < sequence && kept.batches.len() > 1 && size > bytes_kept {
            let gone = kept.batches.pop_front();
            let bytes = gone.map_or(0, |batch| batch.body.len() as u64);
            kept.first = kept.first.saturating_add(1);
            size = size.saturating_sub(bytes);
            given_back = given_back.saturating_add(bytes);
        }
        Ok(given_back)
    }

    fn size_bytes(&self) -> u64 {
        let kept = self.0.kept.read();
        let sizes = kept.batches.iter().map(|batch| batch.body.len() as u64);
        sizes.sum()
    }
}

struct MemoryReader(Arc<Shared>);

impl JournalReader for MemoryReader {
    fn first_sequence(&self) -> u64 {
        self.0.kept.read().first
    }

    fn next_sequence(&self) -> u64 {
        self.0.durable.next()
    }

    fn cursor(&self, sequence: u64) -> Result<Box<dyn Cursor>, JournalError> {
        let first = self.first_sequence();
        match sequence < first {
            true => Err(JournalError::Trimmed { first }),
            false => Ok(Box::new(MemoryCursor {
                shared: self.0.clone(),
                sequence,
            })),
        }
    }

    fn seek(&self, is_before: &mut IsBefore<'_>) -> Result<Box<dyn Cursor>, JournalError> {
        let batches = self.0.kept.read().batches.clone();
        let (mut low, mut high) = (0, batches.len());
        while low < high {
            let middle = low.midpoint(high);
            let batch = batches.get(middle).expect("within the batches");
            match is_before(batch.sequence, &batch.body)? {
                true => low = middle.saturating_add(1),
                false => high = middle,
            }
        }
        let found = batches.get(low.saturating_sub(1));
        self.cursor(found.map_or_else(|| self.first_sequence(), |batch| batch.sequence))
    }

    fn on_durable(&self, listener: Listener) {
        self.0.durable.listen(listener);
    }
}

struct MemoryCursor {
    shared: Arc<Shared>,
    sequence: u64,
}

impl Cursor for MemoryCursor {
    fn sequence(&self) -> u64 {
        self.sequence
    }

    fn next(&mut self) -> Result<Option<KeptBatch>, JournalError> {
        if self.sequence >= self.shared.durable.next() {
            return Ok(None);
        }
        let kept = self.shared.kept.read();
        let Some(at) = self.sequence.checked_sub(kept.first) else {
            return Err(JournalError::Trimmed { first: kept.first });
        };
        let found = usize::try_from(at).ok().and_then(|at| kept.batches.get(at));
        let batch = found.cloned();
        self.sequence = self.sequence.saturating_add(u64::from(batch.is_some()));
        Ok(batch)
    }
}
