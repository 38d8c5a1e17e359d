//! Rows: one value per record, written behind the journal. They make a start short and may be lost: the
//! last base and the journal rebuild them.

mod memory;
mod sled_rows;

use std::ops::ControlFlow;

pub use memory::MemoryRows;
pub use sled_rows::SledRows;

/// One row to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowChange {
    /// The key.
    pub key: Vec<u8>,
    /// The value; absent to remove the row.
    pub value: Option<Vec<u8>>,
    /// The batch that it comes from.
    pub sequence: u64,
}

/// One row as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The batch that it comes from.
    pub sequence: u64,
}

/// Why rows cannot be used. They are then rebuilt.
#[derive(Clone, Debug, thiserror::Error)]
#[error("rows: {0}")]
pub struct RowsError(pub String);

/// A store of rows that one applier writes to.
pub trait Rows: Send + Sync {
    /// The batch up to which every row is written and durable; 0 where there is none.
    fn applied(&self) -> u64;

    /// Writes rows, then moves the applied position, durably.
    fn put(&self, changes: &[RowChange], applied: u64) -> Result<(), RowsError>;

    /// Reads one row.
    fn get(&self, key: &[u8]) -> Result<Option<Row>, RowsError>;

    /// Shows every row whose key begins with `prefix` to `each`, in order of the keys.
    fn scan(
        &self,
        prefix: &[u8],
        each: &mut dyn FnMut(Row) -> Result<(), RowsError>,
    ) -> Result<(), RowsError> {
        self.scan_from(prefix, prefix, &mut |row| {
            each(row)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The same from the key `from` on, as long as `each` goes on.
    fn scan_from(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: &mut dyn FnMut(Row) -> Result<ControlFlow<()>, RowsError>,
    ) -> Result<(), RowsError>;

    /// Removes every row and forgets the applied position.
    fn clear(&self) -> Result<(), RowsError>;
}
