//! C5.1: 64 concurrent clients on one hot account. Each logs when its grant was answered and when its
//! release was sent; between the two it certainly holds what it was granted, so the overlap of these
//! intervals never exceeds the limit. Several levels and resources are charged together or not at all.

use std::time::Duration;

use quota_client::Client;
use quota_client::v1::{
    Amount, CheckRequest, ConsumeRequest, Decision, GetUsageRequest, Limit, Quota, ReleaseRequest,
    UpdateQuotaRequest, limit,
};
use quota_tests::process::{Server, client};
use tokio::time::Instant;

const CLIENTS: u64 = 64;
const LIMIT: i64 = 100;

/// Seconds of load; more for a demonstration.
fn seconds() -> u64 {
    let set = std::env::var("QUOTA_TEST_SECONDS").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(3)
}

struct Interval {
    granted: Instant,
    sent: Instant,
    amount: i64,
}

fn amounts(amount: i64) -> Vec<Amount> {
    ["compute.cpu", "compute.instances"]
        .map(|resource| Amount {
            resource: resource.into(),
            amount,
        })
        .to_vec()
}

async fn work(client: Client, worker: u64, until: Instant) -> Vec<Interval> {
    let mut random = fastrand::Rng::with_seed(worker);
    let subject = format!("tenants/hot/users/u{}", worker % 8);
    let mut intervals = Vec::new();
    for number in 0.. {
        if Instant::now() >= until {
            break;
        }
        let amount = random.i64(1..=20);
        let id = format!("w{worker}-{number}");
        // A check promises nothing: whatever it says, only the consume decides.
        if random.u8(..4) == 0 {
            let request = CheckRequest {
                subject: subject.clone(),
                amounts: amounts(amount),
                ..CheckRequest::default()
            };
            client.check(request).await.unwrap();
        }
        let request = ConsumeRequest {
            subject: subject.clone(),
            amounts: amounts(amount),
            allocation_id: id.clone(),
            ..ConsumeRequest::default()
        };
        let answer = client.consume(request).await.unwrap();
        let granted = Instant::now();
        if answer.decision() == Decision::Denied {
            continue;
        }
        // Long enough that the account is full most of the time.
        tokio::time::sleep(Duration::from_micros(random.u64(..50_000))).await;
        let sent = Instant::now();
        intervals.push(Interval {
            granted,
            sent,
            amount,
        });
        let request = ReleaseRequest {
            subject: subject.clone(),
            allocation_id: id,
            ..ReleaseRequest::default()
        };
        client.release(request).await.unwrap();
    }
    intervals
}

async fn used(client: &Client, subject: &str) -> Vec<i64> {
    let request = GetUsageRequest {
        subject: subject.into(),
        resource: String::new(),
    };
    let usage = client.get_usage(request).await.unwrap().usage.unwrap();
    usage.resources.iter().map(|line| line.used).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_overlap_never_exceeds_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    for (subject, resource) in [
        ("tenants/hot", "compute.cpu"),
        ("system", "compute.instances"),
    ] {
        let quota = Quota {
            subject: subject.into(),
            resource: resource.into(),
            limit: Some(Limit {
                limit: Some(limit::Limit::Value(LIMIT)),
            }),
            ..Quota::default()
        };
        let request = UpdateQuotaRequest {
            quota: Some(quota),
            allow_missing: true,
            ..UpdateQuotaRequest::default()
        };
        server.client().update_quota(request).await.unwrap();
    }
    let until = Instant::now() + Duration::from_secs(seconds());
    let workers: Vec<_> = (0..CLIENTS)
        .map(|worker| tokio::spawn(work(client(&server.endpoint), worker, until)))
        .collect();
    let mut edges = Vec::new();
    let mut grants = 0;
    for worker in workers {
        for interval in worker.await.unwrap() {
            grants += 1;
            edges.push((interval.granted, interval.amount));
            edges.push((interval.sent, -interval.amount));
        }
    }
    // At one instant the end comes first: the sum is what was certainly held together.
    edges.sort_unstable();
    let (mut now, mut most) = (0, 0);
    for (_, change) in edges {
        now += change;
        most = most.max(now);
    }
    println!("{grants} grants, at most {most} of {LIMIT} held at once");
    assert!(grants > 100, "only {grants} grants");
    assert!(most <= LIMIT, "{most} of {LIMIT} were held at once");
    assert!(most > LIMIT / 2, "the account was never hot: {most}");

    let last = ConsumeRequest {
        subject: "tenants/hot/users/u0".into(),
        amounts: amounts(7),
        allocation_id: "last".into(),
        ..ConsumeRequest::default()
    };
    server.client().consume(last).await.unwrap();
    for subject in ["system", "tenants/hot", "tenants/hot/users/u0"] {
        assert_eq!(used(&server.client(), subject).await, [7, 7], "{subject}");
    }
    assert_eq!(used(&server.client(), "tenants/hot/users/u1").await, [0, 0]);
    server.kill();
    let server = Server::start(&data);
    for subject in ["system", "tenants/hot", "tenants/hot/users/u0"] {
        assert_eq!(
            used(&server.client(), subject).await,
            [7, 7],
            "{subject} after a restart"
        );
    }
}
