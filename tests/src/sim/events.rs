//! The events of a life: everything that was decided, once more on a bare ledger, where each event is looked
//! at. What they say must add up to what the auditor has in the end, and none may raise an account too far.

use std::collections::BTreeMap;

use quota_core::charge::charge_set;
use quota_core::event::{Cause, Change, Charged, Event};
use quota_core::name::ResourceKey;
use quota_core::resource::Kind;
use quota_core::time::Timestamp;
use quota_core::{Bounds, invariants};
use quota_testkit::auditor::Auditor;
use quota_testkit::bare::{self, BareLedger};
use quota_testkit::script::{Call, World as _};

use super::world::Decided;

/// What events say, and nothing else: the rows that they leave, and what they count.
#[derive(Default)]
struct Tally {
    rows: BTreeMap<String, Row>,
    counts: BTreeMap<(String, String), i128>,
}

/// An allocation or a hold.
struct Row {
    names: Vec<String>,
    held: bool,
    amounts: Vec<(ResourceKey, i64)>,
    expires: Option<Timestamp>,
    /// Whether a subject of its charge set was deleted.
    dead: bool,
}

pub(super) fn check(
    bounds: Bounds,
    history: &[Decided],
    auditor: &mut Auditor,
) -> Result<(), String> {
    let mut world = BareLedger::with_bounds(bounds);
    let mut tally = Tally::default();
    for (number, decided) in history.iter().enumerate() {
        world.now = decided.at;
        if decided.call.verb == "started" {
            let offset = decided
                .call
                .option("offset")
                .and_then(|text| text.parse().ok());
            let started = world
                .ledger
                .started_by(decided.at, offset.unwrap_or_default());
            absorb(&mut world, &mut tally, vec![started])?;
            continue;
        }
        let Ok(command) = bare::command(&decided.call, number as u64, decided.at) else {
            return Err(format!("{} is no command", decided.call));
        };
        let done = world.ledger.decide(decided.at, &command);
        let text = bare::reply(&decided.call, done.reply.clone());
        if text != decided.text {
            return Err(format!(
                "again, without faults: {}\n  was {}\n  is  {text}",
                decided.call, decided.text
            ));
        }
        same_cause(&decided.call, &done.events)?;
        if !done.events.is_empty() {
            absorb(&mut world, &mut tally, done.events)?;
        }
        // Closing is bookkeeping: it may come at any time.
        if number % 7 == 0 {
            let closed = world.ledger.close_due(decided.at, usize::MAX);
            absorb(&mut world, &mut tally, closed)?;
        }
        while world.ledger.sweep(decided.at, 64) {}
    }
    let now = auditor.now();
    let closed = world.ledger.close_due(now, usize::MAX);
    absorb(&mut world, &mut tally, closed)?;
    let broken = invariants::check_state(&world.ledger);
    if !broken.is_empty() {
        return Err(broken.join("\n"));
    }
    for subject in auditor.subjects() {
        for resource in auditor.resources() {
            let (used, held) = auditor.account(&subject, &resource);
            let key = ResourceKey::parse(&resource).expect("a resource");
            let sum = tally.of(world.ledger.kind(&key), &subject, &resource);
            if sum != (i128::from(used), i128::from(held)) {
                return Err(format!(
                    "{resource} of {subject}: {used} used and {held} held; events add up to {sum:?}"
                ));
            }
        }
    }
    Ok(())
}

/// A commit is a recorded fact only where it was asked to record, and something was not covered.
fn same_cause(call: &Call, events: &[Event]) -> Result<(), String> {
    for event in events {
        let Change::Charged(charged) = &event.change else {
            continue;
        };
        if !matches!(charged.cause, Cause::Commit | Cause::CommitRecord) {
            continue;
        }
        let Some(hold) = &charged.hold else {
            return Err(format!("{call} has no hold"));
        };
        let is_more = charged.used.iter().any(|(key, n)| *n > hold.amount(key));
        let asks = |key: &str| call.option(key) == Some("record");
        let checks = |key: &str| call.option(key) == Some("check");
        let recorded = match hold.late {
            true => asks("late") && !(is_more && checks("more")) && !charged.used.is_empty(),
            false => asks("more") && is_more,
        };
        if recorded != (charged.cause == Cause::CommitRecord) {
            return Err(format!("{call} has the cause {:?}", charged.cause));
        }
    }
    Ok(())
}

fn absorb(world: &mut BareLedger, tally: &mut Tally, events: Vec<Event>) -> Result<(), String> {
    for event in events {
        tally.add(world, &event)?;
        world.ledger.absorb(&event);
        let broken = invariants::check_event(&world.ledger, &event);
        if !broken.is_empty() {
            return Err(broken.join("\n"));
        }
    }
    Ok(())
}

impl Tally {
    /// What an account has, by kind.
    fn of(&self, kind: Kind, subject: &str, resource: &str) -> (i128, i128) {
        let (mut used, mut held) = (0, 0);
        for row in self.rows.values() {
            if row.names.iter().any(|name| name == subject) {
                let amounts = row
                    .amounts
                    .iter()
                    .filter(|(key, _)| key.as_str() == resource);
                let sum: i128 = amounts.map(|(_, amount)| i128::from(*amount)).sum();
                *(if row.held { &mut held } else { &mut used }) += sum;
            }
        }
        if kind == Kind::Counter {
            let key = (subject.to_owned(), resource.to_owned());
            used = self.counts.get(&key).copied().unwrap_or_default();
        }
        (used, held)
    }

    fn add(&mut self, world: &BareLedger, event: &Event) -> Result<(), String> {
        match &event.change {
            Change::Charged(charged) => self.charge(world, charged, event.at)?,
            Change::SubjectDeleted { name } => {
                let (name, below) = (name.to_string(), format!("{name}/"));
                let dead = |have: &str| have == name || have.starts_with(&below);
                self.counts.retain(|(have, _), _| !dead(have));
                // What was charged above stays there until it ends.
                let rows = self.rows.values_mut();
                rows.for_each(|row| {
                    let before = row.names.len();
                    row.names.retain(|have| !dead(have));
                    row.dead |= row.names.len() < before;
                });
            }
            Change::UsageReset(reset) if reset.quota.is_none() => {
                let key = (reset.subject.to_string(), reset.resource.to_string());
                self.counts.insert(key, 0);
            }
            Change::UsageCorrected(corrected) => {
                for name in charge_set(&corrected.subject, &corrected.also) {
                    for (resource, delta) in &corrected.amounts {
                        self.count(name, resource, *delta);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, name: &str, resource: &ResourceKey, delta: i64) {
        let key = (name.to_owned(), resource.to_string());
        *self.counts.entry(key).or_default() += i128::from(delta);
    }

    /// What was left of a row that may have ended (C6.3), closed or not.
    fn left(&self, world: &BareLedger, row: &Row, at: Timestamp) -> Vec<(ResourceKey, i64)> {
        let mut amounts = row.amounts.clone();
        if row.expires.is_some_and(|expires| expires <= at) {
            amounts.retain(|(key, _)| !row.held && world.ledger.kind(key) != Kind::Concurrency);
        }
        amounts
    }

    /// The rows afterwards, and that what the event says of accounts is how they differ from before.
    fn charge(
        &mut self,
        world: &BareLedger,
        charged: &Charged,
        at: Timestamp,
    ) -> Result<(), String> {
        let names = charge_set(&charged.subject, &charged.also);
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let kept = |resource: &ResourceKey| {
            matches!(
                world.ledger.kind(resource),
                Kind::Allocation | Kind::Concurrency
            )
        };
        for (resource, delta) in &charged.used {
            if world.ledger.kind(resource) == Kind::Counter {
                names
                    .iter()
                    .for_each(|name| self.count(name, resource, *delta));
            }
        }
        let allocation = charged.allocation.as_ref().map(|row| {
            let key = format!("allocation {}", row.key.as_str());
            (key, false, row.amounts.clone(), row.expires)
        });
        let hold = charged.hold.as_ref().map(|hold| {
            let amounts = match hold.ended {
                Some(_) => Vec::new(),
                None => hold.amounts.clone(),
            };
            let key = format!("hold {}", hold.key.as_str());
            (key, true, amounts, Some(hold.expires))
        });
        for (key, held, amounts, expires) in allocation.into_iter().chain(hold) {
            let row = Row {
                names: names.clone(),
                held,
                amounts: amounts.clone(),
                expires,
                dead: false,
            };
            let before = self.rows.insert(key.clone(), row);
            if let Some(before) = &before {
                ends_once(&key, before, charged.cause, at)?;
            }
            // What had ended by itself, or with its subject, may be named or not: it was not in use any more.
            let before = before.map(|row| {
                let dead = if row.dead {
                    Vec::new()
                } else {
                    row.amounts.clone()
                };
                [self.left(world, &row, at), row.amounts, dead]
            });
            let before = before.unwrap_or_default();
            let said = if held { &charged.held } else { &charged.used };
            let said = said.iter().filter(|(resource, _)| held || kept(resource));
            let said: BTreeMap<&ResourceKey, i64> = said.map(|(key, n)| (key, *n)).collect();
            let due = before.map(|before| difference(&before, &amounts));
            if !due
                .iter()
                .any(|due| due.iter().map(|(key, n)| (key, *n)).eq(said.clone()))
            {
                return Err(format!("{key} changed by {due:?}; its event says {said:?}"));
            }
            if amounts.is_empty() {
                self.rows.remove(&key);
            }
        }
        Ok(())
    }
}

/// A row whose time is over is closed before anything takes its place, and none before its time (C6.3). A late
/// commit is the end of its hold.
fn ends_once(key: &str, before: &Row, cause: Cause, at: Timestamp) -> Result<(), String> {
    let is_over = before.expires.is_some_and(|expires| expires <= at);
    let is_closed = before.held && before.amounts.is_empty();
    let commits = before.held && matches!(cause, Cause::Commit | Cause::CommitRecord);
    match (is_over && !is_closed && !commits, cause == Cause::Expire) {
        (true, false) => Err(format!("{key} was over and is not closed before {cause:?}")),
        (false, true) => Err(format!("{key} is closed before its time, or twice")),
        _ => Ok(()),
    }
}

fn difference(
    before: &[(ResourceKey, i64)],
    after: &[(ResourceKey, i64)],
) -> BTreeMap<ResourceKey, i64> {
    let mut difference = BTreeMap::new();
    for (key, amount) in after {
        *difference.entry(key.clone()).or_default() += amount;
    }
    for (key, amount) in before {
        *difference.entry(key.clone()).or_default() -= amount;
    }
    difference.retain(|_, delta| *delta != 0);
    difference
}
