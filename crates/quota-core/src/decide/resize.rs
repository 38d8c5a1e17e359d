//! Resize: new absolute amounts of an allocation, all or nothing (C6.4). What grows is checked as a
//! Consume of the growth; what shrinks is always admitted.

use std::sync::Arc;

use crate::Ledger;
use crate::allocation::AllocationKey;
use crate::charge::charge_set;
use crate::command::{Amounts, Resize};
use crate::decide::Step;
use crate::decide::release::guard_generation;
use crate::decide::uses::Use;
use crate::event::{Cause, Change, Charged};
use crate::outcome::Answer;
use crate::rejection::{Rejection, Violation};
use crate::resource::Kind;
use crate::stake::RowKey;
use crate::time::Timestamp;
use crate::verdict::Mode;

impl Ledger {
    pub(crate) fn resize(&self, now: Timestamp, resize: &Resize) -> Result<Step, Rejection> {
        let key = AllocationKey::new(&resize.subject, Some(&resize.allocation), &[]);
        self.guard_use(&resize.amounts, Use::Resize)?;
        let live = self.live(&key, now)?;
        guard_generation(&live, resize.expected_generation)?;
        if live.expires.is_none() {
            self.guard_no_end(&resize.amounts)?;
        }
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
            .scene(live.subject.as_str(), &names, now)
            .evaluate(&growth, resize.mode);
        if verdict.is_denied() {
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
        let allocation = Arc::new(self.with_amounts(&live, amounts, now));
        let left = Some(allocation.clone()).filter(|left| !left.amounts.is_empty());
        let cause = match resize.mode {
            Mode::Record => Cause::ResizeRecord,
            Mode::Strict | Mode::BestEffort { .. } => Cause::Resize,
        };
        let charged = Charged {
            used: deltas,
            allocation: Some(allocation),
            ..Charged::new(&live.subject, &live.also, cause).noting(&verdict)
        };
        let mut changes: Vec<Change> = self
            .closed_first(now, RowKey::Allocation(live.key.clone()))
            .into_iter()
            .collect();
        changes.push(Change::Charged(Box::new(charged)));
        Ok(Step {
            answer: Answer::Charged {
                verdict,
                allocation: left,
            },
            changes,
        })
    }

    /// An allocation that was made without an end cannot begin to have one.
    fn guard_no_end(&self, amounts: &Amounts) -> Result<(), Rejection> {
        let ending = |(at, (key, amount)): (usize, &(_, i64))| {
            let grows = *amount > 0 && self.kind(key) == Kind::Concurrency;
            grows.then(|| {
                let text = format!(
                    "{key} is of kind CONCURRENCY, and the allocation has no TTL; Consume it under an id of its own"
                );
                Violation::new(format!("amounts[{at}].resource"), text)
            })
        };
        let violations: Vec<Violation> = amounts.iter().enumerate().filter_map(ending).collect();
        match violations.is_empty() {
            true => Ok(()),
            false => Err(Rejection::Invalid(violations)),
        }
    }
}
