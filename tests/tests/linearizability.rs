//! C5.1, C6.1, C6.6 across kills: what concurrent callers were told has an order in which each call happened
//! once, at one instant between its beginning and its end, as the auditor would have it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use quota_client::Client;
use quota_core::Bounds;
use quota_testkit::auditor::Auditor;
use quota_testkit::bare::BEGINNING;
use quota_testkit::linear::{Operation, Unexplained, explain};
use quota_testkit::script::{Call, World as _};
use quota_tests::grpc;
use quota_tests::process::{Server, client};

const CLIENTS: usize = 8;
/// Calls of a client: so many, and more while the server is still to be killed.
const CALLS: usize = 50;
const CALLS_MAX: usize = 10 * CALLS;
/// Least kills of a round that kills.
const KILLS: usize = 2;
const QUOTAS: &[&str] = &[
    "quota system compute.cpu 12",
    "quota tenants/t0 compute.cpu 9",
    "quota tenants/*/projects/* compute.cpu 6",
];
const PLACES: &[&str] = &[
    "tenants/t0/projects/p0",
    "tenants/t0/projects/p1",
    "tenants/t1",
];

/// A random call: few names and small limits, so that everybody is in everybody's way.
fn random_call(random: &mut Rng) -> Call {
    let place = PLACES[random.usize(..PLACES.len())];
    let id = random.u8(..3);
    let amount = random.i64(1..5);
    Call::parse(&match random.u8(..10) {
        0..=3 => format!("consume {place} compute.cpu {amount} id=a{id}"),
        4..=5 => format!("release {place} id=a{id}"),
        6 => format!("resize {place} compute.cpu {amount} id=a{id}"),
        7 => format!(
            "linked release {place} id=a{id} ; consume {place} compute.cpu {amount} id=a{}",
            (id + 1) % 3
        ),
        8 => format!("check {place} compute.cpu {amount} tightest"),
        _ => "used system compute.cpu".to_owned(),
    })
}

/// Asks until there is an answer, always with the same id; the answer without its mark of a repetition.
async fn answered(client: &Client, call: &Call, id: &str) -> Option<String> {
    let mut named = call.clone();
    if !matches!(call.verb.as_str(), "check" | "used") {
        named.options.insert("op".into(), id.to_owned());
    }
    for _ in 0..400 {
        let asked = match call.verb.as_str() {
            "check" => grpc::check_at(client, &named, true).await,
            _ => grpc::ask(client, &named, BEGINNING).await,
        };
        let text = match asked {
            Ok(text) => text,
            Err(error) if error.is_lost() => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            Err(error) => grpc::refused(&error),
        };
        return Some(text.trim_end_matches(" replayed").to_owned());
    }
    None
}

async fn work(
    client: Client,
    number: usize,
    round: usize,
    clock: Arc<AtomicU64>,
    kills_left: Arc<AtomicUsize>,
) -> Vec<Operation> {
    let mut random = Rng::with_seed((round * CLIENTS + number) as u64);
    let mut history = Vec::new();
    for nth in 0..CALLS_MAX {
        if nth >= CALLS && kills_left.load(Ordering::SeqCst) == 0 {
            break;
        }
        let call = random_call(&mut random);
        let began = clock.fetch_add(1, Ordering::SeqCst);
        let answer = answered(&client, &call, &format!("r{round}-c{number}-{nth}")).await;
        let ended = clock.fetch_add(1, Ordering::SeqCst);
        history.push(Operation {
            call,
            began,
            ended: answer.map(|answer| (ended, answer)),
        });
    }
    history
}

fn auditor() -> Auditor {
    let mut bounds = Bounds::default();
    // Callers ask again under the same id; to the order that is one call.
    bounds.memory.outcomes_max = 0;
    bounds.memory.refusals_max = 0;
    let mut auditor = Auditor::with_bounds(bounds);
    for quota in QUOTAS {
        assert!(auditor.call(&Call::parse(quota)).starts_with("set"));
    }
    auditor
}

/// One round: callers at work while the server is killed and started again, [`KILLS`] times or more. Answers the
/// history and the kills.
async fn round(data: &Path, number: usize, kills: bool) -> (Vec<Operation>, usize) {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let listen = format!("127.0.0.1:{port}");
    let start = || Server::start_with(data, &["--listen", &listen]);
    let mut server = start();
    for quota in QUOTAS {
        let set = grpc::ask(&client(&server.endpoint), &Call::parse(quota), BEGINNING).await;
        set.unwrap();
    }
    let clock = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let left = Arc::new(AtomicUsize::new(if kills { KILLS } else { 0 }));
    let workers: Vec<_> = (0..CLIENTS)
        .map(|at| {
            work(
                client(&server.endpoint),
                at,
                number,
                clock.clone(),
                left.clone(),
            )
        })
        .map(tokio::spawn)
        .collect();
    let gathering = {
        let done = done.clone();
        tokio::spawn(async move {
            let mut history = Vec::new();
            for worker in workers {
                history.extend(worker.await.unwrap());
            }
            done.store(true, Ordering::SeqCst);
            history
        })
    };
    let mut random = Rng::with_seed(number as u64);
    let mut killed = 0;
    while !done.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(random.u64(50..250))).await;
        if kills && !done.load(Ordering::SeqCst) {
            server.kill();
            killed += 1;
            left.store(KILLS.saturating_sub(killed), Ordering::SeqCst);
            server = start();
        }
    }
    (gathering.await.unwrap(), killed)
}

fn report(history: &[Operation], unexplained: &Unexplained) -> String {
    match unexplained {
        Unexplained::TooHard(states) => format!("no order after {states} states"),
        Unexplained::NoOrder { longest, stuck } => {
            let shown = |at: &usize| {
                let operation = &history[*at];
                let ended = operation.ended.as_ref();
                let (end, text) = ended.map_or(("-".into(), ""), |(end, text)| {
                    (end.to_string(), text.as_str())
                });
                format!("{} {end} {} -> {text}", operation.began, operation.call)
            };
            let tail = longest.iter().rev().take(20).rev();
            let mut text: Vec<String> = tail.map(shown).collect();
            text.push("and then none of".into());
            for (at, due) in stuck {
                text.push(format!("{}\n  due {due}", shown(at)));
            }
            text.join("\n")
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_history_has_an_order() {
    let rounds: usize = std::env::var("QUOTA_TEST_ROUNDS").map_or(4, |text| text.parse().unwrap());
    let (mut calls, mut killed, mut denied, mut overlapping) = (0, 0, 0, 0);
    for number in 0..rounds {
        let directory = tempfile::tempdir().unwrap();
        let (history, kills) = round(&directory.path().join("data"), number, number % 3 != 0).await;
        assert!(
            number % 3 == 0 || kills >= KILLS,
            "{kills} kills in round {number}"
        );
        killed += kills;
        calls += history.len();
        let answers = || {
            history
                .iter()
                .filter_map(|operation| operation.ended.as_ref())
        };
        assert_eq!(answers().count(), history.len(), "somebody gave up");
        denied += answers()
            .filter(|(_, text)| text.starts_with("denied"))
            .count();
        let overlaps = |one: &&Operation| {
            let end = one.ended.as_ref().map_or(u64::MAX, |(end, _)| *end);
            end > one.began + 1
        };
        overlapping += history.iter().filter(overlaps).count();
        if let Err(unexplained) = explain(&auditor(), &history) {
            panic!("round {number}: {}", report(&history, &unexplained));
        }
    }
    println!(
        "{rounds} histories, {calls} calls, {overlapping} beside others, {denied} denied, {killed} kills: each has an order"
    );
    assert!(
        overlapping * 2 > calls,
        "only {overlapping} of {calls} calls met others"
    );
    assert!(denied > rounds, "only {denied} calls were denied");
}
