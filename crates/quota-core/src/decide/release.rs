//! Release and ReleaseMatching: giving back is admitted in every state (C4.8), but never more than is
//! there (C1.4, C6.5).

use std::collections::BTreeMap;
use std::ops::Bound::Excluded;
use std::sync::Arc;

use crate::Ledger;
use crate::allocation::{Allocation, AllocationKey};
use crate::charge::charge_set;
use crate::command::{Amounts, Release, ReleaseMatching};
use crate::decide::Step;
use crate::decide::uses::Use;
use crate::decide::{negative, sum};
use crate::event::{Cause, Change, Charged};
use crate::name::{ResourceKey, below};
use crate::outcome::Answer;
use crate::rejection::Rejection;
use crate::stake::RowKey;
use crate::subject::Subject;
use crate::time::Timestamp;

/// Bytes of images after which a ReleaseMatching ends its page, whatever was asked for.
const MATCHING_BYTES_MAX: usize = 4 << 20;

impl Ledger {
    pub(crate) fn release(&self, now: Timestamp, release: &Release) -> Result<Step, Rejection> {
        let key = AllocationKey::new(&release.subject, release.allocation.as_ref(), &release.also);
        self.guard_use(&release.amounts, Use::Release)?;
        let live = self.live(&key, now)?;
        guard_generation(&live, release.expected_generation)?;
        let released = if release.amounts.is_empty() {
            live.amounts.clone()
        } else {
            release.amounts.clone()
        };
        for (resource, requested) in &released {
            let available = live.amount(resource);
            if *requested > available {
                return Err(Rejection::ReleaseTooLarge {
                    allocation: key.as_str().to_owned(),
                    resource: resource.clone(),
                    available,
                    requested: *requested,
                });
            }
        }

        let charged = self.released(now, &live, &released, Cause::Release);
        let left = charged.allocation.clone();
        let allocation = left.filter(|left| !left.amounts.is_empty());
        let mut amounts = released;
        amounts.sort();
        Ok(Step {
            answer: Answer::Released {
                amounts,
                allocation,
            },
            changes: self.given_back(now, charged).collect(),
        })
    }

    pub(crate) fn release_matching(&self, now: Timestamp, matching: &ReleaseMatching) -> Step {
        let mut first: Vec<Arc<Allocation>> = Vec::new();
        let (mut more, mut bytes) = (false, 0_usize);
        for live in self.matching(now, matching) {
            if first.len() == matching.most || bytes >= MATCHING_BYTES_MAX {
                more = true;
                break;
            }
            bytes = bytes.saturating_add(self.release_weight(&live));
            first.push(live);
        }
        let mut sums: BTreeMap<ResourceKey, i64> = BTreeMap::new();
        for allocation in &first {
            for (resource, amount) in &allocation.amounts {
                let sum = sums.entry(resource.clone()).or_default();
                *sum = sum.saturating_add(*amount);
            }
        }
        Step {
            answer: Answer::ReleasedMatching {
                released: u32::try_from(first.len()).unwrap_or(u32::MAX),
                more,
                amounts: sums.into_iter().collect(),
            },
            changes: first
                .iter()
                .map(|live| self.released(now, live, &live.amounts, Cause::ReleaseMatching))
                .flat_map(|charged| self.given_back(now, charged))
                .collect(),
        }
    }

    /// Live allocations that bear all labels; found by the rarest, so that the work is bounded by its
    /// number and not by that of all allocations.
    fn matching<'a>(
        &'a self,
        now: Timestamp,
        matching: &'a ReleaseMatching,
    ) -> impl Iterator<Item = Arc<Allocation>> + 'a {
        let prefix = matching.subject.as_str();
        let (first, last) = below(prefix);
        let rarest = matching
            .labels
            .iter()
            .map(|(key, value)| self.by_label.get(&(key.clone(), value.clone())))
            .min_by_key(|keys| keys.map_or(0, |keys| keys.len()))
            .flatten();
        rarest
            .into_iter()
            .flat_map(move |keys| {
                keys.range::<str, _>((Excluded(first.as_str()), Excluded(last.as_str())))
            })
            .filter_map(move |key| self.live_allocation(key.as_str(), now))
            .filter(move |allocation| allocation.subject.is_within(prefix))
            .filter(|allocation| {
                let has = |(key, value)| allocation.labels.get(key) == Some(value);
                matching.labels.iter().all(has)
            })
    }

    /// About how many bytes the images of a release take.
    fn release_weight(&self, live: &Allocation) -> usize {
        charge_set(&live.subject, &live.also)
            .into_iter()
            .filter_map(|name| self.subject(name))
            .map(Subject::weight)
            .fold(512, usize::saturating_add)
    }

    /// A release, after the end of what had ended by itself.
    fn given_back(&self, now: Timestamp, charged: Charged) -> impl Iterator<Item = Change> {
        let row = charged.allocation.as_ref().map(|row| row.key.clone());
        let closed = row.and_then(|key| self.closed_first(now, RowKey::Allocation(key)));
        let released = Change::Charged(Box::new(charged));
        closed.into_iter().chain([released])
    }

    fn released(
        &self,
        now: Timestamp,
        live: &Arc<Allocation>,
        released: &Amounts,
        cause: Cause,
    ) -> Charged {
        let used = negative(released);
        let left = sum(&live.amounts, &used);
        Charged {
            allocation: Some(Arc::new(self.with_amounts(live, left, now))),
            used,
            ..Charged::new(&live.subject, &live.also, cause)
        }
    }
}

pub(super) fn guard_generation(live: &Allocation, expected: Option<u64>) -> Result<(), Rejection> {
    match expected {
        Some(expected) if expected != live.generation => Err(Rejection::GenerationMismatch {
            allocation: live.key.as_str().to_owned(),
            expected,
            actual: live.generation,
        }),
        _ => Ok(()),
    }
}
