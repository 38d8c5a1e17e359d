//! What a caller is told (C5.2), and what is kept to tell it again (C6.6).

use std::sync::Arc;

use crate::allocation::Allocation;
use crate::hold::Hold;
use crate::name::ResourceKey;
use crate::quota::{Quota, Target};
use crate::resource::Resource;
use crate::subject::Subject;
use crate::time::Timestamp;
use crate::verdict::Verdict;

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

    fn weight(&self) -> usize {
        const ROW: usize = 256;
        match self {
            Self::Charged {
                verdict,
                allocation,
            } => weight_of_verdict(verdict).saturating_add(weight_of_allocation(allocation)),
            Self::Reserved { verdict, hold } => {
                weight_of_verdict(verdict).saturating_add(hold.as_deref().map_or(0, weight_of_hold))
            }
            Self::Committed {
                verdict,
                hold,
                allocation,
            } => weight_of_verdict(verdict)
                .saturating_add(weight_of_hold(hold))
                .saturating_add(weight_of_allocation(allocation)),
            Self::Hold(hold) => weight_of_hold(hold),
            Self::Renewed { renewed, missing } => {
                let ids = renewed.iter().map(|(id, _)| id).chain(missing);
                let texts = ids.map(|id| id.as_str().len().saturating_add(48));
                texts.fold(ROW, usize::saturating_add)
            }
            Self::Linked(members) => {
                let members = members.iter().map(Self::weight);
                members.fold(ROW, usize::saturating_add)
            }
            Self::Released { allocation, .. } => {
                weight_of_allocation(allocation).saturating_add(ROW)
            }
            Self::ReleasedMatching { .. }
            | Self::ClockAccepted { .. }
            | Self::Undecided
            | Self::Deleted => ROW,
            Self::Corrected(counts) => counts.len().saturating_mul(ROW),
            Self::Quotas(quotas) => quotas.len().saturating_mul(4096),
            Self::Subject(_) | Self::Resource(_) => 4096,
        }
    }
}

fn weight_of_verdict(verdict: &Verdict) -> usize {
    const FINDING: usize = 256;
    const HEADROOM: usize = 160;
    const NAME: usize = 64;
    let findings = verdict.findings().map(|finding| {
        let pattern = finding
            .pattern
            .as_ref()
            .map_or(0, |pattern| pattern.as_str().len());
        let names = finding.subject.as_str().len().saturating_add(pattern);
        names.saturating_add(FINDING)
    });
    let headroom = verdict.near.iter().chain(&verdict.tightest);
    let headroom = headroom.map(|head| head.subject.as_str().len().saturating_add(HEADROOM));
    let unbounded = verdict.unbounded.len().saturating_mul(NAME);
    findings
        .chain(headroom)
        .fold(unbounded, usize::saturating_add)
}

fn weight_of_allocation(allocation: &Option<Arc<Allocation>>) -> usize {
    let row = |row: &Arc<Allocation>| {
        let texts = [
            row.key.as_str(),
            row.key.as_str(),
            &row.source,
            &row.purpose,
        ];
        weight_of_row(&texts, &row.labels, &row.also, row.amounts.len())
    };
    allocation.as_ref().map_or(0, row)
}

fn weight_of_hold(hold: &Hold) -> usize {
    let texts = [
        hold.key.as_str(),
        hold.allocation.as_str(),
        &hold.source,
        &hold.purpose,
    ];
    let amounts = hold.amounts.len().saturating_add(hold.spent.len());
    weight_of_row(&texts, &hold.labels, &hold.also, amounts)
}

fn weight_of_row(
    texts: &[&str],
    labels: &crate::labels::Labels,
    also: &[crate::name::SubjectName],
    amounts: usize,
) -> usize {
    const ROW: usize = 320;
    const AMOUNT: usize = 80;
    const NAME: usize = 64;
    let labels = labels
        .iter()
        .map(|(key, value)| key.len().saturating_add(value.len()));
    let also = also
        .iter()
        .map(|name| name.as_str().len().saturating_add(NAME));
    let texts = texts.iter().map(|text| text.len());
    let amounts = amounts.saturating_mul(AMOUNT);
    let parts = labels.chain(also).chain(texts);
    parts.fold(ROW.saturating_add(amounts), usize::saturating_add)
}

impl Outcome {
    /// Whether nothing was admitted.
    pub fn is_refusal(&self) -> bool {
        self.answer.is_refusal()
    }

    /// About how much memory it takes, in bytes; for the bound on what is remembered.
    pub(crate) fn weight(&self) -> usize {
        self.answer.weight()
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
