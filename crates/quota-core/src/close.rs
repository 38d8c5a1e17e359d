//! Bookkeeping: rows whose time is over are closed, what nothing can touch any more is swept (C6.3, C2.5). No
//! decision depends on when it happens, so it is bounded per group and may be late.

use std::sync::Arc;

use crate::Ledger;
use crate::allocation::Allocation;
use crate::charge::charge_set;
use crate::command::Provenance;
use crate::decide::negative;
use crate::event::{Cause, Change, Charged, Event};
use crate::hold::{ENDED_KEPT, ENDED_MAX, End, Hold};
use crate::name::SubjectName;
use crate::record::RecordKey;
use crate::resource::Kind;
use crate::stake::{RowKey, Stake};
use crate::time::{SECOND_NS, Timestamp};

impl Ledger {
    /// Closes up to `most` rows whose second is over: bookkeeping, for nothing that is decided depends on it
    /// (C6.3). Pure, like [`Self::decide`].
    pub fn close_due(&self, now: Timestamp, most: usize) -> Vec<Event> {
        let second = now.whole_second();
        let over = self.due.iter().take_while(|(due, _)| *due <= second);
        let provenance = Arc::new(Provenance::default());
        let revision = self.next_revision();
        over.take(most)
            .filter_map(|(_, key)| self.closing(now, key))
            .map(|charged| Event {
                at: now,
                revision,
                operation: None,
                provenance: provenance.clone(),
                change: Change::Charged(Box::new(charged)),
            })
            .collect()
    }

    pub(crate) fn closing(&self, now: Timestamp, key: &RowKey) -> Option<Charged> {
        let revision = self.next_revision();
        match key {
            RowKey::Hold(key) => {
                let hold = self.holds.get(key.as_str())?;
                Some(Charged {
                    over: Some(second_of(hold.expires)),
                    held: negative(&hold.amounts),
                    hold: Some(Arc::new(hold.closed(End::Expired, now, revision))),
                    ..Charged::new(&hold.subject, &hold.also, Cause::Expire)
                })
            }
            RowKey::Allocation(key) => {
                let row = self.allocations.get(key.as_str())?;
                let ended: Vec<_> = row
                    .amounts
                    .iter()
                    .filter(|(resource, _)| self.kind(resource) == Kind::Concurrency)
                    .cloned()
                    .collect();
                Some(Charged {
                    over: row.expires.map(second_of),
                    used: negative(&ended),
                    allocation: Some(Arc::new(self.without_concurrency(row, revision, now))),
                    ..Charged::new(&row.subject, &row.also, Cause::Expire)
                })
            }
        }
    }

    /// The second since the Unix epoch at which the next row ends by itself.
    pub fn next_due(&self) -> Option<i64> {
        self.due.first().map(|(second, _)| *second)
    }

    /// Sweeps up to `most` records that nothing can touch any more: descendants of deleted subjects, and
    /// ended holds that were kept long enough. Says whether there was any.
    pub fn sweep(&mut self, now: Timestamp, most: usize) -> bool {
        let mut left = most;
        while left > 0 {
            let over =
                |at: Timestamp, count: usize| count > ENDED_MAX || at <= now.minus(ENDED_KEPT);
            let Some((at, key)) = self.ended.first().cloned() else {
                break;
            };
            if !over(at, self.ended.len()) {
                break;
            }
            self.remove_hold(&key, None);
            self.touch(RecordKey::Hold(key), false);
            left = left.saturating_sub(1);
        }
        if !self.dying.is_empty() {
            self.subjects.put_in_order();
        }
        while left > 0 {
            let Some((top, revision)) = self.dying.first_key_value() else {
                break;
            };
            let (top, revision) = (top.clone(), *revision);
            let dead: Vec<SubjectName> = self
                .subjects
                .below(top.as_str(), "")
                .filter(|(_, slot)| slot.subject.profile.incarnation <= revision)
                .map(|(name, _)| name)
                .take(left)
                .cloned()
                .collect();
            if dead.is_empty() {
                Arc::make_mut(&mut self.dying).remove(&top);
                self.touch(RecordKey::Dying(top), false);
            }
            left = left.saturating_sub(dead.len().max(1));
            for name in dead {
                self.remove_subject(&name);
            }
        }
        left < most
    }

    /// What of the accounts ends by itself, and when: it follows from the rows.
    pub(crate) fn index_ends(&mut self) {
        let allocations: Vec<Arc<Allocation>> = self
            .allocations
            .things()
            .filter(|row| row.expires.is_some())
            .cloned()
            .collect();
        for row in allocations {
            let stake = Stake::of_allocation(&row);
            self.index_end(&stake, RowKey::Allocation(row.key.clone()));
        }
        let holds: Vec<Arc<Hold>> = self.holds.things().cloned().collect();
        for hold in holds {
            match hold.ended {
                None => self.index_end(&Stake::of_hold(&hold), RowKey::Hold(hold.key.clone())),
                Some((_, at)) => {
                    self.ended.insert((at, hold.key.clone()));
                }
            }
        }
    }

    fn index_end(&mut self, stake: &Stake<'_>, key: RowKey) {
        let Some(second) = stake.ends else {
            return;
        };
        self.due.insert((second, key));
        let names = charge_set(stake.subject, stake.also);
        for (name, recorded) in names.into_iter().zip(stake.incarnations) {
            if !self.is_incarnation(name, Some(*recorded)) {
                continue;
            }
            for (resource, amount) in stake.amounts {
                if stake.ends_of(self.kind(resource)).is_some()
                    && let Some(slot) = self.subjects.get_mut(name)
                {
                    let account = slot.change().account_mut(resource, &self.resources);
                    account.ends.add(second, stake.adds(*amount));
                }
            }
        }
    }
}

/// The whole second with which what expires at an instant no longer counts (C6.3).
fn second_of(expires: Timestamp) -> Timestamp {
    Timestamp::from_nanos(expires.next_whole_second().saturating_mul(SECOND_NS))
}
