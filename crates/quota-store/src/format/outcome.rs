//! Answers that are kept to be given again.

use std::sync::Arc;

use prost::{Message, Oneof};
use quota_core::amount::Limit;
use quota_core::evaluate::{Decision, Finding, Reason, Verdict};
use quota_core::name::{Id, ResourceKey, SubjectName, SubjectPattern};
use quota_core::outcome::{Answer, Outcome};
use quota_core::quota::Target;
use quota_core::subject::Subject;
use quota_core::time::Timestamp;

use super::FormatError;
use super::record::{
    AllocationBody, AmountBody, ProfileBody, QuotaBody, ResourceBody, allocation_of_body,
    amounts_of_bodies, bodies_of_amounts, body_of_allocation, body_of_profile, body_of_quota,
    body_of_resource, profile_of_body, quota_of_body, resource_of_body,
};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OutcomeBody {
    #[prost(int64, tag = "1")]
    decided: i64,
    #[prost(oneof = "AnswerBody", tags = "2, 3, 4, 5, 6, 7, 8")]
    answer: Option<AnswerBody>,
}

#[derive(Clone, PartialEq, Oneof)]
enum AnswerBody {
    #[prost(message, tag = "2")]
    Charged(ChargedBody),
    #[prost(message, tag = "3")]
    Released(ReleasedBody),
    #[prost(message, tag = "4")]
    Matching(MatchingBody),
    #[prost(message, tag = "5")]
    Subject(SubjectAnswerBody),
    #[prost(message, tag = "6")]
    Resource(ResourceBody),
    #[prost(message, tag = "7")]
    Quota(QuotaAnswerBody),
    #[prost(message, tag = "8")]
    Deleted(DeletedBody),
}

#[derive(Clone, PartialEq, Message)]
struct ChargedBody {
    #[prost(bool, tag = "1")]
    denied: bool,
    #[prost(message, repeated, tag = "2")]
    refusals: Vec<FindingBody>,
    #[prost(message, repeated, tag = "3")]
    exceeded: Vec<FindingBody>,
    #[prost(string, repeated, tag = "4")]
    unbounded: Vec<String>,
    #[prost(message, optional, tag = "5")]
    allocation: Option<AllocationBody>,
}

#[derive(Clone, PartialEq, Message)]
struct ReleasedBody {
    #[prost(message, repeated, tag = "1")]
    amounts: Vec<AmountBody>,
    #[prost(message, optional, tag = "2")]
    allocation: Option<AllocationBody>,
}

#[derive(Clone, PartialEq, Message)]
struct MatchingBody {
    #[prost(uint32, tag = "1")]
    released: u32,
    #[prost(bool, tag = "2")]
    more: bool,
    #[prost(message, repeated, tag = "3")]
    amounts: Vec<AmountBody>,
}

#[derive(Clone, PartialEq, Message)]
struct SubjectAnswerBody {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    profile: Option<ProfileBody>,
}

#[derive(Clone, PartialEq, Message)]
struct QuotaAnswerBody {
    #[prost(string, tag = "1")]
    target: String,
    #[prost(message, optional, tag = "2")]
    quota: Option<QuotaBody>,
    #[prost(string, repeated, tag = "3")]
    warnings: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct DeletedBody {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FindingBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    resource: String,
    #[prost(string, tag = "3")]
    quota: String,
    #[prost(string, tag = "4")]
    pattern: String,
    #[prost(uint32, tag = "5")]
    reason: u32,
    #[prost(oneof = "LimitBody", tags = "6, 7")]
    limit: Option<LimitBody>,
    #[prost(int64, tag = "8")]
    used: i64,
    #[prost(int64, tag = "9")]
    held: i64,
    #[prost(int64, tag = "10")]
    requested: i64,
    #[prost(int64, tag = "11")]
    shortfall: i64,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
enum LimitBody {
    #[prost(int64, tag = "6")]
    Value(i64),
    #[prost(bool, tag = "7")]
    Unlimited(bool),
}

pub(crate) fn body_of_outcome(outcome: &Outcome) -> OutcomeBody {
    let answer = match &outcome.answer {
        Answer::Charged {
            verdict,
            allocation,
        } => AnswerBody::Charged(ChargedBody {
            denied: verdict.decision == Decision::Denied,
            refusals: bodies_of_findings(&verdict.refusals),
            exceeded: bodies_of_findings(&verdict.exceeded),
            unbounded: verdict.unbounded.iter().map(ToString::to_string).collect(),
            allocation: allocation.as_deref().map(body_of_allocation),
        }),
        Answer::Released {
            amounts,
            allocation,
        } => AnswerBody::Released(ReleasedBody {
            amounts: bodies_of_amounts(amounts),
            allocation: allocation.as_deref().map(body_of_allocation),
        }),
        Answer::ReleasedMatching {
            released,
            more,
            amounts,
        } => AnswerBody::Matching(MatchingBody {
            released: *released,
            more: *more,
            amounts: bodies_of_amounts(amounts),
        }),
        Answer::Subject(subject) => AnswerBody::Subject(SubjectAnswerBody {
            name: subject.name.to_string(),
            profile: Some(body_of_profile(&subject.profile)),
        }),
        Answer::Resource(resource) => AnswerBody::Resource(body_of_resource(resource)),
        Answer::Quota {
            target,
            quota,
            warnings,
        } => AnswerBody::Quota(QuotaAnswerBody {
            target: target.to_string(),
            quota: Some(body_of_quota(quota)),
            warnings: warnings.clone(),
        }),
        Answer::Deleted => AnswerBody::Deleted(DeletedBody {}),
    };
    OutcomeBody {
        decided: outcome.decided.nanos(),
        answer: Some(answer),
    }
}

pub(crate) fn outcome_of_body(body: OutcomeBody) -> Result<Outcome, FormatError> {
    let missing = |what| FormatError::damaged(format!("an answer without its {what}"));
    let row = |body: Option<AllocationBody>| body.map(allocation_of_body).transpose();
    let answer = match body.answer.ok_or_else(|| missing("kind"))? {
        AnswerBody::Charged(charged) => Answer::Charged {
            verdict: Verdict {
                decision: match charged.denied {
                    true => Decision::Denied,
                    false => Decision::Granted,
                },
                refusals: findings_of_bodies(charged.refusals)?,
                exceeded: findings_of_bodies(charged.exceeded)?,
                unbounded: charged
                    .unbounded
                    .iter()
                    .map(|key| ResourceKey::parse(key))
                    .collect::<Result<_, _>>()?,
            },
            allocation: row(charged.allocation)?.map(Arc::new),
        },
        AnswerBody::Released(released) => Answer::Released {
            amounts: amounts_of_bodies(released.amounts)?,
            allocation: row(released.allocation)?.map(Arc::new),
        },
        AnswerBody::Matching(matching) => Answer::ReleasedMatching {
            released: matching.released,
            more: matching.more,
            amounts: amounts_of_bodies(matching.amounts)?,
        },
        AnswerBody::Subject(subject) => {
            let name = SubjectName::parse(&subject.name)?;
            let profile = subject.profile.ok_or_else(|| missing("profile"))?;
            let profile = Arc::new(profile_of_body(profile));
            Answer::Subject(Box::new(Subject::new(name, profile)))
        }
        AnswerBody::Resource(resource) => Answer::Resource(Arc::new(resource_of_body(resource)?)),
        AnswerBody::Quota(quota) => Answer::Quota {
            target: Target::parse(&quota.target)?,
            quota: Arc::new(quota_of_body(quota.quota.ok_or_else(|| missing("quota"))?)?),
            warnings: quota.warnings,
        },
        AnswerBody::Deleted(DeletedBody {}) => Answer::Deleted,
    };
    Ok(Outcome {
        answer,
        decided: Timestamp::from_nanos(body.decided),
    })
}

pub(crate) fn bodies_of_findings(findings: &[Finding]) -> Vec<FindingBody> {
    let text = |text: Option<String>| text.unwrap_or_default();
    findings
        .iter()
        .map(|finding| FindingBody {
            subject: finding.subject.to_string(),
            resource: finding.resource.to_string(),
            quota: text(finding.quota.as_ref().map(ToString::to_string)),
            pattern: text(finding.pattern.as_ref().map(ToString::to_string)),
            reason: match finding.reason {
                Reason::Limit => 1,
                Reason::TooLarge => 4,
                Reason::NoQuota => 5,
            },
            limit: finding.limit.map(|limit| match limit {
                Limit::Value(value) => LimitBody::Value(value),
                Limit::Unlimited => LimitBody::Unlimited(true),
            }),
            used: finding.used,
            held: finding.held,
            requested: finding.requested,
            shortfall: finding.shortfall,
        })
        .collect()
}

fn findings_of_bodies(bodies: Vec<FindingBody>) -> Result<Vec<Finding>, FormatError> {
    bodies.into_iter().map(finding_of_body).collect()
}

fn finding_of_body(body: FindingBody) -> Result<Finding, FormatError> {
    let quota = match body.quota.as_str() {
        "" => None,
        id => Some(Id::parse(id)?),
    };
    let pattern = match body.pattern.as_str() {
        "" => None,
        pattern => Some(SubjectPattern::parse(pattern)?),
    };
    Ok(Finding {
        subject: SubjectName::parse(&body.subject)?,
        resource: ResourceKey::parse(&body.resource)?,
        quota,
        pattern,
        reason: match body.reason {
            1 => Reason::Limit,
            4 => Reason::TooLarge,
            5 => Reason::NoQuota,
            other => return Err(FormatError::damaged(format!("refusal reason {other}"))),
        },
        limit: body.limit.map(|limit| match limit {
            LimitBody::Value(value) => Limit::Value(value),
            LimitBody::Unlimited(_) => Limit::Unlimited,
        }),
        used: body.used,
        held: body.held,
        requested: body.requested,
        shortfall: body.shortfall,
    })
}
