//! The invariants (C11.4), numbered, in one place: for tests, for the start and for VerifyInvariants.
//!
//! On state:
//! - **I1** no account is negative or above its bound;
//! - **I2** every ALLOCATION account equals the sum over the live allocations whose charge set has it;
//! - **I3** every subject's ancestors exist, and so does every subject of a live allocation's charge set,
//!   in the incarnation that was charged;
//! - **I4** no live allocation is empty or holds an amount below one.
//!
//! On events:
//! - **E1** none raises an account above a limit in force at its instant, unless it records a fact.

use std::collections::HashMap;

use crate::Ledger;
use crate::amount::{ACCOUNT_MAX, Limit};
use crate::charge::charge_set;
use crate::event::{Cause, Change, Event};
use crate::name::ResourceKey;

/// Most violations that are reported.
pub const REPORTED_MAX: usize = 100;

/// Checks the state; one line per broken invariant, at most [`REPORTED_MAX`].
pub fn check_state(ledger: &Ledger) -> Vec<String> {
    let mut broken = Vec::new();
    let mut sums: HashMap<(&str, &ResourceKey), i128> = HashMap::new();
    for allocation in ledger.allocations.values() {
        let key = allocation.key.as_str();
        if allocation.amounts.is_empty() || allocation.amounts.iter().any(|(_, a)| *a < 1) {
            broken.push(format!("I4: {key} holds {:?}", allocation.amounts));
        }
        let names = charge_set(&allocation.subject, &allocation.also);
        let mut incarnations = allocation.incarnations.iter();
        for name in names {
            let charged = incarnations.next();
            match ledger.subjects.get(name) {
                Some(subject) if Some(&subject.profile.incarnation) == charged => {}
                _ => broken.push(format!("I3: {key} charges {name}, which is not there")),
            }
            for (resource, amount) in &allocation.amounts {
                let sum = sums.entry((name, resource)).or_default();
                *sum = sum.saturating_add(i128::from(*amount));
            }
        }
    }
    for subject in ledger.subjects.values() {
        let name = subject.name.as_str();
        if subject
            .name
            .lineage()
            .any(|above| !ledger.subjects.contains_key(above))
        {
            broken.push(format!("I3: {name} has an ancestor that is not there"));
        }
        for (resource, account) in subject.accounts() {
            if account.used < 0 || account.held < 0 || account.taken() > ACCOUNT_MAX {
                broken.push(format!("I1: {name} has {account:?} of {resource}"));
            }
            let sum = sums.remove(&(name, resource)).unwrap_or(0);
            if i128::from(account.used) != sum {
                broken.push(format!(
                    "I2: {name} has {} of {resource} used, its allocations hold {sum}",
                    account.used
                ));
            }
        }
    }
    for ((name, resource), sum) in sums {
        broken.push(format!(
            "I2: {name} has no account of {resource}, its allocations hold {sum}"
        ));
    }
    broken.sort();
    broken.truncate(REPORTED_MAX);
    broken
}

/// Checks an event that `ledger` has just absorbed; one line per broken invariant.
pub fn check_event(ledger: &Ledger, event: &Event) -> Vec<String> {
    let Change::Allocated {
        allocation,
        deltas,
        cause,
        exceeded,
    } = &event.change
    else {
        return Vec::new();
    };
    if *cause == Cause::Record || !exceeded.is_empty() {
        return Vec::new();
    }
    let mut broken = Vec::new();
    let names = charge_set(&allocation.subject, &allocation.also);
    let scene = ledger.scene(allocation.subject.as_str(), &names);
    for (resource, _) in deltas.iter().filter(|(_, delta)| *delta > 0) {
        for (name, line) in names.iter().zip(scene.lines()) {
            let taken = line.account(resource).taken();
            for in_force in line.in_force(resource) {
                match in_force.quota.limit {
                    Limit::Value(limit) if taken > limit => broken.push(format!(
                        "E1: {} raised {resource} of {name} to {taken}, above {limit}",
                        allocation.key.as_str()
                    )),
                    _ => {}
                }
            }
        }
    }
    broken
}
