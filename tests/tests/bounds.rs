//! What is bounded stays bounded, and what is forgotten because of a bound is not charged twice.

use std::sync::Arc;
use std::time::Duration;

use quota_core::Bounds;
use quota_core::amount::Limit;
use quota_core::command::{Action, Command, Consume, Existence, Operation, Provenance, SetQuota};
use quota_core::name::{Id, OperationId, ResourceKey, SubjectName};
use quota_core::quota::{Enforcement, Origin, State, Target};
use quota_core::rejection::Rejection;
use quota_core::verdict::Mode;
use quota_server::engine::{Engine, Fault};
use quota_tests::worlds::{TestStore, runtime};

fn command(id: &str, age: Option<Duration>, action: Action) -> Command {
    Command {
        operation: Operation {
            id: OperationId::parse(id).unwrap(),
            given: true,
            digest: [1; 16],
            age,
        },
        provenance: Arc::new(Provenance::default()),
        action,
        validate_only: false,
    }
}

fn consume(subject: &str, amount: i64) -> Action {
    Action::Consume(Consume {
        subject: SubjectName::parse(subject).unwrap(),
        also: Vec::new(),
        amounts: vec![(ResourceKey::parse("compute.cpu").unwrap(), amount)],
        allocation: None,
        mode: Mode::Strict,
        labels: Default::default(),
        purpose: String::new(),
        ttl: None,
    })
}

/// C6.6: a journal at its bound forgets its oldest answers. They leave their floor, durably, before their
/// segments go: after any crash an old retry is refused and not charged a second time.
#[test]
fn a_journal_at_its_bound_forgets_before_it_drops() {
    let runtime = runtime();
    let mut store = TestStore::new(Bounds::default());
    store.journal_bytes_max = 200_000;
    let mut random = fastrand::Rng::with_seed(1);
    let start = |store: &TestStore| store.start();
    let mut engine: Engine = start(&store);
    let mut forgotten_after_crash = 0;
    for round in 0..60 {
        for number in 0..20 {
            let id = format!("r{round}-{number}");
            let subject = format!("tenants/t/users/u{number}");
            let done = engine.execute(command(&id, None, consume(&subject, 1)), None);
            runtime.block_on(done).unwrap();
        }
        store.clock.advance(Duration::from_secs(40));
        if round % 10 == 9 {
            // Time to write bases and to trim.
            std::thread::sleep(Duration::from_millis(700));
            let poke = command(&format!("poke-{round}"), None, consume("tenants/t", 1));
            runtime.block_on(engine.execute(poke, None)).unwrap();
            std::thread::sleep(Duration::from_millis(700));
            store.crash(&mut random);
            drop(engine);
            engine = start(&store);
            let used = |engine: &Engine| {
                let key = ResourceKey::parse("compute.cpu").unwrap();
                engine
                    .views()
                    .subject("system")
                    .unwrap()
                    .account(&key)
                    .map_or(0, |a| a.used)
            };
            let before = used(&engine);
            for old in 0..=round {
                let id = format!("r{old}-0");
                let age = Some(Duration::from_secs(40 * (round - old + 1) + 1));
                let retry = command(&id, age, consume("tenants/t/users/u0", 1));
                match runtime.block_on(engine.execute(retry, None)) {
                    Ok(reply) => assert!(reply.replayed, "{id} was charged twice"),
                    Err(Fault::Rejected(Rejection::OutcomeForgotten { .. })) => {
                        forgotten_after_crash += 1;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            assert_eq!(used(&engine), before);
        }
    }
    assert!(forgotten_after_crash > 20, "the bound was never met");
}

/// A refusal lists all limits that refuse; many such refusals at once stay far below the largest batch.
#[test]
fn many_large_refusals_do_not_stop_the_writer() {
    let runtime = runtime();
    let store = TestStore::new(Bounds::default());
    let engine = Arc::new(store.start());
    let cpu = ResourceKey::parse("compute.cpu").unwrap();
    let deep = "tenants/t/a/1/b/2/c/3/d/4/e/5/f/6";
    let mut lineage: Vec<String> = Vec::new();
    let parts: Vec<&str> = deep.split('/').collect();
    for end in (2..=parts.len()).step_by(2) {
        lineage.push(parts[..end].join("/"));
    }
    let set = |subject: &str, id: usize| {
        Action::SetQuotas(vec![SetQuota {
            target: Target::parse(subject).unwrap(),
            resource: cpu.clone(),
            id: Id::parse(&format!("q{id}")).unwrap(),
            limit: Limit::Value(1),
            period: None,
            rate: None,
            enforcement: Enforcement::Deny,
            state: State::Active,
            valid_from: None,
            valid_until: None,
            near_percent: None,
            max_request: Some(1),
            display_name: String::new(),
            labels: Default::default(),
            origin: Origin::Override,
            existence: Existence::New,
            etag: String::new(),
            force: false,
        }])
    };
    for subject in &lineage {
        for id in 0..16 {
            let done = engine.execute(
                command(
                    &format!("{subject}{id}")[8..].replace('/', "-"),
                    None,
                    set(subject, id),
                ),
                None,
            );
            runtime.block_on(done).unwrap();
        }
        // One more than may stand on a pair.
        let more = engine.execute(command("more", None, set(subject, 16)), None);
        let refused = runtime.block_on(more);
        assert!(
            matches!(refused, Err(Fault::Rejected(Rejection::Capacity { .. }))),
            "{refused:?}"
        );
    }
    let calls: Vec<_> = (0..2000)
        .map(|number| {
            let engine = engine.clone();
            runtime.spawn(async move {
                let refused = command(&format!("x{number}"), None, consume(deep, 2));
                engine.execute(refused, None).await
            })
        })
        .collect();
    for call in calls {
        let reply = runtime.block_on(call).unwrap().unwrap();
        assert!(reply.outcome.is_refusal());
    }
    assert!(!engine.is_journal_down());
}
