//! RenewAllocations and RenewHold: more time, never less (C6.3).

use std::sync::Arc;
use std::time::Duration;

use crate::Ledger;
use crate::allocation::{Allocation, AllocationKey};
use crate::command::{HoldName, Renew};
use crate::decide::Step;
use crate::event::{Cause, Change, Charged};
use crate::hold::{Hold, HoldKey};
use crate::outcome::Answer;
use crate::rejection::Rejection;
use crate::time::Timestamp;

impl Ledger {
    pub(crate) fn renew(&self, now: Timestamp, renew: &Renew) -> Step {
        let mut renewed = Vec::new();
        let mut missing = Vec::new();
        let mut changes = Vec::new();
        for id in &renew.allocations {
            let key = AllocationKey::new(&renew.subject, Some(id), &[]);
            let live = self.live_allocation(key.as_str(), now);
            let Some((live, expires)) = live.and_then(|live| Some((live.clone(), live.expires?)))
            else {
                missing.push(id.clone());
                continue;
            };
            let expires = expires.max(now.plus(renew.ttl));
            renewed.push((id.clone(), expires));
            let allocation = Arc::new(Allocation {
                generation: self.next_revision(),
                updated: now,
                expires: Some(expires),
                ..(*live).clone()
            });
            changes.push(Change::Charged(Box::new(Charged {
                allocation: Some(allocation),
                ..Charged::new(&live.subject, &live.also, Cause::Renew)
            })));
        }
        Step {
            answer: Answer::Renewed { renewed, missing },
            changes,
        }
    }

    pub(crate) fn renew_hold(
        &self,
        now: Timestamp,
        name: &HoldName,
        ttl: Duration,
    ) -> Result<Step, Rejection> {
        let live = self.known_hold(&HoldKey::new(&name.subject, &name.id))?;
        guard_live(live, now, "renewed")?;
        let hold = Arc::new(Hold {
            expires: live.expires.max(now.plus(ttl)),
            generation: self.next_revision(),
            ..(**live).clone()
        });
        Ok(Step {
            answer: Answer::Hold(hold.clone()),
            changes: vec![Change::Charged(Box::new(Charged {
                hold: Some(hold),
                ..Charged::new(&live.subject, &live.also, Cause::RenewHold)
            }))],
        })
    }
}

pub(super) fn guard_live(hold: &Hold, now: Timestamp, what: &'static str) -> Result<(), Rejection> {
    match hold.end(now) {
        Some(end) => Err(Rejection::HoldEnded {
            hold: hold.key.as_str().to_owned(),
            state: end.name(),
            what,
        }),
        None => Ok(()),
    }
}
