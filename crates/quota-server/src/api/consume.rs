//! ConsumeService: charges and gives back. What is read here is read the same way in a batch.

use std::sync::Arc;

use quota_core::command::{self, Action};
use quota_core::decide::Use;
use quota_core::labels::ROW_LABELS_MAX;
use quota_core::name::Id;
use quota_core::outcome::{Answer, Reply};
use quota_core::resource::Resources;
use quota_proto::v1;
use quota_proto::v1::consume_service_server::ConsumeService;
use tonic::{Request, Response, Status};

use super::from_proto::{Reader, identity};
use super::{batch, decided, execute, page, split, to_proto, unexpected};
use crate::engine::Engine;

/// Most allocations that one call renews.
const RENEWALS_MAX: usize = 1000;

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
        let identity = identity!(reader, "Consume", request);
        let action = read_consume(&mut reader, &self.resources(), request);
        reader.finish()?;
        let (reply, id) = execute(&self.engine, caller, identity, action).await?;
        consumed(&reply, &reply.outcome.answer, id).map(Response::new)
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let (mut request, caller) = split(request)?;
        let mut reader = Reader::default();
        let identity = identity!(reader, "Release", request);
        let action = read_release(&mut reader, &self.resources(), request);
        reader.finish()?;
        let (reply, id) = execute(&self.engine, caller, identity, action).await?;
        released(&reply, &reply.outcome.answer, id).map(Response::new)
    }

    async fn resize(
        &self,
        request: Request<v1::ResizeRequest>,
    ) -> Result<Response<v1::ResizeResponse>, Status> {
        let (mut request, caller) = split(request)?;
        let mut reader = Reader::default();
        let identity = identity!(reader, "Resize", request);
        let action = read_resize(&mut reader, &self.resources(), request);
        reader.finish()?;
        let (reply, id) = execute(&self.engine, caller, identity, action).await?;
        resized(&reply, &reply.outcome.answer, id).map(Response::new)
    }

    async fn batch(
        &self,
        request: Request<v1::BatchRequest>,
    ) -> Result<Response<v1::BatchResponse>, Status> {
        let (request, caller) = split(request)?;
        batch::run(&self.engine, caller, request)
            .await
            .map(Response::new)
    }

    async fn renew_allocations(
        &self,
        request: Request<v1::RenewAllocationsRequest>,
    ) -> Result<Response<v1::RenewAllocationsResponse>, Status> {
        let (mut request, caller) = split(request)?;
        let mut reader = Reader::default();
        let identity = identity!(reader, "RenewAllocations", request);
        let subject = reader.subject("subject", &request.subject);
        let allocations = read_ids(&mut reader, &request.allocation_ids);
        let ttl = reader.some_ttl(request.ttl);
        reader.finish()?;
        let action = Action::Renew(command::Renew {
            subject,
            allocations,
            ttl,
        });
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        let Answer::Renewed { renewed, missing } = &reply.outcome.answer else {
            return Err(unexpected(&reply.outcome.answer));
        };
        Ok(Response::new(v1::RenewAllocationsResponse {
            renewed: renewed
                .iter()
                .map(|(id, expires)| v1::RenewedAllocation {
                    allocation_id: id.to_string(),
                    expire_time: Some(to_proto::timestamp(*expires)),
                })
                .collect(),
            missing_allocation_ids: missing.iter().map(ToString::to_string).collect(),
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
        let identity = identity!(reader, "ReleaseMatching", request);
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

pub(super) fn read_consume(
    reader: &mut Reader,
    resources: &Resources,
    request: v1::ConsumeRequest,
) -> Action {
    let subject = reader.subject("subject", &request.subject);
    let also = reader.also(&subject, &request.also);
    let amounts = reader.some_amounts(&request.amounts, 1);
    let purpose = Use::Consume {
        named: !request.allocation_id.is_empty(),
        ends: request.ttl.is_some(),
    };
    reader.doubt(resources, &amounts, purpose);
    let allocation = reader.id("allocation_id", &request.allocation_id);
    let mode = reader.mode(request.mode, request.minimum, &amounts);
    if request.allocation_id.is_empty() && !request.labels.is_empty() {
        reader.wrong(
            "labels",
            "need an allocation_id: the anonymous allocation has none",
        );
    }
    Action::Consume(command::Consume {
        subject,
        also,
        amounts,
        allocation,
        mode,
        labels: reader.labels("labels", request.labels, ROW_LABELS_MAX),
        purpose: reader.purpose(request.purpose),
        ttl: reader.ttl(request.ttl),
    })
}

pub(super) fn read_release(
    reader: &mut Reader,
    resources: &Resources,
    request: v1::ReleaseRequest,
) -> Action {
    let subject = reader.subject("subject", &request.subject);
    let also = reader.also(&subject, &request.also);
    let allocation = reader.id("allocation_id", &request.allocation_id);
    let amounts = reader.amounts(&request.amounts, 1);
    reader.doubt(resources, &amounts, Use::Release);
    if !request.allocation_id.is_empty() && !request.also.is_empty() {
        reader.wrong(
            "also",
            "is not given with an allocation_id, which knows its own",
        );
    }
    Action::Release(command::Release {
        subject,
        also,
        allocation,
        amounts,
        expected_generation: request.expected_generation,
    })
}

pub(super) fn read_resize(
    reader: &mut Reader,
    resources: &Resources,
    request: v1::ResizeRequest,
) -> Action {
    let subject = reader.subject("subject", &request.subject);
    if request.allocation_id.is_empty() {
        reader.wrong(
            "allocation_id",
            "is empty; only an allocation with an id can be resized",
        );
    }
    let allocation = reader.id("allocation_id", &request.allocation_id);
    let amounts = reader.some_amounts(&request.amounts, 0);
    reader.doubt(resources, &amounts, Use::Resize);
    Action::Resize(command::Resize {
        subject,
        allocation: allocation.unwrap_or_else(stand_in),
        amounts,
        mode: reader.whole_mode(request.mode),
        expected_generation: request.expected_generation,
    })
}

fn read_ids(reader: &mut Reader, texts: &[String]) -> Vec<Id> {
    if texts.is_empty() || texts.len() > RENEWALS_MAX {
        let text = format!("has {} ids; 1 to {RENEWALS_MAX}", texts.len());
        reader.wrong("allocation_ids", text);
        return Vec::new();
    }
    let mut ids: Vec<Id> = Vec::new();
    let mut seen = quota_core::hash::HashSet::default();
    for (at, text) in texts.iter().enumerate() {
        let field = format!("allocation_ids[{at}]");
        if !seen.insert(text) {
            reader.wrong(field, format!("{text} is named twice; each id once"));
            continue;
        }
        match text.as_str() {
            "" => reader.wrong(field, "is empty; the id of an allocation"),
            text => ids.extend(reader.id(&field, text)),
        }
    }
    ids
}

pub(super) fn consumed(
    reply: &Reply,
    answer: &Answer,
    operation_id: String,
) -> Result<v1::ConsumeResponse, Status> {
    let Answer::Charged {
        verdict,
        allocation,
    } = answer
    else {
        return Err(unexpected(answer));
    };
    Ok(v1::ConsumeResponse {
        verdict: Some(to_proto::verdict(verdict)),
        allocation: allocation.as_deref().map(to_proto::allocation),
        operation_id,
        replayed: reply.replayed,
        decide_time: decided(reply),
    })
}

pub(super) fn resized(
    reply: &Reply,
    answer: &Answer,
    operation_id: String,
) -> Result<v1::ResizeResponse, Status> {
    let Answer::Charged {
        verdict,
        allocation,
    } = answer
    else {
        return Err(unexpected(answer));
    };
    Ok(v1::ResizeResponse {
        verdict: Some(to_proto::verdict(verdict)),
        allocation: allocation.as_deref().map(to_proto::allocation),
        operation_id,
        replayed: reply.replayed,
        decide_time: decided(reply),
    })
}

pub(super) fn released(
    reply: &Reply,
    answer: &Answer,
    operation_id: String,
) -> Result<v1::ReleaseResponse, Status> {
    let Answer::Released {
        amounts,
        allocation,
    } = answer
    else {
        return Err(unexpected(answer));
    };
    Ok(v1::ReleaseResponse {
        released: to_proto::amounts(amounts),
        allocation: allocation.as_deref().map(to_proto::allocation),
        operation_id,
        replayed: reply.replayed,
        decide_time: decided(reply),
    })
}

/// Never used: a request without an id does not get past its reader.
pub(super) fn stand_in() -> Id {
    Id::parse("-").expect("a dash is an id")
}
