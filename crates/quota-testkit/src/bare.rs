//! The first boundary: scripts on a bare ledger, every event checked against the invariants.

use std::sync::Arc;
use std::time::Duration;

use quota_core::Ledger;
use quota_core::allocation::AllocationKey;
use quota_core::amount::Limit;
use quota_core::charge::{canonical_also, charge_set};
use quota_core::command::{
    Action, Amounts, Command, Consume, Existence, Operation, Provenance, Release, ReleaseMatching,
    Resize, SetQuota, SetResource, SetSubject,
};
use quota_core::decide::may_be;
use quota_core::evaluate::{Decision, Finding, Mode, Reason};
use quota_core::invariants;
use quota_core::name::{Id, NameError, OperationId, ResourceKey, SubjectName};
use quota_core::outcome::{Answer, Reply};
use quota_core::quota::{Origin, Target};
use quota_core::rejection::Rejection;
use quota_core::resource::{Kind, WithoutQuota};
use quota_core::time::Timestamp;

use crate::script::{self, Call, Script, World};

/// Where scripts begin: an instant in 2026.
pub const BEGINNING: Timestamp = Timestamp::from_nanos(1_790_000_000_000_000_000);

/// A ledger and a clock that is told the time.
pub struct BareLedger {
    /// The ledger.
    pub ledger: Ledger,
    /// The time.
    pub now: Timestamp,
    made: u64,
}

impl BareLedger {
    /// A new ledger for a script.
    pub fn new(script: &Script) -> Self {
        Self {
            ledger: Ledger::new(script.bounds, BEGINNING),
            now: BEGINNING,
            made: 0,
        }
    }
}

impl World for BareLedger {
    fn call(&mut self, call: &Call) -> String {
        match call.verb.as_str() {
            "used" => used(&self.ledger, call),
            "check" => check(&self.ledger, call),
            _ => {
                self.made += 1;
                let command = match command(call, self.made) {
                    Ok(command) => command,
                    Err(_) => return "error INVALID_FIELDS".into(),
                };
                let decided = self.ledger.decide(self.now, &command);
                for event in &decided.events {
                    self.ledger.absorb(event);
                    let broken = invariants::check_event(&self.ledger, event);
                    assert!(broken.is_empty(), "{broken:?}");
                }
                self.ledger.expire_answers(self.now, usize::MAX);
                let broken = invariants::check_state(&self.ledger);
                assert!(broken.is_empty(), "{broken:?}");
                reply(decided.reply)
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now = self.now.plus(by);
    }
}

/// What a check answers.
pub fn check(ledger: &Ledger, call: &Call) -> String {
    let read = || -> Result<_, NameError> {
        let subject = SubjectName::parse(&call.place)?;
        let also = also(call, &subject)?;
        Ok((subject, also, amounts(call)?))
    };
    let Ok((subject, also, amounts)) = read() else {
        return "error INVALID_FIELDS".into();
    };
    let named = std::iter::once(&subject).chain(&also);
    let known = |name: &str| ledger.subject(name).is_some();
    if may_be(ledger.bounds().auto_create, named, known).is_some() {
        return "error SUBJECT_UNKNOWN".into();
    }
    let names = charge_set(&subject, &also);
    let verdict = ledger
        .scene(subject.as_str(), &names)
        .evaluate(&amounts, mode(call));
    let text = script::verdict(
        verdict.decision == Decision::Denied,
        false,
        &findings(&verdict.refusals),
        &findings(&verdict.exceeded),
    );
    match verdict.unbounded.is_empty() {
        true => text,
        false => format!("{text} unbounded"),
    }
}

/// What an account has.
pub fn used(ledger: &Ledger, call: &Call) -> String {
    let (key, _) = &call.amounts[0];
    let key = ResourceKey::parse(key).expect("a script names resources");
    match ledger.subject(&call.place) {
        Some(subject) => subject.account(&key).used.to_string(),
        None => "error SUBJECT_UNKNOWN".into(),
    }
}

/// The command of a call.
pub fn command(call: &Call, number: u64) -> Result<Command, NameError> {
    let given = call.option("op").is_some();
    let made = format!("made-{number}");
    let operation = Operation {
        id: OperationId::parse(call.option("op").unwrap_or(&made))?,
        given,
        digest: script::content(call),
        age: call.age(),
    };
    Ok(Command {
        operation,
        provenance: Arc::new(Provenance::default()),
        action: action(call)?,
    })
}

fn action(call: &Call) -> Result<Action, NameError> {
    let subject = || SubjectName::parse(&call.place);
    let id = || call.option("id").map(Id::parse).transpose();
    let expected_generation = call
        .option("gen")
        .map(|text| text.parse().expect("a number"));
    let etag = call.option("etag").unwrap_or_default().to_owned();
    let existence = match (call.has("new"), call.has("known")) {
        (true, _) => Existence::New,
        (_, true) => Existence::Known,
        _ => Existence::Any,
    };
    Ok(match call.verb.as_str() {
        "consume" => {
            let subject = subject()?;
            Action::Consume(Consume {
                also: also(call, &subject)?,
                subject,
                amounts: amounts(call)?,
                allocation: id()?,
                mode: mode(call),
                labels: call.labels(),
                purpose: String::new(),
            })
        }
        "release" => {
            let subject = subject()?;
            Action::Release(Release {
                also: also(call, &subject)?,
                subject,
                allocation: id()?,
                amounts: amounts(call)?,
                expected_generation,
            })
        }
        "resize" => Action::Resize(Resize {
            subject: subject()?,
            allocation: id()?.expect("a resize names its allocation"),
            amounts: amounts(call)?,
            mode: mode(call),
            expected_generation,
        }),
        "release-matching" => Action::ReleaseMatching(ReleaseMatching {
            subject: subject()?,
            labels: call.labels(),
            most: call
                .option("most")
                .map_or(50, |text| text.parse().expect("a number")),
        }),
        "subject" => Action::SetSubject(SetSubject {
            name: subject()?,
            display_name: call.option("name").unwrap_or_default().to_owned(),
            labels: call.labels(),
            existence,
            etag,
        }),
        "resource" => Action::SetResource(SetResource {
            key: ResourceKey::parse(&call.place)?,
            kind: Kind::Allocation,
            base_unit: "count".into(),
            display_unit: "count".into(),
            display_ratio: 1,
            without_quota: match call.has("deny") {
                true => WithoutQuota::Deny,
                false => WithoutQuota::Allow,
            },
            display_name: String::new(),
            existence,
            etag,
        }),
        "unresource" => Action::DeleteResource {
            key: ResourceKey::parse(&call.place)?,
            etag,
        },
        "quota" => set_quota(call, existence, etag)?,
        "unquota" => {
            let resource = ResourceKey::parse(&call.amounts[0].0)?;
            Action::DeleteQuota {
                target: Target::parse(&call.place)?,
                id: Id::parse(call.option("id").unwrap_or(resource.as_str()))?,
                resource,
                etag,
                force: call.has("force"),
            }
        }
        other => panic!("no call is named {other}"),
    })
}

fn set_quota(call: &Call, existence: Existence, etag: String) -> Result<Action, NameError> {
    let (resource, limit) = &call.amounts[0];
    let resource = ResourceKey::parse(resource)?;
    let target = Target::parse(&call.place)?;
    Ok(Action::SetQuota(SetQuota {
        id: Id::parse(call.option("id").unwrap_or(resource.as_str()))?,
        limit: match limit.as_str() {
            "unlimited" => Limit::Unlimited,
            number => Limit::Value(number.parse().expect("a limit is a number")),
        },
        max_request: call
            .option("max")
            .map(|text| text.parse().expect("a number")),
        display_name: String::new(),
        labels: call.labels(),
        origin: match target {
            Target::Pattern(_) => Origin::Default,
            Target::Subject(_) => Origin::Override,
        },
        target,
        resource,
        existence,
        etag,
        force: call.has("force"),
    }))
}

fn mode(call: &Call) -> Mode {
    match call.has("record") {
        true => Mode::Record,
        false => Mode::Strict,
    }
}

fn also(call: &Call, subject: &SubjectName) -> Result<Vec<SubjectName>, NameError> {
    let names: Result<Vec<SubjectName>, NameError> = call
        .list("also")
        .iter()
        .map(|name| SubjectName::parse(name))
        .collect();
    Ok(canonical_also(subject, names?))
}

fn amounts(call: &Call) -> Result<Amounts, NameError> {
    call.numbers()
        .iter()
        .map(|(key, amount)| Ok((ResourceKey::parse(key)?, *amount)))
        .collect()
}

/// The key of a call's allocation.
pub fn allocation_key(call: &Call) -> AllocationKey {
    let subject = SubjectName::parse(&call.place).expect("a subject");
    let also = also(call, &subject).expect("subjects");
    let id = call.option("id").map(|id| Id::parse(id).expect("an id"));
    AllocationKey::new(&subject, id.as_ref(), &also)
}

/// A reply in the words of scripts.
pub fn reply(reply: Result<Reply, Rejection>) -> String {
    let reply = match reply {
        Ok(reply) => reply,
        Err(rejection) => return format!("error {}", reason(&rejection)),
    };
    let texts = |amounts: &[(ResourceKey, i64)]| -> Vec<(String, i64)> {
        amounts.iter().map(|(k, n)| (k.to_string(), *n)).collect()
    };
    let suffix = if reply.replayed { " replayed" } else { "" };
    match &reply.outcome.answer {
        Answer::Charged { verdict, .. } => script::verdict(
            verdict.decision == Decision::Denied,
            reply.replayed,
            &findings(&verdict.refusals),
            &findings(&verdict.exceeded),
        ),
        Answer::Released {
            amounts,
            allocation,
        } => {
            let left = allocation.as_ref().map(|left| texts(&left.amounts));
            script::released(&texts(amounts), left.as_deref(), reply.replayed)
        }
        Answer::ReleasedMatching { released, more, .. } => {
            let more = if *more { " more" } else { "" };
            format!("released {released} allocations{more}{suffix}")
        }
        Answer::Subject(_) | Answer::Resource(_) => format!("set{suffix}"),
        Answer::Quota { warnings, .. } => {
            let warned = if warnings.is_empty() { "" } else { " warned" };
            format!("set{warned}{suffix}")
        }
        Answer::Deleted => format!("deleted{suffix}"),
    }
}

fn findings(findings: &[Finding]) -> Vec<script::Finding<'_>> {
    findings
        .iter()
        .map(|finding| script::Finding {
            reason: match finding.reason {
                Reason::Limit => "LIMIT",
                Reason::TooLarge => "TOO_LARGE",
                Reason::NoQuota => "NO_QUOTA",
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
