//! Consume with one in flight: what a caller waits for who is alone.

use crate::Failure;
use crate::bench::Bench;
use crate::disk::COMMAND_BYTES;
use crate::load::{self, Call, Pace, Sample, Work, micros};
use crate::report::{Bound, Judged, Outcome, Plot, Table};
use crate::stats::Spread;

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let names = bench.users();
    let echo = bench.echo().await?;
    let authority = bench.authority(&names).await?;
    load::demand_alike(&echo.target, &authority.target, &names).await?;
    let load = bench.load(Work::granted(Call::Consume, &names), Pace::Closed(1));
    let contestants = [(&echo.target, &load), (&authority.target, &load)];
    let rounds = bench.rounds(&contestants, Some(COMMAND_BYTES)).await?;
    let (echo, authority) = (&rounds.samples[0][..], &rounds.samples[1][..]);
    let both = [("echo", echo), ("authority", authority)];
    let p50 = |sample: &Sample| sample.charge_us(0.5);
    let floors = echo.iter().zip(&rounds.appends);
    let floors = floors.map(|(echo, appends)| p50(echo) + micros(appends, 0.5));
    let ratio = Spread::of_ratios(authority.iter().map(p50).zip(floors));
    Ok(Outcome {
        name: "latency",
        targets: vec![Judged::new(
            "Consume, 1 in flight: p50",
            ratio,
            " × (echo + append)",
            Bound::AtMost,
            1.5,
            Some(1.2),
        )],
        tables: vec![
            Table::of_samples("Consume, 1 in flight", &both),
            Table::of_appends(COMMAND_BYTES, &rounds.appends),
        ],
        plots: vec![Plot::of_rounds(
            "latency",
            "Consume, 1 in flight",
            "p50, µs",
            p50,
            &both,
        )],
        ..Outcome::default()
    })
}
