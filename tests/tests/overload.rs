//! Overload: one tenant floods the queue, and only that tenant is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use quota_client::v1::{
    Amount, BatchItem, BatchRequest, CheckRequest, ConsumeRequest, ErrorReason, batch_item,
};
use quota_client::{Applied, Client, Options};
use quota_tests::process::Server;
use tonic::Code;

fn consume(subject: &str) -> ConsumeRequest {
    ConsumeRequest {
        subject: subject.into(),
        amounts: vec![Amount {
            resource: "compute.cpu".into(),
            amount: 1,
        }],
        ..ConsumeRequest::default()
    }
}

fn client(endpoint: &str) -> Client {
    Client::new(Options {
        endpoint: endpoint.into(),
        retry_for: Duration::ZERO,
        timeout: Duration::from_secs(30),
        ..Options::default()
    })
    .unwrap()
}

/// A flood is shed from its own lane, before it is decided; the neighbour goes on, and so do Checks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_sheds_itself() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("quota.toml");
    std::fs::write(&config, "queue_max = 200\ngroup_max = 100\n").unwrap();
    let config = config.to_str().unwrap().to_owned();
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--config", &config]);
    let (granted, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let flood: Vec<_> = (0..8)
        .map(|_| {
            let client = client(&server.endpoint);
            let (granted, refused, stop) = (granted.clone(), refused.clone(), stop.clone());
            tokio::spawn(async move {
                // A hundred steps a call: the queue is full with two of them.
                let item = BatchItem {
                    item: Some(batch_item::Item::Consume(consume("tenants/flood"))),
                };
                while !stop.load(Ordering::Relaxed) {
                    let items = vec![item.clone(); 100];
                    match client.batch(BatchRequest { items }).await {
                        Ok(_) => granted.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            assert_eq!(error.code, Code::ResourceExhausted, "{error:?}");
                            assert_eq!(error.reason, Some(ErrorReason::Overloaded));
                            assert_eq!(error.applied, Applied::No);
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            })
        })
        .collect();
    while refused.load(Ordering::Relaxed) < 10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let calm = client(&server.endpoint);
    for _ in 0..100 {
        calm.consume(consume("tenants/calm")).await.unwrap();
        let check = CheckRequest {
            subject: "tenants/calm".into(),
            amounts: consume("").amounts,
            ..CheckRequest::default()
        };
        calm.check(check).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for task in flood {
        task.await.unwrap();
    }
    assert!(
        granted.load(Ordering::Relaxed) > 0,
        "the flood is slowed, not stopped"
    );
    // What was refused was not charged: a hundred for every granted batch.
    let usage = calm.get_usage(quota_client::v1::GetUsageRequest {
        subject: "tenants/flood".into(),
        resource: "compute.cpu".into(),
    });
    let used = usage.await.unwrap().usage.unwrap().resources[0].used;
    assert_eq!(
        used,
        i64::try_from(granted.load(Ordering::Relaxed)).unwrap() * 100
    );
}

/// Connections beyond the bound are closed at once; those that are there go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("quota.toml");
    std::fs::write(&config, "connections_max = 4\n").unwrap();
    let config = config.to_str().unwrap().to_owned();
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--config", &config]);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = client(&server.endpoint);
        client.consume(consume("tenants/a")).await.unwrap();
        clients.push(client);
    }
    let more = client(&server.endpoint);
    assert!(
        more.consume(consume("tenants/a"))
            .await
            .unwrap_err()
            .is_lost()
    );
    for client in &clients {
        client.consume(consume("tenants/a")).await.unwrap();
    }
    clients.pop();
    let mut tries = 0;
    while more.consume(consume("tenants/a")).await.is_err() {
        tries += 1;
        assert!(tries < 500, "a closed connection gives its place back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Connections that say nothing do not keep their places.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_closed() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("quota.toml");
    std::fs::write(&config, "connections_max = 4\n").unwrap();
    let config = config.to_str().unwrap().to_owned();
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &["--config", &config]);
    let address = server.endpoint.trim_start_matches("http://").to_owned();
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(std::net::TcpStream::connect(&address).unwrap());
    }
    let client = client(&server.endpoint);
    let mut tries = 0;
    while client.consume(consume("tenants/a")).await.is_err() {
        tries += 1;
        assert!(tries < 400, "silent connections keep their places");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
