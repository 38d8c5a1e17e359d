//! Commands: what callers ask the ledger to do. Values are well formed; only the state can say no.

use std::sync::Arc;
use std::time::Duration;

use crate::amount::Limit;
use crate::labels::Labels;
use crate::name::{Id, OperationId, ResourceKey, SYSTEM, SubjectName, first_pair};
use crate::period::Period;
use crate::quota::{Enforcement, Origin, State, Target};
use crate::rate::Rate;
use crate::resource::{Kind, WithoutQuota};
use crate::time::Timestamp;
use crate::verdict::Mode;

/// Amounts by resource in base units, each resource once.
pub type Amounts = Vec<(ResourceKey, i64)>;

/// One command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// How a retry of it is known.
    pub operation: Operation,
    /// Who asks, and why.
    pub provenance: Arc<Provenance>,
    /// What to do.
    pub action: Action,
    /// Only say what would be answered; nothing happens and nothing is remembered.
    pub validate_only: bool,
}

/// The identity of a command over its retries (C6.6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Unique within the first pair of the command's subject.
    pub id: OperationId,
    /// Whether the caller chose the id.
    pub given: bool,
    /// Digest of the request without id and age.
    pub digest: Digest,
    /// How long ago the caller first tried.
    pub age: Option<Duration>,
}

/// Digest of the content of a request.
pub type Digest = [u8; 16];

/// Who caused an event (C6.7).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Provenance {
    /// Who asked.
    pub actor: String,
    /// The system that asked.
    pub source: String,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Check and charge in one step.
    Consume(Consume),
    /// Give back.
    Release(Release),
    /// Set new absolute amounts.
    Resize(Resize),
    /// Give CONCURRENCY allocations more time.
    Renew(Renew),
    /// Give back by label.
    ReleaseMatching(ReleaseMatching),
    /// All of these in one step, or none: Consume, Release and Resize.
    Linked(Vec<Action>),
    /// Hold for a time.
    Reserve(Reserve),
    /// Turn a hold into use.
    CommitHold(CommitHold),
    /// Give a hold more time.
    RenewHold {
        /// The hold.
        hold: HoldName,
        /// From now on.
        ttl: Duration,
    },
    /// Give a hold up.
    CancelHold(HoldName),
    /// Create or change a subject.
    SetSubject(SetSubject),
    /// Delete a subject with all below it.
    DeleteSubject {
        /// The subject.
        name: SubjectName,
        /// Version that it must have.
        etag: String,
    },
    /// Create or change a resource.
    SetResource(SetResource),
    /// Delete a resource.
    DeleteResource {
        /// The resource.
        key: ResourceKey,
        /// Version that it must have.
        etag: String,
    },
    /// Create or change quotas, all of them or none.
    SetQuotas(Vec<SetQuota>),
    /// Create or change quotas, then delete others, all of it or nothing.
    ChangeQuotas {
        /// To create or change.
        sets: Vec<SetQuota>,
        /// To delete.
        deletes: Vec<DeleteQuota>,
    },
    /// Delete a quota.
    DeleteQuota(DeleteQuota),
    /// Set the counts and buckets of a subject to zero.
    ResetUsage(ResetUsage),
    /// Change what was counted.
    CorrectUsage(CorrectUsage),
    /// Say that the wall clock is right although it stepped: an entry for the audit. The clock itself is not
    /// the ledger's.
    AcceptClock {
        /// The wall clock less the server's, in nanoseconds.
        offset_ns: i64,
    },
}

/// Check and charge in one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Consume {
    /// The subject.
    pub subject: SubjectName,
    /// Further subjects in canonical order.
    pub also: Vec<SubjectName>,
    /// What to charge; each amount positive.
    pub amounts: Amounts,
    /// Id of the allocation; absent for the anonymous one.
    pub allocation: Option<Id>,
    /// How to decide.
    pub mode: Mode,
    /// Labels of the allocation.
    pub labels: Labels,
    /// What it is for.
    pub purpose: String,
    /// Time of the CONCURRENCY amounts; given if and only if there are any.
    pub ttl: Option<Duration>,
}

/// Give CONCURRENCY allocations more time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renew {
    /// The subject.
    pub subject: SubjectName,
    /// Ids of its allocations.
    pub allocations: Vec<Id>,
    /// From now on; what would end later keeps its time.
    pub ttl: Duration,
}

/// Hold for a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reserve {
    /// The subject.
    pub subject: SubjectName,
    /// Further subjects in canonical order.
    pub also: Vec<SubjectName>,
    /// What to hold; each amount positive.
    pub amounts: Amounts,
    /// Id of the hold; made by the ledger where absent.
    pub hold: Option<Id>,
    /// Id of the allocation that a commit creates; the hold's where absent.
    pub allocation: Option<Id>,
    /// How long.
    pub ttl: Duration,
    /// Labels of the allocation.
    pub labels: Labels,
    /// What it is for.
    pub purpose: String,
}

/// Names a hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HoldName {
    /// The subject.
    pub subject: SubjectName,
    /// Its id.
    pub id: Id,
}

/// What a commit does with what the hold does not cover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Uncovered {
    /// It is an error.
    Refuse,
    /// It is decided as a Consume would be.
    Check,
    /// It has happened: charged, and reported.
    Record,
}

/// Turn a hold into use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitHold {
    /// The hold.
    pub hold: HoldName,
    /// What to charge, zero included; a resource that is not named keeps what is held.
    pub amounts: Amounts,
    /// What becomes of more than is held.
    pub more: Uncovered,
    /// What becomes of a commit after the hold's time.
    pub late: Uncovered,
    /// Time of the allocation's CONCURRENCY amounts; given if and only if there are any.
    pub ttl: Option<Duration>,
}

/// Delete a quota.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteQuota {
    /// What it is set on.
    pub target: Target,
    /// The resource.
    pub resource: ResourceKey,
    /// Its id; where absent, that of the only quota on that resource there.
    pub id: Option<Id>,
    /// Version that it must have.
    pub etag: String,
    /// Accept that a lower default comes into force.
    pub force: bool,
}

/// Set the counts and buckets of a subject to zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResetUsage {
    /// The subject; what its ancestors counted stays.
    pub subject: SubjectName,
    /// A COUNTER or a RATE.
    pub resource: ResourceKey,
    /// Only the count or the bucket that this quota measures; all, with the lifetime count, where absent.
    pub quota: Option<Id>,
    /// Why, in the operator's words.
    pub purpose: String,
}

/// Change what was counted, in every account of the charge set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CorrectUsage {
    /// The subject.
    pub subject: SubjectName,
    /// Further subjects in canonical order.
    pub also: Vec<SubjectName>,
    /// What to add; below zero to take off.
    pub amounts: Amounts,
    /// It was counted in periods that are over: only the lifetime counts change.
    pub past: bool,
    /// Why, in the operator's words.
    pub purpose: String,
}

/// Give back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Release {
    /// The subject.
    pub subject: SubjectName,
    /// Further subjects of an anonymous allocation, in canonical order.
    pub also: Vec<SubjectName>,
    /// Id of the allocation; absent for the anonymous one.
    pub allocation: Option<Id>,
    /// What to give back, each amount positive; empty for everything.
    pub amounts: Amounts,
    /// Generation that the allocation must have.
    pub expected_generation: Option<u64>,
}

/// Set new absolute amounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resize {
    /// The subject.
    pub subject: SubjectName,
    /// Id of the allocation.
    pub allocation: Id,
    /// New amounts, zero included; a resource that is not named keeps what it has.
    pub amounts: Amounts,
    /// How growth is decided.
    pub mode: Mode,
    /// Generation that the allocation must have.
    pub expected_generation: Option<u64>,
}

/// Give back by label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReleaseMatching {
    /// Allocations of this subject and of all below it.
    pub subject: SubjectName,
    /// Labels that an allocation must all have; at least one.
    pub labels: Labels,
    /// At most so many.
    pub most: usize,
}

/// Whether the thing to set must be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existence {
    /// It must not exist.
    New,
    /// It must exist.
    Known,
    /// Either.
    Any,
}

/// Create or change a subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetSubject {
    /// Its name.
    pub name: SubjectName,
    /// For people.
    pub display_name: String,
    /// Its labels.
    pub labels: Labels,
    /// Whether it must be there.
    pub existence: Existence,
    /// Version that it must have; empty for any.
    pub etag: String,
}

/// Create or change a resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetResource {
    /// Its key.
    pub key: ResourceKey,
    /// How it is counted.
    pub kind: Kind,
    /// Unit of every amount.
    pub base_unit: String,
    /// Unit for people.
    pub display_unit: String,
    /// Base units in one display unit.
    pub display_ratio: i64,
    /// What happens without any quota.
    pub without_quota: WithoutQuota,
    /// For people.
    pub display_name: String,
    /// Whether it must be there.
    pub existence: Existence,
    /// Version that it must have; empty for any.
    pub etag: String,
}

/// Create or change a quota.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetQuota {
    /// What it is set on.
    pub target: Target,
    /// The resource.
    pub resource: ResourceKey,
    /// Its id.
    pub id: Id,
    /// The limit.
    pub limit: Limit,
    /// Periods of a COUNTER; none without an end where absent.
    pub period: Option<Period>,
    /// Rate of a RATE.
    pub rate: Option<Rate>,
    /// What it does when exceeded.
    pub enforcement: Enforcement,
    /// Whether it is in force.
    pub state: State,
    /// From when on it is in force.
    pub valid_from: Option<Timestamp>,
    /// Until when it is in force (exclusive).
    pub valid_until: Option<Timestamp>,
    /// Largest amount of one request.
    pub max_request: Option<i64>,
    /// Share of the limit from which answers warn, in percent.
    pub near_percent: Option<u8>,
    /// For people.
    pub display_name: String,
    /// Its labels.
    pub labels: Labels,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it must be there.
    pub existence: Existence,
    /// Version that it must have; empty for any.
    pub etag: String,
    /// Accept a cut.
    pub force: bool,
}

impl Command {
    /// The first pair within which the operation id is unique.
    pub fn lane(&self) -> &str {
        self.action.lane()
    }
}

impl Action {
    /// The subject that asks for more; none where nothing can be refused.
    pub fn asks_for(&self) -> Option<&SubjectName> {
        match self {
            Self::Consume(consume) => Some(&consume.subject),
            Self::Resize(resize) => Some(&resize.subject),
            Self::Reserve(reserve) => Some(&reserve.subject),
            Self::CommitHold(commit) => Some(&commit.hold.subject),
            _ => None,
        }
    }

    /// The first pair of the subject that it is about.
    pub fn lane(&self) -> &str {
        match self {
            Self::Consume(consume) => consume.subject.first_pair(),
            Self::Release(release) => release.subject.first_pair(),
            Self::Resize(resize) => resize.subject.first_pair(),
            Self::Renew(renew) => renew.subject.first_pair(),
            Self::ReleaseMatching(matching) => matching.subject.first_pair(),
            Self::Linked(members) => members.first().map_or(SYSTEM, Self::lane),
            Self::Reserve(reserve) => reserve.subject.first_pair(),
            Self::CommitHold(commit) => commit.hold.subject.first_pair(),
            Self::RenewHold { hold, .. } | Self::CancelHold(hold) => hold.subject.first_pair(),
            Self::SetSubject(subject) => subject.name.first_pair(),
            Self::DeleteSubject { name, .. } => name.first_pair(),
            Self::SetQuotas(quotas) => quotas
                .first()
                .map_or(SYSTEM, |quota| first_pair(quota.target.as_str())),
            Self::ChangeQuotas { sets, deletes } => {
                let sets = sets.iter().map(|set| &set.target);
                let mut targets = sets.chain(deletes.iter().map(|delete| &delete.target));
                targets
                    .next()
                    .map_or(SYSTEM, |target| first_pair(target.as_str()))
            }
            Self::DeleteQuota(delete) => first_pair(delete.target.as_str()),
            Self::ResetUsage(reset) => reset.subject.first_pair(),
            Self::CorrectUsage(correct) => correct.subject.first_pair(),
            Self::SetResource(_) | Self::DeleteResource { .. } | Self::AcceptClock { .. } => SYSTEM,
        }
    }

    /// How much work it is, in single commands.
    pub fn weight(&self) -> usize {
        match self {
            Self::Linked(members) => members.len(),
            Self::SetQuotas(quotas) => quotas.len(),
            Self::ChangeQuotas { sets, deletes } => sets.len().saturating_add(deletes.len()),
            Self::Renew(renew) => renew.allocations.len(),
            Self::ReleaseMatching(matching) => matching.most,
            _ => 1,
        }
    }
}
