//! Allocations and holds.

use quota_core::allocation::Allocation;
use quota_core::hold::{End, Hold};
use quota_core::name::SubjectName;
use quota_core::time::Timestamp;
use quota_proto::v1;

use super::{amounts, text, timestamp};

pub(in crate::api) fn allocation(allocation: &Allocation) -> v1::Allocation {
    v1::Allocation {
        name: allocation.key.as_str().to_owned(),
        subject: allocation.subject.as_str().to_owned(),
        also: names(&allocation.also),
        allocation_id: text(allocation.id.as_ref()),
        amounts: amounts(&allocation.amounts),
        generation: allocation.generation,
        labels: allocation.labels.clone(),
        source: allocation.source.clone(),
        purpose: allocation.purpose.clone(),
        create_time: Some(timestamp(allocation.created)),
        update_time: Some(timestamp(allocation.updated)),
        expire_time: allocation.expires.map(timestamp),
    }
}

/// A hold as it reads at `now`, closed or not.
pub(in crate::api) fn hold(hold: &Hold, now: Timestamp) -> v1::Hold {
    let end = hold.end(now);
    let ended = match (hold.ended, end) {
        // An expired hold ended when its time was over, not when it was closed.
        (_, Some(End::Expired)) => Some(hold.expires),
        (Some((_, at)), _) => Some(at),
        (None, _) => None,
    };
    v1::Hold {
        name: hold.key.as_str().to_owned(),
        subject: hold.subject.as_str().to_owned(),
        also: names(&hold.also),
        hold_id: hold.id.as_str().to_owned(),
        allocation_id: hold.allocation.as_str().to_owned(),
        amounts: amounts(&hold.amounts),
        spent: amounts(&hold.spent),
        state: match end {
            None => v1::HoldState::Live.into(),
            Some(End::Committed) => v1::HoldState::Committed.into(),
            Some(End::Cancelled) => v1::HoldState::Cancelled.into(),
            Some(End::Expired) => v1::HoldState::Expired.into(),
        },
        generation: hold.generation,
        labels: hold.labels.clone(),
        source: hold.source.clone(),
        purpose: hold.purpose.clone(),
        create_time: Some(timestamp(hold.created)),
        expire_time: Some(timestamp(hold.expires)),
        end_time: ended.map(timestamp),
        committed_late: hold.late,
    }
}

fn names(names: &[SubjectName]) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}
