//! Consume: checks and charges in one step (C5.1, C6.2).

use std::sync::Arc;

use crate::Ledger;
use crate::allocation::{Allocation, AllocationKey};
use crate::charge::charge_set;
use crate::command::{Amounts, Consume, Provenance};
use crate::decide::Step;
use crate::evaluate::{Decision, Mode};
use crate::event::{Cause, Change};
use crate::outcome::Answer;
use crate::rejection::Rejection;
use crate::time::Timestamp;

impl Ledger {
    pub(crate) fn consume(
        &self,
        now: Timestamp,
        consume: &Consume,
        provenance: &Provenance,
    ) -> Result<Step, Rejection> {
        let key = AllocationKey::new(&consume.subject, consume.allocation.as_ref(), &consume.also);
        let live = self.allocations.get(&key);
        self.guard_held(&consume.amounts)?;
        self.guard_subjects(&consume.subject, &consume.also)?;
        if live.is_some() && consume.allocation.is_some() {
            return Err(Rejection::Exists(format!("allocation {}", key.as_str())));
        }
        let names = charge_set(&consume.subject, &consume.also);
        let verdict = self
            .scene(consume.subject.as_str(), &names)
            .evaluate(&consume.amounts, consume.mode);
        if verdict.decision == Decision::Denied {
            return Ok(Step {
                answer: Answer::Charged {
                    verdict,
                    allocation: None,
                },
                changes: Vec::new(),
            });
        }

        let allocation = Arc::new(match live {
            Some(live) => live.with_amounts(
                sum(&live.amounts, &consume.amounts),
                self.next_revision(),
                now,
            ),
            None => Allocation {
                key,
                subject: consume.subject.clone(),
                also: consume.also.clone(),
                incarnations: self.incarnations(&names),
                id: consume.allocation.clone(),
                amounts: sum(&[], &consume.amounts),
                generation: self.next_revision(),
                labels: consume.labels.clone(),
                source: provenance.source.clone(),
                purpose: consume.purpose.clone(),
                created: now,
                updated: now,
            },
        });
        let mut changes = self.births(now, &names);
        changes.push(Change::Allocated {
            allocation: allocation.clone(),
            deltas: consume.amounts.clone(),
            cause: match consume.mode {
                Mode::Strict => Cause::Consume,
                Mode::Record => Cause::Record,
            },
            exceeded: verdict.exceeded.clone(),
        });
        Ok(Step {
            answer: Answer::Charged {
                verdict,
                allocation: Some(allocation),
            },
            changes,
        })
    }
}

/// Both amounts of each resource, by resource. An account holds the sum, so it cannot overflow.
fn sum(some: &[(crate::name::ResourceKey, i64)], more: &Amounts) -> Amounts {
    let mut sums = std::collections::BTreeMap::new();
    for (resource, amount) in some.iter().chain(more) {
        let sum: &mut i64 = sums.entry(resource.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
    sums.into_iter().collect()
}
