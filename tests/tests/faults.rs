//! C11.3 on the test disk: while the journal fails, Checks go on, writes are refused at once, nothing that was
//! acknowledged is lost and nothing that was refused is charged.

use std::time::Duration;

use quota_client::v1;
use quota_core::Bounds;
use quota_core::command::{Action, Command, CommitHold, Consume, HoldName, Reserve, Uncovered};
use quota_core::invariants;
use quota_core::name::{Id, ResourceKey, SubjectName};
use quota_core::verdict::Mode;
use quota_server::clock::Clock;
use quota_server::engine::{Engine, Fault};
use quota_tests::grpc::InProcess;
use quota_tests::process;
use quota_tests::worlds::{TestStore, command, runtime};
use tokio::runtime::Runtime;

const SUBJECT: &str = "tenants/a/projects/p";

fn subject() -> SubjectName {
    SubjectName::parse(SUBJECT).unwrap()
}

fn consume(id: &str) -> Command {
    let amounts = ["compute.cpu", "api.calls"].map(|key| (ResourceKey::parse(key).unwrap(), 1));
    let action = Action::Consume(Consume {
        subject: subject(),
        also: Vec::new(),
        amounts: amounts.to_vec(),
        allocation: Some(Id::parse(id).unwrap()),
        mode: Mode::Strict,
        labels: Default::default(),
        purpose: String::new(),
        ttl: None,
    });
    command(id, action)
}

fn reserve(id: &str) -> Command {
    let action = Action::Reserve(Reserve {
        subject: subject(),
        also: Vec::new(),
        amounts: vec![(ResourceKey::parse("compute.cpu").unwrap(), 1)],
        hold: Some(Id::parse(id).unwrap()),
        allocation: None,
        ttl: Duration::from_secs(3600),
        labels: Default::default(),
        purpose: String::new(),
    });
    command(&format!("reserve-{id}"), action)
}

fn commit(id: &str) -> Command {
    let action = Action::CommitHold(CommitHold {
        hold: HoldName {
            subject: subject(),
            id: Id::parse(id).unwrap(),
        },
        amounts: Vec::new(),
        more: Uncovered::Refuse,
        late: Uncovered::Refuse,
        ttl: None,
    });
    command(&format!("commit-{id}"), action)
}

/// What a Check sees: in use and counted.
fn seen(store: &TestStore, engine: &Engine) -> (i64, i64) {
    let name = subject();
    let snapshot = engine.views().snapshot(&name, &[]);
    let scene = snapshot.scene(store.clock.now());
    let line = scene.lines().last().unwrap();
    let used = |key| line.taken(&ResourceKey::parse(key).unwrap()).used;
    (used("compute.cpu"), used("api.calls"))
}

/// Lets the breaker try until the journal is back.
fn until_back(store: &TestStore, engine: &Engine) {
    while engine.is_journal_down() {
        store.clock.advance(Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn ask(runtime: &Runtime, engine: &Engine, command: Command) -> Result<bool, Fault> {
    let answered = runtime.block_on(engine.execute(command, None))?;
    Ok(answered.replayed)
}

/// The disk fails every flush for ten seconds of the server's clock.
#[test]
fn ten_seconds_without_a_disk() {
    let runtime = runtime();
    let store = TestStore::new(Bounds::default());
    let engine = store.start();
    let ask = |command| ask(&runtime, &engine, command);
    for number in 0..5 {
        ask(consume(&format!("before-{number}"))).unwrap();
    }
    ask(reserve("held")).unwrap();
    store.journal.fail_syncs(u64::MAX);
    let lost = ask(consume("in-doubt"));
    assert_eq!(lost, Err(Fault::JournalDown { unknown: true }));
    for second in 0..10 {
        // Writes are refused at once, of whatever kind, and certainly not applied.
        let refused = Err(Fault::JournalDown { unknown: false });
        assert_eq!(ask(consume(&format!("during-{second}"))), refused);
        assert_eq!(ask(commit("held")), refused);
        assert_eq!(
            ask(consume("before-0")),
            refused,
            "a stored answer is withheld too"
        );
        // Checks go on, on what is durable.
        assert_eq!(seen(&store, &engine), (5, 5));
        assert!(engine.is_journal_down());
        store.clock.advance(Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(60));
    }
    store.journal.fail_syncs(0);
    until_back(&store, &engine);
    // What was in doubt is there, once; its retry gets the answer.
    assert_eq!(seen(&store, &engine), (6, 6));
    assert_eq!(ask(consume("in-doubt")), Ok(true));
    assert_eq!(ask(consume("during-3")), Ok(false));
    assert_eq!(ask(commit("held")), Ok(false));
    assert_eq!(seen(&store, &engine), (8, 7));
    drop(engine);
    let (_, recovered) = store.recover().unwrap();
    let ledger = recovered.ledger.unwrap();
    assert_eq!(invariants::check_state(&ledger), Vec::<String>::new());
    let scene = ledger.scene("system", &["system"], store.clock.now());
    let used = |key| {
        scene.lines()[0]
            .taken(&ResourceKey::parse(key).unwrap())
            .used
    };
    assert_eq!((used("compute.cpu"), used("api.calls")), (8, 7));
}

/// Failures that come and go: each command is there once if it was ever acknowledged, and never if it was only
/// ever refused.
#[test]
fn failures_that_come_and_go() {
    let runtime = runtime();
    let store = TestStore::new(Bounds::default());
    let engine = store.start();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut granted, mut doubtful) = (0, 0);
    for number in 0..300 {
        if random.u8(..10) == 0 {
            store.journal.fail_syncs(random.u64(1..4));
        }
        match ask(&runtime, &engine, consume(&format!("c{number}"))) {
            Ok(_) => granted += 1,
            Err(Fault::JournalDown { unknown }) => {
                until_back(&store, &engine);
                if unknown {
                    // Asked again, it is known.
                    assert_eq!(
                        ask(&runtime, &engine, consume(&format!("c{number}"))),
                        Ok(true)
                    );
                    granted += 1;
                    doubtful += 1;
                }
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(doubtful > 5, "{doubtful}");
    assert_eq!(seen(&store, &engine), (granted, granted));
    store.crash(&mut random);
    drop(engine);
    let engine = store.start();
    assert_eq!(seen(&store, &engine), (granted, granted));
}

/// A server that is stopped while a flush hangs lets go of who waits, and is not done before the disk is.
#[test]
fn stopped_while_the_disk_hangs() {
    let store = TestStore::new(Bounds::default());
    let server = InProcess::serve(store.start());
    let callers = runtime();
    let client = callers.block_on(async { process::client(&server.endpoint) });
    let stall = store.journal.stall();
    let request = v1::ConsumeRequest {
        subject: SUBJECT.into(),
        amounts: vec![v1::Amount {
            resource: "compute.cpu".into(),
            amount: 1,
        }],
        ..v1::ConsumeRequest::default()
    };
    let waiting = callers.spawn(async move { client.consume(request).await });
    stall.reached();
    let stopping = std::thread::spawn(move || drop(server));
    let answer = callers
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), waiting).await })
        .expect("the connection ends before the disk goes on");
    assert!(answer.unwrap().unwrap_err().is_lost());
    assert!(!stopping.is_finished());
    drop(stall);
    stopping.join().unwrap();
}
