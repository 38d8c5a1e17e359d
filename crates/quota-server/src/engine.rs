//! The engine: one writer thread owns the ledger; everybody else sends it commands or reads views.
//!
//! The alternative, locks per account, cannot give one fdatasync to a thousand callers: with one writer the
//! group is the unit of durability, and its callers are answered together when it is on disk.

mod asker;
pub mod breaker;
pub mod queue;
pub mod views;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use quota_core::command::Command;
use quota_core::ledger::AutoCreate;
use quota_core::ledger::Sizes;
use quota_core::outcome::Reply;
use quota_core::rejection::Rejection;
use quota_core::{Bounds, Ledger};
use quota_store::Journal;
use quota_store::applier::{Applier, Progress};
use quota_store::journal::{JournalReader, Pins};
use quota_store::recovery::{Recovered, Report};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::CallSpan;
use asker::Asker;
use queue::{Item, Queue, READS, Replies, Ticket};
use views::Views;

/// Longest wait for the writer by whoever only asks how it is.
const SIZES_PATIENCE: Duration = Duration::from_secs(1);

/// How the engine works; every bound has its name in the configuration.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Most commands that wait.
    pub queue_max: usize,
    /// Most commands decided and flushed together.
    pub group_max: usize,
    /// A flush that takes longer makes writes unavailable.
    pub commit_stall_max: Duration,
    /// Bytes of journal beyond which the oldest is dropped with its remembered answers.
    pub journal_bytes_max: u64,
    /// How long batches are kept for audit.
    pub audit_retention: Duration,
    /// The ledger's.
    pub bounds: Bounds,
}

/// Why a command was not answered by the ledger.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The ledger rejected it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The queue is full; nothing was changed.
    #[error("{0} commands are waiting, which is all that may")]
    Overloaded(usize),
    /// The server is shutting down; nothing was changed.
    #[error("the server is shutting down")]
    Draining,
    /// The journal cannot be written.
    #[error("the journal cannot be written now")]
    JournalDown {
        /// Whether the command may have been applied all the same.
        unknown: bool,
    },
    /// The caller's deadline passed.
    #[error("the deadline passed before the answer was durable")]
    Deadline {
        /// Whether the command may have been applied all the same.
        unknown: bool,
    },
}

/// Whether the journal can be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// It can.
    Writing,
    /// An append failed; the breaker is open.
    Failed,
    /// A flush hangs.
    Stalled,
}

/// What the writer thread starts with.
pub struct Parts {
    /// The state.
    pub ledger: Ledger,
    /// Where batches go.
    pub journal: Box<dyn Journal>,
    /// Who writes rows behind it.
    pub applier: Applier,
    /// A doubt about the wall clock that was accepted at this start: by how much it was off, in nanoseconds.
    pub clock_accepted_ns: Option<i64>,
    /// Instants and the first sequence at or after them.
    pub marks: std::collections::VecDeque<(quota_core::time::Timestamp, u64)>,
    /// Number of the next event that is told.
    pub next_event: u64,
    /// What recovery did; absent where the store is new.
    pub report: Option<Report>,
    /// The instant of the last batch; absent where there is none.
    pub last: Option<quota_core::time::Timestamp>,
    /// Who still has to read what of the journal; what is pinned before the start is there after it.
    pub pins: Pins,
    /// What the store is called; all zero where it has no directory.
    pub store_id: [u8; 16],
}

impl Parts {
    /// What was recovered, or a new ledger that begins at `now`.
    pub fn new(
        recovered: Recovered,
        bounds: Bounds,
        now: quota_core::time::Timestamp,
        journal: Box<dyn Journal>,
        applier: Applier,
    ) -> Self {
        let report = recovered.ledger.as_ref().map(|_| recovered.report);
        let ledger = recovered.ledger;
        Self {
            ledger: ledger.unwrap_or_else(|| Ledger::new(bounds, now)),
            journal,
            applier,
            clock_accepted_ns: None,
            marks: recovered.marks,
            next_event: recovered.next_event,
            report,
            last: recovered.last.map(|stamp| stamp.now),
            pins: Pins::default(),
            store_id: [0; 16],
        }
    }
}

/// A handle on the engine.
pub struct Engine {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// When it was started, by the boot-time clock.
    began_ns: i64,
    store_id: [u8; 16],
}

/// The writer of an engine without a thread.
pub struct Driver(writer::Writer);

impl Driver {
    /// Takes what waits, decides it, makes it durable and answers it; looks after what is due.
    pub fn step(&mut self) {
        self.0.turn(Duration::ZERO);
    }

    /// Does what is left to do after [`Engine::drain`], and ends.
    pub fn finish(mut self) {
        while self.0.turn(Duration::ZERO) {}
        self.0.seal();
    }

    /// The sequence that the next batch gets: all before are durable.
    pub fn next_sequence(&self) -> u64 {
        self.0.next_sequence()
    }
}

/// What the writer and its callers share.
struct Shared {
    queue: Queue,
    views: Views,
    clock: Arc<dyn Clock>,
    options: EngineOptions,
    draining: AtomicBool,
    /// Calls that await the writer.
    in_flight: AtomicUsize,
    journal_down: AtomicBool,
    /// When the flush under way began, by the boot-time clock; 0 when there is none.
    flush_began_ns: AtomicI64,
    progress: Mutex<Progress>,
    /// How much there was when it was last counted.
    sizes: Mutex<Sizes>,
    reader: Arc<dyn JournalReader>,
    pins: Pins,
    metrics: Metrics,
}

impl Engine {
    /// Starts the writer thread. The first batch of a new store is written before this returns.
    pub fn start(
        parts: Parts,
        options: EngineOptions,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let (engine, writer) = Self::new(parts, options, clock)?;
        let thread = std::thread::Builder::new()
            .name("quota-writer".into())
            .spawn(move || writer.run())?;
        *engine.thread.lock() = Some(thread);
        Ok(engine)
    }

    /// The same without a thread: the writer works when it is told to. Two runs that tell it the same do the
    /// same.
    pub fn driven(
        parts: Parts,
        options: EngineOptions,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<(Self, Driver)> {
        let (engine, writer) = Self::new(parts, options, clock)?;
        Ok((engine, Driver(writer)))
    }

    fn new(
        parts: Parts,
        options: EngineOptions,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<(Self, writer::Writer)> {
        let shared = Arc::new(Shared {
            queue: Queue::new(options.queue_max),
            views: Views::of(&parts.ledger),
            clock,
            options,
            draining: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            journal_down: AtomicBool::new(false),
            flush_began_ns: AtomicI64::new(0),
            progress: Mutex::default(),
            sizes: Mutex::new(parts.ledger.sizes()),
            reader: parts.journal.reader(),
            pins: parts.pins.clone(),
            metrics: Metrics::new(),
        });
        let store_id = parts.store_id;
        let writer = writer::Writer::new(parts, shared.clone())?;
        let engine = Self {
            store_id,
            began_ns: shared.clock.boot_ns(),
            shared,
            thread: Mutex::default(),
        };
        Ok((engine, writer))
    }

    /// Has a command decided, durably, and answers what was decided. `patience` is how long the caller
    /// waits; a command whose caller has gone is dropped before it is decided, never after.
    pub async fn execute(
        &self,
        command: Command,
        patience: Option<Duration>,
    ) -> Result<Reply, Fault> {
        let replies = self.execute_all(vec![command], patience).await?;
        the_one(replies)
    }

    /// The same for several commands, in their order, each of which sees what those before it did. They wait
    /// in the lane of the first.
    pub async fn execute_all(
        &self,
        commands: Vec<Command>,
        patience: Option<Duration>,
    ) -> Result<Replies, Fault> {
        self.execute_traced(commands, patience, None).await
    }

    /// The same for a call that may have a span, which learns in which group it was made durable.
    pub async fn execute_traced(
        &self,
        commands: Vec<Command>,
        patience: Option<Duration>,
        span: Option<CallSpan>,
    ) -> Result<Replies, Fault> {
        self.admit()?;
        if patience.is_some_and(|patience| patience.is_zero()) {
            return Err(Fault::Deadline { unknown: false });
        }
        let _counted = InFlight::new(&self.shared.in_flight);
        let (asker, answer) = Asker::new();
        let ticket = Arc::new(Ticket::queued_at(self.shared.clock.boot_ns(), span));
        // A caller that goes away drops this future, and with it its interest in being decided.
        let claim = TicketGuard(ticket.clone());
        let lane = commands.first().map_or("", Command::lane).to_owned();
        let item = Item::Commands {
            commands,
            asker,
            ticket: ticket.clone(),
        };
        self.shared.queue.push(&lane, item)?;
        let answered = match patience {
            Some(patience) => tokio::time::timeout(patience, answer).await,
            None => Ok(answer.await),
        };
        drop(claim);
        match answered {
            Ok(Ok(answer)) => answer,
            // The writer drops a sender only when it stops.
            Ok(Err(_)) => Err(Fault::JournalDown {
                unknown: ticket.was_claimed(),
            }),
            Err(_) => Err(Fault::Deadline {
                unknown: ticket.was_claimed(),
            }),
        }
    }

    /// Reads the ledger between two groups, all of whose changes are durable. `read` must be short: the
    /// writer waits for it.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Ledger) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        self.admit()?;
        let _counted = InFlight::new(&self.shared.in_flight);
        let (reply, answer) = oneshot::channel();
        let job = move |ledger: Result<&Ledger, Fault>| {
            let _ = reply.send(ledger.map(read));
        };
        self.shared.queue.push(READS, Item::Read(Box::new(job)))?;
        let answered = answer.await;
        answered.unwrap_or(Err(Fault::JournalDown { unknown: false }))
    }

    /// How much there is; while the writer does not answer, as it was counted last.
    pub async fn sizes(&self) -> Sizes {
        let counted = tokio::time::timeout(SIZES_PATIENCE, self.read(Ledger::sizes)).await;
        match counted {
            Ok(Ok(sizes)) => sizes,
            Ok(Err(_)) | Err(_) => *self.shared.sizes.lock(),
        }
    }

    /// The published state.
    pub fn views(&self) -> &Views {
        &self.shared.views
    }

    /// The clock.
    pub fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    /// Which subjects may come into being with a charge.
    pub fn auto_create(&self) -> AutoCreate {
        self.shared.options.bounds.auto_create
    }

    /// Most subjects.
    pub fn subjects_max(&self) -> usize {
        self.shared.options.bounds.subjects_max
    }

    /// Whether a command would be decided now.
    pub fn is_writable(&self) -> bool {
        self.admit().is_ok()
    }

    /// Whether the journal cannot be written.
    pub fn is_journal_down(&self) -> bool {
        self.condition() != Condition::Writing
    }

    /// Whether the journal can be written, and why not.
    pub fn condition(&self) -> Condition {
        match self.shared.journal_down.load(Ordering::Acquire) {
            true => Condition::Failed,
            false if self.is_stalled() => Condition::Stalled,
            false => Condition::Writing,
        }
    }

    /// What is counted and measured.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Whether nobody awaits the writer.
    pub fn is_idle(&self) -> bool {
        self.shared.in_flight.load(Ordering::Acquire) == 0
    }

    /// What the store is called.
    pub fn store_id(&self) -> [u8; 16] {
        self.store_id
    }

    /// How long it has been running.
    pub fn uptime(&self) -> Duration {
        let since = self.shared.clock.boot_ns().saturating_sub(self.began_ns);
        Duration::from_nanos(since.max(0).unsigned_abs())
    }

    /// The weight of the commands that wait, in single commands.
    pub fn queued(&self) -> usize {
        self.shared.queue.weight()
    }

    /// How far the applier is behind.
    pub fn progress(&self) -> Progress {
        self.shared.progress.lock().clone()
    }

    /// Reads what is durable, beside the writer.
    pub fn journal(&self) -> &Arc<dyn JournalReader> {
        &self.shared.reader
    }

    /// Who still has to read what of the journal.
    pub fn pins(&self) -> &Pins {
        &self.shared.pins
    }
    /// Takes no more commands, decides those that wait, and ends the writer when all is durable.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.queue.close();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }

    /// Takes no more commands.
    pub fn refuse_new(&self) {
        self.shared.draining.store(true, Ordering::Release);
    }

    fn admit(&self) -> Result<(), Fault> {
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(Fault::Draining);
        }
        if self.is_journal_down() {
            return Err(Fault::JournalDown { unknown: false });
        }
        Ok(())
    }

    /// Noticed here, because the writer is the one who is stuck (C11.3).
    fn is_stalled(&self) -> bool {
        let began = self.shared.flush_began_ns.load(Ordering::Acquire);
        if began == 0 {
            return false;
        }
        let elapsed = self.shared.clock.boot_ns().saturating_sub(began).max(0);
        u128::from(elapsed.unsigned_abs()) > self.shared.options.commit_stall_max.as_nanos()
    }
}

/// The reply to a single command.
pub(crate) fn the_one(replies: Replies) -> Result<Reply, Fault> {
    let reply = replies.into_iter().next();
    reply
        .unwrap_or(Err(Rejection::Invalid(Vec::new())))
        .map_err(Fault::Rejected)
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.drain();
    }
}

/// Counts a call while it awaits the writer.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Withdraws a command whose caller no longer waits.
struct TicketGuard(Arc<Ticket>);

impl Drop for TicketGuard {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}
