//! Answers that are kept to be given again.

use std::sync::Arc;

use prost::{Message, Oneof};
use quota_core::name::{Id, ResourceKey, SubjectName};
use quota_core::outcome::{Answer, Outcome, QuotaAnswer};
use quota_core::quota::Target;
use quota_core::subject::Subject;
use quota_core::time::Timestamp;

use super::FormatError;
use super::quota::{QuotaBody, body_of_quota, quota_of_body};
use super::record::{
    AmountBody, ProfileBody, ResourceBody, amounts_of_bodies, bodies_of_amounts, body_of_profile,
    body_of_resource, profile_of_body, resource_of_body,
};
use super::row::{
    AllocationBody, HoldBody, allocation_of_body, body_of_allocation, body_of_hold, hold_of_body,
};
use super::verdict::{VerdictBody, body_of_verdict, verdict_of_body};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OutcomeBody {
    #[prost(int64, tag = "1")]
    decided: i64,
    #[prost(message, optional, tag = "2")]
    answer: Option<AnswerBody>,
}

#[derive(Clone, PartialEq, Message)]
struct AnswerBody {
    #[prost(
        oneof = "KindBody",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15"
    )]
    kind: Option<KindBody>,
}

#[derive(Clone, PartialEq, Oneof)]
enum KindBody {
    #[prost(message, tag = "1")]
    Charged(ChargedBody),
    #[prost(message, tag = "2")]
    Released(ReleasedBody),
    #[prost(message, tag = "3")]
    Matching(MatchingBody),
    #[prost(message, tag = "4")]
    Renewed(RenewedBody),
    #[prost(message, tag = "5")]
    Linked(LinkedBody),
    #[prost(message, tag = "6")]
    Reserved(ChargedBody),
    #[prost(message, tag = "7")]
    Committed(ChargedBody),
    #[prost(message, tag = "8")]
    Hold(HoldBody),
    #[prost(message, tag = "9")]
    Subject(SubjectAnswerBody),
    #[prost(message, tag = "10")]
    Resource(ResourceBody),
    #[prost(message, tag = "11")]
    Quotas(QuotasAnswerBody),
    #[prost(message, tag = "12")]
    Corrected(CorrectedBody),
    #[prost(message, tag = "13")]
    Deleted(EmptyBody),
    #[prost(int64, tag = "14")]
    ClockAccepted(i64),
    #[prost(message, tag = "15")]
    Undecided(EmptyBody),
}

#[derive(Clone, PartialEq, Message)]
struct ChargedBody {
    #[prost(message, optional, tag = "1")]
    verdict: Option<VerdictBody>,
    #[prost(message, optional, tag = "2")]
    allocation: Option<AllocationBody>,
    #[prost(message, optional, tag = "3")]
    hold: Option<HoldBody>,
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
struct RenewedBody {
    #[prost(message, repeated, tag = "1")]
    renewed: Vec<RenewalBody>,
    #[prost(string, repeated, tag = "2")]
    missing: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct RenewalBody {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int64, tag = "2")]
    expires: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LinkedBody {
    #[prost(message, repeated, tag = "1")]
    members: Vec<AnswerBody>,
}

#[derive(Clone, PartialEq, Message)]
struct SubjectAnswerBody {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    profile: Option<ProfileBody>,
}

#[derive(Clone, PartialEq, Message)]
struct QuotasAnswerBody {
    #[prost(message, repeated, tag = "1")]
    quotas: Vec<QuotaAnswerBody>,
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
struct CorrectedBody {
    #[prost(message, repeated, tag = "1")]
    counts: Vec<CountBody>,
}

#[derive(Clone, PartialEq, Message)]
struct CountBody {
    #[prost(string, tag = "1")]
    subject: String,
    #[prost(string, tag = "2")]
    resource: String,
    #[prost(int64, tag = "3")]
    counted: i64,
}

#[derive(Clone, PartialEq, Message)]
struct EmptyBody {}

pub(crate) fn body_of_outcome(outcome: &Outcome) -> OutcomeBody {
    OutcomeBody {
        decided: outcome.decided.nanos(),
        answer: Some(body_of_answer(&outcome.answer)),
    }
}

pub(crate) fn outcome_of_body(body: OutcomeBody) -> Result<Outcome, FormatError> {
    let answer = body.answer.ok_or_else(|| missing("answer"))?;
    Ok(Outcome {
        answer: answer_of_body(answer)?,
        decided: Timestamp::from_nanos(body.decided),
    })
}

fn body_of_answer(answer: &Answer) -> AnswerBody {
    let kind = match answer {
        Answer::Charged {
            verdict,
            allocation,
        } => KindBody::Charged(ChargedBody {
            verdict: Some(body_of_verdict(verdict)),
            allocation: allocation.as_deref().map(body_of_allocation),
            hold: None,
        }),
        Answer::Reserved { verdict, hold } => KindBody::Reserved(ChargedBody {
            verdict: Some(body_of_verdict(verdict)),
            allocation: None,
            hold: hold.as_deref().map(body_of_hold),
        }),
        Answer::Committed {
            verdict,
            hold,
            allocation,
        } => KindBody::Committed(ChargedBody {
            verdict: Some(body_of_verdict(verdict)),
            allocation: allocation.as_deref().map(body_of_allocation),
            hold: Some(body_of_hold(hold)),
        }),
        Answer::Hold(hold) => KindBody::Hold(body_of_hold(hold)),
        Answer::Released {
            amounts,
            allocation,
        } => KindBody::Released(ReleasedBody {
            amounts: bodies_of_amounts(amounts),
            allocation: allocation.as_deref().map(body_of_allocation),
        }),
        Answer::ReleasedMatching {
            released,
            more,
            amounts,
        } => KindBody::Matching(MatchingBody {
            released: *released,
            more: *more,
            amounts: bodies_of_amounts(amounts),
        }),
        Answer::Renewed { renewed, missing } => KindBody::Renewed(RenewedBody {
            renewed: renewed
                .iter()
                .map(|(id, expires)| RenewalBody {
                    id: id.as_str().to_owned(),
                    expires: expires.nanos(),
                })
                .collect(),
            missing: missing.iter().map(ToString::to_string).collect(),
        }),
        Answer::Linked(members) => KindBody::Linked(LinkedBody {
            members: members.iter().map(body_of_answer).collect(),
        }),
        Answer::Subject(subject) => KindBody::Subject(SubjectAnswerBody {
            name: subject.name.as_str().to_owned(),
            profile: Some(body_of_profile(&subject.profile)),
        }),
        Answer::Resource(resource) => KindBody::Resource(body_of_resource(resource)),
        Answer::Quotas(quotas) => KindBody::Quotas(QuotasAnswerBody {
            quotas: quotas
                .iter()
                .map(|answer| QuotaAnswerBody {
                    target: answer.target.to_string(),
                    quota: Some(body_of_quota(&answer.quota)),
                    warnings: answer.warnings.clone(),
                })
                .collect(),
        }),
        Answer::Corrected(counts) => KindBody::Corrected(CorrectedBody {
            counts: counts
                .iter()
                .map(|(subject, resource, counted)| CountBody {
                    subject: subject.as_str().to_owned(),
                    resource: resource.as_str().to_owned(),
                    counted: *counted,
                })
                .collect(),
        }),
        Answer::Deleted => KindBody::Deleted(EmptyBody {}),
        Answer::Undecided => KindBody::Undecided(EmptyBody {}),
        Answer::ClockAccepted { offset_ns } => KindBody::ClockAccepted(*offset_ns),
    };
    AnswerBody { kind: Some(kind) }
}

fn answer_of_body(body: AnswerBody) -> Result<Answer, FormatError> {
    let row = |body: Option<AllocationBody>| {
        let row = body.map(allocation_of_body).transpose();
        row.map(|row| row.map(Arc::new))
    };
    let held = |body: Option<HoldBody>| {
        let hold = body.map(hold_of_body).transpose();
        hold.map(|hold| hold.map(Arc::new))
    };
    let verdict =
        |body: Option<VerdictBody>| verdict_of_body(body.ok_or_else(|| missing("verdict"))?);
    Ok(match body.kind.ok_or_else(|| missing("kind"))? {
        KindBody::Charged(charged) => Answer::Charged {
            verdict: verdict(charged.verdict)?,
            allocation: row(charged.allocation)?,
        },
        KindBody::Reserved(charged) => Answer::Reserved {
            verdict: verdict(charged.verdict)?,
            hold: held(charged.hold)?,
        },
        KindBody::Committed(charged) => Answer::Committed {
            verdict: verdict(charged.verdict)?,
            hold: held(charged.hold)?.ok_or_else(|| missing("hold"))?,
            allocation: row(charged.allocation)?,
        },
        KindBody::Hold(hold) => Answer::Hold(Arc::new(hold_of_body(hold)?)),
        KindBody::Released(released) => Answer::Released {
            amounts: amounts_of_bodies(released.amounts)?,
            allocation: row(released.allocation)?,
        },
        KindBody::Matching(matching) => Answer::ReleasedMatching {
            released: matching.released,
            more: matching.more,
            amounts: amounts_of_bodies(matching.amounts)?,
        },
        KindBody::Renewed(body) => {
            let renewed = body.renewed.iter().map(|renewal| {
                let expires = Timestamp::from_nanos(renewal.expires);
                Ok::<_, FormatError>((Id::parse(&renewal.id)?, expires))
            });
            let missing = body.missing.iter().map(|id| Id::parse(id));
            Answer::Renewed {
                renewed: renewed.collect::<Result<_, _>>()?,
                missing: missing.collect::<Result<_, _>>()?,
            }
        }
        KindBody::Linked(linked) => {
            let members = linked.members.into_iter().map(answer_of_body);
            Answer::Linked(members.collect::<Result<_, _>>()?)
        }
        KindBody::Subject(subject) => {
            let name = SubjectName::parse(&subject.name)?;
            let profile = subject.profile.ok_or_else(|| missing("profile"))?;
            let profile = Arc::new(profile_of_body(profile));
            Answer::Subject(Box::new(Subject::new(name, profile)))
        }
        KindBody::Resource(resource) => Answer::Resource(Arc::new(resource_of_body(resource)?)),
        KindBody::Quotas(body) => {
            let quotas = body.quotas.into_iter().map(|answer| {
                let quota = answer.quota.ok_or_else(|| missing("quota"))?;
                Ok::<_, FormatError>(QuotaAnswer {
                    target: Target::parse(&answer.target)?,
                    quota: Arc::new(quota_of_body(quota)?),
                    warnings: answer.warnings,
                })
            });
            Answer::Quotas(quotas.collect::<Result<_, _>>()?)
        }
        KindBody::Corrected(body) => {
            let counts = body.counts.into_iter().map(|count| {
                let subject = SubjectName::parse(&count.subject)?;
                let resource = ResourceKey::parse(&count.resource)?;
                Ok::<_, FormatError>((subject, resource, count.counted))
            });
            Answer::Corrected(counts.collect::<Result<_, _>>()?)
        }
        KindBody::Deleted(EmptyBody {}) => Answer::Deleted,
        KindBody::Undecided(EmptyBody {}) => Answer::Undecided,
        KindBody::ClockAccepted(offset_ns) => Answer::ClockAccepted { offset_ns },
    })
}

fn missing(what: &str) -> FormatError {
    FormatError::damaged(format!("an answer without its {what}"))
}
