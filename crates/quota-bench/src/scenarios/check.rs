//! Unary Check of resident subjects.

use crate::Failure;
use crate::bench::Bench;
use crate::load::{self, Call, Pace, Sample, Work};
use crate::report::{Bound, Judged, Outcome, Plot, Table, ratios};

const IN_FLIGHT: usize = 64;

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let names = bench.users();
    let echo = bench.echo().await?;
    let authority = bench.authority(&names).await?;
    load::demand_alike(&echo.target, &authority.target, &names).await?;
    let load = bench.load(Work::granted(Call::Check, &names), Pace::Closed(IN_FLIGHT));
    let contestants = [(&echo.target, &load), (&authority.target, &load)];
    let rounds = bench.rounds(&contestants, None).await?;
    let (echo, authority) = (&rounds.samples[0][..], &rounds.samples[1][..]);
    let both = [("echo", echo), ("authority", authority)];
    let ratio = ratios(authority, echo, Sample::rate);
    Ok(Outcome {
        name: "check",
        targets: vec![Judged::new(
            "unary Check of resident subjects, 64 in flight",
            ratio,
            " × echo",
            Bound::AtLeast,
            0.8,
            Some(0.95),
        )],
        tables: vec![Table::of_samples("Check, 64 in flight", &both)],
        plots: vec![Plot::of_rounds(
            "check",
            "unary Check, 64 in flight",
            "per second",
            Sample::rate,
            &both,
        )],
        ..Outcome::default()
    })
}
