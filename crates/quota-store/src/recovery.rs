//! Recovery: rows, brought up to the end of the journal by values alone, become the ledger. No business rule
//! of any version runs (C11.2). Rows that cannot be used are rebuilt from the newest whole base and the
//! journal; a journal that cannot be used refuses to start.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quota_core::event::Remembered;
use quota_core::invariants;
use quota_core::record::Records;
use quota_core::time::Timestamp;
use quota_core::{Bounds, Ledger};

use crate::base::{self, BaseError};
use crate::batch::{Contents, RowImage, Stamp, record_of_row};
use crate::disk::Disk;
use crate::journal::{Journal, JournalError};
use crate::rows::{RowChange, Rows, RowsError};

/// Rows written at once.
const ROUND_ROWS: usize = 20_000;
/// Distance of the marks by which a time is found in the journal.
pub const MARK_SECS: u64 = 60;

/// A store that is ready to serve.
#[derive(Debug)]
pub struct Recovered {
    /// The ledger; absent where the store is new.
    pub ledger: Option<Ledger>,
    /// The clocks of the last batch.
    pub last: Option<Stamp>,
    /// What was done, for the operator.
    pub report: Report,
    /// Instants and the first sequence at or after them, a minute apart, in order.
    pub marks: VecDeque<(Timestamp, u64)>,
}

/// What recovery did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Batches that were laid over the rows.
    pub batches: u64,
    /// Answers that are remembered again.
    pub answers: usize,
    /// Why the rows were rebuilt, if they were.
    pub rebuilt: Option<String>,
}

/// Why the store cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The journal.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The rows, even when rebuilt.
    #[error("{0}; remove the directory `rows` to rebuild it")]
    Rows(#[from] RowsError),
    /// Acknowledged batches are missing.
    #[error(
        "the journal ends at batch {end}, but batch {applied} was acknowledged; restore the journal"
    )]
    JournalShort {
        /// Last batch in the journal.
        end: u64,
        /// Last batch in the rows.
        applied: u64,
    },
    /// Nothing reaches back to where the journal begins.
    #[error(
        "the rows are lost ({why}), the journal begins at batch {first} and no whole base reaches it"
    )]
    NoBase {
        /// Why the rows cannot be used.
        why: String,
        /// Where the journal begins.
        first: u64,
    },
    /// What was recovered does not hold together.
    #[error("what was recovered breaks invariants, which is a bug or damage: {}", .0.join("; "))]
    Broken(Vec<String>),
}

/// Brings the rows up to the end of the journal and makes the ledger of them.
pub fn recover(
    journal: &dyn Journal,
    rows: &dyn Rows,
    bases: &dyn Disk,
    store_id: [u8; 16],
    bounds: Bounds,
) -> Result<Recovered, RecoveryError> {
    let end = journal.next_sequence().saturating_sub(1);
    let applied = rows.applied();
    if applied > end {
        return Err(RecoveryError::JournalShort { end, applied });
    }
    let mut report = Report::default();
    if applied.saturating_add(1) < journal.first_sequence() {
        let why = format!("they end at batch {applied}");
        rebuild(journal, rows, bases, store_id, why, &mut report)?;
    }
    match build(journal, rows, bounds, &mut report) {
        Ok(recovered) => Ok(recovered),
        Err(RecoveryError::Journal(error)) => Err(error.into()),
        Err(error) => {
            rebuild(
                journal,
                rows,
                bases,
                store_id,
                error.to_string(),
                &mut report,
            )?;
            build(journal, rows, bounds, &mut report)
        }
    }
}

/// Fills the rows from the newest whole base that the journal goes on from, or from nothing.
fn rebuild(
    journal: &dyn Journal,
    rows: &dyn Rows,
    bases: &dyn Disk,
    store_id: [u8; 16],
    why: String,
    report: &mut Report,
) -> Result<(), RecoveryError> {
    let first = journal.first_sequence();
    report.rebuilt = Some(why.clone());
    let written = base::list(bases).unwrap_or_default();
    for base in written.iter().rev() {
        let reaches = base.sequence.saturating_add(1) >= first;
        if reaches && fill(rows, bases, store_id, base.sequence).is_ok() {
            return Ok(());
        }
    }
    rows.clear()?;
    match first {
        1 => Ok(()),
        first => Err(RecoveryError::NoBase { why, first }),
    }
}

fn fill(
    rows: &dyn Rows,
    bases: &dyn Disk,
    store_id: [u8; 16],
    sequence: u64,
) -> Result<(), BaseError> {
    base::read(bases, store_id, sequence, &mut |_| Ok(()))?;
    rows.clear()?;
    let mut round = Vec::new();
    base::read(bases, store_id, sequence, &mut |row| {
        round.push(RowChange {
            key: row.key,
            value: Some(row.value),
            sequence: row.sequence,
        });
        if round.len() >= ROUND_ROWS {
            rows.put(&std::mem::take(&mut round), 0)?;
        }
        Ok(())
    })?;
    Ok(rows.put(&round, sequence)?)
}

fn build(
    journal: &dyn Journal,
    rows: &dyn Rows,
    bounds: Bounds,
    report: &mut Report,
) -> Result<Recovered, RecoveryError> {
    let mut pass = Pass::new(rows);
    journal.read_from(journal.first_sequence(), &mut |sequence, body| {
        pass.batch(sequence, body)
            .map_err(|why| JournalError::Batch { sequence, why })
    })?;
    pass.flush()?;
    report.batches = pass.batches;

    let mut records = Records::default();
    rows.scan(&[], &mut |row| {
        let (key, record) =
            record_of_row(&row.key, &row.value).map_err(|error| RowsError(error.to_string()))?;
        records.lay(key, Some(record));
        Ok(())
    })?;
    let ledger = match journal.next_sequence() {
        1 => None,
        _ => {
            let mut ledger = Ledger::from_records(bounds, records)
                .map_err(|misfit| RowsError(misfit.to_string()))?;
            let broken = invariants::check_state(&ledger);
            if !broken.is_empty() {
                return Err(RecoveryError::Broken(broken));
            }
            for answer in pass.answers {
                ledger.recollect(answer);
            }
            report.answers = ledger.sizes().2;
            Some(ledger)
        }
    };
    Ok(Recovered {
        ledger,
        last: pass.last,
        report: report.clone(),
        marks: pass.marks,
    })
}

/// One pass over the journal.
struct Pass<'a> {
    rows: &'a dyn Rows,
    applied: u64,
    pending: BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>,
    through: u64,
    batches: u64,
    answers: Vec<Arc<Remembered>>,
    last: Option<Stamp>,
    marks: VecDeque<(Timestamp, u64)>,
}

impl<'a> Pass<'a> {
    fn new(rows: &'a dyn Rows) -> Self {
        Self {
            rows,
            applied: rows.applied(),
            pending: BTreeMap::new(),
            through: rows.applied(),
            batches: 0,
            answers: Vec::new(),
            last: None,
            marks: VecDeque::new(),
        }
    }

    fn batch(&mut self, sequence: u64, body: &[u8]) -> Result<(), String> {
        let contents = Contents::read(body).map_err(|error| error.to_string())?;
        mark(&mut self.marks, contents.stamp.now, sequence);
        self.last = Some(contents.stamp);
        self.answers.extend(contents.answers);
        if sequence <= self.applied {
            return Ok(());
        }
        self.batches = self.batches.saturating_add(1);
        self.through = sequence;
        for RowImage { key, value, .. } in contents.rows {
            self.pending.insert(key, (sequence, value));
        }
        if self.pending.len() >= ROUND_ROWS {
            self.flush().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), RowsError> {
        if self.through == self.rows.applied() {
            return Ok(());
        }
        let changes: Vec<RowChange> = std::mem::take(&mut self.pending)
            .into_iter()
            .map(|(key, (sequence, value))| RowChange {
                key,
                value,
                sequence,
            })
            .collect();
        self.rows.put(&changes, self.through)
    }
}

/// Marks that `sequence` was written at `now`, a minute apart.
pub fn mark(marks: &mut VecDeque<(Timestamp, u64)>, now: Timestamp, sequence: u64) {
    let apart = std::time::Duration::from_secs(MARK_SECS);
    if marks.back().is_none_or(|(last, _)| last.plus(apart) <= now) {
        marks.push_back((now, sequence));
    }
}
