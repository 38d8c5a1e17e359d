//! ConsumeService: charges and gives back.

use std::sync::Arc;

use quota_core::command::{self, Action};
use quota_core::labels::ROW_LABELS_MAX;
use quota_core::name::Id;
use quota_core::outcome::{Answer, Reply};
use quota_core::resource::Resources;
use quota_proto::v1;
use quota_proto::v1::consume_service_server::ConsumeService;
use tonic::{Request, Response, Status};

use super::from_proto::Reader;
use super::{execute, page, split, to_proto, unexpected};
use crate::engine::Engine;

/// The service.
pub struct Consume {
    engine: Arc<Engine>,
}

impl Consume {
    /// The service on an engine.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    fn resources(&self) -> Arc<Resources> {
        self.engine.views().tables().resources.clone()
    }
}

#[tonic::async_trait]
impl ConsumeService for Consume {
    async fn consume(
        &self,
        request: Request<v1::ConsumeRequest>,
    ) -> Result<Response<v1::ConsumeResponse>, Status> {
        let (mut request, caller) = split(request)?;
        let mut reader = Reader::default();
        let id = std::mem::take(&mut request.operation_id);
        let age = request.operation_age.take();
        let identity = reader.identity("Consume", &request, &id, age, request.source.clone());
        let subject = reader.subject("subject", &request.subject);
        let also = reader.also(&subject, &request.also);
        let amounts = reader.some_amounts(&self.resources(), &request.amounts, 1);
        let allocation = reader.id("allocation_id", &request.allocation_id);
        let mode = reader.mode(request.mode);
        let anonymous = request.allocation_id.is_empty();
        if anonymous && !request.labels.is_empty() {
            reader.wrong(
                "labels",
                "need an allocation_id: the anonymous allocation has none",
            );
        }
        let labels = reader.labels("labels", request.labels, ROW_LABELS_MAX);
        let purpose = reader.purpose(request.purpose);
        reader.unsupported("minimum", request.minimum.is_some(), "BEST_EFFORT");
        reader.unsupported("ttl", request.ttl.is_some(), "CONCURRENCY");
        reader.finish()?;

        let action = Action::Consume(command::Consume {
            subject,
            also,
            amounts,
            allocation,
            mode,
            labels,
            purpose,
        });
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        let Answer::Charged {
            verdict,
            allocation,
        } = &reply.outcome.answer
        else {
            return Err(unexpected(&reply.outcome.answer));
        };
        Ok(Response::new(v1::ConsumeResponse {
            decision: to_proto::decision(verdict.decision),
            refusals: to_proto::findings(&verdict.refusals),
            exceeded: to_proto::findings(&verdict.exceeded),
            allocation: allocation.as_deref().map(to_proto::allocation),
            unbounded_resources: to_proto::keys(&verdict.unbounded),
            operation_id,
            replayed: reply.replayed,
            decide_time: decided(&reply),
        }))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let (mut request, caller) = split(request)?;
        let mut reader = Reader::default();
        let id = std::mem::take(&mut request.operation_id);
        let age = request.operation_age.take();
        let identity = reader.identity("Release", &request, &id, age, request.source.clone());
        let subject = reader.subject("subject", &request.subject);
        let also = reader.also(&subject, &request.also);
        let allocation = reader.id("allocation_id", &request.allocation_id);
        let amounts = reader.amounts(&self.resources(), &request.amounts, 1);
        if !request.allocation_id.is_empty() && !request.also.is_empty() {
            reader.wrong(
                "also",
                "is not given with an allocation_id, which knows its own",
            );
        }
        reader.finish()?;

        let action = Action::Release(command::Release {
            subject,
            also,
            allocation,
            amounts,
            expected_generation: request.expected_generation,
        });
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        let Answer::Released {
            amounts,
            allocation,
        } = &reply.outcome.answer
        else {
            return Err(unexpected(&reply.outcome.answer));
        };
        Ok(Response::new(v1::ReleaseResponse {
            released: to_proto::amounts(amounts),
            allocation: allocation.as_deref().map(to_proto::allocation),
            operation_id,
            replayed: reply.replayed,
            decide_time: decided(&reply),
        }))
    }

    async fn resize(
        &self,
        request: Request<v1::ResizeRequest>,
    ) -> Result<Response<v1::ResizeResponse>, Status> {
        let (mut request, caller) = split(request)?;
        let mut reader = Reader::default();
        let id = std::mem::take(&mut request.operation_id);
        let age = request.operation_age.take();
        let identity = reader.identity("Resize", &request, &id, age, request.source.clone());
        let subject = reader.subject("subject", &request.subject);
        if request.allocation_id.is_empty() {
            reader.wrong(
                "allocation_id",
                "is empty; only an allocation with an id can be resized",
            );
        }
        let allocation = reader.id("allocation_id", &request.allocation_id);
        let amounts = reader.some_amounts(&self.resources(), &request.amounts, 0);
        let mode = reader.mode(request.mode);
        reader.finish()?;

        let action = Action::Resize(command::Resize {
            subject,
            allocation: allocation.unwrap_or_else(stand_in),
            amounts,
            mode,
            expected_generation: request.expected_generation,
        });
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        let Answer::Charged {
            verdict,
            allocation,
        } = &reply.outcome.answer
        else {
            return Err(unexpected(&reply.outcome.answer));
        };
        Ok(Response::new(v1::ResizeResponse {
            decision: to_proto::decision(verdict.decision),
            refusals: to_proto::findings(&verdict.refusals),
            exceeded: to_proto::findings(&verdict.exceeded),
            allocation: allocation.as_deref().map(to_proto::allocation),
            unbounded_resources: to_proto::keys(&verdict.unbounded),
            operation_id,
            replayed: reply.replayed,
            decide_time: decided(&reply),
        }))
    }

    async fn release_matching(
        &self,
        request: Request<v1::ReleaseMatchingRequest>,
    ) -> Result<Response<v1::ReleaseMatchingResponse>, Status> {
        let (mut request, caller) = split(request)?;
        let mut reader = Reader::default();
        let id = std::mem::take(&mut request.operation_id);
        let age = request.operation_age.take();
        let source = request.source.clone();
        let identity = reader.identity("ReleaseMatching", &request, &id, age, source);
        let subject = reader.subject("subject", &request.subject);
        if request.labels.is_empty() {
            reader.wrong("labels", "is empty; at least one label");
        }
        let labels = reader.labels("labels", request.labels, ROW_LABELS_MAX);
        let most = page::size(&mut reader, request.page_size);
        reader.finish()?;

        let action = Action::ReleaseMatching(command::ReleaseMatching {
            subject,
            labels,
            most,
        });
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        let Answer::ReleasedMatching {
            released,
            more,
            amounts,
        } = &reply.outcome.answer
        else {
            return Err(unexpected(&reply.outcome.answer));
        };
        Ok(Response::new(v1::ReleaseMatchingResponse {
            released: i32::try_from(*released).unwrap_or(i32::MAX),
            more: *more,
            amounts: to_proto::amounts(amounts),
            operation_id,
            replayed: reply.replayed,
            decide_time: decided(&reply),
        }))
    }
}

fn decided(reply: &Reply) -> Option<prost_types::Timestamp> {
    Some(to_proto::timestamp(reply.outcome.decided))
}

/// Never used: a request without an id does not get past its reader.
fn stand_in() -> Id {
    Id::parse("-").expect("a dash is an id")
}
