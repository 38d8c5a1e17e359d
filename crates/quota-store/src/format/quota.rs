//! Quotas, with their periods and rates.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use quota_core::amount::Limit;
use quota_core::name::{Id, ResourceKey};
use quota_core::period::{Period, Unit};
use quota_core::quota::{Before, Counting, Enforcement, Measure, Origin, Quota, State};
use quota_core::rate::{Rate, RateBefore};
use quota_core::time::Timestamp;

use super::FormatError;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct QuotaBody {
    #[prost(string, tag = "1")]
    resource: String,
    #[prost(string, tag = "2")]
    id: String,
    /// Absent: unlimited.
    #[prost(int64, optional, tag = "3")]
    limit: Option<i64>,
    #[prost(int64, optional, tag = "4")]
    max_request: Option<i64>,
    #[prost(string, tag = "5")]
    display_name: String,
    #[prost(btree_map = "string, string", tag = "6")]
    labels: BTreeMap<String, String>,
    #[prost(uint32, tag = "7")]
    origin: u32,
    #[prost(int64, tag = "8")]
    created: i64,
    #[prost(int64, tag = "9")]
    updated: i64,
    #[prost(uint64, tag = "10")]
    version: u64,
    #[prost(uint32, tag = "11")]
    enforcement: u32,
    #[prost(uint32, tag = "12")]
    state: u32,
    #[prost(int64, optional, tag = "13")]
    valid_from: Option<i64>,
    #[prost(int64, optional, tag = "14")]
    valid_until: Option<i64>,
    #[prost(uint32, optional, tag = "15")]
    near_percent: Option<u32>,
    #[prost(oneof = "MeasureBody", tags = "16, 17, 18")]
    measure: Option<MeasureBody>,
    #[prost(message, repeated, tag = "19")]
    rates_before: Vec<RateBeforeBody>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct RateBeforeBody {
    #[prost(int64, tag = "1")]
    until: i64,
    #[prost(int64, tag = "2")]
    limit: i64,
    #[prost(int64, tag = "3")]
    interval_ns: i64,
}

/// Absent: what is there.
#[derive(Clone, PartialEq, prost::Oneof)]
enum MeasureBody {
    #[prost(message, tag = "16")]
    Counted(CountingBody),
    #[prost(message, tag = "17")]
    Rated(RateBody),
    #[prost(bool, tag = "18")]
    Request(bool),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PeriodBody {
    #[prost(uint32, tag = "1")]
    unit: u32,
    #[prost(uint32, tag = "2")]
    count: u32,
    #[prost(int64, tag = "3")]
    anchor: i64,
    /// Nanoseconds of a fixed period.
    #[prost(uint64, tag = "4")]
    fixed_ns: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CountingBody {
    #[prost(message, optional, tag = "1")]
    period: Option<PeriodBody>,
    #[prost(int64, tag = "2")]
    since: i64,
    #[prost(message, optional, tag = "3")]
    before: Option<BeforeBody>,
}

#[derive(Clone, PartialEq, Message)]
struct BeforeBody {
    #[prost(message, optional, tag = "1")]
    period: Option<PeriodBody>,
    #[prost(int64, tag = "2")]
    since: i64,
    #[prost(int64, tag = "3")]
    until: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct RateBody {
    #[prost(uint64, tag = "1")]
    interval_ns: u64,
    #[prost(int64, optional, tag = "2")]
    bucket: Option<i64>,
    #[prost(uint64, tag = "3")]
    delay_max_ns: u64,
}

pub(crate) fn body_of_quota(quota: &Quota) -> QuotaBody {
    QuotaBody {
        resource: quota.resource.as_str().to_owned(),
        id: quota.id.as_str().to_owned(),
        limit: match quota.limit {
            Limit::Value(value) => Some(value),
            Limit::Unlimited => None,
        },
        max_request: quota.max_request,
        display_name: quota.display_name.clone(),
        labels: quota.labels.clone(),
        origin: match quota.origin {
            Origin::Default => 1,
            Origin::Template => 2,
            Origin::Policy => 3,
            Origin::Override => 4,
            Origin::Automatic => 5,
        },
        created: quota.created.nanos(),
        updated: quota.updated.nanos(),
        version: quota.version,
        enforcement: match quota.enforcement {
            Enforcement::Deny => 1,
            Enforcement::Warn => 2,
            Enforcement::Shadow => 3,
            Enforcement::Throttle => 4,
        },
        state: match quota.state {
            State::Active => 1,
            State::Disabled => 2,
            State::Suspended => 3,
        },
        valid_from: quota.valid_from.map(Timestamp::nanos),
        valid_until: quota.valid_until.map(Timestamp::nanos),
        near_percent: quota.near_percent.map(u32::from),
        rates_before: quota
            .rates_before
            .iter()
            .map(|before| RateBeforeBody {
                until: before.until.nanos(),
                limit: before.limit,
                interval_ns: before.interval_ns,
            })
            .collect(),
        measure: match &quota.measure {
            Measure::Held => None,
            Measure::Counted(counting) => Some(MeasureBody::Counted(CountingBody {
                period: Some(body_of_period(&counting.period)),
                since: counting.since.nanos(),
                before: counting.before.map(|before| BeforeBody {
                    period: Some(body_of_period(&before.period)),
                    since: before.since.nanos(),
                    until: before.until.nanos(),
                }),
            })),
            Measure::Rated(rate) => Some(MeasureBody::Rated(RateBody {
                interval_ns: nanos(rate.interval),
                bucket: rate.bucket,
                delay_max_ns: nanos(rate.delay_max),
            })),
            Measure::Request => Some(MeasureBody::Request(true)),
        },
    }
}

pub(crate) fn quota_of_body(body: QuotaBody) -> Result<Quota, FormatError> {
    let unknown = |what: &str, number: u32| Err(FormatError::damaged(format!("{what} {number}")));
    let at = |nanos: Option<i64>| nanos.map(Timestamp::from_nanos);
    let near = body.near_percent.map(u8::try_from).transpose();
    Ok(Quota {
        resource: ResourceKey::parse(&body.resource)?,
        id: Id::parse(&body.id)?,
        limit: body.limit.map_or(Limit::Unlimited, Limit::Value),
        measure: match body.measure {
            None => Measure::Held,
            Some(MeasureBody::Counted(counting)) => Measure::Counted(counting_of_body(counting)?),
            Some(MeasureBody::Rated(rate)) => Measure::Rated(Rate {
                interval: Duration::from_nanos(rate.interval_ns),
                bucket: rate.bucket,
                delay_max: Duration::from_nanos(rate.delay_max_ns),
            }),
            Some(MeasureBody::Request(_)) => Measure::Request,
        },
        enforcement: match body.enforcement {
            1 => Enforcement::Deny,
            2 => Enforcement::Warn,
            3 => Enforcement::Shadow,
            4 => Enforcement::Throttle,
            other => return unknown("quota enforcement", other),
        },
        state: match body.state {
            1 => State::Active,
            2 => State::Disabled,
            3 => State::Suspended,
            other => return unknown("quota state", other),
        },
        valid_from: at(body.valid_from),
        valid_until: at(body.valid_until),
        max_request: body.max_request,
        rates_before: body
            .rates_before
            .iter()
            .map(|before| RateBefore {
                until: Timestamp::from_nanos(before.until),
                limit: before.limit,
                interval_ns: before.interval_ns.max(1),
            })
            .collect(),
        near_percent: near.map_err(|_| FormatError::damaged("a near share above 255"))?,
        display_name: body.display_name,
        labels: body.labels,
        origin: match body.origin {
            1 => Origin::Default,
            2 => Origin::Template,
            3 => Origin::Policy,
            4 => Origin::Override,
            5 => Origin::Automatic,
            other => return unknown("quota origin", other),
        },
        created: Timestamp::from_nanos(body.created),
        updated: Timestamp::from_nanos(body.updated),
        version: body.version,
    })
}

fn counting_of_body(body: CountingBody) -> Result<Counting, FormatError> {
    let before = body.before.map(|before| {
        Ok::<_, FormatError>(Before {
            period: period_of_body(before.period.as_ref())?,
            since: Timestamp::from_nanos(before.since),
            until: Timestamp::from_nanos(before.until),
        })
    });
    Ok(Counting {
        period: period_of_body(body.period.as_ref())?,
        since: Timestamp::from_nanos(body.since),
        before: before.transpose()?,
    })
}

pub(crate) fn body_of_period(period: &Period) -> PeriodBody {
    let (unit, fixed_ns) = match period.unit() {
        Unit::None => (0, 0),
        Unit::Hour => (1, 0),
        Unit::Day => (2, 0),
        Unit::Week => (3, 0),
        Unit::Month => (4, 0),
        Unit::Year => (5, 0),
        Unit::Fixed(length) => (6, nanos(length)),
    };
    PeriodBody {
        unit,
        count: period.count(),
        anchor: period.anchor().nanos(),
        fixed_ns,
    }
}

pub(crate) fn period_of_body(body: Option<&PeriodBody>) -> Result<Period, FormatError> {
    let body = body.ok_or_else(|| FormatError::damaged("a counter without its period"))?;
    let unit = match body.unit {
        0 => Unit::None,
        1 => Unit::Hour,
        2 => Unit::Day,
        3 => Unit::Week,
        4 => Unit::Month,
        5 => Unit::Year,
        6 => Unit::Fixed(Duration::from_nanos(body.fixed_ns)),
        other => return Err(FormatError::damaged(format!("a period of unit {other}"))),
    };
    let anchor = Timestamp::from_nanos(body.anchor);
    Ok(Period::new(unit, body.count, Some(anchor)))
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}
