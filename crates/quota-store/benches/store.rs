//! Time of single operations of the store, on groups of 64 Consumes at four levels, in a real directory.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use quota_core::command::{Action, Command, Consume, Operation, Provenance};
use quota_core::name::{Id, OperationId, ResourceKey, SubjectName};
use quota_core::time::Timestamp;
use quota_core::verdict::Mode;
use quota_core::{Bounds, Ledger};
use quota_store::batch::Contents;
use quota_store::disk::RealDisk;
use quota_store::journal::{SegmentJournal, SegmentOptions};
use quota_store::recovery::recover;
use quota_store::rows::{MemoryRows, RowChange, SledRows};
use quota_store::{Batch, Journal, Rows, Stamp};
use tempfile::TempDir;

/// Commands of a group.
const GROUP: u64 = 64;
/// Groups that are recovered.
const GROUPS: u64 = 100;
const NOW: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);
const STORE: [u8; 16] = [1; 16];

fn consume(number: u64) -> Command {
    let subject = format!(
        "tenants/t{}/projects/p{}/users/u{number}",
        number % 10,
        number % 100
    );
    let key = ResourceKey::parse("compute.cpu").expect("it is a key");
    Command {
        operation: Operation {
            id: OperationId::parse(&format!("o-{number}")).expect("a number is an id"),
            given: true,
            digest: [7; 16],
            age: None,
        },
        provenance: Arc::new(Provenance::default()),
        action: Action::Consume(Consume {
            subject: SubjectName::parse(&subject).expect("it is a name"),
            also: Vec::new(),
            amounts: vec![(key, 1)],
            allocation: Some(Id::parse(&format!("a-{number}")).expect("a number is an id")),
            mode: Mode::Strict,
            labels: Default::default(),
            purpose: String::new(),
            ttl: None,
        }),
        validate_only: false,
    }
}

/// What a group of Consumes leaves in the journal.
fn group(ledger: &mut Ledger, first: u64) -> Batch {
    let mut events = Vec::new();
    for number in first..first + GROUP {
        let decided = ledger.decide(NOW, &consume(number));
        for event in &decided.events {
            ledger.absorb(event);
        }
        events.extend(decided.events);
    }
    Batch::new(Vec::new(), stamp(), 1, 1, &events, &ledger.take_images())
}

fn stamp() -> Stamp {
    Stamp {
        now: NOW,
        boot_id: [2; 16],
        boot_ns: 1,
        suspect: false,
        waiting: false,
    }
}

fn journal(directory: &Path) -> SegmentJournal {
    let disk = RealDisk::new(directory).expect("the directory is there");
    let options = SegmentOptions {
        segment_bytes: 64 << 20,
        store_id: STORE,
        whole: false,
    };
    SegmentJournal::open(Arc::new(disk), options).expect("a journal of our own opens")
}

/// In the build directory: the temporary one is often memory.
fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("there is room")
}

fn operations(criterion: &mut Criterion) {
    let mut store = criterion.benchmark_group("store");
    store.throughput(Throughput::Elements(GROUP));
    store.measurement_time(Duration::from_secs(3));
    let mut ledger = Ledger::new(Bounds::default(), NOW);
    let first = group(&mut ledger, 0);
    let mut events = Vec::new();
    for number in GROUP..2 * GROUP {
        let decided = ledger.decide(NOW, &consume(number));
        for event in &decided.events {
            ledger.absorb(event);
        }
        events.extend(decided.events);
    }
    let images = ledger.take_images();
    store.bench_function("write a frame's body", |bencher| {
        bencher.iter(|| Batch::new(Vec::new(), stamp(), 1, 1, black_box(&events), &images));
    });
    store.bench_function("read a frame's body", |bencher| {
        bencher.iter(|| Contents::read(black_box(first.body())));
    });
    let kept = directory();
    let mut segments = journal(kept.path());
    store.bench_function("append a group, durably", |bencher| {
        bencher.iter(|| {
            let sequence = segments.next_sequence();
            let appended = segments.append(sequence, first.body());
            appended.expect("the disk takes it");
        });
    });
    let kept = directory();
    let rows = SledRows::open(kept.path()).expect("rows of our own open");
    let changes: Vec<RowChange> = first.clone().into_rows().into_iter().map(change).collect();
    let mut sequence = 0;
    store.bench_function("apply a group to the rows", |bencher| {
        bencher.iter(|| {
            sequence += 1;
            rows.put(&changes, sequence).expect("the rows take it");
        });
    });
    store.finish();
}

fn change(image: quota_store::batch::RowImage) -> RowChange {
    RowChange {
        key: image.key,
        value: image.value,
        sequence: 1,
    }
}

fn start(criterion: &mut Criterion) {
    let mut starts = criterion.benchmark_group("start");
    starts.throughput(Throughput::Elements(GROUP * GROUPS));
    starts.sample_size(10);
    let kept = directory();
    let mut segments = journal(kept.path());
    let mut ledger = Ledger::new(Bounds::default(), NOW);
    for at in 0..GROUPS {
        let batch = group(&mut ledger, at * GROUP);
        let appended = segments.append(segments.next_sequence(), batch.body());
        appended.expect("the disk takes it");
    }
    let bases = directory();
    let bases = RealDisk::new(bases.path()).expect("the directory is there");
    starts.bench_function("recover 100 groups", |bencher| {
        bencher.iter_batched(
            MemoryRows::default,
            |rows| {
                let recovered = recover(&segments, &rows, &bases, STORE, Bounds::default());
                recovered.expect("what was written recovers")
            },
            BatchSize::PerIteration,
        );
    });
    starts.finish();
}

criterion_group!(benches, operations, start);
criterion_main!(benches);
