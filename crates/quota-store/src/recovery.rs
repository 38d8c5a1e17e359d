//! Recovery: rows, brought up to the end of the journal by values alone, become the ledger. No business rule
//! of any version runs (C11.2). Rows that cannot be used are rebuilt from the newest whole base and the
//! journal; a journal that cannot be used refuses to start.

use std::collections::{BTreeMap, VecDeque};

use quota_core::invariants;
use quota_core::record::Records;
use quota_core::time::Timestamp;
use quota_core::{Bounds, Ledger};

use crate::base::{self, BaseError};
use crate::batch::{Contents, Head, RowImage, Stamp, record_of_row};
use crate::disk::Disk;
use crate::format::{self, FormatError};
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
    /// Instants and the first sequence at or after them, a minute apart, in order; from the first batch on that
    /// answers are remembered from.
    pub marks: VecDeque<(Timestamp, u64)>,
    /// Number of the next event that is told.
    pub next_event: u64,
}

/// What recovery did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Batches that were laid over the rows.
    pub batches: u64,
    /// Batches that were read for the answers in them.
    pub read: u64,
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
    // Whatever knows of a later batch knows that it was acknowledged.
    let written = base::list(bases).unwrap_or_default();
    let based = written.last().map_or(0, |base| base.sequence);
    let applied = rows.applied();
    if applied.max(based) > end {
        return Err(RecoveryError::JournalShort {
            end,
            applied: applied.max(based),
        });
    }
    let mut report = Report::default();
    if applied.saturating_add(1) < journal.first_sequence() {
        let why = format!("they end at batch {applied}");
        rebuild(journal, rows, bases, store_id, why, &mut report)?;
    }
    match build(journal, rows, bounds, &mut report) {
        Ok(recovered) => Ok(recovered),
        Err(RecoveryError::Journal(error)) => Err(error.into()),
        // Not the rows' fault: what the journal says breaks the invariants, and rows would say the same.
        Err(error) if report.rebuilt.is_some() => Err(error),
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
    report.batches = catch_up(journal, rows)?;
    let mut records = Records::default();
    rows.scan(&[], &mut |row| {
        let (key, record) =
            record_of_row(&row.key, &row.value).map_err(|error| RowsError(error.to_string()))?;
        records.lay(key, Some(record));
        Ok(())
    })?;
    let mut recovered = Recovered {
        ledger: None,
        last: None,
        report: Report::default(),
        marks: VecDeque::new(),
        next_event: 1,
    };
    if journal.next_sequence() > 1 {
        let mut ledger = Ledger::from_records(bounds, records)
            .map_err(|misfit| RowsError(misfit.to_string()))?;
        let broken = invariants::check_state(&ledger);
        if !broken.is_empty() {
            return Err(RecoveryError::Broken(broken));
        }
        // The rows said what is forgotten; what is remembered comes one by one, within the bounds.
        journal.read_from(needed_from(journal)?, &mut |sequence, body| {
            let contents = read_batch(sequence, body)?;
            report.read = report.read.saturating_add(1);
            mark(&mut recovered.marks, contents.stamp.now, sequence);
            recovered.last = Some(contents.stamp);
            recovered.next_event = contents.next_event;
            for answer in contents.answers {
                ledger.recollect(answer);
            }
            Ok(())
        })?;
        report.answers = ledger.sizes().operations;
        recovered.ledger = Some(ledger);
    }
    recovered.report = report.clone();
    Ok(recovered)
}

/// From where on answers are remembered: as the last batch says, of which the rows now have the floors. What is
/// before it they would all refuse.
fn needed_from(journal: &dyn Journal) -> Result<u64, JournalError> {
    let end = journal.next_sequence().saturating_sub(1);
    let mut needed = end;
    journal.read_from(end, &mut |sequence, body| {
        needed = needed.min(decoded(sequence, Head::read(body))?.needed_from);
        Ok(())
    })?;
    Ok(needed)
}

/// Lays the images of batches that are not applied over the rows; says how many batches that were.
fn catch_up(journal: &dyn Journal, rows: &dyn Rows) -> Result<u64, RecoveryError> {
    let mut pending: BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)> = BTreeMap::new();
    let mut batches: u64 = 0;
    let mut failed = None;
    let first = rows.applied().saturating_add(1);
    let read = journal.read_from(first, &mut |sequence, body| {
        batches = batches.saturating_add(1);
        for RowImage { key, value, .. } in read_batch(sequence, body)?.rows {
            pending.insert(key, (sequence, value));
        }
        if pending.len() >= ROUND_ROWS
            && let Err(error) = put(rows, std::mem::take(&mut pending), sequence)
        {
            let text = error.to_string();
            failed = Some(error);
            return Err(JournalError::Reader(text));
        }
        Ok(())
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    read?;
    let end = journal.next_sequence().saturating_sub(1);
    if end > rows.applied() {
        put(rows, pending, end)?;
    }
    Ok(batches)
}

fn put(
    rows: &dyn Rows,
    pending: BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>,
    through: u64,
) -> Result<(), RowsError> {
    let changes: Vec<RowChange> = pending
        .into_iter()
        .map(|(key, (sequence, value))| RowChange {
            key,
            value,
            sequence,
        })
        .collect();
    rows.put(&changes, through)
}

fn read_batch(sequence: u64, body: &[u8]) -> Result<Contents, JournalError> {
    decoded(sequence, Contents::read(body))
}

fn decoded<T>(sequence: u64, read: Result<T, FormatError>) -> Result<T, JournalError> {
    read.map_err(|error| match error {
        FormatError::Newer { found } => JournalError::Newer {
            file: format!("batch {sequence}"),
            found,
            newest: format::VERSION,
        },
        error => JournalError::Batch {
            sequence,
            why: error.to_string(),
        },
    })
}

/// Marks that `sequence` was written at `now`, a minute apart.
pub fn mark(marks: &mut VecDeque<(Timestamp, u64)>, now: Timestamp, sequence: u64) {
    let apart = std::time::Duration::from_secs(MARK_SECS);
    if marks.back().is_none_or(|(last, _)| last.plus(apart) <= now) {
        marks.push_back((now, sequence));
    }
}
