//! Reserve and CancelHold: capacity set aside for a time (C6.3).

use std::sync::Arc;

use crate::Ledger;
use crate::allocation::AllocationKey;
use crate::command::{HoldName, Provenance, Reserve};
use crate::decide::renew::guard_live;
use crate::decide::uses::Use;
use crate::decide::{Step, negative, sum};
use crate::event::{Cause, Change, Charged};
use crate::hold::{End, Hold, HoldKey};
use crate::name::Id;
use crate::outcome::Answer;
use crate::rejection::Rejection;
use crate::resource::Kind;
use crate::stake::RowKey;
use crate::time::Timestamp;
use crate::verdict::Mode;

/// Kinds of which something is held.
const HELD: [Kind; 3] = [Kind::Allocation, Kind::Concurrency, Kind::Counter];

impl Ledger {
    pub(crate) fn reserve(
        &self,
        now: Timestamp,
        reserve: &Reserve,
        provenance: &Provenance,
    ) -> Result<Step, Rejection> {
        let id = match &reserve.hold {
            Some(id) => id.clone(),
            None => Id::parse(&format!("hold-{}", self.next_revision()))
                .expect("a word and a number are an id"),
        };
        let key = HoldKey::new(&reserve.subject, &id);
        let allocation = reserve.allocation.clone().unwrap_or_else(|| id.clone());
        self.guard_use(&reserve.amounts, Use::Reserve)?;
        let lineup = self.lineup(&reserve.subject, &reserve.also);
        self.guard_subjects(&reserve.subject, &reserve.also, &lineup)?;
        if self
            .hold(key.as_str())
            .is_some_and(|hold| hold.end(now).is_none())
        {
            return Err(Rejection::Exists(format!("hold {}", key.as_str())));
        }
        self.guard_free(&reserve.subject, &allocation, now)?;
        let verdict = self
            .scene_of(&reserve.subject, &lineup, now)
            .evaluate(&reserve.amounts, Mode::Strict);
        if verdict.is_denied() {
            return Ok(Step {
                answer: Answer::Reserved {
                    verdict,
                    hold: None,
                },
                changes: Vec::new(),
            });
        }

        let hold = Arc::new(Hold {
            key,
            subject: reserve.subject.clone(),
            also: reserve.also.clone(),
            incarnations: self.incarnations(&lineup),
            id,
            allocation,
            amounts: sum(&[], &self.of_kind(&reserve.amounts, &HELD)),
            spent: sum(
                &[],
                &self.of_kind(&reserve.amounts, &[Kind::Rate, Kind::PerRequest]),
            ),
            generation: self.next_revision(),
            labels: reserve.labels.clone(),
            source: provenance.source.clone(),
            purpose: reserve.purpose.clone(),
            created: now,
            expires: now.plus(reserve.ttl),
            ended: None,
            late: false,
        });
        let mut changes = self.births(now, &lineup);
        changes.extend(self.closed_first(now, RowKey::Hold(hold.key.clone())));
        changes.push(Change::Charged(Box::new(Charged {
            used: self.of_kind(&hold.spent, &[Kind::Rate]),
            held: hold.amounts.clone(),
            hold: Some(hold.clone()),
            ..Charged::new(&reserve.subject, &reserve.also, Cause::Reserve).noting(&verdict)
        })));
        Ok(Step {
            answer: Answer::Reserved {
                verdict,
                hold: Some(hold),
            },
            changes,
        })
    }

    pub(crate) fn cancel_hold(&self, now: Timestamp, name: &HoldName) -> Result<Step, Rejection> {
        let live = self.known_hold(&HoldKey::new(&name.subject, &name.id))?;
        guard_live(live, now, "cancelled")?;
        let hold = Arc::new(live.closed(End::Cancelled, now, self.next_revision()));
        Ok(Step {
            answer: Answer::Hold(hold.clone()),
            changes: vec![Change::Charged(Box::new(Charged {
                held: negative(&live.amounts),
                hold: Some(hold),
                ..Charged::new(&live.subject, &live.also, Cause::Cancel)
            }))],
        })
    }

    /// Guards that no live allocation has the id.
    pub(super) fn guard_free(
        &self,
        subject: &crate::name::SubjectName,
        allocation: &Id,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let key = AllocationKey::new(subject, Some(allocation), &[]);
        match self.live_allocation(key.as_str(), now) {
            Some(_) => Err(Rejection::Exists(format!("allocation {}", key.as_str()))),
            None => Ok(()),
        }
    }
}
