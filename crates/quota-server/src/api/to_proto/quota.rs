//! Quotas, and what they measure.

use quota_core::evaluate::{InForce, Line, Scene};
use quota_core::gauge::Gauge;
use quota_core::name::ResourceKey;
use quota_core::period::{Period, Unit};
use quota_core::quota::{Counting, Enforcement, Measure, Origin, Quota, State, Target};
use quota_core::time::Timestamp;
use quota_proto::v1;

use super::verdict::{effective_limits, end, start};
use super::{duration, limit, text, timestamp};

/// A quota as it reads at `now`.
pub(in crate::api) fn quota(target: &Target, quota: &Quota, now: Timestamp) -> v1::Quota {
    let counting = match &quota.measure {
        Measure::Counted(counting) => Some(counting),
        _ => None,
    };
    let before = |counting: &Counting| counting.before.filter(|before| now < before.until);
    let before = counting.and_then(before);
    v1::Quota {
        subject: target.to_string(),
        resource: quota.resource.to_string(),
        quota_id: quota.id.to_string(),
        limit: Some(limit(quota.limit)),
        enforcement: enforcement(quota.enforcement).into(),
        max_request: quota.max_request,
        near_percent: quota.near_percent.map(i32::from),
        state: state(quota.state).into(),
        valid_from_time: quota.valid_from.map(timestamp),
        valid_until_time: quota.valid_until.map(timestamp),
        display_name: quota.display_name.clone(),
        labels: quota.labels.clone(),
        origin: match quota.origin {
            Origin::Default => v1::QuotaOrigin::Default.into(),
            Origin::Template => v1::QuotaOrigin::Template.into(),
            Origin::Policy => v1::QuotaOrigin::Policy.into(),
            Origin::Override => v1::QuotaOrigin::Override.into(),
            Origin::Automatic => v1::QuotaOrigin::Automatic.into(),
        },
        create_time: Some(timestamp(quota.created)),
        update_time: Some(timestamp(quota.updated)),
        etag: quota.version.to_string(),
        period: counting.map(|counting| period(&counting.period)),
        rate: match &quota.measure {
            Measure::Rated(rate) => Some(v1::Rate {
                interval: Some(duration(rate.interval)),
                bucket: rate.bucket,
                delay_max: (quota.enforcement == Enforcement::Throttle)
                    .then(|| duration(rate.delay_max)),
            }),
            _ => None,
        },
        current_period: before.map(|before| period(&before.period)),
        period_change_time: before.map(|before| timestamp(before.until)),
    }
}

pub(super) fn period(of: &Period) -> v1::Period {
    let (unit, length) = match of.unit() {
        Unit::None => (v1::PeriodUnit::None, None),
        Unit::Hour => (v1::PeriodUnit::Hour, None),
        Unit::Day => (v1::PeriodUnit::Day, None),
        Unit::Week => (v1::PeriodUnit::Week, None),
        Unit::Month => (v1::PeriodUnit::Month, None),
        Unit::Year => (v1::PeriodUnit::Year, None),
        Unit::Fixed(length) => (v1::PeriodUnit::Fixed, Some(duration(length))),
    };
    let anchored = *of != Period::new(of.unit(), of.count(), None);
    v1::Period {
        unit: unit.into(),
        count: i32::try_from(of.count()).unwrap_or(i32::MAX),
        anchor_time: anchored.then(|| timestamp(of.anchor())),
        length,
        time_zone: String::new(),
    }
}

fn enforcement(enforcement: Enforcement) -> v1::Enforcement {
    match enforcement {
        Enforcement::Deny => v1::Enforcement::Deny,
        Enforcement::Warn => v1::Enforcement::Warn,
        Enforcement::Shadow => v1::Enforcement::Shadow,
        Enforcement::Throttle => v1::Enforcement::Throttle,
    }
}

fn state(state: State) -> v1::QuotaState {
    match state {
        State::Active => v1::QuotaState::Active,
        State::Disabled => v1::QuotaState::Disabled,
        State::Suspended => v1::QuotaState::Suspended,
    }
}

/// The accounts of the last subject of a path, with the limits that bound them.
pub(in crate::api) fn usage(
    name: &str,
    path: &Scene<'_>,
    only: Option<&ResourceKey>,
) -> v1::SubjectUsage {
    let own = path.lines().last();
    let resources = own.map(Line::resources).unwrap_or_default();
    let wanted = |key: &&ResourceKey| only.is_none_or(|only| only == *key);
    let account = |key: &ResourceKey| {
        let own = own?;
        let taken = own.taken(key);
        Some(v1::ResourceUsage {
            resource: key.to_string(),
            used: taken.used,
            held: taken.held,
            quotas: own.gauges(key).iter().map(applied).collect(),
            effective_limits: effective_limits(key, &path.effective_limits(key)),
            // What the history knows is added where one subject is asked for.
            used_peak_day: None,
            unit_hours: None,
            unit_hours_since_time: None,
        })
    };
    v1::SubjectUsage {
        subject: name.to_owned(),
        resources: resources
            .iter()
            .filter(wanted)
            .filter_map(account)
            .collect(),
    }
}

fn applied(gauge: &Gauge<'_>) -> v1::AppliedQuota {
    let quota = gauge.quota();
    let rate = match &quota.measure {
        Measure::Rated(rate) => Some(rate),
        _ => None,
    };
    let periodic = gauge.window.filter(|window| window.end.is_some());
    let bucket = rate.and_then(|rate| rate.bucket.or(quota.limit.value()));
    let most = match rate {
        Some(_) => bucket,
        None => quota.limit.value(),
    };
    let taken = gauge.taken.sum();
    v1::AppliedQuota {
        quota_id: quota.id.to_string(),
        limit: Some(limit(quota.limit)),
        pattern: text(gauge.pattern()),
        enforcement: enforcement(quota.enforcement).into(),
        state: state(quota.state).into(),
        used: gauge.taken.used,
        held: gauge.taken.held,
        period: gauge.period().map(|of| period(&of)),
        period_start_time: start(periodic),
        period_end_time: end(periodic),
        since_time: gauge.since.map(timestamp),
        interval: rate.map(|rate| duration(rate.interval)),
        bucket: bucket.unwrap_or_default(),
        near: most.is_some_and(|most| quota.is_near(taken, most, 0)),
    }
}

/// Every quota that could bound a resource, from the system down, and why it does not where it does not.
pub(in crate::api) fn explained(
    scene: &Scene<'_>,
    resource: &ResourceKey,
    now: Timestamp,
) -> Vec<v1::ExplainedQuota> {
    let least = scene.effective_limits(resource);
    let mut explained = Vec::new();
    for line in scene.lines() {
        let gauges = line.gauges(resource);
        for found in line.all_quotas(resource) {
            let pattern = found.pattern.cloned();
            let gauge = gauges.iter().find(|gauge| {
                gauge.quota().id == found.quota.id && gauge.pattern() == pattern.as_ref()
            });
            let effective = gauge.is_some()
                && least.iter().any(|least| {
                    least.subject.as_str() == line.name() && least.quota == found.quota.id
                });
            let target = match (&pattern, line.subject_name()) {
                (Some(pattern), _) => Target::Pattern(pattern.clone()),
                (None, name) => Target::Subject(name),
            };
            let taken = gauge.map(|gauge| gauge.taken).unwrap_or_default();
            explained.push(v1::ExplainedQuota {
                subject: line.name().to_owned(),
                quota: Some(quota(&target, found.quota, now)),
                in_force: gauge.is_some(),
                why_not: match gauge {
                    Some(_) => String::new(),
                    None => why_not(&found, now).to_owned(),
                },
                effective,
                used: taken.used,
                held: taken.held,
            });
        }
    }
    explained
}

fn why_not(found: &InForce<'_>, now: Timestamp) -> &'static str {
    let quota = found.quota;
    if quota.state == State::Disabled {
        "DISABLED"
    } else if quota.valid_from.is_some_and(|from| now < from) {
        "not valid yet"
    } else if quota.valid_until.is_some_and(|until| until <= now) {
        "not valid any more"
    } else {
        "covered by another quota of its id"
    }
}
