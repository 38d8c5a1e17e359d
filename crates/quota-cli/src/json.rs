//! Messages as JSON: the field names of the proto, amounts as numbers (they fit a double).

use quota_client::v1::{
    Allocation, Amount, ConsumeMode, Decision, EffectiveLimit, Enforcement, Limit, LimitFinding,
    Quota, QuotaOrigin, QuotaState, RefusalReason, Resource, ResourceKind, Subject, SubjectUsage,
    WithoutQuota, limit,
};
use serde_json::{Map, Value, json};

use crate::output::time;

fn bare(name: &str, prefix: &str) -> Value {
    name.strip_prefix(prefix).unwrap_or(name).into()
}

pub(crate) fn decision(decision: Decision) -> Value {
    bare(decision.as_str_name(), "DECISION_")
}

pub(crate) fn mode(record: bool) -> i32 {
    match record {
        true => ConsumeMode::Record.into(),
        false => ConsumeMode::Strict.into(),
    }
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

pub(crate) fn findings(findings: &[LimitFinding]) -> Value {
    let finding = |finding: &LimitFinding| {
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
        })
    };
    findings.iter().map(finding).collect()
}

pub(crate) fn effective_limit(least: &EffectiveLimit) -> Value {
    json!({
        "resource": least.resource,
        "limit": limit(least.limit.as_ref()),
        "subject": least.subject,
        "quota": least.quota,
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
            })
        });
        json!({
            "resource": line.resource,
            "used": line.used,
            "held": line.held,
            "quotas": quotas.collect::<Value>(),
            "effective_limit": line.effective_limit.as_ref().map(effective_limit),
        })
    };
    json!({
        "subject": usage.subject,
        "resources": usage.resources.iter().map(resource).collect::<Value>(),
    })
}
