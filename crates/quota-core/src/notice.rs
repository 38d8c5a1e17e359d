//! Notices: what is told besides what was decided. A limit that comes to be near or exceeded, a refusal, what a
//! subject has now.
//!
//! They are made once per group or per second, not once per command: a hot account is looked at once, however
//! many callers charge it, and whoever is refused ten thousand times in a second is told of once, with a count.
//! They are events like others, so whoever reads the journal needs no second source. The alternative, readers that
//! work out by themselves when a limit is near, would run the rules of this version on the events of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Ledger;
use crate::charge::charge_set;
use crate::command::Provenance;
use crate::event::{Change, Event};
use crate::gauge::Gauge;
use crate::name::{Id, OperationId, ResourceKey, SubjectName, SubjectPattern};
use crate::period::Window;
use crate::quota::{Enforcement, Target};
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
    /// When the count starts anew by itself.
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

/// The accounts that events changed, each with who changed it last.
fn changed(events: &[Event]) -> BTreeMap<(&str, &ResourceKey), &Event> {
    let mut changed = BTreeMap::new();
    for event in events {
        match &event.change {
            Change::Charged(charged) => {
                for name in charge_set(&charged.subject, &charged.also) {
                    for (resource, _) in charged.used.iter().chain(&charged.held) {
                        changed.insert((name, resource), event);
                    }
                }
            }
            Change::QuotaSet {
                target: Target::Subject(name),
                quota,
                ..
            } => {
                changed.insert((name.as_str(), &quota.resource), event);
            }
            Change::QuotaDeleted {
                target: Target::Subject(name),
                resource,
                ..
            } => {
                changed.insert((name.as_str(), resource), event);
            }
            Change::UsageReset(reset) => {
                changed.insert((reset.subject.as_str(), &reset.resource), event);
            }
            Change::UsageCorrected(correct) => {
                for name in charge_set(&correct.subject, &correct.also) {
                    for (resource, _) in &correct.amounts {
                        changed.insert((name, resource), event);
                    }
                }
            }
            _ => {}
        }
    }
    changed
}

impl Ledger {
    /// What else there is to tell after these events, which are absorbed; pure. The answer is to be absorbed in
    /// its turn.
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
        for ((name, resource), event) in changed(events) {
            let crossings = self.crossings(now, name, resource);
            let crossed = crossings.into_iter().map(|crossing| {
                let cause: Cause = (event.operation.clone(), event.provenance.clone());
                self.notice(now, cause, Change::Crossed(Box::new(crossing)))
            });
            told.extend(crossed);
        }
        told
    }

    /// The same for counts that have started anew by themselves, at most `most` accounts. They are looked at once.
    pub fn announce_due(&mut self, now: Timestamp, most: usize) -> Vec<Event> {
        let mut told = Vec::new();
        for _ in 0..most {
            let Some((at, name, resource)) = self.standing_due.first().cloned() else {
                break;
            };
            if at > now {
                break;
            }
            self.standing_due.pop_first();
            let crossings = self.crossings(now, name.as_str(), &resource);
            told.extend(crossings.into_iter().map(|crossing| {
                self.notice(now, Cause::default(), Change::Crossed(Box::new(crossing)))
            }));
        }
        told
    }

    /// When the next count starts anew of which it was told that it is near its limit.
    pub fn next_announcement(&self) -> Option<Timestamp> {
        self.standing_due.first().map(|(at, _, _)| *at)
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
        let mut crossings = Vec::new();
        let names = [name];
        let scene = self.scene(name, &names, now);
        let Some(line) = scene.lines().first() else {
            return crossings;
        };
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
            let until = gauge.window.and_then(|window| window.end);
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

    /// Remembers what was told.
    pub(crate) fn cross(&mut self, crossing: &Crossing) {
        let Crossing {
            subject: name,
            resource,
            quota,
            ..
        } = crossing;
        let until = crossing.window.and_then(|window| window.end);
        let Some(subject) = self.subjects.get_mut(name) else {
            return;
        };
        let account = subject.account_mut(resource);
        let before = next_start(&account.standings);
        account.standings.retain(|(id, _)| id != quota);
        if crossing.to != Level::Below {
            let standing = Standing {
                level: crossing.to,
                until,
            };
            account.standings.push((quota.clone(), standing));
        }
        let after = next_start(&account.standings);
        let entry = |at| (at, name.clone(), resource.clone());
        if let Some(before) = before {
            self.standing_due.remove(&entry(before));
        }
        if let Some(after) = after {
            self.standing_due.insert(entry(after));
        }
        self.touch_subject(name.as_str());
    }

    /// Keeps the index of counts that start anew, when a subject comes or goes.
    pub(crate) fn index_standings(&mut self, name: &SubjectName, add: bool) {
        let Some(subject) = self.subjects.get(name) else {
            return;
        };
        for (resource, account) in subject.accounts() {
            if let Some(at) = next_start(&account.standings) {
                let entry = (at, name.clone(), resource.clone());
                match add {
                    true => self.standing_due.insert(entry),
                    false => self.standing_due.remove(&entry),
                };
            }
        }
    }
}

/// When the first of the counts that were told of starts anew.
fn next_start(standings: &[(Id, Standing)]) -> Option<Timestamp> {
    standings.iter().filter_map(|(_, told)| told.until).min()
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
