//! Rows in memory, which know what a crash would leave of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use parking_lot::Mutex;

use super::{Row, RowChange, Rows, RowsError};

/// Rows in a map.
#[derive(Default, Debug)]
pub struct MemoryRows {
    state: Mutex<State>,
}

#[derive(Default, Clone, Debug)]
struct State {
    rows: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    applied: u64,
}

impl Rows for MemoryRows {
    fn applied(&self) -> u64 {
        self.state.lock().applied
    }

    fn put(&self, changes: &[RowChange], applied: u64) -> Result<(), RowsError> {
        let mut state = self.state.lock();
        for change in changes {
            match &change.value {
                Some(value) => {
                    let row = (change.sequence, value.clone());
                    state.rows.insert(change.key.clone(), row);
                }
                None => {
                    state.rows.remove(&change.key);
                }
            }
        }
        state.applied = applied;
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Row>, RowsError> {
        let state = self.state.lock();
        Ok(state.rows.get(key).map(|(sequence, value)| Row {
            key: key.to_vec(),
            value: value.clone(),
            sequence: *sequence,
        }))
    }

    fn scan_from(
        &self,
        prefix: &[u8],
        from: &[u8],
        each: &mut dyn FnMut(Row) -> Result<ControlFlow<()>, RowsError>,
    ) -> Result<(), RowsError> {
        let rows: Vec<Row> = self
            .state
            .lock()
            .rows
            .range(from.max(prefix).to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (sequence, value))| Row {
                key: key.clone(),
                value: value.clone(),
                sequence: *sequence,
            })
            .collect();
        for row in rows {
            if each(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn clear(&self) -> Result<(), RowsError> {
        *self.state.lock() = State::default();
        Ok(())
    }
}
