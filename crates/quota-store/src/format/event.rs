//! Events in a batch. Recovery reads only the answers; the rest is for whoever asks what happened, so it
//! says names and differences and leaves values to the images beside it.

use std::sync::Arc;

use prost::{Message, Oneof};
use quota_core::event::{Cause, Change, Charged, Event, Remembered};
use quota_core::name::OperationId;

use super::FormatError;
use super::outcome::{OutcomeBody, body_of_outcome, outcome_of_body};
use super::record::{AmountBody, bodies_of_amounts};
use super::row::number_of_end;
use super::verdict::{FindingBody, bodies_of_findings};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EventBody {
    #[prost(int64, tag = "1")]
    at: i64,
    #[prost(uint64, tag = "2")]
    revision: u64,
    /// Empty where time did it.
    #[prost(string, tag = "3")]
    operation: String,
    #[prost(string, tag = "4")]
    actor: String,
    #[prost(string, tag = "5")]
    source: String,
    #[prost(
        oneof = "ChangeBody",
        tags = "6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17"
    )]
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
    Charged(ChargedBody),
    #[prost(message, tag = "13")]
    Answered(AnsweredBody),
    #[prost(string, tag = "14")]
    SubjectDeleted(String),
    #[prost(message, tag = "15")]
    UsageReset(UsageResetBody),
    #[prost(message, tag = "16")]
    UsageCorrected(UsageCorrectedBody),
    /// Nanoseconds.
    #[prost(int64, tag = "17")]
    ClockAccepted(i64),
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
struct ChargedBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, repeated, tag = "2")]
    also: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    used: Vec<AmountBody>,
    #[prost(message, repeated, tag = "4")]
    held: Vec<AmountBody>,
    #[prost(uint32, tag = "5")]
    cause: u32,
    #[prost(message, repeated, tag = "6")]
    facts: Vec<FindingBody>,
    #[prost(message, repeated, tag = "7")]
    shadows: Vec<FindingBody>,
    #[prost(message, optional, tag = "8")]
    allocation: Option<AllocationNameBody>,
    #[prost(message, optional, tag = "9")]
    hold: Option<HoldNameBody>,
}

#[derive(Clone, PartialEq, Message)]
struct AllocationNameBody {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    generation: u64,
    #[prost(bool, tag = "3")]
    ended: bool,
    #[prost(btree_map = "string, string", tag = "4")]
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct HoldNameBody {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(uint64, tag = "2")]
    generation: u64,
    /// Zero while it lives.
    #[prost(uint32, tag = "3")]
    end: u32,
    #[prost(btree_map = "string, string", tag = "4")]
    labels: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct UsageResetBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    resource: String,
    /// Empty: all.
    #[prost(string, tag = "3")]
    quota: String,
    #[prost(string, tag = "4")]
    purpose: String,
}

#[derive(Clone, PartialEq, Message)]
struct UsageCorrectedBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, repeated, tag = "2")]
    also: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    amounts: Vec<AmountBody>,
    #[prost(bool, tag = "4")]
    past: bool,
    #[prost(string, tag = "5")]
    purpose: String,
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
        Change::SubjectDeleted { name } => ChangeBody::SubjectDeleted(name.to_string()),
        Change::Charged(charged) => ChangeBody::Charged(body_of_charged(charged)),
        Change::UsageReset(reset) => ChangeBody::UsageReset(UsageResetBody {
            subject: reset.subject.to_string(),
            resource: reset.resource.to_string(),
            quota: reset
                .quota
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            purpose: reset.purpose.clone(),
        }),
        Change::UsageCorrected(correct) => ChangeBody::UsageCorrected(UsageCorrectedBody {
            subject: correct.subject.to_string(),
            also: correct.also.iter().map(ToString::to_string).collect(),
            amounts: bodies_of_amounts(&correct.amounts),
            past: correct.past,
            purpose: correct.purpose.clone(),
        }),
        Change::ClockAccepted { offset_ns, .. } => ChangeBody::ClockAccepted(*offset_ns),
        Change::Answered(answered) => ChangeBody::Answered(AnsweredBody {
            lane: answered.lane.to_string(),
            digest: answered.digest.to_vec(),
            outcome: Some(body_of_outcome(&answered.outcome)),
        }),
    };
    EventBody {
        at: event.at.nanos(),
        revision: event.revision,
        operation: event
            .operation
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        actor: event.provenance.actor.clone(),
        source: event.provenance.source.clone(),
        change: Some(change),
    }
}

fn body_of_charged(charged: &Charged) -> ChargedBody {
    ChargedBody {
        subject: charged.subject.to_string(),
        also: charged.also.iter().map(ToString::to_string).collect(),
        used: bodies_of_amounts(&charged.used),
        held: bodies_of_amounts(&charged.held),
        cause: match charged.cause {
            Cause::Consume => 1,
            Cause::Record => 2,
            Cause::Release => 3,
            Cause::Resize => 4,
            Cause::ReleaseMatching => 5,
            Cause::Renew => 6,
            Cause::Reserve => 7,
            Cause::Commit => 8,
            Cause::CommitRecord => 9,
            Cause::RenewHold => 10,
            Cause::Cancel => 11,
            Cause::Expire => 12,
            Cause::ResizeRecord => 13,
        },
        facts: bodies_of_findings(&charged.facts),
        shadows: bodies_of_findings(&charged.shadows),
        allocation: charged.allocation.as_ref().map(|row| AllocationNameBody {
            key: row.key.as_str().to_owned(),
            generation: row.generation,
            ended: row.amounts.is_empty(),
            labels: row.labels.clone(),
        }),
        hold: charged.hold.as_ref().map(|hold| HoldNameBody {
            key: hold.key.as_str().to_owned(),
            generation: hold.generation,
            end: hold.ended.map_or(0, |(end, _)| number_of_end(end)),
            labels: hold.labels.clone(),
        }),
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
