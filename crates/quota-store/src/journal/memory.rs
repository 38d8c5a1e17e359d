//! A journal in memory: for tests of what stands above the trait.

use super::{AppendError, Journal, JournalError, Reader};

/// Batches in a vector.
#[derive(Clone, Default, Debug)]
pub struct MemoryJournal {
    first: u64,
    bodies: Vec<Vec<u8>>,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self {
            first: 1,
            bodies: Vec::new(),
        }
    }
}

impl Journal for MemoryJournal {
    fn next_sequence(&self) -> u64 {
        self.first.saturating_add(self.bodies.len() as u64)
    }

    fn first_sequence(&self) -> u64 {
        self.first
    }

    fn append(&mut self, sequence: u64, body: &[u8]) -> Result<(), AppendError> {
        let actual = self.next_sequence();
        if sequence != actual {
            return Err(AppendError::Fenced { actual });
        }
        self.bodies.push(body.to_vec());
        Ok(())
    }

    fn read_from(&self, sequence: u64, each: &mut Reader<'_>) -> Result<(), JournalError> {
        for (at, body) in (self.first..).zip(&self.bodies) {
            if at >= sequence {
                each(at, body)?;
            }
        }
        Ok(())
    }

    fn trim(&mut self, sequence: u64) -> Result<u64, JournalError> {
        let before = self.size_bytes();
        while self.first < sequence && !self.bodies.is_empty() {
            self.bodies.remove(0);
            self.first = self.first.saturating_add(1);
        }
        Ok(before.saturating_sub(self.size_bytes()))
    }

    fn size_bytes(&self) -> u64 {
        self.bodies.iter().map(|body| body.len() as u64).sum()
    }
}
