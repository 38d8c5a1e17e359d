//! Domain to wire.

mod event;
mod quota;
mod row;
mod verdict;

use std::time::Duration;

use quota_core::amount::Limit;
use quota_core::name::ResourceKey;
use quota_core::resource::{Kind, Resource, WithoutQuota};
use quota_core::subject::Subject;
use quota_core::time::{SECOND_NS, Timestamp};
use quota_proto::v1;

pub(super) use event::{event, kind as event_kind, severity};
pub(super) use quota::{explained, quota, usage};
pub(super) use row::{allocation, hold};
pub(super) use verdict::{decision, effective_limits, projections, verdict};

pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.whole_second(),
        nanos: i32::try_from(at.nanos().rem_euclid(SECOND_NS)).unwrap_or_default(),
    }
}

pub(super) fn duration(length: Duration) -> prost_types::Duration {
    // The longest that the type may say: about 10,000 years.
    const SECONDS_MAX: u64 = 315_576_000_000;
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs().min(SECONDS_MAX)).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or_default(),
    }
}

/// A duration that may be negative, from nanoseconds.
pub(super) fn signed_duration(nanos: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: nanos / SECOND_NS,
        nanos: i32::try_from(nanos % SECOND_NS).unwrap_or_default(),
    }
}

pub(super) fn amounts(amounts: &[(ResourceKey, i64)]) -> Vec<v1::Amount> {
    amounts
        .iter()
        .map(|(resource, amount)| v1::Amount {
            resource: resource.as_str().to_owned(),
            amount: *amount,
        })
        .collect()
}

pub(super) fn limit(limit: Limit) -> v1::Limit {
    v1::Limit {
        limit: Some(match limit {
            Limit::Value(value) => v1::limit::Limit::Value(value),
            Limit::Unlimited => v1::limit::Limit::Unlimited(v1::Unlimited {}),
        }),
    }
}

pub(super) fn subject(subject: &Subject) -> v1::Subject {
    v1::Subject {
        name: subject.name.as_str().to_owned(),
        display_name: subject.profile.display_name.clone(),
        labels: subject.profile.labels.clone(),
        incarnation: subject.profile.incarnation,
        create_time: Some(timestamp(subject.profile.created)),
        update_time: Some(timestamp(subject.profile.updated)),
        etag: subject.profile.version.to_string(),
    }
}

pub(super) fn resource(resource: &Resource) -> v1::Resource {
    v1::Resource {
        key: resource.key.as_str().to_owned(),
        kind: kind(resource.kind).into(),
        base_unit: resource.base_unit.clone(),
        display_unit: resource.display_unit.clone(),
        display_ratio: resource.display_ratio,
        without_quota: match resource.without_quota {
            WithoutQuota::Allow => v1::WithoutQuota::Allow.into(),
            WithoutQuota::Deny => v1::WithoutQuota::Deny.into(),
        },
        display_name: resource.display_name.clone(),
        built_in: resource.built_in,
        etag: resource.version.to_string(),
    }
}

pub(super) fn kind(kind: Kind) -> v1::ResourceKind {
    match kind {
        Kind::Allocation => v1::ResourceKind::Allocation,
        Kind::Concurrency => v1::ResourceKind::Concurrency,
        Kind::Counter => v1::ResourceKind::Counter,
        Kind::Rate => v1::ResourceKind::Rate,
        Kind::PerRequest => v1::ResourceKind::PerRequest,
        Kind::Measured => v1::ResourceKind::Measured,
    }
}

/// A text that may be absent.
fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}
