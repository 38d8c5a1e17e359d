//! The scenarios, each in a file of its own.

mod allocations;
mod batch;
mod check;
mod consume;
mod cost;
mod hot;
mod latency;
mod longest;
mod memory;
mod open;
mod refusals;
mod rivals;
mod telemetry;

use std::pin::Pin;

use crate::Failure;
use crate::bench::{Bench, Scale};
use crate::report::Outcome;

type Running<'a> = Pin<Box<dyn Future<Output = Result<Outcome, Failure>> + 'a>>;

/// What can be measured.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What it is about.
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Bench) -> Running<'_>,
    /// Rounds of one contestant, of the usual length, and runs of long use.
    time: (u32, u32),
}

impl Scenario {
    /// About how many seconds it takes.
    pub(crate) fn seconds(&self, scale: &Scale) -> f64 {
        let (turns, long) = self.time;
        let turn = (scale.warm + scale.length).as_secs_f64();
        let start = scale.users as f64 / 1e5 + 0.5;
        let rounds = (scale.rounds + 1) as f64;
        start + turn * f64::from(turns) * rounds + scale.long.as_secs_f64() * f64::from(long)
    }
}

macro_rules! scenarios {
    ($($module:ident, $about:literal, $turns:literal, $long:literal;)*) => {
        /// All of them, in the order in which they are run.
        pub(crate) const SCENARIOS: &[Scenario] = &[$(Scenario {
            name: stringify!($module),
            about: $about,
            run: |bench| Box::pin($module::run(bench)),
            time: ($turns, $long),
        },)*];
    };
}

scenarios! {
    check, "unary Check, 64 in flight", 2, 0;
    consume, "unary Consume and Release at the best number in flight", 3, 0;
    batch, "batches of 1,000", 8, 0;
    latency, "Consume, one in flight", 3, 0;
    open, "Check and Consume in an open loop at half their best rate", 5, 0;
    longest, "the longest commit in minutes of use", 0, 1;
    hot, "one account for all beside many", 2, 0;
    refusals, "a tenant that is always refused, and its neighbour", 3, 0;
    memory, "memory after minutes of use", 0, 2;
    cost, "cost by number of accounts, levels and quotas", 6, 0;
    telemetry, "metrics and traces on beside off", 4, 0;
    allocations, "allocations per decision", 1, 0;
    rivals, "another server, with --rival", 3, 0;
}
