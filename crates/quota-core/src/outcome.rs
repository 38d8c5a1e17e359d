//! What a caller is told (C5.2), and what is kept to tell it again (C6.6).

use std::sync::Arc;

use crate::allocation::Allocation;
use crate::evaluate::{Decision, Verdict};
use crate::name::ResourceKey;
use crate::quota::{Quota, Target};
use crate::resource::Resource;
use crate::subject::Subject;
use crate::time::Timestamp;

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
    /// To Consume and Resize. The allocation is absent when denied, and when nothing is left of it.
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
    /// To a change of a quota.
    Quota {
        /// What it is set on.
        target: Target,
        /// The quota.
        quota: Arc<Quota>,
        /// What the operator should know.
        warnings: Vec<String>,
    },
    /// To a deletion.
    Deleted,
}

impl Outcome {
    /// Whether nothing was admitted.
    pub fn is_refusal(&self) -> bool {
        matches!(&self.answer, Answer::Charged { verdict, .. } if verdict.decision == Decision::Denied)
    }

    /// About how much memory it takes, in bytes; for the bound on what is remembered.
    pub(crate) fn weight(&self) -> usize {
        const ROW: usize = 256;
        const FINDING: usize = 224;
        const AMOUNT: usize = 80;
        const NAME: usize = 64;
        let list = |count: usize, bytes: usize| count.saturating_mul(bytes);
        let allocation = |allocation: &Option<Arc<Allocation>>| {
            allocation.as_ref().map_or(0, |row| {
                let labels = row
                    .labels
                    .iter()
                    .map(|(k, v)| k.len().saturating_add(v.len()));
                let texts = row.key.as_str().len().saturating_mul(2);
                let sums = row.source.len().saturating_add(row.purpose.len());
                let also = row
                    .also
                    .iter()
                    .map(|name| name.as_str().len().saturating_add(NAME));
                labels
                    .chain(also)
                    .fold(texts, usize::saturating_add)
                    .saturating_add(sums)
                    .saturating_add(list(row.amounts.len(), AMOUNT))
                    .saturating_add(list(row.incarnations.len(), 8))
                    .saturating_add(ROW)
            })
        };
        match &self.answer {
            Answer::Charged {
                verdict,
                allocation: row,
            } => {
                let findings = verdict
                    .refusals
                    .len()
                    .saturating_add(verdict.exceeded.len());
                let names = verdict.refusals.iter().chain(&verdict.exceeded);
                names
                    .map(|finding| finding.subject.as_str().len())
                    .fold(list(findings, FINDING), usize::saturating_add)
                    .saturating_add(list(verdict.unbounded.len(), NAME))
                    .saturating_add(allocation(row))
            }
            Answer::Released {
                allocation: row, ..
            } => allocation(row).saturating_add(ROW),
            Answer::ReleasedMatching { .. } | Answer::Deleted => ROW,
            Answer::Subject(_) | Answer::Resource(_) | Answer::Quota { .. } => 4096,
        }
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
