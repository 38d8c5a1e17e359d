//! Rows that fail half-way and get lost, as a database may that is not the truth.

use std::ops::ControlFlow;

use fastrand::Rng;
use parking_lot::Mutex;
use quota_store::Rows;
use quota_store::rows::{MemoryRows, Row, RowChange, RowsError};

/// Rows in memory that can be told to fail.
#[derive(Default)]
pub struct TestRows {
    rows: MemoryRows,
    /// How many rounds fail from now on, and what decides how far each of them comes.
    failing: Mutex<(u64, Option<Rng>)>,
}

impl TestRows {
    /// Whether the next round fails.
    pub fn is_broken(&self) -> bool {
        self.failing.lock().0 > 0
    }

    /// The next rounds fail after some of their rows.
    pub fn fail(&self, rounds: u64, seed: u64) {
        *self.failing.lock() = (rounds, Some(Rng::with_seed(seed)));
    }
}

impl Rows for TestRows {
    fn applied(&self) -> u64 {
        self.rows.applied()
    }

    fn put(&self, changes: &[RowChange], applied: u64) -> Result<(), RowsError> {
        let mut failing = self.failing.lock();
        if failing.0 > 0 {
            failing.0 -= 1;
            let random = failing.1.get_or_insert_default();
            let written: Vec<RowChange> =
                changes.iter().filter(|_| random.bool()).cloned().collect();
            let position = self.rows.applied();
            self.rows.put(&written, position)?;
            return Err(RowsError("told to fail".into()));
        }
        self.rows.put(changes, applied)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Row>, RowsError> {
        self.rows.get(key)
    }

    fn scan_from(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: &mut dyn FnMut(Row) -> Result<ControlFlow<()>, RowsError>,
    ) -> Result<(), RowsError> {
        self.rows.scan_from(prefix, from, each)
    }

    fn clear(&self) -> Result<(), RowsError> {
        *self.failing.lock() = (0, None);
        self.rows.clear()
    }
}
