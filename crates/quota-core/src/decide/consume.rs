//! Consume: checks and charges in one step (C5.1, C6.2).

use std::sync::Arc;

use crate::Ledger;
use crate::allocation::{Allocation, AllocationKey};
use crate::command::{Consume, Provenance};
use crate::decide::uses::Use;
use crate::decide::{Step, sum};
use crate::event::{Cause, Change, Charged};
use crate::outcome::Answer;
use crate::rejection::{Rejection, Violation};
use crate::resource::Kind;
use crate::stake::RowKey;
use crate::time::Timestamp;
use crate::verdict::Mode;

fn guard_best_effort(consume: &Consume) -> Result<(), Rejection> {
    match (consume.mode, consume.amounts.as_slice()) {
        (Mode::BestEffort { .. }, [] | [_, _, ..]) => {
            let text = format!(
                "has {} resources; BEST_EFFORT is of exactly one",
                consume.amounts.len()
            );
            Err(Rejection::Invalid(vec![Violation::new("amounts", text)]))
        }
        _ => Ok(()),
    }
}

impl Ledger {
    pub(crate) fn consume(
        &self,
        now: Timestamp,
        consume: &Consume,
        provenance: &Provenance,
    ) -> Result<Step, Rejection> {
        let key = AllocationKey::new(&consume.subject, consume.allocation.as_ref(), &consume.also);
        let purpose = Use::Consume {
            named: consume.allocation.is_some(),
            ends: consume.ttl.is_some(),
        };
        self.guard_use(&consume.amounts, purpose)?;
        guard_best_effort(consume)?;
        let lineup = self.lineup(&consume.subject, &consume.also);
        self.guard_subjects(&consume.subject, &consume.also, &lineup)?;
        let live = self.live_allocation(key.as_str(), now);
        if live.is_some() && consume.allocation.is_some() {
            return Err(Rejection::Exists(format!("allocation {}", key.as_str())));
        }
        let verdict = self
            .scene_of(&consume.subject, &lineup, now)
            .evaluate(&consume.amounts, consume.mode);
        if verdict.is_denied() {
            return Ok(Step {
                answer: Answer::Charged {
                    verdict,
                    allocation: None,
                },
                changes: Vec::new(),
            });
        }

        let granted = verdict.granted(&consume.amounts);
        let kept = self.of_kind(&granted, &[Kind::Allocation, Kind::Concurrency]);
        let allocation = (!kept.is_empty()).then(|| {
            Arc::new(match &live {
                Some(live) => self.with_amounts(live, sum(&live.amounts, &kept), now),
                None => Allocation {
                    key,
                    subject: consume.subject.clone(),
                    also: consume.also.clone(),
                    incarnations: self.incarnations(&lineup),
                    id: consume.allocation.clone(),
                    amounts: sum(&[], &kept),
                    generation: self.next_revision(),
                    labels: consume.labels.clone(),
                    source: provenance.source.clone(),
                    purpose: consume.purpose.clone(),
                    created: now,
                    updated: now,
                    expires: consume.ttl.map(|ttl| now.plus(ttl)),
                },
            })
        });
        let cause = match consume.mode {
            Mode::Strict | Mode::BestEffort { .. } => Cause::Consume,
            Mode::Record => Cause::Record,
        };
        let mut changes = self.births(now, &lineup);
        if let Some(row) = &allocation {
            changes.extend(self.closed_first(now, RowKey::Allocation(row.key.clone())));
        }
        changes.push(Change::Charged(Box::new(Charged {
            used: granted,
            born: allocation.is_some() && live.is_none(),
            allocation: allocation.clone(),
            ..Charged::new(&consume.subject, &consume.also, cause).noting(&verdict)
        })));
        Ok(Step {
            answer: Answer::Charged {
                verdict,
                allocation,
            },
            changes,
        })
    }
}
