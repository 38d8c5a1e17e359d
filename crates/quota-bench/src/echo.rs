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
        };
        Ok(Response::new(v1::CheckResponse {
            decision: v1::Decision::Granted.into(),
            effective_limits: request.amounts.into_iter().map(least).collect(),
            ..v1::CheckResponse::default()
        }))
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
            decision: v1::Decision::Granted.into(),
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

    async fn release_matching(
        &self,
        _: Request<v1::ReleaseMatchingRequest>,
    ) -> Result<Response<v1::ReleaseMatchingResponse>, Status> {
        Err(Status::unimplemented("the baseline has no ReleaseMatching"))
    }
}
