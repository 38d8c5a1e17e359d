//! What of the journal a start reads, and what of it is kept: for audit, for pins, and no more than there is room.

use std::sync::Arc;
use std::time::Duration;

use quota_core::Bounds;
use quota_core::command::{Action, Consume};
use quota_core::name::{ResourceKey, SubjectName};
use quota_core::time::Timestamp;
use quota_core::verdict::Mode;
use quota_server::clock::Clock;
use quota_server::engine::Engine;
use quota_store::Journal;
use quota_store::batch::Head;
use quota_store::journal::{JournalError, SegmentJournal, SegmentOptions, verify};
use quota_tests::worlds::{TestStore, command, runtime};
use tokio::runtime::Runtime;

/// Commands of a round.
const ROUND: usize = 10;
/// Time between two rounds.
const APART: Duration = Duration::from_secs(60);
const STORE_ID: [u8; 16] = [7; 16];

/// A store that remembers answers for ten minutes.
fn store() -> TestStore {
    let mut bounds = Bounds::default();
    bounds.memory.horizon = Duration::from_secs(600);
    TestStore::new(bounds)
}

fn consume(id: &str) -> quota_core::command::Command {
    let action = Action::Consume(Consume {
        subject: SubjectName::parse("tenants/t/users/u").unwrap(),
        also: Vec::new(),
        amounts: vec![(ResourceKey::parse("compute.cpu").unwrap(), 1)],
        allocation: None,
        mode: Mode::Strict,
        labels: [("filler".to_owned(), "x".repeat(100))].into(),
        purpose: String::new(),
        ttl: None,
    });
    command(id, action)
}

fn rounds(engine: &Engine, runtime: &Runtime, store: &TestStore, rounds: std::ops::Range<usize>) {
    for round in rounds {
        for number in 0..ROUND {
            let id = format!("r{round}-{number}");
            let reply = runtime.block_on(engine.execute(consume(&id), None));
            assert!(!reply.unwrap().replayed, "{id}");
        }
        store.clock.advance(APART);
    }
}

fn answers(engine: &Engine, runtime: &Runtime) -> usize {
    let read = engine.read(|ledger| ledger.sizes().operations);
    runtime.block_on(read).unwrap()
}

fn open(store: &TestStore, whole: bool) -> Result<SegmentJournal, JournalError> {
    let options = SegmentOptions {
        segment_bytes: 1 << 15,
        store_id: STORE_ID,
        whole,
    };
    SegmentJournal::open(Arc::new(store.journal.copy()), options)
}

/// Has the applier write bases and the writer look after the journal until `is_done`.
fn until(
    engine: &Engine,
    runtime: &Runtime,
    store: &TestStore,
    made: &mut usize,
    is_done: impl Fn() -> bool,
) {
    for _ in 0..600 {
        if is_done() {
            return;
        }
        rounds(engine, runtime, store, *made..*made + 1);
        *made += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not after {made} rounds: {:?}", engine.progress());
}

/// The answers after a start are those before it, though it reads only the end of the journal; a segment that
/// it does not need may be damaged, which `store verify` and every reader find.
#[test]
fn a_start_reads_what_it_needs() {
    let runtime = runtime();
    let mut store = store();
    store.audit_retention = Duration::from_secs(30 * 24 * 3600);
    let engine = store.start();
    rounds(&engine, &runtime, &store, 0..100);
    let before = answers(&engine, &runtime);
    assert!((90..=120).contains(&before), "{before}");
    // Twice: a start that wrote nothing hands on what the last batch needed.
    drop(engine);
    let engine = store.start();
    assert_eq!(answers(&engine, &runtime), before);
    drop(engine);

    let (journal, recovered) = store.recover().unwrap();
    let batches = journal.next_sequence() - journal.first_sequence();
    assert!(batches > 1000 && journal.first_sequence() == 1, "{batches}");
    let read = recovered.report.read;
    assert!((before as u64..250).contains(&read), "{read} of {batches}");
    assert_eq!(recovered.ledger.unwrap().sizes().operations, before);
    drop(journal);

    let name = "0000000003.seg";
    let last = store.journal.names();
    let segments = last.iter().filter(|name| name.ends_with(".seg")).count();
    assert!(segments > 8, "{last:?}");
    store.journal.flip(name, 9000);
    let (journal, recovered) = store.recover().unwrap();
    assert_eq!(recovered.report.answers, before);
    let found = verify(&*journal.reader(), 1, None, u64::MAX);
    let is_there =
        |error: &JournalError| matches!(error, JournalError::Damaged { file, .. } if file == name);
    assert!(is_there(&found.unwrap_err()));
    assert!(is_there(&open(&store, true).err().unwrap()));
    open(&store, false).unwrap();

    // Rows that are lost need all of it.
    let mut bare = store.clone();
    bare.journal = store.journal.copy();
    (bare.rows, bare.bases) = Default::default();
    let refused = bare.recover().err().unwrap().to_string();
    assert!(refused.contains(name), "{refused}");

    store.journal.flip(name, 9000);
    open(&store, true).unwrap();
    let engine = store.start();
    for (round, known) in [(99, true), (95, true), (10, false)] {
        let retried = runtime.block_on(engine.execute(consume(&format!("r{round}-3")), None));
        assert_eq!(retried.unwrap().replayed, known, "round {round}");
    }
}

/// The segment before the last, which has answers that are needed, is checked by the start.
#[test]
fn damage_in_what_is_needed_refuses() {
    let runtime = runtime();
    let store = store();
    let engine = store.start();
    rounds(&engine, &runtime, &store, 0..20);
    drop(engine);
    let (journal, recovered) = store.recover().unwrap();
    let needed = recovered.marks[0].1;
    let place = journal.reader().seek(&mut |at, _| Ok(at <= needed));
    assert!(place.unwrap().sequence() < journal.next_sequence() - 50);
    drop(journal);
    let mut names = store.journal.names();
    names.retain(|name| name.ends_with(".seg"));
    let name = &names[names.len() - 3];
    let used = store
        .journal
        .bytes(name)
        .iter()
        .rposition(|byte| *byte != 0);
    // In a batch, not in the padding behind it.
    store.journal.flip(name, used.unwrap() - 100);
    let refused = store.recover().err().unwrap().to_string();
    assert!(refused.contains(name.as_str()), "{refused}");
}

/// When the oldest batch that is there was decided.
fn oldest(engine: &Engine) -> Timestamp {
    let journal = engine.journal();
    let mut cursor = journal.cursor(journal.first_sequence()).unwrap();
    let batch = cursor.next().unwrap().unwrap();
    Head::read(&batch.body).unwrap().now
}

/// What is younger than the retention is kept; what is older goes, with the segment that it is in.
#[test]
fn batches_are_kept_for_audit() {
    let runtime = runtime();
    let mut store = store();
    store.audit_retention = Duration::from_secs(3600);
    let engine = store.start();
    let mut made = 0;
    until(&engine, &runtime, &store, &mut made, || {
        engine.journal().first_sequence() > 300
    });
    let old = store.clock.now().minus(store.audit_retention);
    assert!(oldest(&engine) <= old);
    // No more than a segment is kept beyond it, and what was not looked at since.
    let most = store.audit_retention + Duration::from_secs(2400);
    until(&engine, &runtime, &store, &mut made, || {
        oldest(&engine) >= store.clock.now().minus(most)
    });
    assert!(oldest(&engine) <= store.clock.now().minus(store.audit_retention));
    assert_eq!(engine.metrics().journal_dropped.get(), 0);
}

/// A pin keeps what is from it on, and lets it go when it moves or is dropped.
#[test]
fn a_pin_keeps_the_journal() {
    let runtime = runtime();
    let store = store();
    let behind = store.pins.pin("history", 1);
    let far = store.pins.pin("history", u64::MAX);
    let engine = store.start();
    let mut made = 0;
    until(&engine, &runtime, &store, &mut made, || {
        engine.progress().bases.len() == 2
    });
    rounds(&engine, &runtime, &store, made..made + 60);
    made += 60;
    assert_eq!(engine.journal().first_sequence(), 1);
    behind.move_to(500);
    until(&engine, &runtime, &store, &mut made, || {
        engine.journal().first_sequence() > 1
    });
    rounds(&engine, &runtime, &store, made..made + 40);
    made += 40;
    assert!(engine.journal().first_sequence() <= 500);
    assert_eq!(engine.pins().list().len(), 2);
    drop(behind);
    until(&engine, &runtime, &store, &mut made, || {
        engine.journal().first_sequence() > 500
    });
    assert_eq!(engine.pins().lowest(), Some(u64::MAX));
    drop(far);
    assert_eq!(engine.pins().lowest(), None);
}

/// At its bound the journal first drops what is only kept for audit and for pins; answers stay.
#[test]
fn the_bound_goes_before_audit_and_pins() {
    let runtime = runtime();
    let mut store = store();
    store.audit_retention = Duration::from_secs(30 * 24 * 3600);
    store.journal_bytes_max = 600_000;
    let _pin = store.pins.pin("history", 1);
    let engine = store.start();
    let mut made = 0;
    until(&engine, &runtime, &store, &mut made, || {
        engine.metrics().journal_dropped.get() > 300
    });
    assert!(engine.journal().first_sequence() > 300);
    let remembered = answers(&engine, &runtime);
    assert!((90..=120).contains(&remembered), "{remembered}");
    let name = |back: usize| format!("r{}-3", made - back);
    let retried = runtime.block_on(engine.execute(consume(&name(5)), None));
    assert!(retried.unwrap().replayed);
    let size = || {
        let names = store.journal.names();
        let segments = names.iter().filter(|name| name.ends_with(".seg"));
        segments
            .map(|name| store.journal.bytes(name).len())
            .sum::<usize>()
    };
    assert!(size() <= 600_000 + (3 << 15), "{}", size());
    drop(engine);
    let (_, recovered) = store.recover().unwrap();
    assert_eq!(recovered.report.answers, remembered);
}
