//! Resize: new absolute amounts of an allocation, all or nothing (C6.4). What grows is checked as a
//! Consume of the growth; what shrinks is always admitted.

use std::sync::Arc;

use crate::Ledger;
use crate::allocation::AllocationKey;
use crate::charge::charge_set;
use crate::command::{Amounts, Resize};
use crate::decide::Step;
use crate::decide::release::guard_generation;
use crate::evaluate::Decision;
use crate::event::{Cause, Change};
use crate::outcome::Answer;
use crate::rejection::Rejection;
use crate::time::Timestamp;

impl Ledger {
    pub(crate) fn resize(&self, now: Timestamp, resize: &Resize) -> Result<Step, Rejection> {
        let key = AllocationKey::new(&resize.subject, Some(&resize.allocation), &[]);
        self.guard_held(&resize.amounts)?;
        let live = self.live(&key)?;
        guard_generation(live, resize.expected_generation)?;
        let deltas: Amounts = resize
            .amounts
            .iter()
            .map(|(resource, amount)| {
                let delta = amount.saturating_sub(live.amount(resource));
                (resource.clone(), delta)
            })
            .filter(|(_, delta)| *delta != 0)
            .collect();
        let growth: Amounts = deltas.iter().filter(|(_, d)| *d > 0).cloned().collect();
        let names = charge_set(&live.subject, &live.also);
        let verdict = self
            .scene(live.subject.as_str(), &names)
            .evaluate(&growth, resize.mode);
        if verdict.decision == Decision::Denied {
            return Ok(Step {
                answer: Answer::Charged {
                    verdict,
                    allocation: None,
                },
                changes: Vec::new(),
            });
        }

        let kept = live.amounts.iter().filter(|(resource, _)| {
            let named = |(key, _): &(_, _)| key == resource;
            !resize.amounts.iter().any(named)
        });
        let amounts = kept.chain(&resize.amounts).cloned().collect();
        let allocation = Arc::new(live.with_amounts(amounts, self.next_revision(), now));
        let left = Some(allocation.clone()).filter(|left| !left.amounts.is_empty());
        Ok(Step {
            answer: Answer::Charged {
                verdict: verdict.clone(),
                allocation: left,
            },
            changes: vec![Change::Allocated {
                allocation,
                deltas,
                cause: Cause::Resize,
                exceeded: verdict.exceeded,
            }],
        })
    }
}
