//! Closed-loop load: so many calls in flight, each followed by the next.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use quota_proto::v1;
use quota_proto::v1::check_service_client::CheckServiceClient;
use quota_proto::v1::consume_service_client::ConsumeServiceClient;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::Failure;

/// What is charged.
pub(crate) const RESOURCE: &str = "compute.cpu";
const USERS: u64 = 100_000;
/// Connections; calls in flight are spread over them.
const CONNECTIONS: usize = 8;

/// What to call.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Check.
    Check,
    /// Consume, and then Release of the same.
    Consume,
}

/// One round.
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

pub(crate) async fn run(
    target: SocketAddr,
    work: Work,
    in_flight: usize,
    length: Duration,
) -> Result<Sample, Failure> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS.min(in_flight) {
        let endpoint = Endpoint::from_shared(format!("http://{target}"))?;
        channels.push(endpoint.tcp_nodelay(true).connect().await?);
    }
    let began = Instant::now();
    let until = began + length;
    let workers: Vec<_> = (0..in_flight)
        .map(|at| {
            let channel = channels[at % channels.len()].clone();
            tokio::spawn(worker(channel, work, until))
        })
        .collect();
    let mut latencies = Histogram::<u64>::new(3)?;
    for worker in workers {
        latencies.add(worker.await??)?;
    }
    let took = began.elapsed().as_secs_f64();
    Ok(Sample {
        per_second: latencies.len() as f64 / took,
        p50_us: latencies.value_at_quantile(0.5) as f64 / 1000.0,
        p99_us: latencies.value_at_quantile(0.99) as f64 / 1000.0,
    })
}

async fn worker(channel: Channel, work: Work, until: Instant) -> Result<Histogram<u64>, Failure> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut check = CheckServiceClient::new(channel.clone());
    let mut consume = ConsumeServiceClient::new(channel);
    let mut latencies = Histogram::<u64>::new(3)?;
    while Instant::now() < until {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let user = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % USERS;
        let subject = format!(
            "tenants/t{}/projects/p{}/users/u{user}",
            user % 10,
            user % 100
        );
        let amounts = vec![v1::Amount {
            resource: RESOURCE.into(),
            amount: 1,
        }];
        let began = Instant::now();
        match work {
            Work::Check => {
                let request = v1::CheckRequest {
                    subject,
                    amounts,
                    ..v1::CheckRequest::default()
                };
                check.check(request).await?;
            }
            Work::Consume => {
                let request = v1::ConsumeRequest {
                    subject: subject.clone(),
                    amounts,
                    operation_id: format!("c-{number}"),
                    allocation_id: format!("a-{number}"),
                    ..v1::ConsumeRequest::default()
                };
                consume.consume(request).await?;
                record(&mut latencies, began);
                let request = v1::ReleaseRequest {
                    subject,
                    allocation_id: format!("a-{number}"),
                    operation_id: format!("r-{number}"),
                    ..v1::ReleaseRequest::default()
                };
                let began = Instant::now();
                consume.release(request).await?;
                record(&mut latencies, began);
                continue;
            }
        }
        record(&mut latencies, began);
    }
    Ok(latencies)
}

fn record(latencies: &mut Histogram<u64>, began: Instant) {
    let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    // The histogram grows as needed.
    let _ = latencies.record(nanos);
}
