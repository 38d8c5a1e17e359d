//! A simulated machine with a store, an engine and its callers, and the auditor beside it.

mod calls;
mod faults;
mod starting;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use quota_core::Bounds;
use quota_core::command::Command;
use quota_core::time::Timestamp;
use quota_server::clock::{Clock, ManualMachine, SystemClock};
use quota_server::config::Config;
use quota_server::engine::{Driver, Engine, EngineOptions};
use quota_store::applier;
use quota_testkit::auditor::Auditor;
use quota_testkit::bare::{self, BEGINNING};
use quota_testkit::script::{Call, World as _};
use quota_testkit::sim::coverage::Coverage;
use quota_testkit::sim::steps::{Fault, Step};

use super::events;
use crate::worlds::TestStore;

/// Most single commands that wait.
const QUEUE_MAX: usize = 8;
/// Steps of the writer after which everybody has an answer.
const TURNS_MAX: usize = 3;
/// Tries to start until something is wrong.
const STARTS_MAX: usize = 4;
/// Groups between two comparisons of everything.
const COMPARED_EVERY: usize = 20;

/// The world.
pub(super) struct World {
    store: TestStore,
    machine: ManualMachine,
    running: Option<Running>,
    auditor: Auditor,
    doubt: Option<Doubt>,
    /// What was decided, with when and the answer.
    history: Vec<Decided>,
    pub(super) coverage: Coverage,
    doubted: Vec<Call>,
    troubled: bool,
    rows_lost: bool,
    made: u64,
    groups: usize,
    /// Name of the oldest segment that was missed.
    oldest: String,
    /// What the clock said when the process died, in this boot.
    died_at: Option<Timestamp>,
    /// When the writer woke up last.
    woke_at: Timestamp,
    /// When the last batch was stamped, or before.
    durable_at: Timestamp,
    /// The sequence of the next one then.
    sequence: u64,
    last: String,
}

/// A server that is up.
struct Running {
    engine: Arc<Engine>,
    driver: Driver,
    rows: applier::Driver,
    progress: Progress,
    clock: Arc<SystemClock<ManualMachine>>,
}

#[derive(Default)]
struct Progress {
    bases: Cell<usize>,
    given_up: Cell<bool>,
}

/// A decided call.
#[derive(Clone)]
pub(super) struct Decided {
    pub(super) at: Timestamp,
    pub(super) call: Call,
    pub(super) text: String,
}

/// A batch that may be durable or not.
struct Doubt {
    /// The auditor, if it is.
    after: Auditor,
    /// A command that would be answered again.
    probe: Option<Command>,
    sequence: u64,
    /// When it was decided: a flush may hang before it fails.
    at: Timestamp,
    decided: Vec<Decided>,
}

impl World {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            store: TestStore::new(bounds),
            machine: ManualMachine::at(BEGINNING.nanos()),
            running: None,
            auditor: Auditor::with_bounds(bounds),
            doubt: None,
            history: Vec::new(),
            coverage: Coverage::default(),
            doubted: Vec::new(),
            troubled: false,
            rows_lost: false,
            made: 0,
            groups: 0,
            oldest: "0000000001.seg".into(),
            died_at: None,
            woke_at: BEGINNING,
            durable_at: BEGINNING,
            sequence: 0,
            last: "the start".into(),
        }
    }

    /// What whoever makes up the next step may know.
    pub(super) fn outlook(&self) -> (&Auditor, Timestamp, bool) {
        let troubled = self.troubled || self.doubt.is_some();
        (&self.auditor, self.up().clock.now(), troubled)
    }

    pub(super) fn take_doubted(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.doubted)
    }

    pub(super) fn answers(&self) -> usize {
        self.history.len()
    }

    pub(super) fn last_step(&self) -> &str {
        &self.last
    }

    fn up(&self) -> &Running {
        self.running.as_ref().expect("the server is up")
    }

    fn now(&self) -> Timestamp {
        self.up().clock.now()
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<(), String> {
        self.last = step.to_string();
        self.coverage.step(step);
        match step {
            Step::Pass(nanos) => {
                let before = self.now();
                self.machine.pass(*nanos);
                let passed = self.now().nanos() - before.nanos();
                // C1.3: steered by at most a tenth of what went by.
                if (i128::from(passed) - i128::from(*nanos)).abs() > i128::from(*nanos / 10 + 1) {
                    return Err(format!(
                        "{nanos} ns went by, and {passed} on the server's clock"
                    ));
                }
                // Rows are written every now and then.
                if nanos % 4 == 0 {
                    self.up().rows.step();
                    self.note_rows();
                }
                // Now and then nobody wakes the writer before the next call.
                match nanos % 3 {
                    0 => Ok(()),
                    _ => self.wake(),
                }
            }
            Step::Group(callers) => self.group(callers),
            Step::Check(call) => self.check(call),
            Step::Fault(fault) => self.fault(*fault),
        }
    }

    /// Everything is mended; what is then there, and there after the power and the rows went, is right.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.last = "the end".into();
        self.mend();
        for _ in 0..20 {
            self.machine.pass(10_000_000_000);
            self.wake()?;
        }
        if self.up().engine.is_journal_down() {
            return Err("the disk is whole, and writes do not go on".into());
        }
        let call = self.own_call("subject system");
        self.step(&Step::call(call.clone()))?;
        if self.history.last().is_none_or(|last| last.call != call) {
            return Err("the disk is whole, and nothing is written".into());
        }
        self.compare_live()?;
        self.fault(Fault::Power(1))?;
        self.rows_lost = true;
        self.fault(Fault::Power(2))?;
        events::check(self.store.bounds, &self.history, &mut self.auditor)
    }

    // -- Calls -------------------------------------------------------------------------------------------

    /// The writer wakes up, and nobody waits.
    fn wake(&mut self) -> Result<(), String> {
        self.woke_at = self.now();
        self.up_mut().driver.step();
        self.written_later();
        self.closed_in_vain();
        self.same_health()
    }

    fn up_mut(&mut self) -> &mut Running {
        self.running.as_mut().expect("the server is up")
    }

    /// A failed batch is durable once the next one has a later sequence.
    fn written_later(&mut self) {
        let next = self.up().driver.next_sequence();
        if next != self.sequence {
            let of_doubt = self.doubt.as_ref().map(|doubt| doubt.at);
            self.durable_at = of_doubt.unwrap_or(self.woke_at);
            self.sequence = next;
        }
        if let Some(doubt) = self.doubt.take_if(|doubt| next > doubt.sequence) {
            self.coverage.note("turn", "in doubt, written later");
            self.adopt(doubt);
        }
    }

    fn adopt(&mut self, doubt: Doubt) {
        let now = self.auditor.now();
        self.auditor = doubt.after;
        self.auditor.set_now(now);
        self.history.extend(doubt.decided);
    }

    /// The journal failed while nothing but bookkeeping was written.
    fn closed_in_vain(&mut self) {
        if self.doubt.is_none() && self.up().engine.is_journal_down() {
            self.doubt = Some(Doubt {
                after: self.auditor.clone(),
                probe: None,
                sequence: self.up().driver.next_sequence(),
                at: self.woke_at,
                decided: Vec::new(),
            });
        }
    }

    fn same_health(&self) -> Result<(), String> {
        let (down, doubt) = (self.up().engine.is_journal_down(), self.doubt.is_some());
        match down == doubt {
            true => Ok(()),
            false => Err(format!(
                "the journal is down: {down}; something is in doubt: {doubt}"
            )),
        }
    }

    fn check(&mut self, call: &Call) -> Result<(), String> {
        let now = self.now();
        self.auditor.set_now(now);
        let due = self.auditor.call(call);
        let views = self.up().engine.views();
        let tables = views.tables();
        let auto_create = self.store.bounds.auto_create;
        let known = |name: &str| views.subject(name).is_some();
        let asked = |question: &bare::Question| {
            let snapshot = views.snapshot(&question.subject, &question.also);
            bare::checked(call, question, &snapshot.scene(now), now)
        };
        let text = bare::check_over(call, &tables.resources, auto_create, known, asked);
        self.coverage.answered(call, &text);
        same(call, &due, &text)
    }
}

fn options() -> EngineOptions {
    EngineOptions {
        // Half an hour of a life: some of what nobody needs is kept, and goes later.
        audit_retention: std::time::Duration::from_secs(1800),
        ..Config::default().engine()
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn same(call: &Call, due: &str, actual: &str) -> Result<(), String> {
    match due == actual {
        true => Ok(()),
        false => Err(format!("{call}\n  due    {due}\n  actual {actual}")),
    }
}
