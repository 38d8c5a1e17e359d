//! A gauge: one quota with what it measures at one instant, and what it says of a request.

use std::time::Duration;

use crate::account::{Account, Taken};
use crate::amount::Limit;
use crate::evaluate::InForce;
use crate::name::SubjectName;
use crate::period::{Period, Window};
use crate::quota::{Enforcement, Measure, Quota, State};
use crate::rate::Fill;
use crate::time::Timestamp;
use crate::verdict::{Finding, Headroom, Reason};

/// A quota in force with what it measures.
#[derive(Clone, Debug)]
pub struct Gauge<'a> {
    in_force: InForce<'a>,
    /// What counts against the limit; of RATE what was taken and is not refilled.
    pub taken: Taken,
    /// The period of a counter.
    pub window: Option<Window>,
    /// From when on a counter counted everything, where that is not the start of its period.
    pub since: Option<Timestamp>,
    fill: Option<Fill>,
    now: Timestamp,
}

impl<'a> Gauge<'a> {
    /// Reads what the quota measures; `defined` are the periods in force on its subject.
    pub(crate) fn read(
        in_force: InForce<'a>,
        account: Option<&Account>,
        defined: &[(Period, Timestamp)],
        now: Timestamp,
    ) -> Self {
        let quota = in_force.quota;
        let mut gauge = Self {
            taken: Taken::default(),
            window: None,
            since: None,
            fill: None,
            now,
            in_force,
        };
        let live = || account.map(|account| account.at(now)).unwrap_or_default();
        match &quota.measure {
            Measure::Held => gauge.taken = live(),
            Measure::Counted(counting) => {
                let (period, own) = counting.at(now);
                let mut defined = defined.iter();
                let since = defined
                    .find(|(have, _)| *have == period)
                    .map_or(own, |(_, since)| *since);
                let empty = Account::default();
                let counted = account.unwrap_or(&empty).counted(period, since, now);
                gauge.taken = Taken {
                    used: counted.used,
                    held: live().held,
                };
                gauge.window = Some(counted.window);
                gauge.since = counted.since;
            }
            Measure::Rated(rate) => {
                if let Limit::Value(limit) = quota.limit {
                    let before = &quota.rates_before;
                    let fill = match account {
                        Some(account) => account.fill(&quota.id, rate, limit, before, now),
                        None => Fill::at(None, rate, limit, before, now),
                    };
                    gauge.taken.used = fill.taken();
                    gauge.fill = Some(fill);
                }
            }
            Measure::Request => {}
        }
        gauge
    }

    /// The quota.
    pub fn quota(&self) -> &'a Quota {
        self.in_force.quota
    }

    /// The pattern that the quota was set on; absent for the subject's own.
    pub fn pattern(&self) -> Option<&'a crate::name::SubjectPattern> {
        self.in_force.pattern
    }

    /// The periods that a counter counts in now.
    pub fn period(&self) -> Option<Period> {
        self.quota().definition(self.now).map(|(period, _)| period)
    }

    /// The bucket of a rate with a limit.
    pub(crate) fn fill(&self) -> Option<&Fill> {
        self.fill.as_ref()
    }

    /// What can be asked for now without a delay.
    pub(crate) fn room(&self) -> i64 {
        let quota = self.quota();
        if quota.state == State::Suspended {
            return 0;
        }
        let room = match (&self.fill, quota.limit) {
            (Some(fill), _) => fill.room(),
            (None, Limit::Value(limit)) => limit.saturating_sub(self.taken.sum()),
            (None, Limit::Unlimited) => i64::MAX,
        };
        room.min(quota.max_request.unwrap_or(i64::MAX))
    }

    /// Every reason against a request, as completions of `base`, and how long a throttled caller waits.
    pub(crate) fn judge(
        &self,
        base: impl Fn() -> Finding,
        requested: i64,
    ) -> (Vec<Finding>, Duration) {
        let quota = self.quota();
        let mut found = Vec::new();
        let finding = |reason, limit: Limit, shortfall, retry| Finding {
            quota: Some(quota.id.clone()),
            pattern: self.in_force.pattern.cloned(),
            reason,
            limit: Some(limit),
            window: self.window.filter(|window| window.end.is_some()),
            shortfall,
            retry,
            ..base()
        };
        if quota.state == State::Suspended {
            found.push(finding(Reason::Suspended, quota.limit, requested, None));
            return (found, Duration::ZERO);
        }
        if let Some(most) = quota.max_request.filter(|most| requested > *most) {
            let shortfall = requested.saturating_sub(most);
            found.push(finding(
                Reason::TooLarge,
                Limit::Value(most),
                shortfall,
                None,
            ));
        }
        let Limit::Value(limit) = quota.limit else {
            return (found, Duration::ZERO);
        };
        if let (Some(fill), Measure::Rated(rate)) = (&self.fill, &quota.measure) {
            let patience = match quota.enforcement {
                Enforcement::Throttle => rate.delay_max,
                _ => Duration::ZERO,
            };
            let bucket = Limit::Value(fill.bucket());
            let shortfall = fill.shortfall(requested, patience);
            match fill.wait(requested) {
                Some(wait) if wait <= patience => return (found, wait),
                Some(wait) => {
                    let retry = Some(wait.saturating_sub(patience));
                    found.push(finding(Reason::Rate, bucket, shortfall, retry));
                }
                None => found.push(finding(Reason::TooLarge, bucket, shortfall, None)),
            }
            return (found, Duration::ZERO);
        }
        let shortfall = self
            .taken
            .sum()
            .saturating_add(requested)
            .saturating_sub(limit);
        if shortfall > 0 {
            let end = self.window.and_then(|window| window.end);
            let (reason, retry) = match end {
                _ if requested > limit => (Reason::TooLarge, None),
                // What is held goes on into the next period, where it is in the way as well.
                Some(_) if self.taken.held.saturating_add(requested) > limit => {
                    (Reason::Limit, None)
                }
                Some(end) => (Reason::PeriodExhausted, Some(end.since(self.now))),
                None => (Reason::Limit, None),
            };
            found.push(finding(reason, quota.limit, shortfall, retry));
        }
        (found, Duration::ZERO)
    }

    /// The limit, of RATE the bucket, and what counts against it when `added` more is taken; none where it
    /// measures nothing that stays.
    pub(crate) fn level(&self, added: i64) -> Option<(i64, i64)> {
        let quota = self.quota();
        let limit = match (&self.fill, quota.limit) {
            (Some(fill), _) => fill.bucket(),
            (None, Limit::Value(limit)) if quota.measure != Measure::Request => limit,
            _ => return None,
        };
        let brim = self.fill.is_some() && !quota.enforcement.vetoes();
        let taken = self.taken.sum().saturating_add(added);
        Some((limit, if brim { taken.min(limit) } else { taken }))
    }

    /// How full it is, to be told.
    pub(crate) fn headroom(&self, subject: SubjectName, limit: i64, taken: i64) -> Headroom {
        let quota = self.quota();
        Headroom {
            subject,
            resource: quota.resource.clone(),
            quota: quota.id.clone(),
            pattern: self.in_force.pattern.cloned(),
            limit,
            taken,
            window: self.window.filter(|window| window.end.is_some()),
        }
    }
}
