//! C2.5 in numbers: a tenant with thousands of users goes in one step and is swept behind callers' backs; what
//! comes anew under its names is never touched, whenever the power goes.

use std::time::Duration;

use fastrand::Rng;
use quota_core::command::{Action, Command, Consume};
use quota_core::name::{ResourceKey, SubjectName};
use quota_core::verdict::Mode;
use quota_core::{Bounds, Ledger, invariants};
use quota_server::engine::Engine;
use quota_tests::worlds::{TestStore, command, runtime};
use tokio::runtime::Runtime;

const USERS: usize = 3_000;

fn next(number: &mut u64, action: Action) -> Command {
    *number += 1;
    command(&format!("op-{number}"), action)
}

fn count(user: usize) -> Action {
    Action::Consume(Consume {
        subject: SubjectName::parse(&format!("tenants/big/users/u{user}")).unwrap(),
        also: Vec::new(),
        amounts: vec![(ResourceKey::parse("api.calls").unwrap(), 1)],
        allocation: None,
        mode: Mode::Strict,
        labels: Default::default(),
        purpose: String::new(),
        ttl: None,
    })
}

fn read<T: Send + 'static>(
    runtime: &Runtime,
    engine: &Engine,
    look: impl FnOnce(&Ledger) -> T + Send + 'static,
) -> T {
    runtime.block_on(engine.read(look)).unwrap()
}

fn counted(ledger: &Ledger, name: &str) -> Option<i64> {
    let key = ResourceKey::parse("api.calls").unwrap();
    let subject = ledger.subject(name)?;
    Some(subject.account(&key).map_or(0, |account| account.used))
}

#[test]
fn a_large_subtree() {
    let runtime = runtime();
    let store = TestStore::new(Bounds::default());
    let mut engine = store.start();
    let mut number = 0;
    for chunk in (0..USERS).collect::<Vec<_>>().chunks(500) {
        let commands = chunk
            .iter()
            .map(|user| next(&mut number, count(*user)))
            .collect();
        let replies = runtime
            .block_on(engine.execute_all(commands, None))
            .unwrap();
        assert!(replies.iter().all(Result::is_ok));
    }
    let delete = Action::DeleteSubject {
        name: SubjectName::parse("tenants/big").unwrap(),
        etag: String::new(),
    };
    let delete = next(&mut number, delete);
    runtime.block_on(engine.execute(delete, None)).unwrap();
    // At once nobody below it is there, for the writer and for those who only look.
    assert_eq!(
        read(&runtime, &engine, |ledger| counted(
            ledger,
            "tenants/big/users/u7"
        )),
        None
    );
    assert!(engine.views().subject("tenants/big/users/u8").is_none());
    // Two come anew while the rest is swept, and the power goes.
    for user in [7, 2_999] {
        let again = next(&mut number, count(user));
        runtime.block_on(engine.execute(again, None)).unwrap();
    }
    let mut random = Rng::with_seed(3);
    for _ in 0..3 {
        store.crash(&mut random);
        drop(engine);
        engine = store.start();
        let (users, broken) = read(&runtime, &engine, |ledger| {
            let users = ledger.subject_names("tenants/big", "").count();
            (users, invariants::check_state(ledger))
        });
        assert_eq!((users, broken), (3, Vec::new()), "the tenant and two users");
    }
    while read(&runtime, &engine, |ledger| ledger.sizes().subjects) > 4 {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(engine);
    let (_, recovered) = store.recover().unwrap();
    let ledger = recovered.ledger.unwrap();
    assert!(ledger.dying().is_empty());
    assert_eq!(ledger.sizes().subjects, 4);
    assert_eq!(counted(&ledger, "tenants/big/users/u7"), Some(1));
    assert_eq!(counted(&ledger, "tenants/big"), Some(2));
    // What the root counted stays.
    assert_eq!(
        counted(&ledger, "system"),
        Some(i64::try_from(USERS).unwrap() + 2)
    );
}
