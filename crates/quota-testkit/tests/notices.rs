//! What is told besides what was decided: crossings against the plain law of levels, over random lives; refusals
//! and usage once a second, counted.

#![allow(clippy::unwrap_used, reason = "a broken test stops")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quota_core::charge::charge_set;
use quota_core::event::{Change, Event};
use quota_core::notice::{HYSTERESIS_PERCENT, Level};
use quota_core::quota::{Enforcement, Measure, Target};
use quota_core::record::Records;
use quota_core::tally::{REFUSALS_MAX, Tally};
use quota_core::{Bounds, Ledger};
use quota_testkit::bare::{self, BareLedger};
use quota_testkit::life::Life;
use quota_testkit::script::{Call, World};
use quota_testkit::sim::steps::Step;

const LIVES: u64 = 40;
const STEPS: usize = 150;

/// What was told of each (subject, resource, quota), where it is not below.
#[derive(Default)]
struct Told {
    levels: BTreeMap<(String, String, String), Level>,
    crossings: BTreeMap<(Level, Level), usize>,
    /// Those that were told to be below again, lately.
    fell: BTreeSet<(String, String, String)>,
}

impl Told {
    fn hear(&mut self, events: &[Event]) {
        self.fell.clear();
        for event in events {
            let Change::Crossed(crossing) = &event.change else {
                continue;
            };
            let key = (
                crossing.subject.to_string(),
                crossing.resource.to_string(),
                crossing.quota.to_string(),
            );
            let before = self.levels.remove(&key).unwrap_or(Level::Below);
            assert_eq!(before, crossing.from, "{key:?} was told otherwise");
            if crossing.to != Level::Below {
                self.levels.insert(key, crossing.to);
            } else {
                self.fell.insert(key);
            }
            *self
                .crossings
                .entry((crossing.from, crossing.to))
                .or_default() += 1;
        }
    }

    /// Whoever is deleted is told of no more.
    fn bury(&mut self, name: &str) {
        let below = format!("{name}/");
        self.levels
            .retain(|(have, ..), _| have != name && !have.starts_with(&below));
    }

    /// Every account that these events changed stands where it was told to stand.
    fn check(&self, world: &BareLedger, events: &[Event]) {
        for (name, resource) in events.iter().flat_map(changed) {
            self.check_account(world, &name, &resource, false);
        }
    }

    /// So does every account with a quota of the subject's own, whatever time does to it.
    fn check_own(&self, world: &BareLedger, names: &[String]) {
        for name in names {
            let Some(subject) = world.ledger.subject(name) else {
                continue;
            };
            for quota in subject.quotas.iter() {
                self.check_account(world, name, quota.resource.as_str(), true);
                let of = (
                    name.clone(),
                    quota.resource.to_string(),
                    quota.id.to_string(),
                );
                let is_valid = quota.valid_from.is_none_or(|from| from <= world.now)
                    && quota.valid_until.is_none_or(|until| world.now < until);
                let names = [name.as_str()];
                let scene = world.ledger.scene(name, &names, world.now);
                let gauges = scene.lines()[0].gauges(&quota.resource);
                let in_force = gauges.iter().any(|gauge| gauge.quota().id == quota.id);
                if !is_valid && !in_force {
                    assert!(!self.levels.contains_key(&of), "{of:?} is not in force");
                }
            }
        }
    }

    fn check_account(&self, world: &BareLedger, name: &str, resource: &str, own: bool) {
        if world.ledger.subject(name).is_none() {
            return;
        }
        let names = [name];
        let scene = world.ledger.scene(name, &names, world.now);
        let line = &scene.lines()[0];
        let key = quota_core::name::ResourceKey::parse(resource).unwrap();
        if line.account(&key).is_none() {
            return;
        }
        for gauge in line.gauges(&key) {
            if own && gauge.pattern().is_some() {
                continue;
            }
            let quota = gauge.quota();
            let of = (name.to_owned(), resource.to_owned(), quota.id.to_string());
            let told = self.levels.get(&of).copied().unwrap_or(Level::Below);
            let bounds = matches!(quota.measure, Measure::Held | Measure::Counted(_));
            let limit = quota.limit.value().filter(|_| bounds);
            let Some(limit) = limit.filter(|_| quota.enforcement != Enforcement::Shadow) else {
                assert_eq!(told, Level::Below, "{of:?} has no limit to be near");
                continue;
            };
            let taken = i128::from(gauge.taken.used) + i128::from(gauge.taken.held);
            let share = i128::from(quota.near_percent.unwrap_or(80));
            let (percent, limit) = (taken * 100, i128::from(limit));
            let slack = i128::from(HYSTERESIS_PERCENT).min(share / 2);
            let fits = match told {
                Level::Over => taken > limit,
                Level::Near => taken <= limit && percent >= limit * (share - slack),
                // It fell by more than a little, or never was near.
                Level::Below if self.fell.contains(&of) => {
                    limit == 0 || percent < limit * (share - slack)
                }
                Level::Below => taken <= limit && (limit == 0 || percent < limit * share),
            };
            assert!(
                fits,
                "{of:?} was told {told:?} at {taken} of {limit}, near at {share} %"
            );
        }
    }
}

/// The accounts that an event changed.
fn changed(event: &Event) -> Vec<(String, String)> {
    match &event.change {
        Change::Charged(charged) => charge_set(&charged.subject, &charged.also)
            .into_iter()
            .flat_map(|name| {
                let changes = charged.used.iter().chain(&charged.held);
                changes.map(move |(key, _)| (name.to_owned(), key.to_string()))
            })
            .collect(),
        Change::QuotaSet {
            target: Target::Subject(name),
            quota,
            ..
        } => vec![(name.to_string(), quota.resource.to_string())],
        Change::QuotaDeleted {
            target: Target::Subject(name),
            resource,
            ..
        } => vec![(name.to_string(), resource.to_string())],
        _ => Vec::new(),
    }
}

fn absorb(ledger: &mut Ledger, events: &[Event]) {
    events.iter().for_each(|event| ledger.absorb(event));
}

/// Lets events happen, and answers what is told of them.
fn happened(world: &mut BareLedger, events: &[Event]) -> Vec<Event> {
    world.ledger.take_images();
    absorb(&mut world.ledger, events);
    world.ledger.announce(world.now, events)
}

/// Decides a call, and tells what there is to tell.
fn done(world: &mut BareLedger, call: &Call, number: u64, told: &mut Told) {
    if call.is_read() || call.verb == "check" {
        return;
    }
    let Ok(command) = bare::command(call, number, world.now) else {
        return;
    };
    let decided = world.ledger.decide(world.now, &command);
    let notices = happened(world, &decided.events);
    absorb(&mut world.ledger, &notices);
    for event in &decided.events {
        if let Change::SubjectDeleted { name } = &event.change {
            told.bury(name.as_str());
        }
    }
    told.hear(&notices);
    told.check(world, &decided.events);
    // Nothing more is to tell of the same: what was told is remembered.
    let again = world.ledger.announce(world.now, &decided.events);
    let again = again
        .iter()
        .filter(|event| matches!(event.change, Change::Crossed(_)));
    assert_eq!(again.count(), 0, "{call} is told of twice");
}

/// A ledger out of the records of another.
fn restarted(ledger: &Ledger, bounds: Bounds) -> Ledger {
    let mut records = Records::default();
    for key in ledger.record_keys() {
        let record = ledger.record(&key);
        records.lay(key, record);
    }
    Ledger::from_records(bounds, records).unwrap()
}

#[test]
fn crossings_follow_the_law_over_random_lives() {
    let mut all = BTreeMap::new();
    for seed in 0..LIVES {
        let mut life = Life::new(seed);
        let bounds = *life.world.ledger.bounds();
        let (mut told, mut number) = (Told::default(), 0);
        for _ in 0..STEPS {
            let step = life.step();
            let Life { auditor, world, .. } = &mut life;
            let calls: Vec<Call> = match step {
                Step::Pass(_) => {
                    let closed = world.ledger.close_due(world.now, usize::MAX);
                    let mut notices = happened(world, &closed);
                    absorb(&mut world.ledger, &notices);
                    told.hear(&notices);
                    notices = world.ledger.announce_due(world.now, usize::MAX);
                    absorb(&mut world.ledger, &notices);
                    told.hear(&notices);
                    let next = world.ledger.next_announcement();
                    assert!(next.is_none_or(|next| next > world.now));
                    told.check_own(world, &auditor.subjects());
                    continue;
                }
                Step::Check(_) | Step::Fault(_) => continue,
                Step::Group(callers) => callers.into_iter().flat_map(|one| one.calls).collect(),
            };
            for call in &calls {
                auditor.call(call);
                number += 1;
                done(world, call, number, &mut told);
            }
            while world.ledger.sweep(world.now, 64) {}
        }
        let world = &mut life.world;
        let mut kept = restarted(&world.ledger, bounds);
        // It looks once more at what was looked at before.
        let again = kept.announce_due(world.now, usize::MAX);
        let due = world.ledger.announce_due(world.now, usize::MAX);
        assert_eq!(again, due, "a start tells the same");
        assert_eq!(kept.next_announcement(), world.ledger.next_announcement());
        absorb(&mut kept, &again);
        told.hear(&due);
        for ((name, resource, quota), level) in &told.levels {
            let subject = kept.subject(name).expect("it was not deleted");
            let key = quota_core::name::ResourceKey::parse(resource).unwrap();
            let standings = &subject.account(&key).unwrap().standings;
            let found = standings.iter().find(|(id, _)| id.as_str() == quota);
            assert_eq!(found.map(|(_, standing)| standing.level), Some(*level));
        }
        for (crossing, count) in told.crossings {
            *all.entry(crossing).or_insert(0) += count;
        }
    }
    for crossing in [
        (Level::Below, Level::Near),
        (Level::Near, Level::Over),
        (Level::Below, Level::Over),
        (Level::Over, Level::Near),
        (Level::Near, Level::Below),
        (Level::Over, Level::Below),
    ] {
        assert!(
            all.contains_key(&crossing),
            "nobody went {crossing:?}: {all:?}"
        );
    }
}

/// A subject that goes and comes anew within one group changed twice, and is told of as it stands, once.
#[test]
fn a_subject_that_went_and_came_is_told_of_once() {
    let mut world = BareLedger::with_bounds(Bounds::default());
    let mut events = Vec::new();
    let lines = [
        "quota tenants/* api.calls 10",
        "consume tenants/a api.calls 1 op=first",
        "unsubject tenants/a op=second",
        "consume tenants/a api.calls 9 op=third",
    ];
    for (number, line) in (100..).zip(lines) {
        let command = bare::command(&Call::parse(line), number, world.now).unwrap();
        let decided = world.ledger.decide(world.now, &command);
        assert!(decided.reply.is_ok(), "{line}");
        absorb(&mut world.ledger, &decided.events);
        events.extend(decided.events);
    }
    let told = world.ledger.announce(world.now, &events);
    let causes: Vec<_> = told.iter().map(|event| event.operation.clone()).collect();
    let third = events.last().map(|event| event.operation.clone());
    assert_eq!(causes, Vec::from_iter(third), "{told:?}");
}

/// A script line on a world, whose refusals are counted.
fn asked(world: &mut BareLedger, tally: &mut Tally, number: u64, line: &str) {
    let command = bare::command(&Call::parse(line), number, world.now).unwrap();
    let decided = world.ledger.decide(world.now, &command);
    let reply = decided.reply.unwrap();
    tally.refused(world.now, &command, &reply.outcome.answer);
    happened(world, &decided.events);
    tally.stirred(world.now, world.ledger.changed());
}

fn refusals(events: &[Event]) -> Vec<(String, u64)> {
    let refused = events.iter().filter_map(|event| match &event.change {
        Change::Refused(refused) => Some((refused.subject.to_string(), refused.count)),
        _ => None,
    });
    refused.collect()
}

#[test]
fn an_abuser_is_told_of_once_a_second() {
    let mut world = BareLedger::with_bounds(Bounds::default());
    let mut tally = Tally::default();
    asked(&mut world, &mut tally, 1, "quota tenants/a compute.cpu 10");
    asked(
        &mut world,
        &mut tally,
        2,
        "consume tenants/a/users/u compute.cpu 10 id=x",
    );
    for number in 0..5000 {
        asked(
            &mut world,
            &mut tally,
            10 + number,
            "consume tenants/a/users/u compute.cpu 1",
        );
    }
    assert!(
        tally.tell(&world.ledger, world.now, 100).is_empty(),
        "its second is not over"
    );
    world.advance(Duration::from_secs(1));
    let told = tally.tell(&world.ledger, world.now, 100);
    assert_eq!(refusals(&told), [("tenants/a/users/u".to_owned(), 5000)]);
    let usage = told
        .iter()
        .filter(|event| matches!(event.change, Change::Usage(_)));
    assert_eq!(usage.count(), 3, "system, the tenant and the user");
    assert!(tally.is_empty());

    // Many made-up subjects: told apart as far as the bound goes, then under the limit; none is lost.
    for number in 0..3000 {
        let line = format!("consume tenants/a/users/made-up-{number} compute.cpu 1");
        asked(&mut world, &mut tally, 10_000 + number, &line);
    }
    world.advance(Duration::from_secs(1));
    let mut told = Vec::new();
    while !tally.is_empty() {
        told.extend(tally.tell(&world.ledger, world.now, 100));
    }
    let told = refusals(&told);
    assert_eq!(told.len(), REFUSALS_MAX + 1);
    assert_eq!(told.iter().map(|(_, count)| count).sum::<u64>(), 3000);
    let rest = told.iter().find(|(subject, _)| subject == "tenants/a");
    assert_eq!(
        rest.map(|(_, count)| *count),
        Some(3000 - REFUSALS_MAX as u64)
    );
}
