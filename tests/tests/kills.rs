//! C11.1, C11.2 on the real binary: SIGKILL under load and during start-up. Acknowledged is a subset of
//! recovered, and nothing else is there but operations that had no answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quota_client::v1::{
    Allocation, Amount, ConsumeRequest, ReleaseRequest, VerifyInvariantsRequest,
};
use quota_client::{Applied, Client};
use quota_tests::book::allocations;
use quota_tests::process::{Server, client, spawn, times};

/// How often the server is killed, unless QUOTA_TEST_KILLS says.
const KILLS: usize = 50;
const CLIENTS: usize = 8;
const CPU: &str = "compute.cpu";

/// What one client knows: allocations that are held, or are not, and those without an answer.
#[derive(Default)]
struct Known {
    held: BTreeSet<String>,
    open: BTreeSet<String>,
    without_answer: usize,
}

async fn work(client: Client, worker: usize, round: usize, in_flight: Arc<AtomicUsize>) -> Known {
    let mut known = Known::default();
    let subject = format!("tenants/t{}/users/u{worker}", worker % 3);
    for number in 0.. {
        let name = format!("r{round}-{number}");
        let full = format!("{subject}/allocations/{name}");
        let consume = ConsumeRequest {
            subject: subject.clone(),
            amounts: vec![amount(3)],
            allocation_id: name.clone(),
            operation_id: format!("{full}-c").chars().rev().take(64).collect(),
            ..ConsumeRequest::default()
        };
        in_flight.fetch_add(1, Ordering::SeqCst);
        let answer = client.consume(consume).await;
        match answer {
            Ok(_) => known.held.insert(full.clone()),
            Err(error) => {
                if error.applied == Applied::Unknown {
                    known.open.insert(full);
                    known.without_answer += 1;
                }
                return known;
            }
        };
        in_flight.fetch_sub(1, Ordering::SeqCst);
        if number % 2 == 0 {
            continue;
        }
        let release = ReleaseRequest {
            subject: subject.clone(),
            allocation_id: name,
            operation_id: format!("{full}-r").chars().rev().take(64).collect(),
            ..ReleaseRequest::default()
        };
        in_flight.fetch_add(1, Ordering::SeqCst);
        let answer = client.release(release).await;
        known.held.remove(&full);
        match answer {
            Ok(_) => {}
            Err(error) => {
                match error.applied {
                    Applied::Unknown => {
                        known.open.insert(full);
                        known.without_answer += 1;
                    }
                    Applied::No => {
                        known.held.insert(full);
                    }
                }
                return known;
            }
        }
        in_flight.fetch_sub(1, Ordering::SeqCst);
    }
    known
}

fn amount(amount: i64) -> Amount {
    Amount {
        resource: CPU.into(),
        amount,
    }
}

#[tokio::test]
async fn kills_under_load() {
    let kills = times("QUOTA_TEST_KILLS", KILLS);
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut random = fastrand::Rng::with_seed(23);
    let mut held: BTreeSet<String> = BTreeSet::new();
    let mut with_calls_in_flight = 0;
    for round in 0..kills {
        if round % 10 == 9 {
            // Killed during start-up: at some moment before or after it listens.
            let mut starting = spawn(&data, &[]);
            tokio::time::sleep(Duration::from_micros(random.u64(..60_000))).await;
            starting.kill().unwrap();
            starting.wait().unwrap();
        }
        let server = Server::start(&data);
        let in_flight = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..CLIENTS)
            .map(|worker| {
                let client = client(&server.endpoint);
                tokio::spawn(work(client, worker, round, in_flight.clone()))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(random.u64(20..150))).await;
        if in_flight.load(Ordering::SeqCst) > 0 {
            with_calls_in_flight += 1;
        }
        server.kill();
        let mut open = BTreeSet::new();
        for worker in workers {
            let known = worker.await.unwrap();
            held.extend(known.held);
            open.extend(known.open);
        }

        let server = Server::start(&data);
        let rows = allocations(&server.client()).await;
        let row = |row: Allocation| (row.name, row.amounts[0].amount);
        let recovered: BTreeMap<String, i64> = rows.into_iter().map(row).collect();
        let names: BTreeSet<String> = recovered.keys().cloned().collect();
        let lost: Vec<_> = held
            .difference(&names)
            .filter(|n| !open.contains(*n))
            .collect();
        assert!(
            lost.is_empty(),
            "round {round}: acknowledged and lost: {lost:?}"
        );
        let extra: Vec<_> = names
            .difference(&held)
            .filter(|name| !open.contains(*name))
            .collect();
        assert!(
            extra.is_empty(),
            "round {round}: never acknowledged and there: {extra:?}"
        );
        assert!(recovered.values().all(|amount| *amount == 3));
        let request = VerifyInvariantsRequest {};
        let verified = server.client().verify_invariants(request).await.unwrap();
        assert_eq!(verified.violations, Vec::<String>::new());
        held = names;
        server.kill();
    }
    println!(
        "{kills} kills, {with_calls_in_flight} with calls in flight, {} held",
        held.len()
    );
    assert!(
        with_calls_in_flight >= kills * 4 / 5,
        "only {with_calls_in_flight} kills hit a call"
    );
    assert!(held.len() > kills, "hardly anything was acknowledged");
}
