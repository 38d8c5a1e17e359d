//! The second boundary: scripts on engine and store.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use quota_core::Bounds;
use quota_core::command::{Action, Command, Operation};
use quota_core::name::OperationId;
use quota_core::time::Timestamp;
use quota_server::clock::{Clock, ManualClock};
use quota_server::config::Config;
use quota_server::engine::{Engine, EngineOptions, Fault, Parts};
use quota_server::history::History;
use quota_store::Rows;
use quota_store::applier::{Applier, ApplierOptions};
use quota_store::journal::{Pins, SegmentJournal, SegmentOptions};
use quota_store::recovery::{Recovered, RecoveryError, recover};
use quota_testkit::bare::{self, BEGINNING};
use quota_testkit::disk::TestDisk;
use quota_testkit::rows::TestRows;
use quota_testkit::script::{Call, Script, World};
use tokio::runtime::Runtime;

/// A store on a test disk that outlives its engines.
#[derive(Clone)]
pub struct TestStore {
    /// Where the journal is.
    pub journal: TestDisk,
    /// Where the bases are.
    pub bases: TestDisk,
    /// The rows.
    pub rows: Arc<TestRows>,
    /// The time.
    pub clock: ManualClock,
    /// The ledger's bounds.
    pub bounds: Bounds,
    /// Bytes of journal beyond which the oldest goes.
    pub journal_bytes_max: u64,
    /// How long batches are kept for audit.
    pub audit_retention: Duration,
    /// Who still has to read what of the journal.
    pub pins: Pins,
    /// Bytes of journal between two bases; without any base the journal keeps everything.
    pub base_bytes: u64,
}

pub(crate) const STORE_ID: [u8; 16] = [7; 16];

impl TestStore {
    /// An empty store.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            journal: TestDisk::default(),
            bases: TestDisk::default(),
            rows: Arc::default(),
            clock: ManualClock::at(BEGINNING),
            bounds,
            journal_bytes_max: u64::MAX,
            audit_retention: Duration::ZERO,
            pins: Pins::default(),
            base_bytes: 1 << 14,
        }
    }

    /// Recovers what is there.
    pub fn recover(&self) -> Result<(SegmentJournal, Recovered), RecoveryError> {
        let options = SegmentOptions {
            segment_bytes: 1 << 15,
            store_id: STORE_ID,
            whole: false,
        };
        let journal = SegmentJournal::open(Arc::new(self.journal.clone()), options)?;
        let recovered = recover(&journal, &*self.rows, &self.bases, STORE_ID, self.bounds)?;
        Ok((journal, recovered))
    }

    /// Starts an engine on what is there.
    pub fn start(&self) -> Engine {
        self.start_by(Arc::new(self.clock.clone()))
    }

    /// The same by another clock.
    pub fn start_by(&self, clock: Arc<dyn Clock>) -> Engine {
        let (journal, recovered) = self.recover().unwrap_or_else(|error| panic!("{error}"));
        let rows: Arc<dyn Rows> = self.rows.clone();
        let options = ApplierOptions {
            interval: Duration::from_millis(1),
            base_bytes: self.base_bytes,
            store_id: STORE_ID,
            ..ApplierOptions::default()
        };
        let applier = Applier::start(rows, Arc::new(self.bases.clone()), options, 0).unwrap();
        let (now, journal) = (clock.now(), Box::new(journal));
        let parts = Parts {
            pins: self.pins.clone(),
            ..Parts::new(recovered, self.bounds, now, journal, applier)
        };
        let options = EngineOptions {
            bounds: self.bounds,
            journal_bytes_max: self.journal_bytes_max,
            audit_retention: self.audit_retention,
            ..Config::default().engine()
        };
        Engine::start(parts, options, clock).unwrap()
    }

    /// Whether something may fail.
    pub fn is_broken(&self) -> bool {
        self.journal.is_broken() || self.bases.is_broken() || self.rows.is_broken()
    }

    /// The power goes and comes back.
    pub fn crash(&self, random: &mut Rng) {
        self.journal.crash(random);
        self.bases.crash(random);
    }
}

/// Scripts on engine and store; the power can go between any two lines.
pub struct EngineWorld {
    /// The store.
    pub store: TestStore,
    engine: Option<Engine>,
    runtime: Runtime,
    random: Rng,
    made: u64,
}

impl EngineWorld {
    /// A new store for a script.
    pub fn new(script: &Script) -> Self {
        let store = TestStore::new(script.bounds);
        Self {
            engine: Some(store.start()),
            store,
            runtime: runtime(),
            random: Rng::with_seed(script.lines.len() as u64),
            made: 0,
        }
    }

    /// The power goes and comes back.
    pub fn restart(&mut self) {
        self.store.crash(&mut self.random);
        drop(self.engine.take());
        // The old engine's last words went to handles of before the crash.
        self.engine = Some(self.store.start());
    }
}

/// A command of a caller, with an operation id.
pub fn command(id: &str, action: Action) -> Command {
    Command {
        operation: Operation {
            id: OperationId::parse(id).unwrap(),
            given: true,
            digest: [0; 16],
            age: None,
        },
        provenance: Arc::default(),
        action,
        validate_only: false,
    }
}

/// The history of an engine, in rows of its own.
pub fn history_of(engine: &Arc<Engine>, rows: Arc<dyn Rows>) -> Arc<History> {
    let keep = Config::default().history();
    let rows = move || Ok(rows.clone());
    Arc::new(History::start(engine.clone(), rows, keep).unwrap())
}

/// A runtime for a test that asks an engine.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

impl World for EngineWorld {
    fn call(&mut self, call: &Call) -> String {
        let engine = self.engine.as_ref().unwrap();
        let now = self.store.clock.now();
        if call.is_read() {
            let call = call.clone();
            let read = engine.read(move |ledger| bare::read(ledger, &call, now));
            return self.runtime.block_on(read).unwrap();
        }
        if call.verb == "check" {
            // A check reads what is published; its evaluation is that of the ledger.
            let call = call.clone();
            let read = engine.read(move |ledger| bare::check(ledger, &call, now));
            return self.runtime.block_on(read).unwrap();
        }
        self.made += 1;
        let Ok(command) = bare::command(call, self.made, now) else {
            return "error INVALID_FIELDS".into();
        };
        match self.runtime.block_on(engine.execute(command, None)) {
            Ok(reply) => bare::reply(call, Ok(reply)),
            Err(Fault::Rejected(rejection)) => bare::reply(call, Err(rejection)),
            Err(other) => format!("fault {other}"),
        }
    }

    fn advance(&mut self, by: Duration) {
        self.store.clock.advance(by);
    }

    fn now(&self) -> Timestamp {
        self.store.clock.now()
    }
}
