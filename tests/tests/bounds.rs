//! What is bounded stays bounded, and what is forgotten because of a bound is not charged twice.

use std::sync::Arc;
use std::time::Duration;

use quota_core::Bounds;
use quota_core::amount::Limit;
use quota_core::command::{Action, Command, Consume, Existence, Reserve, SetQuota, SetResource};
use quota_core::name::{Id, ResourceKey, SubjectName};
use quota_core::quota::{Enforcement, Origin, State, Target};
use quota_core::rejection::Rejection;
use quota_core::resource::{Kind, WithoutQuota};
use quota_core::verdict::Mode;
use quota_server::engine::{Engine, Fault};
use quota_store::Journal;
use quota_tests::worlds::{TestStore, command, runtime};

fn tried(id: &str, age: Option<Duration>, action: Action) -> Command {
    let mut command = command(id, action);
    command.operation.age = age;
    command
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
            let done = engine.execute(tried(&id, None, consume(&subject, 1)), None);
            runtime.block_on(done).unwrap();
        }
        store.clock.advance(Duration::from_secs(40));
        if round % 10 == 9 {
            // Time to write bases and to trim.
            std::thread::sleep(Duration::from_millis(700));
            let poke = tried(&format!("poke-{round}"), None, consume("tenants/t", 1));
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
                let retry = tried(&id, age, consume("tenants/t/users/u0", 1));
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
                tried(
                    &format!("{subject}{id}")[8..].replace('/', "-"),
                    None,
                    set(subject, id),
                ),
                None,
            );
            runtime.block_on(done).unwrap();
        }
        // One more than may stand on a pair.
        let more = engine.execute(tried("more", None, set(subject, 16)), None);
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
                let refused = tried(&format!("x{number}"), None, consume(deep, 2));
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

/// What ends by itself in one second is closed in batches of a bounded size, however large its records are.
#[test]
fn closings_are_bounded_by_bytes() {
    let runtime = runtime();
    let store = TestStore::new(Bounds::default());
    let engine = store.start();
    let resources: Vec<String> = (0..16)
        .map(|at| format!("r{at}.{}", "x".repeat(40)))
        .collect();
    for key in &resources {
        let set = Action::SetResource(SetResource {
            key: ResourceKey::parse(key).unwrap(),
            kind: Kind::Allocation,
            base_unit: "count".into(),
            display_unit: "count".into(),
            display_ratio: 1,
            without_quota: WithoutQuota::Allow,
            display_name: String::new(),
            existence: Existence::New,
            etag: String::new(),
        });
        let done = engine.execute(tried(&key[..3], None, set), None);
        runtime.block_on(done).unwrap();
    }
    let amounts: Vec<_> = resources
        .iter()
        .map(|key| (ResourceKey::parse(key).unwrap(), 1))
        .collect();
    let long = |number: usize, last: usize| {
        let pairs: Vec<String> = (0..7)
            .map(|at| format!("c{at}/{number}-{last}-{}", "y".repeat(40)))
            .collect();
        SubjectName::parse(&format!("tenants/t/{}", pairs.join("/"))).unwrap()
    };
    for number in 0..300 {
        let reserve = Action::Reserve(Reserve {
            subject: long(number, 0),
            also: (1..5).map(|last| long(number, last)).collect(),
            amounts: amounts.clone(),
            hold: Some(Id::parse("h").unwrap()),
            allocation: None,
            ttl: Duration::from_secs(3600),
            labels: Default::default(),
            purpose: String::new(),
        });
        let done = engine.execute(tried(&format!("hold-{number}"), None, reserve), None);
        runtime.block_on(done).unwrap();
    }
    store.clock.advance(Duration::from_secs(3600));
    let holds = || {
        runtime
            .block_on(engine.read(|ledger| ledger.sizes().holds))
            .unwrap()
    };
    while holds() > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(engine);
    let (journal, recovered) = store.recover().unwrap();
    assert_eq!(recovered.ledger.unwrap().sizes().holds, 0);
    let mut largest = 0;
    journal
        .read_from(journal.first_sequence(), &mut |_, body| {
            largest = largest.max(body.len());
            Ok(())
        })
        .unwrap();
    assert!((4 << 20..12 << 20).contains(&largest), "{largest}");
}
