//! The history of usage: how every account went, in steps of five minutes, an hour and a day.
//!
//! It is a projection: a thread of its own reads what is durable of the journal and sums it up, and nothing that is
//! decided waits for it or depends on it. What it has summed up stands in rows of its own, written every half
//! minute with the position in the journal that they cover. A crash loses what came since, which is read again; if
//! the rows are lost, they are made anew of what the journal still has. The alternative, buckets that the writer
//! keeps, would put a second book into the way of every charge, and could be wrong after a crash without anything
//! to compare it with.

pub mod book;
mod few;
mod format;
pub mod limits;
pub mod rollup;
pub mod series;
mod sweep;
mod writing;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quota_core::name::{ResourceKey, SubjectName};
use quota_core::quota::QuotaList;
use quota_core::resource::Kind;
use quota_core::time::Timestamp;
use quota_store::Rows;
use quota_store::footprint::Footprint;
use quota_store::journal::{Cursor, Hash, JournalError, JournalReader, KeptBatch, Pin};
use quota_store::rows::{RowsError, SledRows};
use tracing::{error, info, warn};

use crate::engine::Engine;
use book::{Book, Known};
use rollup::Area;
use series::{Keep, Open, Query, Series};
use sweep::Sweep;
pub use writing::unwritten;
use writing::{Origin, PIN, needed_from};

/// Bytes of memory for rows that are read.
const CACHE_BYTES: u64 = 16 << 20;
/// Least time between two readings of what is new, unless somebody asks: a busy account is loaded once for all of
/// it, and the writer is not kept company by a thread that wakes for each batch.
const PACE: Duration = Duration::from_millis(250);
/// Time between two writings. What changes often is written once for all of it; a start tells the rest again.
const WRITE_INTERVAL: Duration = Duration::from_secs(30);
/// Batches that are told while readers wait.
const ROUND_BATCHES: usize = 64;
/// How long a failure is waited out.
const FAILED_WAIT: Duration = Duration::from_secs(5);
/// Failures of the rows one after the other until they are given up and made anew.
const FAILURES_MAX: u32 = 3;
/// The span of [`Summary::peak`].
const PEAK_SPAN: Duration = Duration::from_secs(24 * 3600);

/// An account in short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The kind of its resource.
    pub kind: Kind,
    /// Most in use at any instant of the last 24 hours, to five minutes, in base units; only of what is given back.
    pub peak: Option<i64>,
    /// Everything since its history begins.
    pub total: Area,
    /// When its history begins.
    pub since: Timestamp,
}

/// A handle on the history. Dropping it ends the thread as a crash would; [`Self::finish`] writes down first.
pub struct History {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    engine: Arc<Engine>,
    /// Absent until the thread has opened them.
    rows: OnceLock<Arc<dyn Rows>>,
    /// Keeps in the journal what is not written down yet.
    pin: Pin,
    keep: Keep,
    book: Mutex<Book>,
    /// Told when a round is over.
    told: Condvar,
    worker: Mutex<Option<Thread>>,
    /// The thread waits for the journal.
    idle: AtomicBool,
    /// Somebody waits for the thread.
    hurry: AtomicBool,
    stop: AtomicBool,
    /// What is open is to be written down before the end.
    write_at_end: AtomicBool,
}

/// Rows for a history in a directory, made where it is missing. Where they cannot be used they are put aside, and
/// the history is made anew; but only where that is possible: a disk that is full or fails costs no history.
pub fn open_rows(directory: &Path) -> Result<Arc<dyn Rows>, RowsError> {
    let error = match SledRows::open_with(directory, CACHE_BYTES) {
        Ok(rows) => return Ok(Arc::new(rows)),
        Err(error) => error,
    };
    let named = |error: &dyn std::fmt::Display| {
        let directory = directory.display();
        RowsError(format!(
            "{error}; the history in {directory} cannot be used"
        ))
    };
    let aside = directory.with_extension("aside");
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(|error| named(&error))?;
    }
    std::fs::rename(directory, &aside).map_err(|_| named(&error))?;
    match SledRows::open_with(directory, CACHE_BYTES) {
        Ok(rows) => {
            let aside = aside.display();
            warn!(%error, %aside, "the history cannot be used, was put aside, and is made anew of what the journal has");
            Ok(Arc::new(rows))
        }
        Err(_) => {
            let _ = std::fs::remove_dir_all(directory);
            std::fs::rename(&aside, directory).map_err(|error| named(&error))?;
            Err(named(&error))
        }
    }
}

impl Known for Engine {
    fn kind(&self, resource: &ResourceKey) -> Kind {
        self.views().tables().resources.kind(resource)
    }

    fn exists(&self, subject: &SubjectName) -> bool {
        self.views().subject(subject.as_str()).is_some()
    }

    fn quotas(&self, subject: &SubjectName) -> Option<Arc<QuotaList>> {
        let subject = self.views().subject(subject.as_str())?;
        Some(subject.quotas.clone())
    }
}

impl History {
    /// Starts following the journal of an engine. It opens its rows and goes on from where they end in its own
    /// time: nothing waits.
    pub fn start(
        engine: Arc<Engine>,
        open_rows: impl FnMut() -> Result<Arc<dyn Rows>, RowsError> + Send + 'static,
        keep: Keep,
    ) -> std::io::Result<Self> {
        // Everything, until the rows say from where on.
        let pin = engine.pins().pin(PIN, 1);
        let shared = Arc::new(Shared {
            rows: OnceLock::new(),
            pin,
            keep,
            book: Mutex::default(),
            told: Condvar::new(),
            worker: Mutex::default(),
            idle: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            write_at_end: AtomicBool::new(false),
            engine,
        });
        let follower = Follower::new(shared.clone(), Box::new(open_rows));
        let thread = thread::Builder::new()
            .name("quota-history".into())
            .spawn(move || follower.run())?;
        let worker = thread.thread().clone();
        *shared.worker.lock() = Some(worker.clone());
        // The listener stays as long as the journal and must not keep the engine.
        let listening = Arc::downgrade(&shared);
        let listener = move |_| {
            if let Some(shared) = listening.upgrade()
                && shared.idle.swap(false, Ordering::AcqRel)
            {
                worker.unpark();
            }
        };
        shared.engine.journal().on_durable(Box::new(listener));
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The first batch that it still needs after a crash: what the journal drops before it is told and written
    /// down is missing from the history. It is pinned.
    pub fn needed_from(&self) -> u64 {
        let rows = self.shared.rows.get();
        rows.map_or(1, |rows| needed_from(&**rows))
    }

    /// Waits until it covers what is durable now, at most `patience`; says whether it does.
    pub fn catch_up(&self, patience: Duration) -> bool {
        let last = self
            .shared
            .engine
            .journal()
            .next_sequence()
            .saturating_sub(1);
        let mut book = self.shared.book.lock();
        if book.position >= last {
            return true;
        }
        self.shared.hurry.store(true, Ordering::Release);
        self.shared.wake();
        let behind = |book: &mut Book| book.position < last;
        self.shared.told.wait_while_for(&mut book, behind, patience);
        book.position >= last
    }

    /// The series that is asked for, as of `now`; none of an account without a history.
    pub fn series(&self, query: &Query, now: Timestamp) -> Result<Option<Series>, RowsError> {
        let Some(open) = self.shared.open(&query.subject, &query.resource, now)? else {
            return Ok(None);
        };
        let series = open.series(self.shared.rows()?, query, &self.shared.keep)?;
        Ok(Some(series))
    }

    /// An account in short, as of `now`; none without a history.
    pub fn summary(
        &self,
        subject: &SubjectName,
        resource: &ResourceKey,
        now: Timestamp,
    ) -> Result<Option<Summary>, RowsError> {
        let Some(open) = self.shared.open(subject, resource, now)? else {
            return Ok(None);
        };
        let from = now.minus(PEAK_SPAN);
        let (total, since) = open.total();
        // A count only grows: its most would be all that was ever counted.
        let peak = match open.kind() {
            Kind::Allocation | Kind::Concurrency => {
                Some(open.peak(self.shared.rows()?, (subject, resource), from)?)
            }
            Kind::Counter | Kind::Rate | Kind::PerRequest | Kind::Measured => None,
        };
        Ok(Some(Summary {
            kind: open.kind(),
            peak,
            total,
            since,
        }))
    }

    /// Ends the thread; what is open is written down.
    pub fn finish(&self) {
        self.shared.write_at_end.store(true, Ordering::Release);
        self.end();
    }

    fn end(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn rows(&self) -> Result<&dyn Rows, RowsError> {
        let rows = self.rows.get().map(|rows| &**rows);
        rows.ok_or_else(|| RowsError("the history is not open yet".to_owned()))
    }

    fn wake(&self) {
        if let Some(worker) = &*self.worker.lock() {
            worker.unpark();
        }
    }

    /// An account brought forward to `now`; none without a history.
    fn open(
        &self,
        subject: &SubjectName,
        resource: &ResourceKey,
        now: Timestamp,
    ) -> Result<Option<Open>, RowsError> {
        if let Some(found) = self.book.lock().loaded(subject, resource) {
            return Ok(found.map(|(account, closed)| Open::new(account, closed, now)));
        }
        let row = self.rows()?.get(&format::account_key(subject, resource))?;
        let account = row.map(|row| format::account_of_bytes(&row.value));
        let open = |account| Open::new(account, Vec::new(), now);
        Ok(account.transpose()?.map(open))
    }
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Rows(#[from] RowsError),
    #[error("{0}")]
    Journal(#[from] JournalError),
}

type OpenRows = Box<dyn FnMut() -> Result<Arc<dyn Rows>, RowsError> + Send>;

/// The thread.
struct Follower {
    shared: Arc<Shared>,
    open_rows: OpenRows,
    cursor: Option<Box<dyn Cursor>>,
    /// Hash of the batch at the position.
    hash: Hash,
    opened: bool,
    sweep: Sweep,
    /// By the boot-time clock, in nanoseconds.
    written_ns: i64,
    failures: u32,
    failed: Option<String>,
}

impl Follower {
    fn new(shared: Arc<Shared>, open_rows: OpenRows) -> Self {
        Self {
            shared,
            open_rows,
            cursor: None,
            hash: Hash::default(),
            opened: false,
            sweep: Sweep::default(),
            written_ns: 0,
            failures: 0,
            failed: None,
        }
    }

    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            match self.round() {
                Ok(()) => self.recovered(),
                Err(failure) => self.failed(failure),
            }
            self.shared.told.notify_all();
            self.wait();
        }
        if self.shared.write_at_end.load(Ordering::Acquire)
            && let Err(failure) = self.last_round()
        {
            warn!(%failure, "the history could not be written down at the end; the next start reads on");
        }
    }

    fn last_round(&mut self) -> Result<(), Failure> {
        self.round()?;
        self.write()?;
        Ok(())
    }

    /// Tells what is new, and writes down when it is time.
    fn round(&mut self) -> Result<(), Failure> {
        if !self.opened {
            self.open()?;
        }
        let mut at_end = false;
        while !at_end {
            at_end = self.tell()?;
            let full = self.shared.book.lock().is_full();
            if full || self.is_due() {
                self.write()?;
            }
            if self.shared.stop.load(Ordering::Acquire) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        let now_ns = self.shared.engine.clock().boot_ns();
        let apart = i64::try_from(WRITE_INTERVAL.as_nanos()).unwrap_or(i64::MAX);
        now_ns.saturating_sub(self.written_ns) >= apart
    }

    /// Finds the place to go on from.
    fn open(&mut self) -> Result<(), Failure> {
        if self.shared.rows.get().is_none() {
            let rows = (self.open_rows)()?;
            self.shared.rows.get_or_init(|| rows);
        }
        let rows = self.shared.rows()?;
        let reader = self.shared.engine.journal();
        if let Some(origin) = Origin::read(rows)?
            && !is_of(reader.as_ref(), &origin)?
        {
            warn!("the history is of another journal and is made anew of what this one has");
            rows.clear()?;
        }
        let origin = Origin::read(rows)?.unwrap_or_default();
        let mut book = Book::open(rows)?;
        book.gap = origin.gap;
        self.hash = origin.hash;
        self.shared.pin.move_to(needed_from(rows));
        *self.shared.book.lock() = book;
        self.cursor = None;
        self.opened = true;
        Ok(())
    }

    /// Tells a few batches; says whether that was all.
    fn tell(&mut self) -> Result<bool, Failure> {
        let shared = self.shared.clone();
        for _ in 0..ROUND_BATCHES {
            let Some(kept) = self.next()? else {
                return Ok(true);
            };
            let footprint =
                Footprint::read(&kept.body).map_err(JournalError::of_batch(kept.sequence))?;
            let mut book = shared.book.lock();
            let told = book.tell(kept.sequence, &footprint, &*shared.engine, shared.rows()?);
            if let Err(error) = told {
                // It comes again.
                self.cursor = None;
                return Err(error.into());
            }
            self.hash = kept.hash;
            if book.is_full() {
                break;
            }
        }
        self.shared.told.notify_all();
        Ok(false)
    }

    /// The next batch; none while it is not durable. What is not there any more is passed over.
    fn next(&mut self) -> Result<Option<KeptBatch>, Failure> {
        let reader = self.shared.engine.journal().clone();
        let next = self.shared.book.lock().position.saturating_add(1);
        let cursor = match self.cursor.take() {
            Some(cursor) => Ok(cursor),
            None => reader.cursor(next),
        };
        let read = cursor.and_then(|mut cursor| {
            let kept = cursor.next()?;
            Ok((cursor, kept))
        });
        match read {
            Ok((cursor, kept)) => {
                self.cursor = Some(cursor);
                Ok(kept)
            }
            Err(JournalError::Trimmed { first }) if first > next => {
                self.pass_over(next, first);
                Ok(reader.cursor(first)?.next()?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Goes on from the oldest batch that is there.
    fn pass_over(&mut self, next: u64, first: u64) {
        match next {
            1 => info!(
                first,
                "the history begins with the oldest batch of the journal"
            ),
            next => warn!(
                from = next,
                to = first.saturating_sub(1),
                "these batches are missing from the history: the journal has dropped them"
            ),
        }
        let tables = self.shared.engine.views().tables();
        let mut book = self.shared.book.lock();
        book.position = first.saturating_sub(1);
        book.gap = first;
        // What was set meanwhile nobody tells any more: what is in force now is nearest.
        for entry in tables.defaults.iter() {
            let quotas = Arc::new(entry.quotas.clone());
            book.limits.change(entry.pattern.clone(), quotas);
        }
    }

    fn write(&mut self) -> Result<(), Failure> {
        let shared = &self.shared;
        let rows = shared.rows()?;
        self.written_ns = shared.engine.clock().boot_ns();
        let writing = {
            let book = shared.book.lock();
            if book.position == rows.applied() {
                None
            } else {
                Some(book.writing(self.hash))
            }
        };
        if let Some(writing) = writing {
            writing.write(rows)?;
            shared.pin.move_to(needed_from(rows));
            let mut book = shared.book.lock();
            book.written(&writing);
            book.let_go();
        }
        let now = shared.engine.clock().now();
        self.sweep.round(rows, &shared.keep, now)?;
        Ok(())
    }

    fn recovered(&mut self) {
        if self.failed.take().is_some() {
            info!("the history goes on");
        }
        self.failures = 0;
    }

    fn failed(&mut self, failure: Failure) {
        let text = failure.to_string();
        if self.failed.as_ref() != Some(&text) {
            error!(error = %text, "the history cannot go on; trying again");
        }
        self.failed = Some(text);
        let Failure::Rows(_) = failure else {
            self.cursor = None;
            return;
        };
        // What is loaded may be of rows that are not what was written: it is read again.
        let loading = !std::mem::take(&mut self.opened);
        let Ok(rows) = self.shared.rows() else {
            return;
        };
        let reopened = rows.put(&[], rows.applied());
        // Only rows that can be opened and cannot be read are damaged. Whatever else fails may pass.
        self.failures = match loading && reopened.is_ok() {
            true => self.failures.saturating_add(1),
            false => 0,
        };
        let again = match self.failures > FAILURES_MAX {
            false => reopened,
            true => {
                warn!("the history is made anew of what the journal has");
                self.failures = 0;
                self.shared.pin.move_to(1);
                rows.clear()
            }
        };
        if let Err(error) = again {
            warn!(%error, "the rows of the history cannot be opened");
        }
    }

    fn wait(&mut self) {
        let shared = &self.shared;
        if self.failed.is_some() {
            thread::park_timeout(FAILED_WAIT);
            return;
        }
        if !shared.hurry.swap(false, Ordering::AcqRel) && !shared.stop.load(Ordering::Acquire) {
            thread::park_timeout(PACE);
        }
        let position = shared.book.lock().position;
        shared.idle.store(true, Ordering::Release);
        let new = shared.engine.journal().next_sequence() > position.saturating_add(1);
        let asked = shared.hurry.load(Ordering::Acquire) || shared.stop.load(Ordering::Acquire);
        if !new && !asked {
            thread::park_timeout(WRITE_INTERVAL);
        }
        shared.idle.store(false, Ordering::Release);
    }
}

/// Whether rows are of this journal, as far as it still tells.
fn is_of(reader: &dyn JournalReader, origin: &Origin) -> Result<bool, JournalError> {
    if origin.position == 0 || origin.position < reader.first_sequence() {
        return Ok(true);
    }
    let last = reader.cursor(origin.position)?.next()?;
    Ok(last.is_some_and(|kept| kept.hash == origin.hash))
}
