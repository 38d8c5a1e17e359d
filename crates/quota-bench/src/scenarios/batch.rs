//! Batches of 1,000 Consumes, and then of their Releases.

use crate::Failure;
use crate::bench::Bench;
use crate::load::{self, Call, Pace, Sample, Work};
use crate::report::{Judged, Outcome, Plot, Table, ratios};
use crate::stats::{Spread, short};

const STEPS: usize = 1000;
/// How much longer a round is than usual: it has few answers.
const LONGER: u32 = 4;
/// What is tried. More would not fit into the queue.
const IN_FLIGHT: [usize; 4] = [2, 4, 8, 12];

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let names = bench.users();
    let echo = bench.echo().await?;
    let authority = bench.authority(&names).await?;
    load::demand_alike(&echo.target, &authority.target, &names).await?;
    let work = Work::granted(Call::Batch(STEPS), &names);
    let (best, _) = bench
        .best_in_flight(&authority.target, &work, &IN_FLIGHT, LONGER)
        .await?;
    let mut load = bench.load(work, Pace::Closed(best));
    load.length *= LONGER;
    let contestants = [(&echo.target, &load), (&authority.target, &load)];
    let rounds = bench.rounds(&contestants, None).await?;
    let (echo, authority) = (&rounds.samples[0][..], &rounds.samples[1][..]);
    let both = [("echo", echo), ("authority", authority)];
    let rate = Spread::of(authority.iter().map(Sample::rate));
    let ratio = ratios(authority, echo, Sample::rate);
    let title = format!("batches of 1,000, {best} in flight, per decision");
    Ok(Outcome {
        name: "batch",
        targets: vec![Judged {
            work: format!("Batch of 1,000, decisions/s, {best} in flight"),
            required: "≥ 0.15 × echo".into(),
            aim: "≥ 1,000,000/s".into(),
            measured: format!("{ratio} × echo; {}/s", short(rate.median)),
            median: ratio.median,
            met: ratio.median >= 0.15,
            aim_met: Some(rate.median >= 1e6),
        }],
        tables: vec![Table::of_samples(&title, &both)],
        plots: vec![Plot::of_rounds(
            "batch",
            &title,
            "decisions per second",
            Sample::rate,
            &both,
        )],
        ..Outcome::default()
    })
}
