//! What a caller is told (C5.2), and what is kept to tell it again (C6.6).

use std::mem::size_of;
use std::sync::Arc;

use crate::allocation::Allocation;
use crate::hold::Hold;
use crate::labels::Labels;
use crate::name::{Id, ResourceKey, SubjectName, SubjectPattern};
use crate::quota::{Quota, Target};
use crate::resource::Resource;
use crate::subject::Subject;
use crate::time::Timestamp;
use crate::verdict::{Finding, Headroom, Verdict};

/// The answer to a command, as it was given and is given again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// What is answered.
    pub answer: Answer,
    /// When it was decided.
    pub decided: Timestamp,
}

/// What is answered to each command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To Consume and Resize. The allocation is absent when denied, where nothing of it stays in use, and when
    /// nothing is left of it.
    Charged {
        /// The decision.
        verdict: Verdict,
        /// The allocation afterwards.
        allocation: Option<Arc<Allocation>>,
    },
    /// To Release.
    Released {
        /// What was given back, by resource, in base units.
        amounts: Vec<(ResourceKey, i64)>,
        /// The allocation afterwards; absent where it ended.
        allocation: Option<Arc<Allocation>>,
    },
    /// To RenewAllocations: those that were renewed, and ids of those that are not there.
    Renewed {
        /// When each ends now, in the order of the request.
        renewed: Vec<(crate::name::Id, Timestamp)>,
        /// Ids that name no live CONCURRENCY allocation.
        missing: Vec<crate::name::Id>,
    },
    /// To a linked group: what is answered to each member. One that is denied denies all, and nothing of any
    /// happens.
    Linked(Vec<Answer>),
    /// To a member of a linked group that was not decided: it depends on one that was denied.
    Undecided,
    /// To Reserve; the hold is absent when denied.
    Reserved {
        /// The decision.
        verdict: Verdict,
        /// The hold.
        hold: Option<Arc<Hold>>,
    },
    /// To CommitHold.
    Committed {
        /// The decision; that of what the hold does not cover where something is not.
        verdict: Verdict,
        /// The hold afterwards.
        hold: Arc<Hold>,
        /// The allocation; absent when denied, and where nothing stays in use.
        allocation: Option<Arc<Allocation>>,
    },
    /// To RenewHold and CancelHold: the hold afterwards.
    Hold(Arc<Hold>),
    /// To ReleaseMatching.
    ReleasedMatching {
        /// Number of allocations.
        released: u32,
        /// Whether more match.
        more: bool,
        /// Sum of what was given back, by resource, in base units.
        amounts: Vec<(ResourceKey, i64)>,
    },
    /// To a change of a subject: the subject without its accounts.
    Subject(Box<Subject>),
    /// To a change of a resource.
    Resource(Arc<Resource>),
    /// To a change of quotas, in the order of the request.
    Quotas(Vec<QuotaAnswer>),
    /// To a correction or a reset: what was counted before, by subject, in base units.
    Corrected(Vec<(crate::name::SubjectName, ResourceKey, i64)>),
    /// To the acceptance of the wall clock: what it was less the server's, in nanoseconds.
    ClockAccepted {
        /// The offset.
        offset_ns: i64,
    },
    /// To a deletion.
    Deleted,
}

/// What is answered to the change of one quota.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuotaAnswer {
    /// What it is set on.
    pub target: Target,
    /// The quota.
    pub quota: Arc<Quota>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

impl Answer {
    /// Whether nothing was admitted.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Charged { verdict, .. }
            | Self::Reserved { verdict, .. }
            | Self::Committed { verdict, .. } => verdict.is_denied(),
            Self::Linked(members) => members.iter().any(Self::is_refusal),
            _ => false,
        }
    }

    fn bytes_of_names(&self) -> usize {
        match self {
            Self::Charged { verdict, .. }
            | Self::Reserved { verdict, .. }
            | Self::Committed { verdict, .. } => names_of_headroom(verdict),
            Self::Linked(members) => sum(members.iter().map(Self::bytes_of_names)),
            _ => 0,
        }
    }

    /// About what it takes beside itself, in bytes.
    fn weight(&self) -> usize {
        let weights: &[usize] = match self {
            Self::Charged {
                verdict,
                allocation,
            } => &[weight_of_verdict(verdict), weight_of_allocation(allocation)],
            Self::Reserved { verdict, hold } => &[
                weight_of_verdict(verdict),
                hold.as_deref().map_or(0, weight_of_hold),
            ],
            Self::Committed {
                verdict,
                hold,
                allocation,
            } => &[
                weight_of_verdict(verdict),
                weight_of_hold(hold),
                weight_of_allocation(allocation),
            ],
            Self::Hold(hold) => &[weight_of_hold(hold)],
            Self::Renewed { renewed, missing } => {
                let ids = renewed.iter().map(|(id, _)| id).chain(missing);
                let texts = ids.map(|id| text(id.as_str()).saturating_add(size_of::<(Id, i64)>()));
                &[sum(texts)]
            }
            Self::Linked(members) => {
                let each = |member: &Self| member.weight().saturating_add(size_of::<Self>());
                &[sum(members.iter().map(each))]
            }
            Self::Released {
                amounts,
                allocation,
            } => &[weight_of_amounts(amounts), weight_of_allocation(allocation)],
            Self::ReleasedMatching { amounts, .. } => &[weight_of_amounts(amounts)],
            Self::ClockAccepted { .. } | Self::Undecided | Self::Deleted => &[],
            Self::Corrected(counts) => &[counts.len().saturating_mul(256)],
            Self::Quotas(quotas) => &[quotas.len().saturating_mul(4096)],
            Self::Subject(_) | Self::Resource(_) => &[4096],
        };
        sum(weights.iter().copied())
    }
}

fn sum(weights: impl Iterator<Item = usize>) -> usize {
    weights.fold(0, usize::saturating_add)
}

/// A value of its own behind a shared pointer.
pub(crate) fn shared<T>() -> usize {
    size_of::<T>().saturating_add(COUNTS)
}

/// A text of its own.
pub(crate) fn text(text: &str) -> usize {
    text.len().saturating_add(COUNTS).next_multiple_of(16)
}

/// What a shared pointer's counts take.
const COUNTS: usize = 16;

fn weight_of_amounts(amounts: &[(ResourceKey, i64)]) -> usize {
    let each = |(key, _): &(ResourceKey, i64)| {
        text(key.as_str()).saturating_add(size_of::<(ResourceKey, i64)>())
    };
    sum(amounts.iter().map(each))
}

/// The names of limits that are not in the way are those of the ledger; those in a refusal may be anybody's.
fn weight_of_verdict(verdict: &Verdict) -> usize {
    let findings = verdict.findings().map(|finding| {
        let pattern = finding.pattern.as_ref();
        let texts = [
            finding.subject.as_str(),
            finding.resource.as_str(),
            finding.quota.as_ref().map_or("", Id::as_str),
            pattern.map_or("", SubjectPattern::as_str),
        ];
        sum(texts.into_iter().map(text)).saturating_add(size_of::<Finding>())
    });
    let unbounded = verdict.unbounded.iter();
    let unbounded =
        unbounded.map(|key| text(key.as_str()).saturating_add(size_of::<ResourceKey>()));
    let headroom = verdict.near.len().saturating_add(verdict.tightest.len());
    let headroom = headroom.saturating_mul(size_of::<Headroom>());
    sum(findings.chain(unbounded)).saturating_add(headroom)
}

/// What the names of limits that are not in the way take where they are written.
fn names_of_headroom(verdict: &Verdict) -> usize {
    let headroom = verdict.near.iter().chain(&verdict.tightest);
    sum(headroom.map(|headroom| {
        let pattern = headroom.pattern.as_ref();
        let texts = [
            headroom.subject.as_str(),
            headroom.resource.as_str(),
            headroom.quota.as_str(),
            pattern.map_or("", SubjectPattern::as_str),
        ];
        sum(texts.into_iter().map(str::len))
    }))
}

fn weight_of_allocation(allocation: &Option<Arc<Allocation>>) -> usize {
    let row = |row: &Arc<Allocation>| {
        let id = row.id.as_ref().map_or("", Id::as_str);
        let texts = [
            row.key.as_str(),
            id,
            row.subject.as_str(),
            &row.source,
            &row.purpose,
        ];
        let amounts = weight_of_amounts(&row.amounts);
        weight_of_row(&texts, &row.labels, &row.also)
            .saturating_add(shared::<Allocation>())
            .saturating_add(amounts)
    };
    allocation.as_ref().map_or(0, row)
}

fn weight_of_hold(hold: &Hold) -> usize {
    let texts = [
        hold.key.as_str(),
        hold.id.as_str(),
        hold.subject.as_str(),
        hold.allocation.as_str(),
        &hold.source,
        &hold.purpose,
    ];
    let amounts = weight_of_amounts(&hold.amounts).saturating_add(weight_of_amounts(&hold.spent));
    weight_of_row(&texts, &hold.labels, &hold.also)
        .saturating_add(shared::<Hold>())
        .saturating_add(amounts)
}

fn weight_of_row(texts: &[&str], labels: &Labels, also: &[SubjectName]) -> usize {
    /// Incarnations of the subject and those above it.
    const LINEAGE: usize = 64;
    /// A node of the tree of labels, whose strings are beside it.
    const NODE: usize = 544;
    let labels = labels.iter().map(|(key, value)| {
        let texts = key.len().saturating_add(value.len());
        texts.saturating_add(NODE / 4)
    });
    let also = also
        .iter()
        .map(|name| text(name.as_str()).saturating_add(LINEAGE));
    let texts = texts.iter().map(|each| text(each));
    sum(labels.chain(also).chain(texts)).saturating_add(LINEAGE)
}

impl Outcome {
    /// Whether nothing was admitted.
    pub fn is_refusal(&self) -> bool {
        self.answer.is_refusal()
    }

    /// About how many bytes it takes where it is written.
    pub(crate) fn bytes(&self) -> usize {
        self.weight().saturating_add(self.answer.bytes_of_names())
    }

    /// About how much memory it takes, in bytes; for the bound on what is remembered.
    pub(crate) fn weight(&self) -> usize {
        self.answer.weight().saturating_add(shared::<Self>())
    }
}

/// A reply to one command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The outcome.
    pub outcome: Arc<Outcome>,
    /// Whether it was decided by an earlier call with the same operation id.
    pub replayed: bool,
}
