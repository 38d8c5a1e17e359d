//! Time of single operations of the ledger, at four levels and at eight, with a quota on each level.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use quota_core::amount::Limit;
use quota_core::charge::charge_set;
use quota_core::command::{
    Action, Command, Consume, Existence, Operation, Provenance, Release, SetQuota,
};
use quota_core::name::{Id, OperationId, ResourceKey, SubjectName};
use quota_core::quota::{Enforcement, Origin, State, Target};
use quota_core::time::Timestamp;
use quota_core::verdict::Mode;
use quota_core::{Bounds, Ledger};

const LEVELS: [&str; 8] = [
    "system",
    "tenants/*",
    "tenants/*/projects/*",
    "tenants/*/projects/*/users/*",
    "tenants/*/projects/*/users/*/apps/*",
    "tenants/*/projects/*/users/*/apps/*/jobs/*",
    "tenants/*/projects/*/users/*/apps/*/jobs/*/tasks/*",
    "tenants/*/projects/*/users/*/apps/*/jobs/*/tasks/*/steps/*",
];
const LIMIT: i64 = 1 << 50;
const NOW: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);

fn command(number: u64, action: Action) -> Command {
    let id = OperationId::parse(&format!("o-{number}"));
    Command {
        operation: Operation {
            id: id.expect("a number is an id"),
            given: true,
            digest: [7; 16],
            age: None,
        },
        provenance: Arc::new(Provenance::default()),
        action,
        validate_only: false,
    }
}

fn resource() -> ResourceKey {
    ResourceKey::parse("compute.cpu").expect("it is a key")
}

fn quota(place: &str) -> Action {
    Action::SetQuotas(vec![SetQuota {
        target: Target::parse(place).expect("it is a place"),
        resource: resource(),
        id: Id::parse("compute.cpu").expect("it is an id"),
        limit: Limit::Value(LIMIT),
        period: None,
        rate: None,
        enforcement: Enforcement::Deny,
        state: State::Active,
        valid_from: None,
        valid_until: None,
        max_request: None,
        near_percent: None,
        display_name: String::new(),
        labels: Default::default(),
        origin: Origin::Default,
        existence: Existence::Any,
        etag: String::new(),
        force: true,
    }])
}

fn consume(subject: &SubjectName, allocation: u64, amount: i64) -> Action {
    Action::Consume(Consume {
        subject: subject.clone(),
        also: Vec::new(),
        amounts: vec![(resource(), amount)],
        allocation: Some(allocation_id(allocation)),
        mode: Mode::Strict,
        labels: Default::default(),
        purpose: String::new(),
        ttl: None,
    })
}

fn release(subject: &SubjectName, allocation: u64) -> Action {
    Action::Release(Release {
        subject: subject.clone(),
        also: Vec::new(),
        allocation: Some(allocation_id(allocation)),
        amounts: Vec::new(),
        expected_generation: None,
    })
}

fn allocation_id(number: u64) -> Id {
    Id::parse(&format!("a-{number}")).expect("a number is an id")
}

/// Decides and lets it have happened, as the writer does.
fn run(ledger: &mut Ledger, command: &Command) {
    let decided = ledger.decide(NOW, command);
    for event in &decided.events {
        ledger.absorb(event);
    }
    assert!(decided.reply.is_ok(), "{:?}", decided.reply);
}

/// A ledger with so many levels, and a subject at the lowest that has the allocation 0.
fn world(levels: usize) -> (Ledger, SubjectName) {
    let mut ledger = Ledger::new(Bounds::default(), NOW);
    let lowest = LEVELS[levels - 1].replace('*', "x");
    let subject = SubjectName::parse(&lowest).expect("it is a name");
    for (number, place) in (0..).zip(&LEVELS[..levels]) {
        run(&mut ledger, &command(number, quota(place)));
    }
    run(&mut ledger, &command(100, consume(&subject, 0, 1)));
    ledger.take_images();
    (ledger, subject)
}

fn operations(criterion: &mut Criterion) {
    for levels in [4, 8] {
        let (mut ledger, subject) = world(levels);
        let mut group = criterion.benchmark_group("ledger");
        group.measurement_time(Duration::from_secs(2));
        let granted = command(1000, consume(&subject, 1, 1));
        group.bench_function(BenchmarkId::new("decide a consume", levels), |bencher| {
            bencher.iter(|| ledger.decide(NOW, black_box(&granted)));
        });
        let refused = command(1000, consume(&subject, 1, LIMIT));
        group.bench_function(BenchmarkId::new("decide a refusal", levels), |bencher| {
            bencher.iter(|| ledger.decide(NOW, black_box(&refused)));
        });
        let given_back = command(1000, release(&subject, 0));
        group.bench_function(BenchmarkId::new("decide a release", levels), |bencher| {
            bencher.iter(|| ledger.decide(NOW, black_box(&given_back)));
        });
        let amounts = [(resource(), 1)];
        group.bench_function(BenchmarkId::new("evaluate a check", levels), |bencher| {
            bencher.iter(|| {
                let names = charge_set(&subject, &[]);
                let scene = ledger.scene(subject.as_str(), &names, NOW);
                scene.evaluate(black_box(&amounts), Mode::Strict)
            });
        });
        let mut number = 2000;
        let mut pair = || {
            number += 2;
            [
                command(number, consume(&subject, number, 1)),
                command(number + 1, release(&subject, number)),
            ]
        };
        let id = BenchmarkId::new("consume and release, absorbed, with images", levels);
        group.bench_function(id, |bencher| {
            bencher.iter_batched(
                &mut pair,
                |commands| {
                    for command in &commands {
                        run(&mut ledger, command);
                    }
                    ledger.take_images()
                },
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
