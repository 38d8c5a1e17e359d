//! Messages as JSON: the field names of the proto, amounts as numbers (they fit a double).

use quota_client::Applied;
use quota_client::v1::event::Detail;
use quota_client::v1::{
    Allocation, Amount, Decision, EffectiveLimit, Enforcement, Event, ExplainedQuota, Hold,
    HoldState, Limit, LimitFinding, LimitHeadroom, Projection, Quota, QuotaOrigin, QuotaState,
    RefusalReason, Resource, ResourceKind, Subject, SubjectUsage, UsageNow, Verdict, WithoutQuota,
    limit,
};
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::output::{exact_time, time};
use crate::times;

fn bare(name: &str, prefix: &str) -> Value {
    name.strip_prefix(prefix).unwrap_or(name).into()
}

/// Why a command failed, as one object.
pub(crate) fn failure(failure: &Failure) -> Value {
    let Failure::Call(error) = failure else {
        return json!({"error": {"message": failure.to_string()}});
    };
    let fields = error
        .violations
        .iter()
        .map(|violation| json!({"field": violation.field, "description": violation.description}));
    let reason = error
        .reason
        .map(|reason| bare(reason.as_str_name(), "ERROR_REASON_"));
    json!({"error": {
        "message": error.message,
        "code": format!("{:?}", error.code),
        "reason": reason,
        "outcome": match error.applied {
            Applied::No => "NOT_APPLIED",
            Applied::Unknown => "UNKNOWN",
        },
        "fields": fields.collect::<Value>(),
    }})
}

pub(crate) fn decision(decision: Decision) -> Value {
    bare(decision.as_str_name(), "DECISION_")
}

pub(crate) fn limit(limit: Option<&Limit>) -> Value {
    match limit.and_then(|limit| limit.limit.as_ref()) {
        Some(limit::Limit::Value(value)) => (*value).into(),
        Some(limit::Limit::Unlimited(_)) => "unlimited".into(),
        None => Value::Null,
    }
}

pub(crate) fn amounts(amounts: &[Amount]) -> Value {
    let entries = amounts
        .iter()
        .map(|amount| (amount.resource.clone(), amount.amount.into()));
    Value::Object(entries.collect::<Map<_, _>>())
}

/// A verdict as one object, to which the rest of the answer is added.
pub(crate) fn verdict(verdict: &Verdict) -> Value {
    json!({
        "decision": decision(verdict.decision()),
        "refusals": findings(&verdict.refusals),
        "exceeded": findings(&verdict.exceeded),
        "warnings": findings(&verdict.warnings),
        "shadows": findings(&verdict.shadows),
        "near_limits": verdict.near_limits.iter().map(headroom).collect::<Value>(),
        "tightest_limits": verdict.tightest_limits.iter().map(headroom).collect::<Value>(),
        "unbounded_resources": verdict.unbounded_resources,
        "delay": verdict.delay.as_ref().map(times::shown),
        "granted_amount": verdict.granted_amount,
    })
}

fn headroom(head: &LimitHeadroom) -> Value {
    json!({
        "subject": head.subject,
        "quota": head.quota,
        "pattern": head.pattern,
        "resource": head.resource,
        "limit": head.limit,
        "taken": head.taken,
        "remaining": head.remaining,
        "period_end_time": head.period_end_time.map(|end| time(Some(end))),
    })
}

pub(crate) fn projection(projection: &Projection) -> Value {
    json!({
        "subject": projection.subject,
        "resource": projection.resource,
        "quota": projection.quota,
        "used": projection.used,
        "held": projection.held,
        "projected": projection.projected,
        "period_end_time": projection.period_end_time.map(|end| time(Some(end))),
    })
}

pub(crate) fn findings(findings: &[LimitFinding]) -> Value {
    findings.iter().map(finding).collect()
}

fn finding(finding: &LimitFinding) -> Value {
    json!({
        "subject": finding.subject,
        "quota": finding.quota,
        "pattern": finding.pattern,
        "resource": finding.resource,
        "reason": bare(RefusalReason::as_str_name(&finding.reason()), "REFUSAL_REASON_"),
        "limit": limit(finding.limit.as_ref()),
        "used": finding.used,
        "held": finding.held,
        "requested": finding.requested,
        "shortfall": finding.shortfall,
        "retry_delay": finding.retry_delay.as_ref().map(times::shown),
        "period_end_time": finding.period_end_time.map(|end| time(Some(end))),
    })
}

/// An event as one object; its detail under the name that the proto gives it.
pub(crate) fn event(event: &Event) -> Value {
    let mut object = json!({
        "sequence": event.sequence,
        "time": event.time.map(exact_time),
        "kind": bare(event.kind().as_str_name(), "EVENT_KIND_"),
        "severity": bare(event.severity().as_str_name(), "SEVERITY_"),
        "subject": event.subject,
        "also": event.also,
        "operation_id": event.operation_id,
        "actor": event.actor,
        "source": event.source,
    });
    if let (Some(detail), Some(object)) = (&event.detail, object.as_object_mut()) {
        let (name, value) = self::detail(detail);
        object.insert(name.to_owned(), value);
    }
    object
}

fn detail(detail: &Detail) -> (&'static str, Value) {
    match detail {
        Detail::Charge(charge) => (
            "charge",
            json!({
                "used": amounts(&charge.used),
                "held": amounts(&charge.held),
                "allocation": charge.allocation,
                "allocation_generation": charge.allocation_generation,
                "allocation_ended": charge.allocation_ended,
                "hold": charge.hold,
                "labels": charge.labels,
                "recorded": charge.recorded,
            }),
        ),
        Detail::LimitChange(change) => (
            "limit_change",
            json!({
                "target": change.target,
                "resource": change.resource,
                "quota": change.quota,
                "before": limit(change.before.as_ref()),
                "after": limit(change.after.as_ref()),
            }),
        ),
        Detail::Refusal(refusal) => (
            "refusal",
            json!({
                "finding": refusal.finding.as_ref().map(finding),
                "count": refusal.count,
                "first_time": refusal.first_time.map(exact_time),
            }),
        ),
        Detail::Crossing(crossing) => (
            "crossing",
            json!({
                "resource": crossing.resource,
                "quota": crossing.quota,
                "pattern": crossing.pattern,
                "from": bare(crossing.from().as_str_name(), "LIMIT_LEVEL_"),
                "to": bare(crossing.to().as_str_name(), "LIMIT_LEVEL_"),
                "limit": crossing.limit,
                "used": crossing.used,
                "held": crossing.held,
                "period_start_time": crossing.period_start_time.map(exact_time),
                "period_end_time": crossing.period_end_time.map(exact_time),
            }),
        ),
        Detail::Finding(found) => ("finding", finding(found)),
        Detail::Usage(usage) => {
            let account = |account: &UsageNow| json!({"resource": account.resource, "used": account.used, "held": account.held});
            let accounts: Value = usage.accounts.iter().map(account).collect();
            ("usage", json!({"accounts": accounts}))
        }
        Detail::ResourceChange(change) => ("resource_change", json!({"resource": change.resource})),
        Detail::UsageChange(change) => (
            "usage_change",
            json!({
                "resource": change.resource,
                "quota": change.quota,
                "amounts": amounts(&change.amounts),
                "purpose": change.purpose,
            }),
        ),
        Detail::ClockChange(change) => (
            "clock_change",
            json!({"offset": change.offset.as_ref().map(times::shown)}),
        ),
        Detail::Recovery(recovery) => (
            "recovery",
            json!({"batches": recovery.batches, "rows_rebuilt": recovery.rows_rebuilt}),
        ),
    }
}

pub(crate) fn effective_limit(least: &EffectiveLimit) -> Value {
    json!({
        "resource": least.resource,
        "limit": limit(least.limit.as_ref()),
        "subject": least.subject,
        "quota": least.quota,
        "period": least.period.as_ref().map(times::period_name),
        "interval": least.interval.as_ref().map(times::duration_name),
    })
}

pub(crate) fn allocation(allocation: &Allocation) -> Value {
    json!({
        "name": allocation.name,
        "subject": allocation.subject,
        "also": allocation.also,
        "allocation_id": allocation.allocation_id,
        "amounts": amounts(&allocation.amounts),
        "generation": allocation.generation,
        "labels": allocation.labels,
        "source": allocation.source,
        "purpose": allocation.purpose,
        "create_time": time(allocation.create_time),
        "update_time": time(allocation.update_time),
        "expire_time": allocation.expire_time.map(|end| time(Some(end))),
    })
}

pub(crate) fn hold(hold: &Hold) -> Value {
    json!({
        "name": hold.name,
        "subject": hold.subject,
        "also": hold.also,
        "hold_id": hold.hold_id,
        "allocation_id": hold.allocation_id,
        "amounts": amounts(&hold.amounts),
        "spent": amounts(&hold.spent),
        "state": bare(HoldState::as_str_name(&hold.state()), "HOLD_STATE_"),
        "generation": hold.generation,
        "labels": hold.labels,
        "source": hold.source,
        "purpose": hold.purpose,
        "create_time": time(hold.create_time),
        "expire_time": time(hold.expire_time),
        "end_time": hold.end_time.map(|end| time(Some(end))),
        "committed_late": hold.committed_late,
    })
}

pub(crate) fn explained(found: &ExplainedQuota) -> Value {
    json!({
        "subject": found.subject,
        "quota": found.quota.as_ref().map(quota),
        "in_force": found.in_force,
        "why_not": found.why_not,
        "effective": found.effective,
        "used": found.used,
        "held": found.held,
    })
}

pub(crate) fn subject(subject: &Subject) -> Value {
    json!({
        "name": subject.name,
        "display_name": subject.display_name,
        "labels": subject.labels,
        "incarnation": subject.incarnation,
        "create_time": time(subject.create_time),
        "update_time": time(subject.update_time),
        "etag": subject.etag,
    })
}

pub(crate) fn resource(resource: &Resource) -> Value {
    json!({
        "key": resource.key,
        "kind": bare(ResourceKind::as_str_name(&resource.kind()), "RESOURCE_KIND_"),
        "base_unit": resource.base_unit,
        "display_unit": resource.display_unit,
        "display_ratio": resource.display_ratio,
        "without_quota": bare(WithoutQuota::as_str_name(&resource.without_quota()), "WITHOUT_QUOTA_"),
        "display_name": resource.display_name,
        "built_in": resource.built_in,
        "etag": resource.etag,
    })
}

pub(crate) fn quota(quota: &Quota) -> Value {
    json!({
        "subject": quota.subject,
        "resource": quota.resource,
        "quota_id": quota.quota_id,
        "limit": limit(quota.limit.as_ref()),
        "enforcement": bare(Enforcement::as_str_name(&quota.enforcement()), "ENFORCEMENT_"),
        "max_request": quota.max_request,
        "period": quota.period.as_ref().map(times::period_name),
        "current_period": quota.current_period.as_ref().map(times::period_name),
        "period_change_time": quota.period_change_time.map(|at| time(Some(at))),
        "interval": quota.rate.and_then(|rate| rate.interval).as_ref().map(times::duration_name),
        "bucket": quota.rate.and_then(|rate| rate.bucket),
        "delay_max": quota.rate.and_then(|rate| rate.delay_max).as_ref().map(times::shown),
        "near_percent": quota.near_percent,
        "valid_from_time": quota.valid_from_time.map(|at| time(Some(at))),
        "valid_until_time": quota.valid_until_time.map(|at| time(Some(at))),
        "state": bare(QuotaState::as_str_name(&quota.state()), "QUOTA_STATE_"),
        "display_name": quota.display_name,
        "labels": quota.labels,
        "origin": bare(QuotaOrigin::as_str_name(&quota.origin()), "QUOTA_ORIGIN_"),
        "create_time": time(quota.create_time),
        "update_time": time(quota.update_time),
        "etag": quota.etag,
    })
}

pub(crate) fn usage(usage: &SubjectUsage) -> Value {
    let resource = |line: &quota_client::v1::ResourceUsage| {
        let quotas = line.quotas.iter().map(|quota| {
            json!({
                "quota_id": quota.quota_id,
                "limit": limit(quota.limit.as_ref()),
                "pattern": quota.pattern,
                "used": quota.used,
                "held": quota.held,
                "period": quota.period.as_ref().map(times::period_name),
                "period_end_time": quota.period_end_time.map(|end| time(Some(end))),
                "interval": quota.interval.as_ref().map(times::duration_name),
                "near": quota.near,
            })
        });
        json!({
            "resource": line.resource,
            "used": line.used,
            "held": line.held,
            "quotas": quotas.collect::<Value>(),
            "effective_limits": line.effective_limits.iter().map(effective_limit).collect::<Value>(),
        })
    };
    json!({
        "subject": usage.subject,
        "resources": usage.resources.iter().map(resource).collect::<Value>(),
    })
}
