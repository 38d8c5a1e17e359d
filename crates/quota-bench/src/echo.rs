//! The baseline: an empty tonic service with the same messages, which answers what the authority would
//! without looking.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use quota_client::Timestamp;
use quota_proto::v1;
use quota_proto::v1::batch_item::Item;
use quota_proto::v1::batch_result::Result as Kind;
use quota_proto::v1::check_service_server::{CheckService, CheckServiceServer};
use quota_proto::v1::consume_service_server::{ConsumeService, ConsumeServiceServer};
use quota_server::config::Config;
use quota_server::connections::Connections;
use quota_server::workers::Workers;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::Failure;
use crate::counted::say;

/// An instant of the size of a real one.
const INSTANT: Timestamp = Timestamp {
    seconds: 1_800_000_000,
    nanos: 123_456_789,
};

struct Echo;

/// Serves until the process ends, on the authority's threads and with its settings.
pub(crate) async fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&format!("listening on {}\n", listener.local_addr()?))?;
    let limits = Config::default().limits();
    let routes = Routes::new(CheckServiceServer::new(Echo))
        .add_service(ConsumeServiceServer::new(Echo))
        .prepare();
    let workers = Workers::start(move |incoming| {
        let serving = Server::builder()
            .http2_max_header_list_size(limits.metadata_bytes_max)
            .max_concurrent_streams(limits.streams_max)
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .add_routes(routes.clone())
            .serve_with_incoming(incoming);
        async {
            if let Err(error) = serving.await {
                eprintln!("quota-bench: the baseline has ended: {error}");
            }
        }
    })?;
    let (open, refused) = (Gauge::default(), Counter::default());
    let connections = Connections::new(listener, limits.connections_max, open, refused);
    Err(workers.share(connections).await.into())
}

fn allocation(subject: String, id: String, amounts: Vec<v1::Amount>) -> v1::Allocation {
    v1::Allocation {
        name: format!("{subject}/allocations/{id}"),
        subject,
        allocation_id: id,
        amounts,
        generation: 1,
        ..v1::Allocation::default()
    }
}

#[tonic::async_trait]
impl CheckService for Echo {
    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        let request = request.into_inner();
        let least = |amount: v1::Amount| v1::EffectiveLimit {
            resource: amount.resource,
            limit: Some(v1::Limit {
                limit: Some(v1::limit::Limit::Value(1 << 50)),
            }),
            subject: "system".into(),
            quota: "compute.cpu".into(),
            ..v1::EffectiveLimit::default()
        };
        let projection = |subject: &str| v1::Projection {
            subject: subject.into(),
            resource: "compute.cpu".into(),
            used: 1 << 20,
            projected: (1 << 20) + 1,
            ..v1::Projection::default()
        };
        // As many levels as the real answer has.
        let mut subjects = vec!["system"];
        let pairs: Vec<usize> = request
            .subject
            .match_indices('/')
            .map(|(at, _)| at)
            .collect();
        subjects.extend(
            pairs
                .iter()
                .skip(1)
                .step_by(2)
                .map(|at| &request.subject[..*at]),
        );
        subjects.push(&request.subject);
        Ok(Response::new(v1::CheckResponse {
            verdict: Some(granted()),
            projections: subjects.into_iter().map(projection).collect(),
            effective_limits: request.amounts.into_iter().map(least).collect(),
            decide_time: Some(INSTANT),
            ..v1::CheckResponse::default()
        }))
    }

    async fn batch_check(
        &self,
        _: Request<v1::BatchCheckRequest>,
    ) -> Result<Response<v1::BatchCheckResponse>, Status> {
        Err(Status::unimplemented("the baseline has no BatchCheck"))
    }
}

/// A verdict of the size of a real one.
fn granted() -> v1::Verdict {
    v1::Verdict {
        decision: v1::Decision::Granted.into(),
        tightest_limits: vec![v1::LimitHeadroom {
            subject: "system".into(),
            quota: "compute.cpu".into(),
            resource: "compute.cpu".into(),
            limit: 1 << 50,
            taken: 1 << 20,
            remaining: (1 << 50) - (1 << 20),
            ..v1::LimitHeadroom::default()
        }],
        ..v1::Verdict::default()
    }
}

fn consumed(request: v1::ConsumeRequest) -> v1::ConsumeResponse {
    v1::ConsumeResponse {
        verdict: Some(granted()),
        allocation: Some(allocation(
            request.subject,
            request.allocation_id,
            request.amounts,
        )),
        operation_id: request.operation_id,
        decide_time: Some(INSTANT),
        ..v1::ConsumeResponse::default()
    }
}

fn released(request: v1::ReleaseRequest) -> v1::ReleaseResponse {
    v1::ReleaseResponse {
        released: vec![v1::Amount {
            resource: "compute.cpu".into(),
            amount: 1,
        }],
        operation_id: request.operation_id,
        decide_time: Some(INSTANT),
        ..v1::ReleaseResponse::default()
    }
}

#[tonic::async_trait]
impl ConsumeService for Echo {
    async fn consume(
        &self,
        request: Request<v1::ConsumeRequest>,
    ) -> Result<Response<v1::ConsumeResponse>, Status> {
        Ok(Response::new(consumed(request.into_inner())))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        Ok(Response::new(released(request.into_inner())))
    }

    async fn resize(
        &self,
        _: Request<v1::ResizeRequest>,
    ) -> Result<Response<v1::ResizeResponse>, Status> {
        Err(Status::unimplemented("the baseline has no Resize"))
    }

    async fn batch(
        &self,
        request: Request<v1::BatchRequest>,
    ) -> Result<Response<v1::BatchResponse>, Status> {
        let items = request.into_inner().items.into_iter();
        let results = items.map(|item| {
            let result = match item.item {
                Some(Item::Consume(request)) => Kind::Consume(consumed(request)),
                Some(Item::Release(request)) => Kind::Release(released(request)),
                _ => {
                    return Err(Status::unimplemented(
                        "the baseline knows two kinds of steps",
                    ));
                }
            };
            Ok(v1::BatchResult {
                result: Some(result),
            })
        });
        let results = results.collect::<Result<_, _>>()?;
        Ok(Response::new(v1::BatchResponse { results }))
    }

    async fn renew_allocations(
        &self,
        _: Request<v1::RenewAllocationsRequest>,
    ) -> Result<Response<v1::RenewAllocationsResponse>, Status> {
        Err(Status::unimplemented(
            "the baseline has no RenewAllocations",
        ))
    }

    async fn release_matching(
        &self,
        _: Request<v1::ReleaseMatchingRequest>,
    ) -> Result<Response<v1::ReleaseMatchingResponse>, Status> {
        Err(Status::unimplemented("the baseline has no ReleaseMatching"))
    }
}
