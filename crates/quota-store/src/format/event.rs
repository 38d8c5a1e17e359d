//! Events in a batch. Recovery reads only the answers; the rest is for whoever asks what happened, so it
//! says names and differences and leaves values to the images beside it.

use std::sync::Arc;

use prost::{Message, Oneof};
use quota_core::amount::Limit;
use quota_core::event::{Cause, Change, Charged, Event, Remembered};
use quota_core::name::{Id, OperationId, ResourceKey, SubjectName, SubjectPattern};
use quota_core::quota::Target;
use quota_core::time::Timestamp;

use super::FormatError;
use super::notice::{
    CrossingBody, ExceededBody, RefusedBody, UsageBody, body_of_crossing, body_of_exceeded,
    body_of_refused, crossing_of_body, exceeded_of_body, refused_of_body, usage_of_body,
    write_usage,
};
use super::outcome::{OutcomeBody, outcome_of_body, write_outcome};
use super::record::{
    AmountBody, amounts_of_bodies, bodies_of_amounts, write_amounts, write_labels,
};
use super::row::{end_of_number, names, number_of_end, texts};
use super::verdict::{given, text};
use super::wire::Wire;
use crate::told::{Told, ToldAllocation, ToldCharge, ToldHold, What};

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
        tags = "6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23"
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
    #[prost(message, tag = "18")]
    ClockDoubted(ClockDoubtedBody),
    #[prost(message, tag = "19")]
    Started(StartedBody),
    #[prost(message, tag = "20")]
    Exceeded(ExceededBody),
    #[prost(message, tag = "21")]
    Crossed(CrossingBody),
    #[prost(message, tag = "22")]
    Refused(RefusedBody),
    #[prost(message, tag = "23")]
    Usage(UsageBody),
}

#[derive(Clone, PartialEq, Message)]
struct ClockDoubtedBody {
    #[prost(int64, tag = "1")]
    offset_ns: i64,
    #[prost(bool, tag = "2")]
    doubted: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StartedBody {
    #[prost(uint64, tag = "1")]
    batches: u64,
    #[prost(bool, tag = "2")]
    rebuilt: bool,
}

#[derive(Clone, PartialEq, Message)]
struct QuotaNameBody {
    #[prost(string, tag = "1")]
    target: String,
    #[prost(string, tag = "2")]
    resource: String,
    #[prost(string, tag = "3")]
    id: String,
    /// Absent when deleted.
    #[prost(message, optional, tag = "4")]
    after: Option<GivenLimitBody>,
    /// Absent when new.
    #[prost(message, optional, tag = "5")]
    before: Option<GivenLimitBody>,
}

/// A limit; unlimited without a value.
#[derive(Clone, Copy, PartialEq, Message)]
struct GivenLimitBody {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
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
    #[prost(message, optional, tag = "8")]
    allocation: Option<AllocationNameBody>,
    #[prost(message, optional, tag = "9")]
    hold: Option<HoldNameBody>,
    /// Nanoseconds since the Unix epoch; absent where time did not end it.
    #[prost(int64, optional, tag = "10")]
    over: Option<i64>,
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
    #[prost(bool, tag = "5")]
    born: bool,
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
    /// An [`OutcomeBody`].
    #[prost(bytes = "vec", tag = "3")]
    outcome: Vec<u8>,
}

/// An event as it stands in a batch.
pub(crate) fn write_event(event: &Event, wire: &mut Wire) {
    wire.int(1, event.at.nanos());
    wire.uint(2, event.revision);
    wire.text(3, event.operation.as_ref().map_or("", OperationId::as_str));
    wire.text(4, &event.provenance.actor);
    wire.text(5, &event.provenance.source);
    write_change(&event.change, wire);
}

fn write_change(change: &Change, wire: &mut Wire) {
    let quota_name = |target: &Target, resource: &ResourceKey, id: &Id, before, after| {
        ChangeBody::QuotaSet(QuotaNameBody {
            target: target.to_string(),
            resource: resource.as_str().to_owned(),
            id: id.as_str().to_owned(),
            after: Option::map(after, body_of_limit),
            before: Option::map(before, body_of_limit),
        })
    };
    let body = match change {
        Change::SubjectCreated { name, .. } => return wire.text(6, name.as_str()),
        Change::Charged(charged) => {
            wire.message(12, |wire| write_charged(charged, wire));
            return;
        }
        Change::Answered(answered) => {
            wire.message(13, |wire| {
                wire.text(1, &answered.lane);
                wire.blob(2, &answered.digest);
                wire.message(3, |wire| write_outcome(&answered.outcome, wire));
            });
            return;
        }
        Change::Usage(usage) => {
            wire.message(23, |wire| write_usage(usage, wire));
            return;
        }
        Change::SubjectChanged { name, .. } => ChangeBody::SubjectChanged(name.as_str().to_owned()),
        Change::ResourceSet(resource) => ChangeBody::ResourceSet(resource.key.as_str().to_owned()),
        Change::ResourceDeleted(key) => ChangeBody::ResourceDeleted(key.as_str().to_owned()),
        Change::QuotaSet {
            target,
            quota,
            before,
        } => quota_name(
            target,
            &quota.resource,
            &quota.id,
            *before,
            Some(quota.limit),
        ),
        Change::QuotaDeleted {
            target,
            resource,
            id,
            before,
        } => quota_name(target, resource, id, Some(*before), None),
        Change::SubjectDeleted { name } => ChangeBody::SubjectDeleted(name.as_str().to_owned()),
        Change::UsageReset(reset) => ChangeBody::UsageReset(UsageResetBody {
            subject: reset.subject.as_str().to_owned(),
            resource: reset.resource.as_str().to_owned(),
            quota: text(reset.quota.as_ref()),
            purpose: reset.purpose.clone(),
        }),
        Change::UsageCorrected(correct) => ChangeBody::UsageCorrected(UsageCorrectedBody {
            subject: correct.subject.as_str().to_owned(),
            also: texts(&correct.also),
            amounts: bodies_of_amounts(&correct.amounts),
            past: correct.past,
            purpose: correct.purpose.clone(),
        }),
        Change::ClockAccepted { offset_ns, .. } => ChangeBody::ClockAccepted(*offset_ns),
        Change::ClockDoubted { offset_ns, doubted } => ChangeBody::ClockDoubted(ClockDoubtedBody {
            offset_ns: *offset_ns,
            doubted: *doubted,
        }),
        Change::Started { batches, rebuilt } => ChangeBody::Started(StartedBody {
            batches: *batches,
            rebuilt: *rebuilt,
        }),
        Change::Exceeded(exceeded) => ChangeBody::Exceeded(body_of_exceeded(exceeded)),
        Change::Crossed(crossing) => ChangeBody::Crossed(body_of_crossing(crossing)),
        Change::Refused(refused) => ChangeBody::Refused(body_of_refused(refused)),
    };
    wire.fields(&EventBody {
        change: Some(body),
        ..EventBody::default()
    });
}

fn write_charged(charged: &Charged, wire: &mut Wire) {
    wire.text(1, charged.subject.as_str());
    wire.texts(2, charged.also.iter().map(SubjectName::as_str));
    write_amounts(3, &charged.used, wire);
    write_amounts(4, &charged.held, wire);
    wire.uint(5, number_of_cause(charged.cause).into());
    if let Some(row) = &charged.allocation {
        wire.message(8, |wire| {
            wire.text(1, row.key.as_str());
            wire.uint(2, row.generation);
            wire.bool(3, row.amounts.is_empty());
            write_labels(4, &row.labels, wire);
            wire.bool(5, charged.born);
        });
    }
    if let Some(hold) = &charged.hold {
        wire.message(9, |wire| {
            wire.text(1, hold.key.as_str());
            wire.uint(2, hold.generation);
            wire.uint(
                3,
                hold.ended.map_or(0, |(end, _)| number_of_end(end)).into(),
            );
            write_labels(4, &hold.labels, wire);
        });
    }
    wire.given_int(10, charged.over.map(Timestamp::nanos));
}

/// Reads an event.
pub(crate) fn event_of_bytes(bytes: &[u8]) -> Result<EventBody, FormatError> {
    Ok(EventBody::decode(bytes)?)
}

/// The answer in an event, if it is one.
pub(crate) fn remembered_of_body(body: EventBody) -> Result<Option<Arc<Remembered>>, FormatError> {
    let Some(ChangeBody::Answered(answered)) = body.change else {
        return Ok(None);
    };
    let outcome = OutcomeBody::decode(&*answered.outcome)?;
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

/// What an event tells; none of what is kept for its caller alone.
pub(crate) fn told_of_body(body: EventBody) -> Result<Option<Told>, FormatError> {
    let change = body.change.ok_or_else(|| {
        FormatError::damaged("an event of a kind that this version does not know")
    })?;
    let what = match change {
        ChangeBody::Answered(_) => return Ok(None),
        ChangeBody::SubjectCreated(name) => What::SubjectCreated(SubjectName::parse(&name)?),
        ChangeBody::SubjectChanged(name) => What::SubjectChanged(SubjectName::parse(&name)?),
        ChangeBody::SubjectDeleted(name) => What::SubjectDeleted(SubjectName::parse(&name)?),
        ChangeBody::ResourceSet(key) => What::ResourceSet(ResourceKey::parse(&key)?),
        ChangeBody::ResourceDeleted(key) => What::ResourceDeleted(ResourceKey::parse(&key)?),
        ChangeBody::QuotaSet(quota) => What::Quota {
            target: target_of_text(&quota.target)?,
            resource: ResourceKey::parse(&quota.resource)?,
            id: Id::parse(&quota.id)?,
            before: quota.before.map(limit_of_body),
            after: quota.after.map(limit_of_body),
        },
        ChangeBody::Charged(charged) => What::Charged(Box::new(charge_of_body(charged)?)),
        ChangeBody::UsageReset(reset) => What::UsageReset {
            subject: SubjectName::parse(&reset.subject)?,
            resource: ResourceKey::parse(&reset.resource)?,
            quota: given(&reset.quota).map(Id::parse).transpose()?,
            purpose: reset.purpose,
        },
        ChangeBody::UsageCorrected(correct) => What::UsageCorrected {
            subject: SubjectName::parse(&correct.subject)?,
            also: names(&correct.also)?,
            amounts: amounts_of_bodies(correct.amounts)?,
            purpose: correct.purpose,
        },
        ChangeBody::ClockAccepted(offset_ns) => What::ClockAccepted { offset_ns },
        ChangeBody::ClockDoubted(body) => What::ClockDoubted {
            offset_ns: body.offset_ns,
            doubted: body.doubted,
        },
        ChangeBody::Started(body) => What::Started {
            batches: body.batches,
            rebuilt: body.rebuilt,
        },
        ChangeBody::Exceeded(body) => What::Exceeded(Box::new(exceeded_of_body(body)?)),
        ChangeBody::Crossed(body) => What::Crossed(Box::new(crossing_of_body(body)?)),
        ChangeBody::Refused(body) => What::Refused(Box::new(refused_of_body(body)?)),
        ChangeBody::Usage(body) => What::Usage(Box::new(usage_of_body(body)?)),
    };
    Ok(Some(Told {
        at: Timestamp::from_nanos(body.at),
        operation: body.operation,
        actor: body.actor,
        source: body.source,
        what,
    }))
}

fn charge_of_body(body: ChargedBody) -> Result<ToldCharge, FormatError> {
    Ok(ToldCharge {
        subject: SubjectName::parse(&body.subject)?,
        also: names(&body.also)?,
        used: amounts_of_bodies(body.used)?,
        held: amounts_of_bodies(body.held)?,
        cause: cause_of_number(body.cause)?,
        allocation: body.allocation.map(|row| ToldAllocation {
            key: row.key,
            generation: row.generation,
            born: row.born,
            ended: row.ended,
            labels: row.labels,
        }),
        hold: match body.hold {
            None => None,
            Some(hold) => Some(ToldHold {
                key: hold.key,
                generation: hold.generation,
                end: end_of_number(hold.end)?,
                labels: hold.labels,
            }),
        },
    })
}

fn target_of_text(text: &str) -> Result<Target, FormatError> {
    Ok(match SubjectName::parse(text) {
        Ok(name) => Target::Subject(name),
        Err(_) => Target::Pattern(SubjectPattern::parse(text)?),
    })
}

fn body_of_limit(limit: Limit) -> GivenLimitBody {
    GivenLimitBody {
        value: limit.value(),
    }
}

fn limit_of_body(body: GivenLimitBody) -> Limit {
    body.value.map_or(Limit::Unlimited, Limit::Value)
}

/// The causes by their numbers, which stay.
const CAUSES: [Cause; 13] = [
    Cause::Consume,
    Cause::Record,
    Cause::Release,
    Cause::Resize,
    Cause::ReleaseMatching,
    Cause::Renew,
    Cause::Reserve,
    Cause::Commit,
    Cause::CommitRecord,
    Cause::RenewHold,
    Cause::Cancel,
    Cause::Expire,
    Cause::ResizeRecord,
];

fn number_of_cause(cause: Cause) -> u32 {
    let at = CAUSES.iter().zip(1..).find(|(have, _)| **have == cause);
    at.map_or(0, |(_, number)| number)
}

fn cause_of_number(number: u32) -> Result<Cause, FormatError> {
    let found = CAUSES.iter().zip(1..).find(|(_, have)| *have == number);
    found
        .map(|(cause, _)| *cause)
        .ok_or_else(|| FormatError::damaged(format!("a change by cause {number}")))
}
