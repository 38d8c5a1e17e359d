//! Events in a batch. Recovery reads only the answers; the rest is for whoever asks what happened, so it
//! says names and differences and leaves values to the images beside it.

use std::sync::Arc;

use prost::{Message, Oneof};
use quota_core::event::{Cause, Change, Event, Remembered};
use quota_core::name::OperationId;

use super::FormatError;
use super::outcome::{
    FindingBody, OutcomeBody, bodies_of_findings, body_of_outcome, outcome_of_body,
};
use super::record::{AmountBody, bodies_of_amounts};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EventBody {
    #[prost(int64, tag = "1")]
    at: i64,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(string, tag = "3")]
    operation: String,
    #[prost(string, tag = "4")]
    actor: String,
    #[prost(string, tag = "5")]
    source: String,
    #[prost(oneof = "ChangeBody", tags = "6, 7, 8, 9, 10, 11, 12, 13")]
    change: Option<ChangeBody>,
}

#[derive(Clone, PartialEq, Oneof)]
#[allow(
    clippy::large_enum_variant,
    reason = "most events are of the largest variants"
)]
enum ChangeBody {
    #[prost(string, tag = "6")]
    SubjectCreated(String),
    #[prost(string, tag = "7")]
    SubjectChanged(String),
    #[prost(string, tag = "8")]
    ResourceSet(String),
    #[prost(string, tag = "9")]
    ResourceDeleted(String),
    #[prost(message, tag = "10")]
    QuotaSet(QuotaNameBody),
    #[prost(message, tag = "11")]
    QuotaDeleted(QuotaNameBody),
    #[prost(message, tag = "12")]
    Allocated(AllocatedBody),
    #[prost(message, tag = "13")]
    Answered(AnsweredBody),
}

#[derive(Clone, PartialEq, Message)]
struct QuotaNameBody {
    #[prost(string, tag = "1")]
    target: String,
    #[prost(string, tag = "2")]
    resource: String,
    #[prost(string, tag = "3")]
    id: String,
    /// The limit as text; empty when deleted.
    #[prost(string, tag = "4")]
    limit: String,
}

#[derive(Clone, PartialEq, Message)]
struct AllocatedBody {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, repeated, tag = "2")]
    deltas: Vec<AmountBody>,
    #[prost(uint32, tag = "3")]
    cause: u32,
    #[prost(message, repeated, tag = "4")]
    exceeded: Vec<FindingBody>,
    #[prost(uint64, tag = "5")]
    generation: u64,
    #[prost(bool, tag = "6")]
    ended: bool,
    #[prost(btree_map = "string, string", tag = "7")]
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct AnsweredBody {
    #[prost(string, tag = "1")]
    lane: String,
    #[prost(bytes = "vec", tag = "2")]
    digest: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    outcome: Option<OutcomeBody>,
}

pub(crate) fn body_of_event(event: &Event) -> EventBody {
    let quota_name = |target: &dyn std::fmt::Display, resource: &_, id: &_, limit| QuotaNameBody {
        target: target.to_string(),
        resource: quota_core::name::ResourceKey::to_string(resource),
        id: quota_core::name::Id::to_string(id),
        limit,
    };
    let change = match &event.change {
        Change::SubjectCreated { name, .. } => ChangeBody::SubjectCreated(name.to_string()),
        Change::SubjectChanged { name, .. } => ChangeBody::SubjectChanged(name.to_string()),
        Change::ResourceSet(resource) => ChangeBody::ResourceSet(resource.key.to_string()),
        Change::ResourceDeleted(key) => ChangeBody::ResourceDeleted(key.to_string()),
        Change::QuotaSet { target, quota } => ChangeBody::QuotaSet(quota_name(
            target,
            &quota.resource,
            &quota.id,
            quota.limit.to_string(),
        )),
        Change::QuotaDeleted {
            target,
            resource,
            id,
        } => ChangeBody::QuotaDeleted(quota_name(target, resource, id, String::new())),
        Change::Allocated {
            allocation,
            deltas,
            cause,
            exceeded,
        } => ChangeBody::Allocated(AllocatedBody {
            key: allocation.key.as_str().to_owned(),
            deltas: bodies_of_amounts(deltas),
            cause: match cause {
                Cause::Consume => 1,
                Cause::Record => 2,
                Cause::Release => 3,
                Cause::Resize => 4,
                Cause::ReleaseMatching => 5,
            },
            exceeded: bodies_of_findings(exceeded),
            generation: allocation.generation,
            ended: allocation.amounts.is_empty(),
            labels: allocation.labels.clone(),
        }),
        Change::Answered(answered) => ChangeBody::Answered(AnsweredBody {
            lane: answered.lane.to_string(),
            digest: answered.digest.to_vec(),
            outcome: Some(body_of_outcome(&answered.outcome)),
        }),
    };
    EventBody {
        at: event.at.nanos(),
        revision: event.revision,
        operation: event.operation.to_string(),
        actor: event.provenance.actor.clone(),
        source: event.provenance.source.clone(),
        change: Some(change),
    }
}

/// The answer in an event, if it is one.
pub(crate) fn remembered_of_body(body: EventBody) -> Result<Option<Arc<Remembered>>, FormatError> {
    let Some(ChangeBody::Answered(answered)) = body.change else {
        return Ok(None);
    };
    let outcome = answered
        .outcome
        .ok_or_else(|| FormatError::damaged("an answer without an outcome"))?;
    let digest = answered
        .digest
        .try_into()
        .map_err(|_| FormatError::damaged("a digest of another size"))?;
    Ok(Some(Arc::new(Remembered {
        lane: answered.lane.into(),
        id: OperationId::parse(&body.operation)?,
        digest,
        revision: body.revision,
        outcome: Arc::new(outcome_of_body(outcome)?),
    })))
}
