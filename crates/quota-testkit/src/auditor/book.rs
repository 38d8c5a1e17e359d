//! What the auditor writes down: subjects, rows, everything that was ever counted, and rules. Nothing is ever
//! summed up beforehand: whatever is asked is added up from the beginning.

use std::collections::BTreeMap;

use quota_core::ledger::AutoCreate;

use super::calendar::{Period, SECOND};
use super::rules::Rule;

/// C1.1.
pub(super) const ACCOUNTS_MOST: i128 = 1 << 62;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Allocation,
    Concurrency,
    Counter,
    Rate,
    PerRequest,
}

/// A subject. One that is made again has another life.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) life: u64,
    pub(super) version: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) key: String,
    pub(super) kind: Kind,
    pub(super) deny: bool,
    pub(super) built_in: bool,
    pub(super) version: u64,
    /// Whether anything was ever charged to an account of it at the root.
    pub(super) charged: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    Live,
    Ended(&'static str),
}

/// An allocation or a hold.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) held: bool,
    pub(super) subject: String,
    pub(super) also: Vec<String>,
    /// Absent for the anonymous one.
    pub(super) id: Option<String>,
    /// Names and lives of the charge set.
    pub(super) set: Vec<(String, u64)>,
    pub(super) amounts: Vec<(String, i128)>,
    /// Of a hold: what was checked and debited when it was made.
    pub(super) spent: Vec<String>,
    /// Of a hold: the id of the allocation to come.
    pub(super) becomes: String,
    pub(super) expires: Option<i128>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) generation: u64,
    pub(super) state: State,
    pub(super) late: bool,
}

/// Something that was counted, on one subject.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) life: u64,
    pub(super) resource: String,
    pub(super) at: i128,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// Counted, in these periods.
    Count(i128, Vec<Period>),
    /// Corrected in the past.
    Past(i128),
    /// Taken from the buckets of these rules.
    Debit(i128, Vec<Rule>),
    /// Only these rules were in force when one of the subject's own changed.
    Settle(Vec<Rule>),
    /// Set to zero: all, or one rule's count or bucket.
    Reset(Option<(String, Option<Period>)>),
}

#[derive(Clone, Debug)]
pub(super) struct Book {
    pub(super) now: i128,
    pub(super) revision: u64,
    pub(super) subjects: BTreeMap<String, Subject>,
    pub(super) resources: Vec<Resource>,
    pub(super) rows: Vec<Row>,
    pub(super) entries: Vec<Entry>,
    pub(super) rules: Vec<Rule>,
    /// The rules as they were until an instant, the oldest first.
    pub(super) history: Vec<(i128, Vec<Rule>)>,
    pub(super) auto_create: AutoCreate,
    pub(super) subjects_max: usize,
}

impl Row {
    /// Whether its capacity is still taken: until the first whole second at or after its end.
    fn takes(&self, kind: Kind, now: i128) -> bool {
        let ends = self.held || kind == Kind::Concurrency;
        match self.expires {
            Some(expires) if ends => {
                let second = -((-expires).div_euclid(SECOND));
                now.div_euclid(SECOND) < second
            }
            _ => true,
        }
    }

    /// All of it but its generation, which only says in which order things happened.
    pub(super) fn shown(&self) -> String {
        let Self {
            subject,
            also,
            id,
            amounts,
            expires,
            state,
            held,
            ..
        } = self;
        format!("{held} {subject} {also:?} {id:?} {amounts:?} {expires:?} {state:?}")
    }

    pub(super) fn is_over(&self, now: i128) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Book {
    pub(super) fn kind(&self, resource: &str) -> Kind {
        let found = self.resource(resource);
        found.map_or(Kind::Allocation, |found| found.kind)
    }

    pub(super) fn resource(&self, key: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.key == key)
    }

    pub(super) fn denies_without_quota(&self, resource: &str) -> bool {
        self.resource(resource).is_some_and(|found| found.deny)
    }

    pub(super) fn life(&self, name: &str) -> Option<u64> {
        self.subjects.get(name).map(|subject| subject.life)
    }

    /// Whether every subject of a row is still the one that was charged.
    pub(super) fn is_alive(&self, row: &Row) -> bool {
        row.set
            .iter()
            .all(|(name, life)| self.life(name) == Some(*life))
    }

    /// Names of the charge set, `system` first, the others by name.
    pub(super) fn set(subject: &str, also: &[String]) -> Vec<String> {
        let mut set = Vec::new();
        for name in std::iter::once(subject).chain(also.iter().map(String::as_str)) {
            let parts: Vec<&str> = name.split('/').collect();
            for end in (2..=parts.len()).step_by(2) {
                set.push(parts[..end].join("/"));
            }
        }
        set.sort();
        set.dedup();
        set.insert(0, "system".to_owned());
        set
    }

    fn sum(&self, name: &str, resource: &str, held: bool) -> i128 {
        let Some(life) = self.life(name) else {
            return 0;
        };
        let kind = self.kind(resource);
        let mut sum = 0;
        for row in &self.rows {
            let on = row.set.iter().any(|(have, of)| have == name && *of == life);
            if row.held == held && row.state == State::Live && on && row.takes(kind, self.now) {
                for (key, amount) in &row.amounts {
                    if key == resource {
                        sum += amount;
                    }
                }
            }
        }
        sum
    }

    pub(super) fn held(&self, name: &str, resource: &str) -> i128 {
        self.sum(name, resource, true)
    }

    /// What a subject has of a resource; of a counter in its lifetime.
    pub(super) fn used(&self, name: &str, resource: &str) -> i128 {
        match self.kind(resource) {
            Kind::Allocation | Kind::Concurrency => self.sum(name, resource, false),
            Kind::Counter => self.counted(name, resource, &Period("none".into())),
            Kind::Rate | Kind::PerRequest => 0,
        }
    }

    fn entries_of<'a>(
        &'a self,
        name: &'a str,
        resource: &'a str,
    ) -> impl Iterator<Item = &'a Entry> {
        let life = self.life(name);
        self.entries.iter().filter(move |entry| {
            entry.name == name && Some(entry.life) == life && entry.resource == resource
        })
    }

    /// What was counted in the current period, by those that missed nothing since (C3.4, C7.2).
    pub(super) fn counted(&self, name: &str, resource: &str, period: &Period) -> i128 {
        let (start, _) = period.window(self.now);
        let mut count = 0;
        for entry in self.entries_of(name, resource) {
            match &entry.what {
                What::Past(change) if period.is_none() => count += change,
                What::Reset(None) => count = 0,
                What::Reset(Some((_, Some(reset)))) if reset == period => count = 0,
                What::Count(amount, _) if period.is_none() => count += amount,
                // Whatever the period before had counted is over.
                What::Count(..) if period.window(entry.at).0 != start => count = 0,
                What::Count(amount, periods) if periods.contains(period) => count += amount,
                What::Count(..) => count = 0,
                _ => {}
            }
        }
        count
    }

    /// What was taken from a rule's bucket and is not refilled, times the nanoseconds of its interval.
    pub(super) fn owed(&self, name: &str, rule: &Rule) -> i128 {
        let (Some(rate), Some(_)) = (&rule.rate, rule.limit) else {
            return 0;
        };
        let (mut owed, mut at) = (0_i128, None);
        let mut interval = rate.interval;
        for entry in self.entries_of(name, &rule.resource) {
            let (amount, rules) = match &entry.what {
                What::Debit(amount, rules) => (*amount, rules),
                What::Settle(rules) => (0, rules),
                What::Reset(which) => {
                    if which.as_ref().is_none_or(|(id, _)| *id == rule.id) {
                        owed = 0;
                    }
                    continue;
                }
                _ => continue,
            };
            let limited = |have: &&Rule| have.id == rule.id && have.limit.is_some();
            let Some(then) = rules.iter().find(limited) else {
                owed = 0;
                continue;
            };
            // Refilled until then by the one that was in force then, whichever is asked about now.
            if let Some(from) = at {
                (owed, interval) = self.refilled(name, then, owed, interval, from, entry.at);
            }
            at = Some(entry.at);
            let (Some(limit), Some(rate)) = (then.limit, &then.rate) else {
                continue;
            };
            owed = rescaled(owed, interval, rate.interval);
            interval = rate.interval;
            let cost = amount * interval;
            let brim = rate.bucket.unwrap_or(limit) * interval;
            owed = match then.vetoes() {
                true => (owed + cost).min(ACCOUNTS_MOST * interval),
                false => (owed + cost).min(brim.max(owed)),
            };
        }
        if let Some(from) = at {
            (owed, interval) = self.refilled(name, rule, owed, interval, from, self.now);
        }
        rescaled(owed, interval, rate.interval)
    }

    /// Refills by the rule as it was from one instant to another: each change counts from then on.
    fn refilled(
        &self,
        name: &str,
        rule: &Rule,
        mut owed: i128,
        mut interval: i128,
        mut from: i128,
        to: i128,
    ) -> (i128, i128) {
        let now = (i128::MAX, self.rules.clone());
        let all: Vec<_> = self.history.iter().chain(std::iter::once(&now)).collect();
        for (nth, (until, rules)) in all.iter().enumerate() {
            if *until <= from || from >= to {
                continue;
            }
            let then = (*until).min(to);
            let was = super::rules::in_force_of(rules, name, &rule.resource, from)
                .into_iter()
                .find(|have| have.id == rule.id);
            // One that is not in force refills as it is defined, and before it was, as it first came to be.
            let defined = || {
                all[nth..]
                    .iter()
                    .flat_map(|(_, rules)| rules)
                    .find(|have| rule.is(&have.place, &have.resource, &have.id))
            };
            let was = was.as_ref().or_else(defined).unwrap_or(rule);
            match (&was.rate, was.limit) {
                (Some(rate), Some(limit)) => {
                    owed = rescaled(owed, interval, rate.interval);
                    interval = rate.interval;
                    owed = (owed - limit * (then - from)).max(0);
                }
                _ => owed = 0,
            }
            from = then;
        }
        (owed, interval)
    }

    /// What counts against a rule's limit.
    pub(super) fn taken(&self, name: &str, rule: &Rule) -> i128 {
        match self.kind(&rule.resource) {
            Kind::Allocation | Kind::Concurrency => {
                self.used(name, &rule.resource) + self.held(name, &rule.resource)
            }
            Kind::Counter => {
                let period = self.period(rule).expect("a counter's rule has a period");
                self.counted(name, &rule.resource, &period) + self.held(name, &rule.resource)
            }
            Kind::Rate => match &rule.rate {
                Some(rate) => -(-self.owed(name, rule)).div_euclid(rate.interval),
                None => 0,
            },
            Kind::PerRequest => 0,
        }
    }

    /// The most that any count of an account has, with what is held; none where there is no account.
    pub(super) fn most_of_account(&self, name: &str, resource: &str) -> Option<i128> {
        let held = self.held(name, resource);
        match self.kind(resource) {
            Kind::Allocation | Kind::Concurrency => Some(self.used(name, resource) + held),
            Kind::Counter => {
                let mut most = self.used(name, resource);
                for period in self.periods(name, resource) {
                    most = most.max(self.counted(name, resource, &period));
                }
                Some(most + held)
            }
            Kind::Rate | Kind::PerRequest => None,
        }
    }
}

/// Another interval keeps the units; what is left of one is rounded up.
fn rescaled(owed: i128, from: i128, to: i128) -> i128 {
    if from == to {
        return owed;
    }
    let rest = owed.rem_euclid(from) * to;
    owed.div_euclid(from) * to - (-rest).div_euclid(from)
}
