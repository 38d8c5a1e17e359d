//! Opening the store of a data directory.

use std::io;
use std::sync::Arc;

use quota_store::applier::{Applier, ApplierOptions};
use quota_store::data_dir::{DataDir, DataDirError};
use quota_store::disk::RealDisk;
use quota_store::journal::{JournalError, SegmentJournal, SegmentOptions};
pub use quota_store::recovery::Report;
use quota_store::recovery::{RecoveryError, recover};
use quota_store::rows::{RowsError, SledRows};
use quota_store::{Journal, Rows, base};
use tracing::warn;

use crate::clock::{Clock, ClockError, SystemClock, ThisMachine};
use crate::config::Config;
use crate::engine::{Engine, Parts};
use crate::history::{self, History};

/// A store that is ready for an engine.
pub struct Opened {
    /// What the engine starts with.
    pub parts: Parts,
    /// The clock, which goes on from the last batch.
    pub clock: Arc<dyn Clock>,
    /// What recovery did.
    pub report: Report,
    /// Holds the directory; dropped last.
    pub directory: DataDir,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// What is in it.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The wall clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The disk.
    #[error("the data directory cannot be used: {0}")]
    Io(#[from] io::Error),
}

impl From<JournalError> for OpenError {
    fn from(error: JournalError) -> Self {
        Self::Recovery(error.into())
    }
}

impl From<RowsError> for OpenError {
    fn from(error: RowsError) -> Self {
        Self::Recovery(error.into())
    }
}

/// Takes the data directory, made where it is missing, and recovers what is in it.
pub fn open(config: &Config) -> Result<Opened, OpenError> {
    let new_id = *uuid::Uuid::now_v7().as_bytes();
    recover_in(config, DataDir::take(&config.data_dir, new_id)?, false)
}

/// The same for a directory that must be one already, of which also what a start does not need is checked.
pub fn open_whole(config: &Config) -> Result<Opened, OpenError> {
    let config = Config {
        // Nothing is to be written: no room is taken for it.
        segment_bytes: 0,
        ..config.clone()
    };
    recover_in(&config, DataDir::take_existing(&config.data_dir)?, true)
}

fn recover_in(config: &Config, directory: DataDir, whole: bool) -> Result<Opened, OpenError> {
    let store_id = directory.store_id();
    let bases = Arc::new(RealDisk::new(&directory.bases())?);
    let journal = SegmentJournal::open(
        Arc::new(RealDisk::new(&directory.journal())?),
        SegmentOptions {
            segment_bytes: config.segment_bytes,
            store_id,
            whole,
        },
    )?;
    let rows = Arc::new(open_rows(&directory)?);
    let bounds = config.bounds();
    let recovered = recover(&journal, &*rows, &*bases, store_id, bounds)?;
    let clock = SystemClock::start(ThisMachine::new(), recovered.last, config.clock())?;
    let clock_accepted_ns = clock.accepted_ns();
    let clock = Arc::new(clock);
    let applier_options = ApplierOptions {
        lag_bytes_max: config.apply_lag_max,
        base_bytes: config.base_bytes,
        store_id,
        ..ApplierOptions::default()
    };
    let rows: Arc<dyn Rows> = rows;
    let since_base = bytes_since_base(&journal, &bases)?;
    let applier = Applier::start(rows, bases, applier_options, since_base)?;
    let report = recovered.report.clone();
    let parts = Parts::new(recovered, bounds, clock.now(), Box::new(journal), applier);
    Ok(Opened {
        parts: Parts {
            clock_accepted_ns,
            store_id,
            ..parts
        },
        clock,
        report,
        directory,
    })
}

/// Starts the history of an engine in a data directory.
pub fn start_history(
    config: &Config,
    directory: &DataDir,
    engine: &Arc<Engine>,
) -> Result<Arc<History>, OpenError> {
    let path = directory.history();
    let rows = move || history::open_rows(&path);
    let history = History::start(engine.clone(), rows, config.history())?;
    Ok(Arc::new(history))
}

/// About how many bytes of the journal came after the newest base.
fn bytes_since_base(journal: &SegmentJournal, bases: &RealDisk) -> io::Result<u64> {
    let (first, next) = (journal.first_sequence(), journal.next_sequence());
    let based = base::list(bases)?.last().map_or(0, |base| base.sequence);
    let since = next.saturating_sub(based.saturating_add(1).max(first));
    let share = u128::from(journal.size_bytes()) * u128::from(since);
    let bytes = share / u128::from(next.saturating_sub(first).max(1));
    Ok(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// Rows that cannot be opened are removed: recovery rebuilds them.
fn open_rows(directory: &DataDir) -> Result<SledRows, OpenError> {
    match SledRows::open(&directory.rows()) {
        Ok(rows) => Ok(rows),
        Err(error) => {
            warn!(%error, "the rows cannot be used and are rebuilt");
            std::fs::remove_dir_all(directory.rows())?;
            Ok(SledRows::open(&directory.rows())?)
        }
    }
}
