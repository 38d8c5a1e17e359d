//! Accounts: what one subject, with all below it, has of one resource (C3.4).

use thin_vec::ThinVec;

use crate::ends::Ends;
use crate::name::Id;
use crate::notice::Standing;
use crate::period::{Period, Window};
use crate::rate::{Bucket, Fill, Rate, RateBefore};
use crate::time::Timestamp;

/// What counts against a limit, in base units.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Taken {
    /// In use.
    pub used: i64,
    /// Held by reservations.
    pub held: i64,
}

impl Taken {
    /// Both.
    pub fn sum(&self) -> i64 {
        self.used.saturating_add(self.held)
    }
}

/// The count of one period definition (C7.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// The definition.
    pub period: Period,
    /// The key of the period: its start.
    pub start: Timestamp,
    /// From when on everything in the period was counted.
    pub opened: Timestamp,
    /// What was counted.
    pub used: i64,
}

impl Count {
    /// Whether this is the count of the period that contains `now`.
    fn is_current(&self, now: Timestamp) -> bool {
        self.period.window(now).start == self.start
    }
}

/// What a period has counted so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counted {
    /// Counted.
    pub used: i64,
    /// The period.
    pub window: Window,
    /// From when on everything was counted, where that is not the start of the period.
    pub since: Option<Timestamp>,
}

/// An account. There are millions, and most have none of the lists. No number is negative, and none above [`ACCOUNT_MAX`](crate::amount::ACCOUNT_MAX).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// ALLOCATION and CONCURRENCY: the sum over the allocations that are there, those included whose time is
    /// over and that nobody has closed yet. COUNTER: everything ever counted. In base units.
    pub used: i64,
    /// The sum over the holds that are there, those included that nobody has closed yet.
    pub held: i64,
    /// What of both ends by itself, and when.
    pub ends: Ends,
    /// COUNTER: counts of periods. One that is not current reads zero and goes with the next charge.
    pub counts: ThinVec<Count>,
    /// RATE: the bucket of each quota, by the quota's id.
    pub buckets: ThinVec<(Id, Bucket)>,
    /// Limits that it was last told to be near or above, by the quota's id.
    pub standings: ThinVec<(Id, Standing)>,
}

impl Account {
    /// What counts at `now`: without the seconds that are over (C6.3).
    pub fn at(&self, now: Timestamp) -> Taken {
        let over = self.ends.over(now);
        Taken {
            used: self.used.saturating_sub(over.used),
            held: self.held.saturating_sub(over.held),
        }
    }

    /// What was counted in the period of a definition that contains `now`. A count that is there decides,
    /// whichever quota asks: it goes on as long as any quota of that definition is in force here. `since` says
    /// from when on there is one, where nothing was counted yet.
    pub fn counted(&self, period: Period, since: Timestamp, now: Timestamp) -> Counted {
        let window = period.window(now);
        if period.is_none() {
            return Counted {
                used: self.used,
                window,
                since: None,
            };
        }
        let count = self
            .counts
            .iter()
            .find(|count| count.period == period && count.start == window.start);
        let from = count.map_or(since, |count| count.opened);
        Counted {
            used: count.map_or(0, |count| count.used),
            window,
            since: Some(from).filter(|from| *from > window.start),
        }
    }

    /// The bucket of a quota, as full as it is at `now`.
    pub fn fill(
        &self,
        quota: &Id,
        rate: &Rate,
        limit: i64,
        before: &[RateBefore],
        now: Timestamp,
    ) -> Fill {
        let bucket = self.buckets.iter().find(|(id, _)| id == quota);
        Fill::at(bucket.map(|(_, bucket)| bucket), rate, limit, before, now)
    }

    /// Counts `amount` in every period that is defined, each with the instant from which it is. A count without
    /// a definition has missed this amount and goes: it is not taken for complete when its definition comes
    /// back (C3.4).
    pub(crate) fn count(&mut self, amount: i64, defined: &[(Period, Timestamp)], now: Timestamp) {
        self.used = self.used.saturating_add(amount);
        self.counts.retain(|count| {
            let still = |(period, _): &(Period, Timestamp)| *period == count.period;
            count.is_current(now) && defined.iter().any(still)
        });
        for (period, since) in defined.iter().copied() {
            let window = period.window(now);
            if !period.is_none() && !self.counts.iter().any(|count| count.period == period) {
                self.counts.push(Count {
                    period,
                    start: window.start,
                    // Nothing was counted before this, so everything since then has been.
                    opened: since.max(window.start),
                    used: 0,
                });
            }
        }
        self.counts.sort_by_key(|count| count.period);
        for count in &mut self.counts {
            count.used = count.used.saturating_add(amount);
        }
    }

    /// About how many bytes it takes in its record.
    pub(crate) fn weight(&self) -> usize {
        const ACCOUNT: usize = 80;
        const PART: usize = 64;
        let parts = self.counts.len().saturating_add(self.buckets.len());
        let parts = parts.saturating_add(self.standings.len());
        parts.saturating_mul(PART).saturating_add(ACCOUNT)
    }
}
