//! Open loop at half the rate that is best in a closed loop.

use std::sync::Arc;

use hdrhistogram::Histogram;

use crate::Failure;
use crate::bench::{Bench, Place};
use crate::disk::{Appends, GROUP_BYTES};
use crate::load::{Call, Names, Pace, Sample, Work, micros};
use crate::report::{Bound, Judged, Outcome, Plot, Table, ratios};
use crate::stats::{Spread, short};

/// What is tried for the best rate.
const IN_FLIGHT: [usize; 2] = [64, 512];
/// How late half of the calls may begin before the schedule counts as missed, in microseconds.
const LATE_US_MAX: f64 = 1000.0;

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let names = bench.users();
    let echo = bench.echo().await?;
    let authority = bench.authority(&names).await?;
    let mut outcome = Outcome {
        name: "open",
        ..Outcome::default()
    };
    check(bench, [&echo, &authority], &names, &mut outcome).await?;
    consume(bench, [&echo, &authority], &names, &mut outcome).await?;
    Ok(outcome)
}

async fn check(
    bench: &Bench,
    [echo, authority]: [&Place; 2],
    names: &Arc<Names>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let work = Work::granted(Call::Check, names);
    let rate = half(bench, authority, &work).await?;
    let load = bench.load(work, Pace::Open(rate));
    let contestants = [(&echo.target, &load), (&authority.target, &load)];
    let rounds = bench.rounds(&contestants, None).await?;
    let (echo, authority) = (&rounds.samples[0][..], &rounds.samples[1][..]);
    outcome.targets.push(with_time(
        Judged::new(
            format!("open loop at {}/s: p99 of Check", short(rate)),
            ratios(authority, echo, p99),
            " × echo's p99",
            Bound::AtMost,
            3.0,
            None,
        ),
        authority,
        1.0,
    ));
    add(outcome, "open-check", "Check", rate, [echo, authority]);
    Ok(())
}

async fn consume(
    bench: &Bench,
    [echo, authority]: [&Place; 2],
    names: &Arc<Names>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let work = Work::granted(Call::Consume, names);
    let rate = half(bench, authority, &work).await?;
    let load = bench.load(work, Pace::Open(rate));
    let contestants = [(&echo.target, &load), (&authority.target, &load)];
    let rounds = bench.rounds(&contestants, Some(GROUP_BYTES)).await?;
    let (echo, authority) = (&rounds.samples[0][..], &rounds.samples[1][..]);
    let bounds = rounds.appends.iter();
    let bounds = bounds.map(|appends: &Appends| 3.0 * micros(appends, 0.99) + 2000.0);
    let ratio = Spread::of_ratios(authority.iter().map(p99).zip(bounds));
    outcome.targets.push(with_time(
        Judged::new(
            format!("open loop at {}/s: p99 of Consume", short(rate)),
            ratio,
            " × (3 × append's p99 + 2 ms)",
            Bound::AtMost,
            1.0,
            None,
        ),
        authority,
        5.0,
    ));
    add(outcome, "open-consume", "Consume", rate, [echo, authority]);
    let appends = Table::of_appends(GROUP_BYTES, &rounds.appends);
    outcome.tables.push(appends);
    Ok(())
}

/// Half of the authority's best rate.
async fn half(bench: &Bench, authority: &Place, work: &Work) -> Result<f64, Failure> {
    let (_, tried) = bench
        .best_in_flight(&authority.target, work, &IN_FLIGHT, 1)
        .await?;
    Ok(tried.iter().map(|(_, rate)| *rate).fold(0.0, f64::max) / 2.0)
}

fn p99(sample: &Sample) -> f64 {
    sample.charge_us(0.99)
}

/// The aim is a time, and not a ratio.
fn with_time(mut judged: Judged, samples: &[Sample], aim_ms: f64) -> Judged {
    let time = Spread::of(samples.iter().map(|sample| p99(sample) / 1e3));
    judged.aim = format!("≤ {} ms", short(aim_ms));
    judged.measured = format!("{}; {time} ms", judged.measured);
    judged.aim_met = Some(time.median <= aim_ms);
    judged
}

fn add(
    outcome: &mut Outcome,
    file: &str,
    call: &str,
    rate: f64,
    [echo, authority]: [&[Sample]; 2],
) {
    let title = format!("{call} at {}/s, open loop", short(rate));
    let both = [("echo", echo), ("authority", authority)];
    outcome.tables.push(Table::of_samples(&title, &both));
    outcome.tables.push(lateness(call, &both));
    outcome.plots.push(Plot {
        file: file.into(),
        title,
        across: "share of calls, as nines: 2 is 99 %, 3 is 99.9 %".into(),
        up: "latency, ms".into(),
        lines: both
            .iter()
            .map(|(name, samples)| ((*name).to_owned(), nines(samples)))
            .collect(),
    });
    for (name, samples) in both {
        let late = Spread::of(samples.iter().map(|sample| micros(&sample.late, 0.5)));
        if late.median > LATE_US_MAX {
            let late = short(late.median);
            outcome.notes.push(format!(
                "**The load did not keep its schedule for {call} on {name}: half of the calls began {late} µs late or more.**"
            ));
        }
    }
}

/// Whether the load kept its schedule.
fn lateness(call: &str, contestants: &[(&str, &[Sample])]) -> Table {
    let mut table = Table::new(
        format!("how late the load began a {call}; latencies count from the intended start"),
        &["server", "p50, µs", "p99, µs", "per second"],
    );
    for (name, samples) in contestants {
        let late = |quantile| Spread::of(samples.iter().map(|s| micros(&s.late, quantile)));
        let rate = Spread::of(samples.iter().map(Sample::rate));
        table.figures(name, [late(0.5), late(0.99), rate]);
    }
    table
}

/// Latencies of all rounds, by the number of nines of their quantile.
fn nines(samples: &[Sample]) -> Vec<(f64, f64)> {
    let mut all = match samples.first() {
        Some(sample) => sample.charges.clone(),
        None => return Vec::new(),
    };
    for sample in &samples[1..] {
        // Both grow as needed.
        let _ = Histogram::add(&mut all, &sample.charges);
    }
    let steps = (0..=16).map(|step| f64::from(step) / 4.0);
    let points = steps.map(|nines| (nines, micros(&all, 1.0 - 0.1_f64.powf(nines)) / 1e3));
    points.collect()
}
