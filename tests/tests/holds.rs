//! Many holds that end in the same second: nothing waits for their closing, which is bounded per group.

use std::time::Duration;

use quota_core::Bounds;
use quota_core::amount::Limit;
use quota_core::charge::charge_set;
use quota_core::command::{
    Action, Amounts, Command, Consume, Existence, Release, Reserve, SetQuota,
};
use quota_core::invariants;
use quota_core::name::{Id, ResourceKey, SubjectName};
use quota_core::outcome::Answer;
use quota_core::quota::{Enforcement, Origin, State, Target};
use quota_core::verdict::Mode;
use quota_server::clock::Clock;
use quota_tests::worlds::{TestStore, command, runtime};

/// `QUOTA_TEST_HOLDS` sets another number, such as a million.
const HOLDS: usize = 20_000;
const SUBJECTS: usize = 500;

fn holds() -> usize {
    let set = std::env::var("QUOTA_TEST_HOLDS").ok();
    set.map_or(HOLDS, |number| number.parse().expect("a number"))
}

fn cpu(amount: usize) -> Amounts {
    let key = ResourceKey::parse("compute.cpu").unwrap();
    vec![(key, i64::try_from(amount).unwrap())]
}

fn subject(number: usize) -> SubjectName {
    SubjectName::parse(&format!("tenants/t/users/u{}", number % SUBJECTS)).unwrap()
}

fn reserve(number: usize) -> Command {
    let action = Action::Reserve(Reserve {
        subject: subject(number),
        also: Vec::new(),
        amounts: cpu(1),
        hold: Some(Id::parse(&format!("h{number}")).unwrap()),
        allocation: None,
        ttl: Duration::from_secs(3600),
        labels: Default::default(),
        purpose: String::new(),
    });
    command(&format!("reserve-{number}"), action)
}

fn consume(id: &str, amount: usize) -> Command {
    let action = Action::Consume(Consume {
        subject: SubjectName::parse("tenants/t").unwrap(),
        also: Vec::new(),
        amounts: cpu(amount),
        allocation: Some(Id::parse(id).unwrap()),
        mode: Mode::Strict,
        labels: Default::default(),
        purpose: String::new(),
        ttl: None,
    });
    command(&format!("consume-{id}"), action)
}

fn release(id: &str) -> Command {
    let action = Action::Release(Release {
        subject: SubjectName::parse("tenants/t").unwrap(),
        also: Vec::new(),
        allocation: Some(Id::parse(id).unwrap()),
        amounts: Vec::new(),
        expected_generation: None,
    });
    command(&format!("release-{id}"), action)
}

fn limit(amount: usize) -> Command {
    let resource = ResourceKey::parse("compute.cpu").unwrap();
    let action = Action::SetQuotas(vec![SetQuota {
        target: Target::parse("tenants/t").unwrap(),
        id: Id::parse(resource.as_str()).unwrap(),
        resource,
        limit: Limit::Value(i64::try_from(amount).unwrap()),
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
        origin: Origin::Override,
        existence: Existence::Any,
        etag: String::new(),
        force: false,
    }]);
    command("limit", action)
}

fn is_granted(answer: &Answer) -> bool {
    matches!(answer, Answer::Charged { verdict, .. } if !verdict.is_denied())
}

/// C6.3: bounded work per group, and no refusal for capacity that has come back.
#[test]
fn all_ending_in_the_same_second() {
    let runtime = runtime();
    let store = TestStore::new(Bounds::default());
    let engine = store.start();
    let count = holds();
    let ask = |command: Command| {
        let answered = runtime.block_on(engine.execute(command, None)).unwrap();
        answered.outcome.answer.clone()
    };
    ask(limit(count));
    let all: Vec<usize> = (0..count).collect();
    for chunk in all.chunks(1000) {
        let commands = chunk.iter().map(|number| reserve(*number)).collect();
        let replies = runtime
            .block_on(engine.execute_all(commands, None))
            .unwrap();
        for reply in replies {
            let answer = reply.unwrap().outcome.answer.clone();
            assert!(matches!(answer, Answer::Reserved { hold: Some(_), .. }));
        }
    }
    assert!(!is_granted(&ask(consume("early", 1))), "all of it is held");
    let waiting = || {
        runtime
            .block_on(engine.read(|ledger| ledger.sizes().holds))
            .unwrap()
    };
    assert_eq!(waiting(), count);

    store.clock.advance(Duration::from_secs(3600));
    // At once, although nearly all of them are still to be closed; for those who only look as well.
    let name = SubjectName::parse("tenants/t").unwrap();
    let looked = engine.views().snapshot(&name, &[]);
    let verdict = looked
        .scene(store.clock.now())
        .evaluate(&cpu(count), Mode::Strict);
    assert!(!verdict.is_denied());
    assert!(is_granted(&ask(consume("all", count))));
    let left = waiting();
    assert!(
        left > count / 2,
        "{left} of {count} are left: the first group closed too many"
    );
    // Callers are answered between the closings, which end.
    let mut turns = 0;
    let mut before = "all".to_owned();
    while waiting() > 0 {
        turns += 1;
        ask(release(&before));
        before = format!("n{turns}");
        assert!(is_granted(&ask(consume(&before, count))));
    }
    let broken = runtime.block_on(engine.read(|ledger| {
        let names = charge_set(&SubjectName::parse("tenants/t").unwrap(), &[]).len();
        (invariants::check_state(ledger), names)
    }));
    assert_eq!(broken.unwrap(), (Vec::new(), 2));
    eprintln!("{count} holds closed beside {turns} charges of all capacity");
    drop(engine);
    let (_, recovered) = store.recover().unwrap();
    assert_eq!(recovered.ledger.unwrap().sizes().holds, 0);
}
