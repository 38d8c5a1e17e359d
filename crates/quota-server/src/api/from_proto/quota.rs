//! Quotas, with their periods and rates.

use std::time::Duration;

use quota_core::amount::AMOUNT_MAX;
use quota_core::command::{Existence, SetQuota};
use quota_core::labels::ROW_LABELS_MAX;
use quota_core::name::{ResourceKey, SubjectName};
use quota_core::period::{COUNT_MAX, FIXED_MAX, FIXED_MIN, Period, Unit};
use quota_core::quota::{Enforcement, Origin, State, Target, default_id};
use quota_core::rate::{DELAY_MAX, INTERVAL_MAX, Rate};
use quota_proto::v1;

use super::{DISPLAY_BYTES_MAX, Reader};

/// A quota as it should be, under the field `quota`.
pub(in crate::api) fn read_quota(
    reader: &mut Reader,
    quota: Option<v1::Quota>,
    existence: Existence,
    force: bool,
) -> SetQuota {
    if quota.is_none() {
        reader.wrong("quota", "is missing");
    }
    let quota = quota.unwrap_or_default();
    let target = read_target(reader, "quota.subject", &quota.subject);
    let resource = reader
        .resource("quota.resource", &quota.resource)
        .unwrap_or_else(stand_in);
    let enforcement = read_enforcement(reader, quota.enforcement);
    let period = quota.period.map(|period| read_period(reader, period));
    let rate = quota.rate.map(|rate| read_rate(reader, rate, enforcement));
    let id = match reader.id("quota.quota_id", &quota.quota_id) {
        Some(id) => id,
        None => default_id(&resource, period.as_ref(), rate.as_ref()),
    };
    let valid_from = reader.instant("quota.valid_from_time", quota.valid_from_time);
    let valid_until = reader.instant("quota.valid_until_time", quota.valid_until_time);
    if let (Some(from), Some(until)) = (valid_from, valid_until)
        && until <= from
    {
        reader.wrong(
            "quota.valid_until_time",
            "is not after quota.valid_from_time",
        );
    }
    if let Some(most) = quota.max_request
        && !(1..=AMOUNT_MAX).contains(&most)
    {
        let text = format!("is {most}; 1 to {AMOUNT_MAX} base units, or absent");
        reader.wrong("quota.max_request", text);
    }
    SetQuota {
        limit: reader.limit("quota.limit", quota.limit),
        period,
        rate,
        enforcement,
        state: read_state(reader, quota.state),
        valid_from,
        valid_until,
        max_request: quota.max_request,
        near_percent: quota.near_percent.map(|share| read_share(reader, share)),
        display_name: reader.text("quota.display_name", quota.display_name, DISPLAY_BYTES_MAX),
        labels: reader.labels("quota.labels", quota.labels, ROW_LABELS_MAX),
        origin: read_origin(reader, quota.origin, &target),
        target,
        resource,
        id,
        existence,
        etag: quota.etag,
        force,
    }
}

pub(in crate::api) fn read_target(reader: &mut Reader, field: &str, text: &str) -> Target {
    Target::parse(text).unwrap_or_else(|error| {
        reader.wrong(field, error.0);
        Target::Subject(SubjectName::system())
    })
}

fn read_share(reader: &mut Reader, percent: i32) -> u8 {
    match u8::try_from(percent) {
        Ok(share) if (1..=100).contains(&share) => share,
        _ => {
            reader.wrong(
                "quota.near_percent",
                format!("is {percent}; 1 to 100, or absent"),
            );
            100
        }
    }
}

fn read_period(reader: &mut Reader, period: v1::Period) -> Period {
    let fixed = period.unit == i32::from(v1::PeriodUnit::Fixed);
    let length = reader.duration("quota.period.length", period.length, FIXED_MIN, FIXED_MAX);
    if fixed && period.length.is_none() {
        reader.wrong(
            "quota.period.length",
            "is not given; a FIXED period needs one",
        );
    }
    if !fixed && period.length.is_some() {
        reader.wrong(
            "quota.period.length",
            "is given; only a FIXED period has one",
        );
    }
    if !matches!(period.time_zone.as_str(), "" | "UTC") {
        reader.wrong(
            "quota.period.time_zone",
            "is not UTC; other zones are not supported by this version",
        );
    }
    let unit = match v1::PeriodUnit::try_from(period.unit) {
        Ok(v1::PeriodUnit::None) => Unit::None,
        Ok(v1::PeriodUnit::Hour) => Unit::Hour,
        Ok(v1::PeriodUnit::Day) => Unit::Day,
        Ok(v1::PeriodUnit::Week) => Unit::Week,
        Ok(v1::PeriodUnit::Month) => Unit::Month,
        Ok(v1::PeriodUnit::Year) => Unit::Year,
        Ok(v1::PeriodUnit::Fixed) => Unit::Fixed(length.unwrap_or(FIXED_MIN)),
        Ok(v1::PeriodUnit::Unspecified) | Err(_) => {
            reader.wrong("quota.period.unit", "is not set; such as PERIOD_UNIT_HOUR");
            Unit::None
        }
    };
    let count = match u32::try_from(period.count) {
        Ok(0) => 1,
        Ok(count) if fixed && count > 1 => {
            let text = format!("is {count}; a FIXED period says in its length how long it is");
            reader.wrong("quota.period.count", text);
            1
        }
        Ok(count) if count <= COUNT_MAX => count,
        _ => {
            let text = format!("is {}; 1 to {COUNT_MAX}, or 0 for one", period.count);
            reader.wrong("quota.period.count", text);
            1
        }
    };
    let anchor = reader.instant("quota.period.anchor_time", period.anchor_time);
    Period::new(unit, count, anchor)
}

fn read_rate(reader: &mut Reader, rate: v1::Rate, enforcement: Enforcement) -> Rate {
    let least = Duration::from_nanos(1);
    if rate.interval.is_none() {
        reader.wrong(
            "quota.rate.interval",
            "is not given; the time that the limit is for",
        );
    }
    let interval = reader.duration("quota.rate.interval", rate.interval, least, INTERVAL_MAX);
    if let Some(bucket) = rate.bucket
        && !(1..=AMOUNT_MAX).contains(&bucket)
    {
        let text = format!("is {bucket}; 1 to {AMOUNT_MAX} base units, or absent");
        reader.wrong("quota.rate.bucket", text);
    }
    let throttles = enforcement == Enforcement::Throttle;
    if throttles && rate.delay_max.is_none() {
        reader.wrong(
            "quota.rate.delay_max",
            "is not given; the longest wait of a caller that is throttled",
        );
    }
    if !throttles && rate.delay_max.is_some() {
        reader.wrong("quota.rate.delay_max", "is given; only THROTTLE has one");
    }
    let delay_max = reader.duration("quota.rate.delay_max", rate.delay_max, least, DELAY_MAX);
    Rate {
        interval: interval.unwrap_or(least),
        bucket: rate.bucket,
        delay_max: delay_max.unwrap_or_default(),
    }
}

fn read_enforcement(reader: &mut Reader, enforcement: i32) -> Enforcement {
    match v1::Enforcement::try_from(enforcement) {
        Ok(v1::Enforcement::Unspecified | v1::Enforcement::Deny) => Enforcement::Deny,
        Ok(v1::Enforcement::Warn) => Enforcement::Warn,
        Ok(v1::Enforcement::Shadow) => Enforcement::Shadow,
        Ok(v1::Enforcement::Throttle) => Enforcement::Throttle,
        Err(_) => {
            let text = format!("{enforcement} is no enforcement; DENY, WARN, SHADOW or THROTTLE");
            reader.wrong("quota.enforcement", text);
            Enforcement::Deny
        }
    }
}

fn read_state(reader: &mut Reader, state: i32) -> State {
    match v1::QuotaState::try_from(state) {
        Ok(v1::QuotaState::Unspecified | v1::QuotaState::Active) => State::Active,
        Ok(v1::QuotaState::Disabled) => State::Disabled,
        Ok(v1::QuotaState::Suspended) => State::Suspended,
        Err(_) => {
            let text = format!("{state} is no state; ACTIVE, DISABLED or SUSPENDED");
            reader.wrong("quota.state", text);
            State::Active
        }
    }
}

fn read_origin(reader: &mut Reader, origin: i32, target: &Target) -> Origin {
    match (v1::QuotaOrigin::try_from(origin), target) {
        (Ok(v1::QuotaOrigin::Unspecified), Target::Pattern(_)) => Origin::Default,
        (Ok(v1::QuotaOrigin::Unspecified), Target::Subject(_)) => Origin::Override,
        (Ok(v1::QuotaOrigin::Default), _) => Origin::Default,
        (Ok(v1::QuotaOrigin::Template), _) => Origin::Template,
        (Ok(v1::QuotaOrigin::Policy), _) => Origin::Policy,
        (Ok(v1::QuotaOrigin::Override), _) => Origin::Override,
        (Ok(v1::QuotaOrigin::Automatic), _) => Origin::Automatic,
        (Err(_), _) => {
            reader.wrong("quota.origin", format!("{origin} is no origin"));
            Origin::Override
        }
    }
}

/// Never used: a bad key does not get past its reader.
fn stand_in() -> ResourceKey {
    ResourceKey::parse("none").expect("a word is a key")
}
