//! Replies in the words of scripts.

use quota_core::evaluate::Scene;
use quota_core::name::{Id, ResourceKey};
use quota_core::outcome::{Answer, Reply};
use quota_core::rejection::Rejection;
use quota_core::time::Timestamp;
use quota_core::verdict::{
    Decision, EffectiveLimit, Finding, Headroom, Projection, Reason, Verdict,
};

use super::Question;
use crate::script::{self, Call};

/// A reply in the words of scripts.
pub fn reply(call: &Call, reply: Result<Reply, Rejection>) -> String {
    let reply = match reply {
        Ok(reply) => reply,
        Err(rejection) => return format!("error {}", reason(&rejection)),
    };
    answer(call, &reply.outcome.answer, reply.replayed)
}

fn answer(call: &Call, answered: &Answer, replayed: bool) -> String {
    let texts = |amounts: &[(ResourceKey, i64)]| -> Vec<(String, i64)> {
        amounts.iter().map(|(k, n)| (k.to_string(), *n)).collect()
    };
    let suffix = if replayed { " replayed" } else { "" };
    match answered {
        Answer::Charged { verdict, .. } => script::verdict(call, &shown(verdict, replayed)),
        Answer::Reserved { verdict, .. } => {
            let text = script::verdict(call, &shown(verdict, replayed));
            text.replacen("granted", "held", 1)
        }
        Answer::Committed { verdict, .. } => {
            let text = script::verdict(call, &shown(verdict, replayed));
            text.replacen("granted", "committed", 1)
        }
        Answer::Hold(hold) => match hold.ended {
            Some((end, _)) => format!("{}{suffix}", end.name()),
            None => format!("renewed{suffix}"),
        },
        Answer::Renewed { renewed, missing } => {
            format!(
                "renewed {} missing {}{suffix}",
                renewed.len(),
                missing.len()
            )
        }
        Answer::Linked(members) => {
            let decisions = members.iter().filter_map(|member| match member {
                Answer::Charged { verdict, .. } => Some(verdict.decision),
                _ => None,
            });
            let strongest = decisions.min().map_or("granted", word);
            let members = call.members.iter().zip(members);
            let texts: Vec<String> = members
                .map(|(member, answered)| answer(member, answered, false))
                .collect();
            format!("{strongest} [{}]{suffix}", texts.join("; "))
        }
        Answer::Released {
            amounts,
            allocation,
        } => {
            let left = allocation.as_ref().map(|left| texts(&left.amounts));
            script::released(&texts(amounts), left.as_deref(), replayed)
        }
        Answer::ReleasedMatching { released, more, .. } => {
            let more = if *more { " more" } else { "" };
            format!("released {released} allocations{more}{suffix}")
        }
        Answer::Subject(_) | Answer::Resource(_) => format!("set{suffix}"),
        Answer::Quotas(quotas) => {
            let warned = quotas.iter().any(|quota| !quota.warnings.is_empty());
            let warned = if warned { " warned" } else { "" };
            format!("set{warned}{suffix}")
        }
        Answer::Corrected(counts) => {
            let counts = counts.iter().map(|(name, _, n)| (name.as_str(), *n));
            let counts: Vec<(&str, i64)> = counts.collect();
            format!("{}{suffix}", script::corrected(call, &counts))
        }
        Answer::ClockAccepted { .. } => format!("accepted{suffix}"),
        Answer::Undecided => "undecided".into(),
        Answer::Deleted => format!("deleted{suffix}"),
    }
}

/// What a check answers over a scene.
pub fn checked(call: &Call, question: &Question, scene: &Scene<'_>, now: Timestamp) -> String {
    let verdict = scene.evaluate(&question.amounts, question.mode);
    let least: Vec<(&ResourceKey, EffectiveLimit)> = question
        .amounts
        .iter()
        .flat_map(|(key, _)| {
            let least = scene.effective_limits(key).into_iter();
            least.map(move |least| (key, least))
        })
        .collect();
    // Of a part the part; of what is refused what was asked.
    let amounts = match verdict.partial {
        Some(_) => verdict.granted(&question.amounts),
        None => question.amounts.clone(),
    };
    let outlook = script::Outlook {
        unbounded: !verdict.unbounded.is_empty(),
        effective: least
            .iter()
            .map(|(key, least)| effective(key, least))
            .collect(),
        projected: scene
            .project(&amounts)
            .iter()
            .map(|projection| projected(projection, now))
            .collect(),
    };
    let text = script::verdict(call, &shown(&verdict, false));
    format!("{text}{}", script::outlook(call, &outlook))
}

fn effective<'a>(resource: &'a ResourceKey, least: &'a EffectiveLimit) -> script::Effective<'a> {
    script::Effective {
        resource: resource.as_str(),
        subject: least.subject.as_str(),
        quota: least.quota.as_str(),
        limit: least.limit.to_string(),
    }
}

fn projected<'a>(projection: &Projection<'a>, now: Timestamp) -> script::Projected<'a> {
    let end = projection.window.and_then(|window| window.end);
    script::Projected {
        resource: projection.resource.as_str(),
        subject: projection.subject,
        quota: projection.quota.map_or("", Id::as_str),
        used: projection.used,
        held: projection.held,
        projected: projection.projected,
        left: end.map(|end| end.since(now)),
    }
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Granted => "granted",
        Decision::Partial => "partial",
        Decision::Delayed => "delayed",
        Decision::Denied => "denied",
    }
}

fn shown(verdict: &Verdict, replayed: bool) -> script::Verdict<'_> {
    script::Verdict {
        decision: word(verdict.decision),
        delay: (verdict.decision == Decision::Delayed).then_some(verdict.delay),
        partial: verdict.partial,
        refusals: findings(&verdict.refusals),
        exceeded: findings(&verdict.exceeded),
        warnings: findings(&verdict.warnings),
        shadows: findings(&verdict.shadows),
        near: headroom(&verdict.near),
        tightest: headroom(&verdict.tightest),
        replayed,
    }
}

fn headroom(all: &[Headroom]) -> Vec<script::Headroom<'_>> {
    all.iter()
        .map(|head| script::Headroom {
            resource: head.resource.as_str(),
            subject: head.subject.as_str(),
            quota: head.quota.as_str(),
            taken: head.taken,
            limit: head.limit,
        })
        .collect()
}

fn findings(findings: &[Finding]) -> Vec<script::Finding<'_>> {
    findings
        .iter()
        .map(|finding| script::Finding {
            reason: match finding.reason {
                Reason::Limit => "LIMIT",
                Reason::Rate => "RATE",
                Reason::PeriodExhausted => "PERIOD_EXHAUSTED",
                Reason::TooLarge => "TOO_LARGE",
                Reason::NoQuota => "NO_QUOTA",
                Reason::Suspended => "SUSPENDED",
            },
            resource: finding.resource.as_str(),
            subject: finding.subject.as_str(),
            quota: finding.quota.as_ref().map_or("", Id::as_str),
            taken: finding.used + finding.held,
            requested: finding.requested,
            limit: finding
                .limit
                .map(|limit| limit.to_string())
                .unwrap_or_default(),
            shortfall: finding.shortfall,
            retry: finding.retry,
        })
        .collect()
}

/// The reason that the wire gives for a rejection; written here a second time, so that a wrong one there
/// fails.
fn reason(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::Invalid(_) => "INVALID_FIELDS",
        Rejection::SubjectUnknown(_) | Rejection::NoSubject(_) => "SUBJECT_UNKNOWN",
        Rejection::AllocationUnknown(_) => "ALLOCATION_UNKNOWN",
        Rejection::HoldUnknown(_) => "HOLD_UNKNOWN",
        Rejection::HoldEnded { .. } => "HOLD_ENDED",
        Rejection::HoldTooSmall { .. } => "HOLD_TOO_SMALL",
        Rejection::SubjectInUse { .. } => "SUBJECT_IN_USE",
        Rejection::CorrectionTooLarge { .. } => "CORRECTION_TOO_LARGE",
        Rejection::Member { rejection, .. } => reason(rejection),
        Rejection::QuotaUnknown { .. } => "QUOTA_UNKNOWN",
        Rejection::ResourceUnknown(_) => "RESOURCE_UNKNOWN",
        Rejection::Exists(_) => "EXISTS",
        Rejection::OperationIdReused(_) => "OPERATION_ID_REUSED",
        Rejection::ReleaseTooLarge { .. } => "RELEASE_TOO_LARGE",
        Rejection::ForceNeeded(_) => "FORCE_NEEDED",
        Rejection::OutcomeForgotten { .. } => "OUTCOME_FORGOTTEN",
        Rejection::ResourceInUse { .. } => "RESOURCE_IN_USE",
        Rejection::EtagMismatch { .. } => "ETAG_MISMATCH",
        Rejection::GenerationMismatch { .. } => "GENERATION_MISMATCH",
        Rejection::Capacity { .. } => "CAPACITY",
    }
}
