//! Notices: what is told besides what was decided. A limit that comes to be near or exceeded, a refusal, what a
//! subject has now.
//!
//! They are made once per group or per second, not once per command: a hot account is looked at once, however
//! many callers charge it, and whoever is refused ten thousand times in a second is told of once, with a count.
//! They are events like others, so whoever reads the journal needs no second source. The alternative, readers that
//! work out by themselves when a limit is near, would run the rules of this version on the events of others.

use std::sync::Arc;

use crate::Ledger;
use crate::command::Provenance;
use crate::evaluate::Line;
use crate::event::{Change, Event};
use crate::gauge::Gauge;
use crate::name::{Id, OperationId, ResourceKey, SubjectName, SubjectPattern};
use crate::period::Window;
use crate::quota::{Enforcement, Quota};
use crate::time::Timestamp;
use crate::verdict::Finding;

/// How far an account must fall below the share from which it is near until it no longer is, in percent of the
/// limit: one that moves around that share is told of once.
pub const HYSTERESIS_PERCENT: u8 = 5;

/// Where an account stands against one limit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Well below it.
    Below,
    /// At its near share or above.
    Near,
    /// Above the limit itself: somebody should act.
    Over,
}

/// What was last told of an account against one limit; there is none while it is below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Where it stands.
    pub level: Level,
    /// When the count starts anew by itself, or the quota ends.
    pub until: Option<Timestamp>,
}

/// An account came to be near a limit or above it, or no longer is. Amounts in base units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Crossing {
    /// The subject whose account it is.
    pub subject: SubjectName,
    /// The resource.
    pub resource: ResourceKey,
    /// The quota.
    pub quota: Id,
    /// The pattern that the quota was set on; absent for the subject's own, and where it is gone.
    pub pattern: Option<SubjectPattern>,
    /// Where it stood.
    pub from: Level,
    /// Where it stands.
    pub to: Level,
    /// The limit; absent where there is none any more.
    pub limit: Option<i64>,
    /// In use, or counted.
    pub used: i64,
    /// Held.
    pub held: i64,
    /// The period of a counter.
    pub window: Option<Window>,
}

/// A limit was exceeded by what was charged all the same: a fact, or where it only warns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exceeded {
    /// Who was charged.
    pub subject: SubjectName,
    /// The limit.
    pub finding: Finding,
    /// Whether it would have refused if it did more than watch (SHADOW): no violation.
    pub shadow: bool,
}

/// Commands of one subject that one limit refused within a second.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Who asked; the subject of the limit where too many were refused to tell them apart.
    pub subject: SubjectName,
    /// The limit, as the last of them met it.
    pub finding: Finding,
    /// How many.
    pub count: u64,
    /// When the first was.
    pub first: Timestamp,
}

/// What a subject has, of the resources that changed within a second. Amounts in base units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageNow {
    /// The subject.
    pub subject: SubjectName,
    /// By resource: in use, or ever counted; and held.
    pub accounts: Vec<(ResourceKey, i64, i64)>,
}

/// Who caused a notice: the last that did.
pub type Cause = (Option<OperationId>, Arc<Provenance>);

/// An account that changed since the last images were taken.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    /// The subject.
    pub name: &'a str,
    /// The resource.
    pub resource: &'a ResourceKey,
    /// Whether usage changed, and not only a quota.
    pub usage: bool,
    /// The last event that changed it, as its place among those that were absorbed since.
    pub event: usize,
}

impl Ledger {
    /// The accounts that changed since the last images were taken, in no order.
    pub fn changed(&self) -> impl Iterator<Item = Changed<'_>> {
        self.touched.accounts().map(|(name, account)| Changed {
            name,
            resource: &account.resource,
            usage: account.usage,
            event: account.event as usize,
        })
    }

    /// What else there is to tell after these events, all that were absorbed since the last images were taken;
    /// pure. The answer is to be absorbed in its turn.
    pub fn announce(&self, now: Timestamp, events: &[Event]) -> Vec<Event> {
        let mut told: Vec<Event> = Vec::new();
        for event in events {
            if let Change::Charged(charged) = &event.change {
                let facts = charged.facts.iter().map(|finding| (finding, false));
                let shadows = charged.shadows.iter().map(|finding| (finding, true));
                told.extend(facts.chain(shadows).map(|(finding, shadow)| Event {
                    change: Change::Exceeded(Box::new(Exceeded {
                        subject: charged.subject.clone(),
                        finding: finding.clone(),
                        shadow,
                    })),
                    ..event.clone()
                }));
            }
        }
        let mut crossed: Vec<(Crossing, usize)> = Vec::new();
        for account in self.changed() {
            let crossings = self.crossings(now, account.name, account.resource);
            crossed.extend(crossings.into_iter().map(|found| (found, account.event)));
        }
        let order = |crossing: &Crossing| {
            let Crossing {
                subject,
                resource,
                quota,
                ..
            } = crossing;
            (subject.clone(), resource.clone(), quota.clone())
        };
        crossed.sort_by_cached_key(|(crossing, event)| (order(crossing), *event));
        // A subject that went and came anew changed twice; the last event brought it where it stands.
        crossed.dedup_by(|(later, event), (first, cause)| {
            let same = order(later) == order(first);
            if same {
                *cause = *event;
            }
            same
        });
        told.extend(crossed.into_iter().map(|(crossing, event)| {
            let event = events.get(event);
            let cause = event.map(|event| (event.operation.clone(), event.provenance.clone()));
            let change = Change::Crossed(Box::new(crossing));
            self.notice(now, cause.unwrap_or_default(), change)
        }));
        told
    }

    /// The same for counts that have started anew by themselves, and for subjects' own quotas that have come into
    /// force or ended; at most `most` accounts. They are looked at once.
    pub fn announce_due(&mut self, now: Timestamp, most: usize) -> Vec<Event> {
        let mut told = Vec::new();
        for _ in 0..most {
            let Some((at, name, resource)) = self.looks_due.first().cloned() else {
                break;
            };
            if at > now {
                break;
            }
            self.looks_due.pop_first();
            let crossings = self.crossings(now, name.as_str(), &resource);
            told.extend(crossings.into_iter().map(|crossing| {
                self.notice(now, Cause::default(), Change::Crossed(Box::new(crossing)))
            }));
        }
        told
    }

    /// When the next account may stand differently from what was told, without being charged.
    pub fn next_announcement(&self) -> Option<Timestamp> {
        self.looks_due.first().map(|(at, _, _)| *at)
    }

    /// An event that changes nothing that a command could see, and so has no revision of its own.
    pub fn notice(&self, now: Timestamp, cause: Cause, change: Change) -> Event {
        Event {
            at: now,
            revision: self.revision,
            operation: cause.0,
            provenance: cause.1,
            change,
        }
    }

    /// Where an account stands differently from what was last told.
    fn crossings(&self, now: Timestamp, name: &str, resource: &ResourceKey) -> Vec<Crossing> {
        self.line(name, now, |line| crossings(line, resource))
    }

    /// Remembers what was told.
    pub(crate) fn cross(&mut self, at: Timestamp, crossing: &Crossing) {
        let (name, resource) = (&crossing.subject, &crossing.resource);
        let until = ends(crossing.window, self.crossed(crossing));
        self.forget_looks(name, Some(resource));
        if let Some(slot) = self.subjects.get_mut(name.as_str()) {
            let account = slot.change().account_mut(resource, &self.resources);
            account.standings.retain(|(id, _)| *id != crossing.quota);
            if crossing.to != Level::Below {
                let level = crossing.to;
                let standing = Standing { level, until };
                account.standings.push((crossing.quota.clone(), standing));
            }
            self.touch_subject(name.as_str(), false);
        }
        self.expect_looks(name, Some(resource), at);
    }

    /// The quota of a crossing, where it is there.
    fn crossed(&self, crossing: &Crossing) -> Option<&Quota> {
        let quotas = match &crossing.pattern {
            Some(pattern) => &self.defaults.get(pattern)?.quotas,
            None => &self.subjects.get(crossing.subject.as_str())?.subject.quotas,
        };
        let quota = quotas.find(&crossing.resource, &crossing.quota)?;
        Some(quota)
    }

    /// Takes a subject, or one account of it, out of the index of what is to be looked at, before it changes.
    pub(crate) fn forget_looks(&mut self, name: &SubjectName, resource: Option<&ResourceKey>) {
        for entry in self.looks(name, resource) {
            self.looks_due.remove(&entry);
        }
    }

    /// Puts it back: what comes after `at`, when it was looked at.
    pub(crate) fn expect_looks(
        &mut self,
        name: &SubjectName,
        resource: Option<&ResourceKey>,
        at: Timestamp,
    ) {
        let mut due = self.looks(name, resource);
        due.retain(|(due, ..)| *due > at);
        self.looks_due.extend(due);
    }

    fn looks(
        &self,
        name: &SubjectName,
        only: Option<&ResourceKey>,
    ) -> Vec<(Timestamp, SubjectName, ResourceKey)> {
        let Some(slot) = self.subjects.get(name.as_str()) else {
            return Vec::new();
        };
        let subject = &slot.subject;
        let standings = subject.accounts().iter().flat_map(|(resource, account)| {
            let told = account.standings.iter();
            told.filter_map(move |(_, told)| Some((told.until?, resource)))
        });
        let validities = subject.quotas.iter().flat_map(|quota| {
            let ends = [quota.valid_from, quota.valid_until];
            ends.into_iter().flatten().map(|at| (at, &quota.resource))
        });
        let all = standings.chain(validities);
        all.filter(|(_, resource)| only.is_none_or(|only| only == *resource))
            .map(|(at, resource)| (at, name.clone(), resource.clone()))
            .collect()
    }
}

/// Where an account stands differently from what was last told.
fn crossings(line: &Line<'_>, resource: &ResourceKey) -> Vec<Crossing> {
    let mut crossings = Vec::new();
    let Some(account) = line.account(resource) else {
        return crossings;
    };
    let gauges = line.gauges(resource);
    let told = |id: &Id| {
        let mut standings = account.standings.iter();
        standings.find(|(have, _)| have == id).map(|(_, s)| *s)
    };
    let base = |quota: &Id, from, to| Crossing {
        subject: line.subject_name(),
        resource: resource.clone(),
        quota: quota.clone(),
        pattern: None,
        from,
        to,
        limit: None,
        used: line.taken(resource).used,
        held: line.taken(resource).held,
        window: None,
    };
    for gauge in &gauges {
        let id = &gauge.quota().id;
        let before = told(id);
        let from = before.map_or(Level::Below, |standing| standing.level);
        let to = level(gauge, from);
        let until = ends(gauge.window, Some(gauge.quota()));
        let again = to != Level::Below && before.and_then(|told| told.until) != until;
        if from != to || again {
            crossings.push(Crossing {
                pattern: gauge.pattern().cloned(),
                limit: gauge.quota().limit.value(),
                used: gauge.taken.used,
                held: gauge.taken.held,
                window: gauge.window.filter(|window| window.end.is_some()),
                ..base(id, from, to)
            });
        }
    }
    for (id, standing) in &account.standings {
        if !gauges.iter().any(|gauge| gauge.quota().id == *id) {
            crossings.push(base(id, standing.level, Level::Below));
        }
    }
    crossings
}

/// When an account stops standing against a quota as it does, by itself.
fn ends(window: Option<Window>, quota: Option<&Quota>) -> Option<Timestamp> {
    let period = window.and_then(|window| window.end);
    let validity = quota.and_then(|quota| quota.valid_until);
    period.into_iter().chain(validity).min()
}

/// Where an account stands against a limit. Of a rate there is nothing to tell: it is full again in a moment, or
/// refuses, which is told.
fn level(gauge: &Gauge<'_>, before: Level) -> Level {
    let quota = gauge.quota();
    let told = quota.enforcement != Enforcement::Shadow && gauge.fill().is_none();
    let Some((limit, taken)) = gauge.level(0).filter(|_| told) else {
        return Level::Below;
    };
    let slack = match before {
        Level::Below => 0,
        Level::Near | Level::Over => HYSTERESIS_PERCENT,
    };
    match taken > limit {
        true => Level::Over,
        false if quota.is_near(taken, limit, slack) => Level::Near,
        false => Level::Below,
    }
}
