//! The invariants (C11.4), numbered, in one place: for tests, for the start and for VerifyInvariants.
//!
//! On state:
//! - **I1** no account is negative or above its bound;
//! - **I2** every ALLOCATION or CONCURRENCY account equals the sum over the allocations whose charge set has
//!   it, and what any account holds the sum over the holds that are not closed;
//! - **I3** every subject's ancestors exist, and so does every subject of the charge set of an allocation
//!   without an end, in the incarnation that was charged;
//! - **I4** no allocation is empty or holds an amount below one;
//! - **I5** what of an account ends by itself equals the sum over the rows that do.
//!
//! On events:
//! - **E1** none raises an account above a ceiling in force at its instant, unless it records a fact or
//!   commits a live hold.

use crate::Ledger;
use crate::amount::{ACCOUNT_MAX, Limit};
use crate::charge::charge_set;
use crate::ends::Ending;
use crate::event::{Cause, Change, Event};
use crate::hash::HashMap;
use crate::name::ResourceKey;
use crate::quota::{Enforcement, Measure};
use crate::resource::Kind;
use crate::stake::Stake;

/// Most violations that are reported.
pub const REPORTED_MAX: usize = 100;

/// What the rows of an account add up to.
#[derive(Default)]
struct Sum {
    used: i128,
    held: i128,
    ending: Ending,
}

type Sums<'a> = HashMap<(&'a str, &'a ResourceKey), Sum>;

/// Checks the state; one line per broken invariant, at most [`REPORTED_MAX`].
pub fn check_state(ledger: &Ledger) -> Vec<String> {
    let mut broken = Vec::new();
    let mut sums = Sums::default();
    for row in ledger.allocations.things() {
        let key = row.key.as_str();
        if row.amounts.is_empty() || row.amounts.iter().any(|(_, amount)| *amount < 1) {
            broken.push(format!("I4: {key} holds {:?}", row.amounts));
        }
        let missing = add(ledger, &mut sums, &Stake::of_allocation(row));
        if let (Some(name), None) = (missing, row.expires) {
            broken.push(format!("I3: {key} charges {name}, which is not there"));
        }
    }
    for hold in ledger.holds.things().filter(|hold| hold.ended.is_none()) {
        add(ledger, &mut sums, &Stake::of_hold(hold));
    }
    for subject in ledger.subjects() {
        let name = subject.name.as_str();
        if subject
            .name
            .lineage()
            .any(|above| ledger.subject(above).is_none())
        {
            broken.push(format!("I3: {name} has an ancestor that is not there"));
        }
        for (resource, account) in subject.accounts() {
            let bounds = [
                account.used,
                account.held,
                account.used.saturating_add(account.held),
            ];
            let mut counts = account.counts.iter().map(|count| count.used);
            let wrong = |number: i64| !(0..=ACCOUNT_MAX).contains(&number);
            if bounds.into_iter().any(wrong) || counts.any(wrong) {
                broken.push(format!("I1: {name} has {account:?} of {resource}"));
            }
            let sum = sums.remove(&(name, resource)).unwrap_or_default();
            let kept = matches!(ledger.kind(resource), Kind::Allocation | Kind::Concurrency);
            if kept && i128::from(account.used) != sum.used {
                let (used, sum) = (account.used, sum.used);
                broken.push(format!(
                    "I2: {name} has {used} of {resource} used, its allocations {sum}"
                ));
            }
            if i128::from(account.held) != sum.held {
                let (held, sum) = (account.held, sum.held);
                broken.push(format!(
                    "I2: {name} has {held} of {resource} held, its holds {sum}"
                ));
            }
            if account.ends.total() != sum.ending {
                let (ends, sum) = (account.ends.total(), sum.ending);
                broken.push(format!(
                    "I5: of {resource} of {name} {ends:?} ends, of its rows {sum:?}"
                ));
            }
        }
    }
    for ((name, resource), sum) in sums {
        let Sum { used, held, .. } = sum;
        broken.push(format!(
            "I2: {name} has no account of {resource}, its rows use {used} and hold {held}"
        ));
    }
    broken.sort();
    broken.truncate(REPORTED_MAX);
    broken
}

/// Adds a row to the sums; names a subject of its charge set that is not there any more, if one is not.
fn add<'a>(ledger: &Ledger, sums: &mut Sums<'a>, stake: &Stake<'a>) -> Option<&'a str> {
    let mut missing = None;
    let names = charge_set(stake.subject, stake.also);
    for (name, recorded) in names.into_iter().zip(stake.incarnations) {
        if !ledger.is_incarnation(name, Some(*recorded)) {
            missing = Some(name);
            continue;
        }
        for (resource, amount) in stake.amounts {
            let sum = sums.entry((name, resource)).or_default();
            let (place, ending) = match stake.held {
                true => (&mut sum.held, &mut sum.ending.held),
                false => (&mut sum.used, &mut sum.ending.used),
            };
            *place = place.saturating_add(i128::from(*amount));
            let ends = stake.held || ledger.kind(resource) == Kind::Concurrency;
            if ends && stake.ends.is_some() {
                *ending = ending.saturating_add(*amount);
            }
        }
    }
    missing
}

/// Checks an event that `ledger` has just absorbed; one line per broken invariant.
pub fn check_event(ledger: &Ledger, event: &Event) -> Vec<String> {
    let Change::Charged(charged) = &event.change else {
        return Vec::new();
    };
    if !matches!(
        charged.cause,
        Cause::Consume | Cause::Resize | Cause::Reserve
    ) {
        return Vec::new();
    }
    let mut broken = Vec::new();
    let names = charge_set(&charged.subject, &charged.also);
    let scene = ledger.scene(charged.subject.as_str(), &names, event.at);
    let grown = charged.used.iter().chain(&charged.held);
    for (resource, _) in grown.filter(|(_, delta)| *delta > 0) {
        for line in scene.lines() {
            for gauge in line.gauges(resource) {
                let quota = gauge.quota();
                let Limit::Value(limit) = quota.limit else {
                    continue;
                };
                let debt = match (&quota.measure, quota.enforcement) {
                    (_, Enforcement::Warn | Enforcement::Shadow) => continue,
                    (Measure::Request, _) => continue,
                    (Measure::Rated(_), Enforcement::Throttle) => continue,
                    (Measure::Rated(rate), _) => rate.bucket.unwrap_or(limit),
                    _ => limit,
                };
                let taken = gauge.taken.sum();
                if taken > debt {
                    let name = line.name();
                    broken.push(format!(
                        "E1: {resource} of {name} was raised to {taken}, above {debt}"
                    ));
                }
            }
        }
    }
    broken
}
