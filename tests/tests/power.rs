//! C11.1, C11.2, C11.3 on the test disk: the power goes at any call, any subset of unsynced blocks is lost,
//! flushes fail, rows are lost. What was acknowledged is there; nothing else is but operations that had no
//! answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use quota_core::Bounds;
use quota_core::command::{Action, Command, Consume, Release, Resize};
use quota_core::invariants;
use quota_core::name::{Id, ResourceKey, SubjectName};
use quota_core::verdict::Mode;
use quota_server::engine::{Engine, Fault};
use quota_store::Rows;
use quota_store::disk::Disk;
use quota_tests::worlds::{TestStore, command, runtime};
use tokio::runtime::Runtime;

const LOSSES: u64 = 2000;
const ALLOCATIONS: usize = 24;
const CPU: &str = "compute.cpu";

/// What an allocation may hold after the power came back: what was acknowledged last, and what was asked
/// since without an answer.
#[derive(Clone, Debug)]
struct Possible(Vec<i64>);

struct Model {
    allocations: BTreeMap<String, Possible>,
    operations: u64,
}

fn numbered(operation: u64, action: Action) -> Command {
    command(&format!("op-{operation}"), action)
}

fn subject(at: usize) -> SubjectName {
    SubjectName::parse(&format!("tenants/t{}/users/u{}", at % 2, at % 5)).unwrap()
}

/// A random command on a random allocation, and what that holds if it is granted.
fn random_action(random: &mut Rng) -> (String, Action, i64) {
    let at = random.usize(..ALLOCATIONS);
    let (subject, id) = (subject(at), Id::parse(&format!("a{at}")).unwrap());
    let name = format!("{subject}/{id}");
    let cpu = ResourceKey::parse(CPU).unwrap();
    let amount = random.i64(1..1000);
    match random.u8(..3) {
        0 => {
            let action = Action::Consume(Consume {
                subject,
                also: Vec::new(),
                amounts: vec![(cpu, amount)],
                allocation: Some(id),
                mode: Mode::Strict,
                labels: [("filler".to_owned(), "x".repeat(random.usize(..120)))].into(),
                purpose: String::new(),
                ttl: None,
            });
            (name, action, amount)
        }
        1 => {
            let action = Action::Release(Release {
                subject,
                also: Vec::new(),
                allocation: Some(id),
                amounts: Vec::new(),
                expected_generation: None,
            });
            (name, action, 0)
        }
        _ => {
            let action = Action::Resize(Resize {
                subject,
                allocation: id,
                amounts: vec![(cpu, amount)],
                mode: Mode::Strict,
                expected_generation: None,
            });
            (name, action, amount)
        }
    }
}

impl Model {
    fn new() -> Self {
        Self {
            allocations: BTreeMap::new(),
            operations: 0,
        }
    }

    fn step(&mut self, engine: &Engine, runtime: &Runtime, random: &mut Rng) {
        let (name, action, amount) = random_action(random);
        self.operations += 1;
        let command = numbered(self.operations, action);
        let possible = self.allocations.entry(name).or_insert(Possible(vec![0]));
        match runtime.block_on(engine.execute(command, None)) {
            Ok(reply) if reply.outcome.is_refusal() => {}
            Ok(_) => possible.0 = vec![amount],
            Err(Fault::JournalDown { unknown: true } | Fault::Deadline { unknown: true }) => {
                possible.0.push(amount);
            }
            Err(_) => {}
        }
    }

    /// Compares with what was recovered, which from now on is what is.
    fn compare(&mut self, store: &TestStore, seed: u64) {
        let (_, recovered) = store
            .recover()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let Some(ledger) = recovered.ledger else {
            let nothing = |possible: &Possible| possible.0.contains(&0);
            assert!(
                self.allocations.values().all(nothing),
                "seed {seed}: all is lost"
            );
            return;
        };
        let broken = invariants::check_state(&ledger);
        assert!(broken.is_empty(), "seed {seed}: {broken:?}");
        let cpu = ResourceKey::parse(CPU).unwrap();
        let mut total = 0;
        for (name, possible) in &mut self.allocations {
            let (subject, id) = name.rsplit_once('/').unwrap();
            let key = format!("{subject}/allocations/{id}");
            let held = ledger.allocation(&key).map_or(0, |row| row.amount(&cpu));
            assert!(
                possible.0.contains(&held),
                "seed {seed}: {name} holds {held}, which is none of {possible:?}"
            );
            possible.0 = vec![held];
            total += held;
        }
        let system = ledger.subject("system").unwrap();
        assert_eq!(
            system.account(&cpu).map_or(0, |account| account.used),
            total,
            "seed {seed}"
        );
    }
}

#[test]
fn two_thousand_losses_of_unsynced_blocks() {
    let runtime = runtime();
    let mut random = Rng::with_seed(11);
    let mut losses = 0;
    let mut with_unknown = 0;
    let mut rebuilt = 0;
    while losses < LOSSES {
        let store = TestStore::new(Bounds::default());
        let mut model = Model::new();
        // Several lives of one store, so that what one recovery wrote is what the next one reads.
        for _ in 0..random.u64(1..12) {
            let engine = store.start();
            for _ in 0..random.usize(..30) {
                model.step(&engine, &runtime, &mut random);
            }
            if random.u8(..4) == 0 {
                store.journal.fail_syncs(random.u64(1..3));
            }
            store.journal.lose_power_after(random.u64(..12));
            for _ in 0..8 {
                model.step(&engine, &runtime, &mut random);
            }
            if model
                .allocations
                .values()
                .any(|possible| possible.0.len() > 1)
            {
                with_unknown += 1;
            }
            store.crash(&mut random);
            drop(engine);
            if random.u8(..8) == 0 {
                store.rows.clear().unwrap();
                rebuilt += 1;
            }
            losses += 1;
            model.compare(&store, losses);
            if random.u8(..3) == 0 {
                // The power goes again while recovery writes.
                store.journal.lose_power_after(random.u64(..12));
                let _ = store.recover();
                store.crash(&mut random);
                model.compare(&store, losses);
            }
        }
    }
    assert!(
        with_unknown > LOSSES / 4,
        "only {with_unknown} losses hit a call"
    );
    assert!(rebuilt > LOSSES / 16, "rows were lost only {rebuilt} times");
}

/// C11.3: after a failed flush nothing is acknowledged before the same batch is durable elsewhere; the
/// failed operation is there in the end, and its retry gets the first answer.
#[test]
fn a_failed_flush_is_written_again_before_anything_later() {
    let runtime = runtime();
    let store = TestStore::new(Bounds::default());
    let engine = store.start();
    let consume = |number: u64| {
        let action = Action::Consume(Consume {
            subject: subject(0),
            also: Vec::new(),
            amounts: vec![(ResourceKey::parse(CPU).unwrap(), 1)],
            allocation: Some(Id::parse(&format!("a{number}")).unwrap()),
            mode: Mode::Strict,
            labels: Default::default(),
            purpose: String::new(),
            ttl: None,
        });
        numbered(number, action)
    };
    runtime.block_on(engine.execute(consume(1), None)).unwrap();
    store.journal.fail_syncs(1);
    let failed = runtime.block_on(engine.execute(consume(2), None));
    assert_eq!(failed, Err(Fault::JournalDown { unknown: true }));
    assert!(engine.is_journal_down());
    // Refused at once, and certainly not applied.
    let refused = runtime.block_on(engine.execute(consume(3), None));
    assert_eq!(refused, Err(Fault::JournalDown { unknown: false }));
    // What is published is what is durable.
    let name = subject(0);
    let cpu = ResourceKey::parse(CPU).unwrap();
    let published = || {
        engine
            .views()
            .subject(name.as_str())
            .unwrap()
            .account(&cpu)
            .map_or(0, |account| account.used)
    };
    assert_eq!(published(), 1);

    store.clock.advance(std::time::Duration::from_secs(1));
    while engine.is_journal_down() {
        std::thread::yield_now();
    }
    assert_eq!(published(), 2);
    let retried = runtime.block_on(engine.execute(consume(2), None)).unwrap();
    assert!(retried.replayed);
    runtime.block_on(engine.execute(consume(3), None)).unwrap();
    drop(engine);
    let (_, recovered) = store.recover().unwrap();
    let used = |name: &str| {
        recovered
            .ledger
            .as_ref()
            .unwrap()
            .subject(name)
            .unwrap()
            .account(&cpu)
            .map_or(0, |account| account.used)
    };
    assert_eq!(used("system"), 3);
}

/// A full disk refuses writes, checks go on, and writes go on when there is room again.
#[test]
fn a_full_disk() {
    let runtime = runtime();
    let store = TestStore::new(Bounds::default());
    let engine = store.start();
    let mut random = Rng::with_seed(3);
    let mut model = Model::new();
    store.journal.fill(true);
    while !engine.is_journal_down() {
        model.step(&engine, &runtime, &mut random);
    }
    assert!(engine.views().subject("system").is_some());
    store.journal.fill(false);
    store.clock.advance(std::time::Duration::from_secs(1));
    while engine.is_journal_down() {
        std::thread::yield_now();
    }
    for _ in 0..50 {
        model.step(&engine, &runtime, &mut random);
    }
    drop(engine);
    model.compare(&store, 0);
}

/// C11.3: a flush that hangs is noticed from outside the writer; what hangs is answered when it is durable.
#[test]
fn a_stalled_flush() {
    let runtime = runtime();
    let store = TestStore::new(Bounds::default());
    let engine = Arc::new(store.start());
    let consume = |number: u64| {
        let action = Action::Consume(Consume {
            subject: subject(0),
            also: Vec::new(),
            amounts: vec![(ResourceKey::parse(CPU).unwrap(), 1)],
            allocation: None,
            mode: Mode::Strict,
            labels: Default::default(),
            purpose: String::new(),
            ttl: None,
        });
        numbered(number, action)
    };
    let stall = store.journal.stall();
    let hanging = {
        let (engine, command) = (engine.clone(), consume(1));
        runtime.spawn(async move { engine.execute(command, None).await })
    };
    while !engine.is_journal_down() {
        // Whenever the flush begins, this is more than it may take.
        store.clock.advance(std::time::Duration::from_secs(60));
        std::thread::yield_now();
    }
    assert!(!engine.is_writable());
    let refused = runtime.block_on(engine.execute(consume(2), None));
    assert_eq!(refused, Err(Fault::JournalDown { unknown: false }));
    assert!(engine.views().subject("system").is_some());
    assert!(!hanging.is_finished());
    drop(stall);
    runtime.block_on(hanging).unwrap().unwrap();
    while engine.is_journal_down() {
        std::thread::yield_now();
    }
    runtime.block_on(engine.execute(consume(2), None)).unwrap();
}

/// Segments that went by accident are noticed, at either end and altogether, also when the rows went too.
#[test]
fn missing_segments_refuse_to_start() {
    let runtime = runtime();
    let store = TestStore::new(Bounds::default());
    let engine = store.start();
    let mut random = Rng::with_seed(8);
    let mut model = Model::new();
    for _ in 0..200 {
        model.step(&engine, &runtime, &mut random);
    }
    drop(engine);
    let mut names = store.journal.list().unwrap();
    names.retain(|name| name.ends_with(".seg"));
    assert!(names.len() > 2, "{names:?}");
    let rows = store.rows.clone();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let (first, last) = (all[0], all[all.len() - 1]);
    for gone in [&[first][..], &[last], &[all[1]], &all] {
        for rows_too in [false, true] {
            let mut store = store.clone();
            store.journal = store.journal.copy();
            if rows_too {
                store.rows = Arc::default();
                store.bases = Default::default();
            }
            for name in gone {
                store.journal.remove(name).unwrap();
            }
            let refused = store.recover().err().map(|error| error.to_string());
            assert!(refused.is_some(), "without {gone:?}, rows gone: {rows_too}");
        }
    }
    assert!(rows.applied() > 0);
    model.compare(&store, 0);
}

/// Damage before the tail refuses to start and says where; it is never a wrong number.
#[test]
fn flipped_bits_refuse_to_start() {
    let runtime = runtime();
    let store = TestStore::new(Bounds::default());
    let engine = store.start();
    let mut random = Rng::with_seed(5);
    let mut model = Model::new();
    for _ in 0..40 {
        model.step(&engine, &runtime, &mut random);
    }
    // A clean stop seals the journal: damage to its last batch cannot pass for a torn write.
    drop(engine);
    let name = "0000000001.seg";
    let bytes = store.journal.bytes(name);
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let last_frame = bytes[..=used]
        .windows(4)
        .rposition(|w| w == b"QFRM")
        .unwrap();
    for _ in 0..200 {
        let offset = random.usize(..last_frame);
        // The header's unused bytes and the padding between frames say nothing.
        store.journal.flip(name, offset);
        match store.recover() {
            Ok(_) => model.compare(&store, offset as u64),
            Err(error) => assert!(error.to_string().contains(name), "{error}"),
        }
        store.journal.flip(name, offset);
    }
}
