//! Domain to wire.

use quota_core::allocation::Allocation;
use quota_core::amount::Limit;
use quota_core::evaluate::{Decision, EffectiveLimit, Finding, Line, Reason, Scene};
use quota_core::name::ResourceKey;
use quota_core::quota::{Origin, Quota, Target};
use quota_core::resource::{Kind, Resource, WithoutQuota};
use quota_core::subject::Subject;
use quota_core::time::Timestamp;
use quota_proto::v1;

pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    const SECOND: i64 = 1_000_000_000;
    prost_types::Timestamp {
        seconds: at.nanos().div_euclid(SECOND),
        nanos: i32::try_from(at.nanos().rem_euclid(SECOND)).unwrap_or_default(),
    }
}

pub(super) fn amounts(amounts: &[(ResourceKey, i64)]) -> Vec<v1::Amount> {
    amounts
        .iter()
        .map(|(resource, amount)| v1::Amount {
            resource: resource.to_string(),
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

pub(super) fn decision(decision: Decision) -> i32 {
    match decision {
        Decision::Granted => v1::Decision::Granted.into(),
        Decision::Denied => v1::Decision::Denied.into(),
    }
}

pub(super) fn findings(findings: &[Finding]) -> Vec<v1::LimitFinding> {
    let text = |text: Option<String>| text.unwrap_or_default();
    findings
        .iter()
        .map(|finding| v1::LimitFinding {
            subject: finding.subject.to_string(),
            quota: text(finding.quota.as_ref().map(ToString::to_string)),
            pattern: text(finding.pattern.as_ref().map(ToString::to_string)),
            resource: finding.resource.to_string(),
            reason: match finding.reason {
                Reason::Limit => v1::RefusalReason::Limit.into(),
                Reason::TooLarge => v1::RefusalReason::TooLarge.into(),
                Reason::NoQuota => v1::RefusalReason::NoQuota.into(),
            },
            limit: finding.limit.map(limit),
            used: finding.used,
            held: finding.held,
            requested: finding.requested,
            shortfall: finding.shortfall,
            retry_delay: None,
        })
        .collect()
}

pub(super) fn keys(keys: &[ResourceKey]) -> Vec<String> {
    keys.iter().map(ToString::to_string).collect()
}

pub(super) fn effective_limit(
    resource: &ResourceKey,
    least: Option<EffectiveLimit>,
) -> v1::EffectiveLimit {
    let resource = resource.to_string();
    match least {
        Some(least) => v1::EffectiveLimit {
            resource,
            limit: Some(limit(least.limit)),
            subject: least.subject.to_string(),
            quota: least.quota.to_string(),
        },
        None => v1::EffectiveLimit {
            resource,
            ..v1::EffectiveLimit::default()
        },
    }
}

pub(super) fn allocation(allocation: &Allocation) -> v1::Allocation {
    v1::Allocation {
        name: allocation.key.as_str().to_owned(),
        subject: allocation.subject.to_string(),
        also: allocation.also.iter().map(ToString::to_string).collect(),
        allocation_id: allocation
            .id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        amounts: amounts(&allocation.amounts),
        generation: allocation.generation,
        labels: allocation.labels.clone(),
        source: allocation.source.clone(),
        purpose: allocation.purpose.clone(),
        create_time: Some(timestamp(allocation.created)),
        update_time: Some(timestamp(allocation.updated)),
    }
}

pub(super) fn subject(subject: &Subject) -> v1::Subject {
    v1::Subject {
        name: subject.name.to_string(),
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
        key: resource.key.to_string(),
        kind: match resource.kind {
            Kind::Allocation => v1::ResourceKind::Allocation.into(),
            Kind::Concurrency => v1::ResourceKind::Concurrency.into(),
            Kind::Counter => v1::ResourceKind::Counter.into(),
            Kind::Rate => v1::ResourceKind::Rate.into(),
            Kind::PerRequest => v1::ResourceKind::PerRequest.into(),
            Kind::Measured => v1::ResourceKind::Measured.into(),
        },
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

pub(super) fn quota(target: &Target, quota: &Quota) -> v1::Quota {
    v1::Quota {
        subject: target.to_string(),
        resource: quota.resource.to_string(),
        quota_id: quota.id.to_string(),
        limit: Some(limit(quota.limit)),
        enforcement: v1::Enforcement::Deny.into(),
        max_request: quota.max_request,
        near_percent: None,
        state: v1::QuotaState::Active.into(),
        valid_from_time: None,
        valid_until_time: None,
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
    }
}

/// The accounts of the last subject of a path, with the limits that bound them.
pub(super) fn usage(name: &str, path: &Scene<'_>, only: Option<&ResourceKey>) -> v1::SubjectUsage {
    let own = path.lines().last();
    let resources = own.map(Line::resources).unwrap_or_default();
    let wanted = |key: &&ResourceKey| only.is_none_or(|only| only == *key);
    let account = |key: &ResourceKey| {
        let own = own?;
        let account = own.account(key);
        let quotas = own.in_force(key);
        Some(v1::ResourceUsage {
            resource: key.to_string(),
            used: account.used,
            held: account.held,
            quotas: quotas
                .iter()
                .map(|in_force| v1::AppliedQuota {
                    quota_id: in_force.quota.id.to_string(),
                    limit: Some(limit(in_force.quota.limit)),
                    pattern: in_force
                        .pattern
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                })
                .collect(),
            effective_limit: Some(effective_limit(key, path.effective_limit(key))),
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
