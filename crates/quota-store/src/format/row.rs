//! Allocations and holds.

use std::collections::BTreeMap;

use prost::Message;
use quota_core::allocation::{Allocation, AllocationKey};
use quota_core::charge::charge_set;
use quota_core::hold::{End, Hold, HoldKey};
use quota_core::name::{Id, SubjectName};
use quota_core::time::Timestamp;

use super::FormatError;
use super::record::{AmountBody, amounts_of_bodies, write_amounts, write_labels};
use super::wire::Wire;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AllocationBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, repeated, tag = "2")]
    also: Vec<String>,
    #[prost(uint64, repeated, tag = "3")]
    incarnations: Vec<u64>,
    #[prost(string, tag = "4")]
    id: String,
    #[prost(message, repeated, tag = "5")]
    amounts: Vec<AmountBody>,
    #[prost(uint64, tag = "6")]
    generation: u64,
    #[prost(btree_map = "string, string", tag = "7")]
    labels: BTreeMap<String, String>,
    #[prost(string, tag = "8")]
    source: String,
    #[prost(string, tag = "9")]
    purpose: String,
    #[prost(int64, tag = "10")]
    created: i64,
    #[prost(int64, tag = "11")]
    updated: i64,
    #[prost(int64, optional, tag = "12")]
    expires: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HoldBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, repeated, tag = "2")]
    also: Vec<String>,
    #[prost(uint64, repeated, tag = "3")]
    incarnations: Vec<u64>,
    #[prost(string, tag = "4")]
    id: String,
    #[prost(string, tag = "5")]
    allocation: String,
    #[prost(message, repeated, tag = "6")]
    amounts: Vec<AmountBody>,
    #[prost(message, repeated, tag = "7")]
    spent: Vec<AmountBody>,
    #[prost(uint64, tag = "8")]
    generation: u64,
    #[prost(btree_map = "string, string", tag = "9")]
    labels: BTreeMap<String, String>,
    #[prost(string, tag = "10")]
    source: String,
    #[prost(string, tag = "11")]
    purpose: String,
    #[prost(int64, tag = "12")]
    created: i64,
    #[prost(int64, tag = "13")]
    expires: i64,
    /// Zero while it lives.
    #[prost(uint32, tag = "14")]
    end: u32,
    #[prost(int64, tag = "15")]
    ended: i64,
    #[prost(bool, tag = "16")]
    late: bool,
}

pub(super) fn write_allocation(allocation: &Allocation, wire: &mut Wire) {
    wire.text(1, allocation.subject.as_str());
    wire.texts(2, allocation.also.iter().map(SubjectName::as_str));
    wire.uints(3, &allocation.incarnations);
    wire.text(4, allocation.id.as_ref().map_or("", Id::as_str));
    write_amounts(5, &allocation.amounts, wire);
    wire.uint(6, allocation.generation);
    write_labels(7, &allocation.labels, wire);
    wire.text(8, &allocation.source);
    wire.text(9, &allocation.purpose);
    wire.int(10, allocation.created.nanos());
    wire.int(11, allocation.updated.nanos());
    wire.given_int(12, allocation.expires.map(Timestamp::nanos));
}

pub(crate) fn allocation_of_body(body: AllocationBody) -> Result<Allocation, FormatError> {
    let (subject, also) = charged(&body.subject, &body.also, &body.incarnations)?;
    let id = match body.id.as_str() {
        "" => None,
        id => Some(Id::parse(id)?),
    };
    Ok(Allocation {
        key: AllocationKey::new(&subject, id.as_ref(), &also),
        subject,
        also,
        incarnations: body.incarnations,
        id,
        amounts: amounts_of_bodies(body.amounts)?,
        generation: body.generation,
        labels: body.labels,
        source: body.source,
        purpose: body.purpose,
        created: Timestamp::from_nanos(body.created),
        updated: Timestamp::from_nanos(body.updated),
        expires: body.expires.map(Timestamp::from_nanos),
    })
}

pub(super) fn write_hold(hold: &Hold, wire: &mut Wire) {
    wire.text(1, hold.subject.as_str());
    wire.texts(2, hold.also.iter().map(SubjectName::as_str));
    wire.uints(3, &hold.incarnations);
    wire.text(4, hold.id.as_str());
    wire.text(5, hold.allocation.as_str());
    write_amounts(6, &hold.amounts, wire);
    write_amounts(7, &hold.spent, wire);
    wire.uint(8, hold.generation);
    write_labels(9, &hold.labels, wire);
    wire.text(10, &hold.source);
    wire.text(11, &hold.purpose);
    wire.int(12, hold.created.nanos());
    wire.int(13, hold.expires.nanos());
    let (end, ended) = hold
        .ended
        .map_or((0, 0), |(end, at)| (number_of_end(end), at.nanos()));
    wire.uint(14, end.into());
    wire.int(15, ended);
    wire.bool(16, hold.late);
}

pub(crate) fn hold_of_body(body: HoldBody) -> Result<Hold, FormatError> {
    let (subject, also) = charged(&body.subject, &body.also, &body.incarnations)?;
    let id = Id::parse(&body.id)?;
    let end = end_of_number(body.end)?;
    Ok(Hold {
        key: HoldKey::new(&subject, &id),
        subject,
        also,
        incarnations: body.incarnations,
        id,
        allocation: Id::parse(&body.allocation)?,
        amounts: amounts_of_bodies(body.amounts)?,
        spent: amounts_of_bodies(body.spent)?,
        generation: body.generation,
        labels: body.labels,
        source: body.source,
        purpose: body.purpose,
        created: Timestamp::from_nanos(body.created),
        expires: Timestamp::from_nanos(body.expires),
        ended: end.map(|end| (end, Timestamp::from_nanos(body.ended))),
        late: body.late,
    })
}

pub(crate) fn number_of_end(end: End) -> u32 {
    match end {
        End::Committed => 1,
        End::Cancelled => 2,
        End::Expired => 3,
    }
}

/// How a hold ended; none while it lives.
pub(crate) fn end_of_number(number: u32) -> Result<Option<End>, FormatError> {
    Ok(match number {
        0 => None,
        1 => Some(End::Committed),
        2 => Some(End::Cancelled),
        3 => Some(End::Expired),
        other => {
            return Err(FormatError::damaged(format!(
                "a hold that ended by {other}"
            )));
        }
    })
}

pub(crate) fn names(texts: &[String]) -> Result<Vec<SubjectName>, FormatError> {
    let names = texts.iter().map(|text| SubjectName::parse(text));
    Ok(names.collect::<Result<_, _>>()?)
}

pub(crate) fn texts(names: &[SubjectName]) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}

/// Who is charged; with as many incarnations as there are subjects.
fn charged(
    subject: &str,
    also: &[String],
    incarnations: &[u64],
) -> Result<(SubjectName, Vec<SubjectName>), FormatError> {
    let subject = SubjectName::parse(subject)?;
    let also: Vec<SubjectName> = also
        .iter()
        .map(|name| SubjectName::parse(name))
        .collect::<Result<_, _>>()?;
    if charge_set(&subject, &also).len() != incarnations.len() {
        return Err(FormatError::damaged("a charge set of another size"));
    }
    Ok((subject, also))
}
