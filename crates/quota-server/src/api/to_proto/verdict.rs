//! Decisions with all that led to them.

use quota_core::name::ResourceKey;
use quota_core::period::Window;
use quota_core::time::Timestamp;
use quota_core::verdict::{
    Decision, Dimension, EffectiveLimit, Finding, Headroom, Projection, Reason, Verdict,
};
use quota_proto::v1;

use super::quota::period;
use super::{duration, limit, text, timestamp};

pub(in crate::api) fn verdict(verdict: &Verdict) -> v1::Verdict {
    v1::Verdict {
        decision: decision(verdict.decision),
        refusals: findings(&verdict.refusals),
        exceeded: findings(&verdict.exceeded),
        warnings: findings(&verdict.warnings),
        shadows: findings(&verdict.shadows),
        near_limits: verdict.near.iter().map(headroom).collect(),
        tightest_limits: verdict.tightest.iter().map(headroom).collect(),
        unbounded_resources: verdict.unbounded.iter().map(ToString::to_string).collect(),
        delay: match verdict.decision {
            Decision::Delayed => Some(duration(verdict.delay)),
            _ => None,
        },
        granted_amount: verdict.partial,
    }
}

pub(in crate::api) fn decision(decision: Decision) -> i32 {
    match decision {
        Decision::Granted => v1::Decision::Granted.into(),
        Decision::Partial => v1::Decision::Partial.into(),
        Decision::Delayed => v1::Decision::Delayed.into(),
        Decision::Denied => v1::Decision::Denied.into(),
    }
}

fn findings(findings: &[Finding]) -> Vec<v1::LimitFinding> {
    findings.iter().map(finding).collect()
}

pub(super) fn finding(finding: &Finding) -> v1::LimitFinding {
    v1::LimitFinding {
        subject: finding.subject.as_str().to_owned(),
        quota: text(finding.quota.as_ref()),
        pattern: text(finding.pattern.as_ref()),
        resource: finding.resource.as_str().to_owned(),
        reason: match finding.reason {
            Reason::Limit => v1::RefusalReason::Limit.into(),
            Reason::Rate => v1::RefusalReason::Rate.into(),
            Reason::PeriodExhausted => v1::RefusalReason::PeriodExhausted.into(),
            Reason::TooLarge => v1::RefusalReason::TooLarge.into(),
            Reason::NoQuota => v1::RefusalReason::NoQuota.into(),
            Reason::Suspended => v1::RefusalReason::Suspended.into(),
        },
        limit: finding.limit.map(limit),
        used: finding.used,
        held: finding.held,
        requested: finding.requested,
        shortfall: finding.shortfall,
        retry_delay: finding.retry.map(duration),
        period_start_time: start(finding.window),
        period_end_time: end(finding.window),
    }
}

fn headroom(headroom: &Headroom) -> v1::LimitHeadroom {
    v1::LimitHeadroom {
        subject: headroom.subject.as_str().to_owned(),
        quota: headroom.quota.as_str().to_owned(),
        pattern: text(headroom.pattern.as_ref()),
        resource: headroom.resource.as_str().to_owned(),
        limit: headroom.limit,
        taken: headroom.taken,
        remaining: headroom.remaining(),
        period_start_time: start(headroom.window),
        period_end_time: end(headroom.window),
    }
}

pub(super) fn start(window: Option<Window>) -> Option<prost_types::Timestamp> {
    let start = window.map(|window| window.start);
    start
        .filter(|start| *start != Timestamp::MIN)
        .map(timestamp)
}

pub(super) fn end(window: Option<Window>) -> Option<prost_types::Timestamp> {
    window.and_then(|window| window.end).map(timestamp)
}

/// The least limits of a resource; one entry without a limit where there is none.
pub(in crate::api) fn effective_limits(
    resource: &ResourceKey,
    least: &[EffectiveLimit],
) -> Vec<v1::EffectiveLimit> {
    let resource = resource.as_str().to_owned();
    if least.is_empty() {
        return vec![v1::EffectiveLimit {
            resource,
            ..v1::EffectiveLimit::default()
        }];
    }
    let one = |least: &EffectiveLimit| v1::EffectiveLimit {
        resource: resource.clone(),
        limit: Some(limit(least.limit)),
        subject: least.subject.as_str().to_owned(),
        quota: least.quota.as_str().to_owned(),
        period: match &least.dimension {
            Dimension::Period(of) => Some(period(of)),
            _ => None,
        },
        interval: match &least.dimension {
            Dimension::Interval(interval) => Some(duration(*interval)),
            _ => None,
        },
    };
    least.iter().map(one).collect()
}

pub(in crate::api) fn projections(projections: &[Projection<'_>]) -> Vec<v1::Projection> {
    projections
        .iter()
        .map(|projection| v1::Projection {
            subject: projection.subject.to_string(),
            resource: projection.resource.as_str().to_owned(),
            quota: text(projection.quota),
            used: projection.used,
            held: projection.held,
            projected: projection.projected,
            period_start_time: start(projection.window),
            period_end_time: end(projection.window),
        })
        .collect()
}
