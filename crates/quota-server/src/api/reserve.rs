//! ReserveService: holds, and what becomes of them.

use std::sync::Arc;

use quota_core::command::{self, Action, HoldName};
use quota_core::decide::Use;
use quota_core::hold::{End, Hold, HoldKey, TTL_DEFAULT};
use quota_core::labels::ROW_LABELS_MAX;
use quota_core::outcome::{Answer, Reply};
use quota_core::rejection::Rejection;
use quota_core::resource::Resources;
use quota_core::time::Timestamp;
use quota_proto::v1;
use quota_proto::v1::reserve_service_server::ReserveService;
use tonic::{Request, Response, Status};

use super::consume::stand_in;
use super::from_proto::{Reader, identity};
use super::{decided, execute, page, split, status, to_proto, unexpected};
use crate::engine::Engine;

/// The service.
pub struct Reserve {
    engine: Arc<Engine>,
}

impl Reserve {
    /// The service on an engine.
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    fn resources(&self) -> Arc<Resources> {
        self.engine.views().tables().resources.clone()
    }
}

#[tonic::async_trait]
impl ReserveService for Reserve {
    async fn reserve(
        &self,
        request: Request<v1::ReserveRequest>,
    ) -> Result<Response<v1::ReserveResponse>, Status> {
        let (mut request, caller) = split(request)?;
        let mut reader = Reader::default();
        let identity = identity!(reader, "Reserve", request);
        let subject = reader.subject("subject", &request.subject);
        let also = reader.also(&subject, &request.also);
        let amounts = reader.some_amounts(&request.amounts, 1);
        reader.doubt(&self.resources(), &amounts, Use::Reserve);
        let action = Action::Reserve(command::Reserve {
            subject,
            also,
            amounts,
            hold: reader.id("hold_id", &request.hold_id),
            allocation: reader.id("allocation_id", &request.allocation_id),
            ttl: reader.ttl(request.ttl).unwrap_or(TTL_DEFAULT),
            labels: reader.labels("labels", request.labels, ROW_LABELS_MAX),
            purpose: reader.purpose(request.purpose),
        });
        reader.finish()?;
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        let Answer::Reserved { verdict, hold } = &reply.outcome.answer else {
            return Err(unexpected(&reply.outcome.answer));
        };
        Ok(Response::new(v1::ReserveResponse {
            verdict: Some(to_proto::verdict(verdict)),
            hold: hold
                .as_deref()
                .map(|hold| to_proto::hold(hold, reply.outcome.decided)),
            operation_id,
            replayed: reply.replayed,
            decide_time: decided(&reply),
        }))
    }

    async fn commit_hold(
        &self,
        request: Request<v1::CommitHoldRequest>,
    ) -> Result<Response<v1::CommitHoldResponse>, Status> {
        let (mut request, caller) = split(request)?;
        let mut reader = Reader::default();
        let identity = identity!(reader, "CommitHold", request);
        let hold = read_name(&mut reader, &request.subject, &request.hold_id);
        let amounts = reader.amounts(&request.amounts, 0);
        reader.doubt(&self.resources(), &amounts, Use::Commit);
        let action = Action::CommitHold(command::CommitHold {
            hold,
            amounts,
            more: reader.uncovered("more", request.more),
            late: reader.uncovered("late", request.late),
            ttl: reader.ttl(request.ttl),
        });
        reader.finish()?;
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        let Answer::Committed {
            verdict,
            hold,
            allocation,
        } = &reply.outcome.answer
        else {
            return Err(unexpected(&reply.outcome.answer));
        };
        Ok(Response::new(v1::CommitHoldResponse {
            verdict: Some(to_proto::verdict(verdict)),
            allocation: allocation.as_deref().map(to_proto::allocation),
            hold: Some(to_proto::hold(hold, reply.outcome.decided)),
            operation_id,
            replayed: reply.replayed,
            decide_time: decided(&reply),
        }))
    }

    async fn renew_hold(
        &self,
        request: Request<v1::RenewHoldRequest>,
    ) -> Result<Response<v1::RenewHoldResponse>, Status> {
        let (mut request, caller) = split(request)?;
        let mut reader = Reader::default();
        let identity = identity!(reader, "RenewHold", request);
        let hold = read_name(&mut reader, &request.subject, &request.hold_id);
        let ttl = reader.some_ttl(request.ttl);
        reader.finish()?;
        let action = Action::RenewHold { hold, ttl };
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        Ok(Response::new(v1::RenewHoldResponse {
            hold: Some(hold_of(&reply)?),
            operation_id,
            replayed: reply.replayed,
        }))
    }

    async fn cancel_hold(
        &self,
        request: Request<v1::CancelHoldRequest>,
    ) -> Result<Response<v1::CancelHoldResponse>, Status> {
        let (mut request, caller) = split(request)?;
        let mut reader = Reader::default();
        let identity = identity!(reader, "CancelHold", request);
        let hold = read_name(&mut reader, &request.subject, &request.hold_id);
        reader.finish()?;
        let action = Action::CancelHold(hold);
        let (reply, operation_id) = execute(&self.engine, caller, identity, action).await?;
        Ok(Response::new(v1::CancelHoldResponse {
            hold: Some(hold_of(&reply)?),
            operation_id,
            replayed: reply.replayed,
        }))
    }

    async fn get_hold(
        &self,
        request: Request<v1::GetHoldRequest>,
    ) -> Result<Response<v1::GetHoldResponse>, Status> {
        let (request, _) = split(request)?;
        let mut reader = Reader::default();
        let name = read_name(&mut reader, &request.subject, &request.hold_id);
        reader.finish()?;
        let key = HoldKey::new(&name.subject, &name.id);
        let text = key.as_str().to_owned();
        let read = self
            .engine
            .read(move |ledger| ledger.hold(key.as_str()).cloned());
        let found = read.await.map_err(|fault| status::of_fault(&fault))?;
        let now = self.engine.clock().now();
        match found {
            Some(hold) => Ok(Response::new(v1::GetHoldResponse {
                hold: Some(to_proto::hold(&hold, now)),
            })),
            None => Err(status::of_rejection(&Rejection::HoldUnknown(text))),
        }
    }

    async fn list_holds(
        &self,
        request: Request<v1::ListHoldsRequest>,
    ) -> Result<Response<v1::ListHoldsResponse>, Status> {
        let (request, _) = split(request)?;
        let mut reader = Reader::default();
        let prefix = reader.prefix("subject_prefix", &request.subject_prefix);
        let only = reader.resource_filter(&request.resource);
        let state = v1::HoldState::try_from(request.state);
        if state.is_err() {
            let text = format!(
                "{} is no state; LIVE, COMMITTED, CANCELLED or EXPIRED",
                request.state
            );
            reader.wrong("state", text);
        }
        let labels = reader.labels("labels", request.labels, ROW_LABELS_MAX);
        let size = page::size(&mut reader, request.page_size);
        let filter = format!(
            "ListHolds {prefix} {} {} {labels:?}",
            request.resource, request.state
        );
        let after = page::after(&mut reader, &filter, &request.page_token);
        reader.finish()?;
        let state = state.unwrap_or(v1::HoldState::Unspecified);
        let now = self.engine.clock().now();
        let wanted = move |hold: &Arc<Hold>| {
            let holds = only.as_ref().is_none_or(|key| hold.amount(key) > 0);
            let bears = |(key, value)| hold.labels.get(key) == Some(value);
            holds && is_in(hold, state, now) && labels.iter().all(bears)
        };
        let read = self.engine.read(move |ledger| {
            page::collect(
                ledger.holds(prefix.as_str(), &after),
                size,
                |hold| hold.key.as_str().to_owned(),
                |hold| wanted(hold).then(|| Arc::clone(hold)),
            )
        });
        let (found, next) = read.await.map_err(|fault| status::of_fault(&fault))?;
        Ok(Response::new(v1::ListHoldsResponse {
            holds: found.iter().map(|hold| to_proto::hold(hold, now)).collect(),
            next_page_token: next.map_or(String::new(), |last| page::token(&filter, &last)),
        }))
    }
}

fn is_in(hold: &Hold, state: v1::HoldState, now: Timestamp) -> bool {
    let end = hold.end(now);
    match state {
        v1::HoldState::Unspecified => true,
        v1::HoldState::Live => end.is_none(),
        v1::HoldState::Committed => end == Some(End::Committed),
        v1::HoldState::Cancelled => end == Some(End::Cancelled),
        v1::HoldState::Expired => end == Some(End::Expired),
    }
}

fn read_name(reader: &mut Reader, subject: &str, id: &str) -> HoldName {
    if id.is_empty() {
        reader.wrong("hold_id", "is empty; the id of a hold");
    }
    HoldName {
        subject: reader.subject("subject", subject),
        id: reader.id("hold_id", id).unwrap_or_else(stand_in),
    }
}

fn hold_of(reply: &Reply) -> Result<v1::Hold, Status> {
    match &reply.outcome.answer {
        Answer::Hold(hold) => Ok(to_proto::hold(hold, reply.outcome.decided)),
        other => Err(unexpected(other)),
    }
}
