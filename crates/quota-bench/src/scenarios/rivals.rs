//! The authority beside a server that others made, each at its best number in flight. The rival has one flat limit
//! and keeps nothing.

use crate::Failure;
use crate::bench::Bench;
use crate::load::{Call, Pace, Sample, Target, Work};
use crate::report::{Bound, Judged, Outcome, Table, ratios};

/// What is tried.
const IN_FLIGHT: [usize; 3] = [64, 256, 512];

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let mut outcome = Outcome {
        name: "rivals",
        ..Outcome::default()
    };
    let Some(rival) = bench.rival else {
        return Ok(outcome);
    };
    let name = rival.name();
    let Some(server) = tokio::task::block_in_place(|| rival.start())? else {
        let skipped =
            format!("{name} is not on PATH and was not measured: `cargo install {name}`.");
        eprintln!("quota-bench: {skipped}");
        outcome.notes.push(skipped);
        return Ok(outcome);
    };
    let other = Target::connect(server).await?;
    let names = bench.users();
    let authority = bench.authority(&names).await?;
    let ours = Work::granted(Call::Consume, &names);
    let theirs = Work::granted(Call::Throttle, &names);
    let best = bench.best_in_flight(&authority.target, &ours, &IN_FLIGHT, 1);
    let (our_best, _) = best.await?;
    let (their_best, _) = bench.best_in_flight(&other, &theirs, &IN_FLIGHT, 1).await?;
    let ours = bench.load(ours, Pace::Closed(our_best));
    let theirs = bench.load(theirs, Pace::Closed(their_best));
    let contestants = [(&other, &theirs), (&authority.target, &ours)];
    let rounds = bench.rounds(&contestants, None).await?;
    let (other, authority) = (&rounds.samples[0][..], &rounds.samples[1][..]);
    outcome.targets.push(Judged::new(
        format!("unary Consume vs {name} in memory, each at its best number in flight"),
        ratios(authority, other, Sample::rate),
        " × rival",
        Bound::AtLeast,
        1.0,
        None,
    ));
    outcome.tables.push(Table::of_samples(
        format!("{name} with {their_best} in flight, the authority with {our_best}"),
        &[(name, other), ("authority", authority)],
    ));
    Ok(outcome)
}
