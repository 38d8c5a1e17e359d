//! The baseline: an empty tonic service with the same messages, which answers what the authority would
//! without looking.

use std::net::SocketAddr;

use quota_proto::v1;
use quota_proto::v1::check_service_server::{CheckService, CheckServiceServer};
use quota_proto::v1::consume_service_server::{ConsumeService, ConsumeServiceServer};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

struct Echo;

/// Serves until the process ends.
pub(crate) async fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(
        Server::builder()
            .max_concurrent_streams(1024)
            .add_service(CheckServiceServer::new(Echo))
            .add_service(ConsumeServiceServer::new(Echo))
            .serve_with_incoming(incoming),
    );
    Ok(address)
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

#[tonic::async_trait]
impl ConsumeService for Echo {
    async fn consume(
        &self,
        request: Request<v1::ConsumeRequest>,
    ) -> Result<Response<v1::ConsumeResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(v1::ConsumeResponse {
            verdict: Some(granted()),
            allocation: Some(allocation(
                request.subject,
                request.allocation_id,
                request.amounts,
            )),
            operation_id: request.operation_id,
            ..v1::ConsumeResponse::default()
        }))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(v1::ReleaseResponse {
            released: vec![v1::Amount {
                resource: "compute.cpu".into(),
                amount: 1,
            }],
            operation_id: request.operation_id,
            ..v1::ReleaseResponse::default()
        }))
    }

    async fn resize(
        &self,
        _: Request<v1::ResizeRequest>,
    ) -> Result<Response<v1::ResizeResponse>, Status> {
        Err(Status::unimplemented("the baseline has no Resize"))
    }

    async fn batch(
        &self,
        _: Request<v1::BatchRequest>,
    ) -> Result<Response<v1::BatchResponse>, Status> {
        Err(Status::unimplemented("the baseline has no Batch"))
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
