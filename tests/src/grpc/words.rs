//! Calls of scripts as messages, and messages in the words of scripts.

use std::time::Duration;

use quota_client::v1;
use quota_client::{ProtoDuration, Timestamp as ProtoTimestamp};
use quota_core::period::Unit;
use quota_testkit::script::{self, Call};

pub(super) fn consume(call: &Call) -> v1::ConsumeRequest {
    v1::ConsumeRequest {
        subject: call.place.clone(),
        also: call.list("also"),
        amounts: amounts(call),
        operation_id: operation_id(call),
        allocation_id: call.option("id").unwrap_or_default().to_owned(),
        mode: mode(call),
        minimum: minimum(call),
        labels: call.labels(),
        operation_age: age(call),
        ttl: proto(call.option("ttl")),
        ..Default::default()
    }
}

pub(super) fn release(call: &Call) -> v1::ReleaseRequest {
    v1::ReleaseRequest {
        subject: call.place.clone(),
        also: call.list("also"),
        allocation_id: call.option("id").unwrap_or_default().to_owned(),
        amounts: amounts(call),
        operation_id: operation_id(call),
        expected_generation: call.option("gen").map(|text| text.parse().unwrap()),
        operation_age: age(call),
        ..Default::default()
    }
}

pub(super) fn resize(call: &Call) -> v1::ResizeRequest {
    v1::ResizeRequest {
        subject: call.place.clone(),
        allocation_id: call.option("id").unwrap_or_default().to_owned(),
        amounts: amounts(call),
        mode: mode(call),
        operation_id: operation_id(call),
        expected_generation: call.option("gen").map(|text| text.parse().unwrap()),
        operation_age: age(call),
        ..Default::default()
    }
}

pub(super) fn released(a: &v1::ReleaseResponse) -> String {
    let left = a.allocation.as_ref().map(|left| texts(&left.amounts));
    script::released(&texts(&a.released), left.as_deref(), a.replayed)
}

pub(super) fn operation_id(call: &Call) -> String {
    call.option("op").unwrap_or_default().to_owned()
}

pub(super) fn age(call: &Call) -> Option<ProtoDuration> {
    call.age().and_then(|age| ProtoDuration::try_from(age).ok())
}

pub(super) fn mode(call: &Call) -> i32 {
    match (call.has("record"), call.has("best")) {
        (true, _) => v1::ConsumeMode::Record.into(),
        (_, true) => v1::ConsumeMode::BestEffort.into(),
        _ => v1::ConsumeMode::Strict.into(),
    }
}

pub(super) fn minimum(call: &Call) -> Option<i64> {
    call.option("min").map(|text| text.parse().unwrap())
}

pub(super) fn uncovered(policy: Option<&str>) -> i32 {
    match policy {
        None | Some("refuse") => v1::UncoveredPolicy::Refuse.into(),
        Some("check") => v1::UncoveredPolicy::Check.into(),
        Some("record") => v1::UncoveredPolicy::Record.into(),
        Some(other) => panic!("no policy is called {other}"),
    }
}

pub(super) fn proto(length: Option<&str>) -> Option<ProtoDuration> {
    ProtoDuration::try_from(script::duration(length?)).ok()
}

pub(super) fn period(text: &str) -> v1::Period {
    let period = script::period(text);
    let (unit, length) = match period.unit() {
        Unit::None => (v1::PeriodUnit::None, None),
        Unit::Hour => (v1::PeriodUnit::Hour, None),
        Unit::Day => (v1::PeriodUnit::Day, None),
        Unit::Week => (v1::PeriodUnit::Week, None),
        Unit::Month => (v1::PeriodUnit::Month, None),
        Unit::Year => (v1::PeriodUnit::Year, None),
        Unit::Fixed(length) => (v1::PeriodUnit::Fixed, ProtoDuration::try_from(length).ok()),
    };
    v1::Period {
        unit: unit.into(),
        count: period.count() as i32,
        anchor_time: text.contains('@').then(|| ProtoTimestamp {
            seconds: period.anchor().nanos() / 1_000_000_000,
            nanos: 0,
        }),
        length,
        time_zone: String::new(),
    }
}

pub(super) fn quota_id(call: &Call) -> String {
    match call.option("id") {
        Some(id) if id.starts_with('.') => format!("{}{id}", call.amounts[0].0),
        Some(id) => id.to_owned(),
        None => String::new(),
    }
}

pub(super) fn done(what: &str, replayed: bool) -> String {
    match replayed {
        true => format!("{what} replayed"),
        false => what.to_owned(),
    }
}

pub(super) fn amounts(call: &Call) -> Vec<v1::Amount> {
    call.numbers()
        .into_iter()
        .map(|(resource, amount)| v1::Amount { resource, amount })
        .collect()
}

pub(super) fn texts(amounts: &[v1::Amount]) -> Vec<(String, i64)> {
    amounts
        .iter()
        .map(|amount| (amount.resource.clone(), amount.amount))
        .collect()
}

pub(super) fn verdict(call: &Call, verdict: Option<&v1::Verdict>, replayed: bool) -> String {
    let verdict = verdict.expect("every decision has a verdict");
    let shown = script::Verdict {
        decision: word(verdict.decision()),
        delay: verdict
            .delay
            .and_then(|delay| Duration::try_from(delay).ok()),
        partial: verdict.granted_amount,
        refusals: findings(&verdict.refusals),
        exceeded: findings(&verdict.exceeded),
        warnings: findings(&verdict.warnings),
        shadows: findings(&verdict.shadows),
        near: headroom(&verdict.near_limits),
        tightest: headroom(&verdict.tightest_limits),
        replayed,
    };
    script::verdict(call, &shown)
}

pub(super) fn word(decision: v1::Decision) -> &'static str {
    match decision {
        v1::Decision::Granted => "granted",
        v1::Decision::Partial => "partial",
        v1::Decision::Delayed => "delayed",
        v1::Decision::Denied => "denied",
        v1::Decision::Unspecified => panic!("no decision"),
    }
}

pub(super) fn headroom(all: &[v1::LimitHeadroom]) -> Vec<script::Headroom<'_>> {
    all.iter()
        .map(|head| script::Headroom {
            resource: &head.resource,
            subject: &head.subject,
            quota: &head.quota,
            taken: head.taken,
            limit: head.limit,
        })
        .collect()
}

pub(super) fn findings(findings: &[v1::LimitFinding]) -> Vec<script::Finding<'_>> {
    findings
        .iter()
        .map(|finding| {
            let reason = v1::RefusalReason::as_str_name(&finding.reason());
            let limit = finding
                .limit
                .as_ref()
                .and_then(|limit| limit.limit.as_ref());
            script::Finding {
                reason: reason.trim_start_matches("REFUSAL_REASON_"),
                resource: &finding.resource,
                subject: &finding.subject,
                quota: &finding.quota,
                taken: finding.used + finding.held,
                requested: finding.requested,
                limit: match limit {
                    Some(v1::limit::Limit::Value(value)) => value.to_string(),
                    Some(v1::limit::Limit::Unlimited(_)) => "unlimited".into(),
                    None => String::new(),
                },
                shortfall: finding.shortfall,
                retry: finding
                    .retry_delay
                    .and_then(|delay| Duration::try_from(delay).ok()),
            }
        })
        .collect()
}

/// What a check says beside its verdict.
pub(super) fn outlook(call: &Call, a: &v1::CheckResponse) -> String {
    let effective = a.effective_limits.iter().filter_map(|least| {
        let limit = match least.limit.as_ref()?.limit.as_ref()? {
            v1::limit::Limit::Value(value) => value.to_string(),
            v1::limit::Limit::Unlimited(_) => "unlimited".into(),
        };
        Some(script::Effective {
            resource: &least.resource,
            subject: &least.subject,
            quota: &least.quota,
            limit,
        })
    });
    let since_epoch = |at: &ProtoTimestamp| {
        let seconds = Duration::from_secs(at.seconds.unsigned_abs());
        seconds + Duration::from_nanos(at.nanos.unsigned_abs().into())
    };
    let now = a.decide_time.as_ref().map(since_epoch);
    let projected = a.projections.iter().map(|account| script::Projected {
        resource: &account.resource,
        subject: &account.subject,
        quota: &account.quota,
        used: account.used,
        held: account.held,
        projected: account.projected,
        left: account
            .period_end_time
            .as_ref()
            .map(|end| since_epoch(end) - now.expect("every answer says when it held")),
    });
    let unbounded = a
        .verdict
        .as_ref()
        .is_some_and(|verdict| !verdict.unbounded_resources.is_empty());
    let outlook = script::Outlook {
        unbounded,
        effective: effective.collect(),
        projected: projected.collect(),
    };
    script::outlook(call, &outlook)
}
