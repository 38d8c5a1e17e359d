//! Answers that are kept to be given again.

use std::sync::Arc;

use prost::{Message, Oneof};
use quota_core::allocation::Allocation;
use quota_core::hold::Hold;
use quota_core::name::{Id, ResourceKey, SubjectName};
use quota_core::outcome::{Answer, Outcome, QuotaAnswer};
use quota_core::quota::Target;
use quota_core::subject::Subject;
use quota_core::time::Timestamp;
use quota_core::verdict::Verdict;

use super::FormatError;
use super::quota::{QuotaBody, body_of_quota, quota_of_body};
use super::record::{
    AmountBody, ProfileBody, ResourceBody, amounts_of_bodies, body_of_resource, profile_of_body,
    resource_of_body, write_amounts, write_profile,
};
use super::row::{
    AllocationBody, HoldBody, allocation_of_body, hold_of_body, write_allocation, write_hold,
};
use super::verdict::{VerdictBody, verdict_of_body, write_verdict};
use super::wire::Wire;

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

pub(super) fn write_outcome(outcome: &Outcome, wire: &mut Wire) {
    wire.int(1, outcome.decided.nanos());
    wire.message(2, |wire| write_answer(&outcome.answer, wire));
}

fn write_answer(answer: &Answer, wire: &mut Wire) {
    let write_charged = |verdict: &Verdict,
                         allocation: &Option<Arc<Allocation>>,
                         hold: Option<&Hold>,
                         wire: &mut Wire| {
        wire.message(1, |wire| write_verdict(verdict, wire));
        if let Some(allocation) = allocation {
            wire.message(2, |wire| write_allocation(allocation, wire));
        }
        if let Some(hold) = hold {
            wire.message(3, |wire| write_hold(hold, wire));
        }
    };
    match answer {
        Answer::Charged {
            verdict,
            allocation,
        } => wire.message(1, |wire| write_charged(verdict, allocation, None, wire)),
        Answer::Released {
            amounts,
            allocation,
        } => wire.message(2, |wire| {
            write_amounts(1, amounts, wire);
            if let Some(allocation) = allocation {
                wire.message(2, |wire| write_allocation(allocation, wire));
            }
        }),
        Answer::ReleasedMatching {
            released,
            more,
            amounts,
        } => wire.message(3, |wire| {
            wire.uint(1, (*released).into());
            wire.bool(2, *more);
            write_amounts(3, amounts, wire);
        }),
        Answer::Renewed { renewed, missing } => wire.message(4, |wire| {
            for (id, expires) in renewed {
                wire.message(1, |wire| {
                    wire.text(1, id.as_str());
                    wire.int(2, expires.nanos());
                });
            }
            wire.texts(2, missing.iter().map(Id::as_str));
        }),
        Answer::Linked(members) => wire.message(5, |wire| {
            for member in members {
                wire.message(1, |wire| write_answer(member, wire));
            }
        }),
        Answer::Reserved { verdict, hold } => wire.message(6, |wire| {
            write_charged(verdict, &None, hold.as_deref(), wire);
        }),
        Answer::Committed {
            verdict,
            hold,
            allocation,
        } => wire.message(7, |wire| {
            write_charged(verdict, allocation, Some(hold), wire);
        }),
        Answer::Hold(hold) => wire.message(8, |wire| write_hold(hold, wire)),
        Answer::Subject(subject) => wire.message(9, |wire| {
            wire.text(1, subject.name.as_str());
            wire.message(2, |wire| write_profile(&subject.profile, wire));
        }),
        Answer::Resource(resource) => {
            wire.message(10, |wire| wire.fields(&body_of_resource(resource)))
        }
        Answer::Quotas(quotas) => wire.message(11, |wire| {
            for answer in quotas {
                wire.message(1, |wire| {
                    wire.text(1, answer.target.as_str());
                    wire.message(2, |wire| wire.fields(&body_of_quota(&answer.quota)));
                    wire.texts(3, answer.warnings.iter().map(String::as_str));
                });
            }
        }),
        Answer::Corrected(counts) => wire.message(12, |wire| {
            for (subject, resource, counted) in counts {
                wire.message(1, |wire| {
                    wire.text(1, subject.as_str());
                    wire.text(2, resource.as_str());
                    wire.int(3, *counted);
                });
            }
        }),
        Answer::Deleted => wire.message(13, |_| {}),
        Answer::ClockAccepted { offset_ns } => wire.given_int(14, Some(*offset_ns)),
        Answer::Undecided => wire.message(15, |_| {}),
    }
}

pub(crate) fn outcome_of_body(body: OutcomeBody) -> Result<Outcome, FormatError> {
    let answer = body.answer.ok_or_else(|| missing("answer"))?;
    Ok(Outcome {
        answer: answer_of_body(answer)?,
        decided: Timestamp::from_nanos(body.decided),
    })
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
