//! Memory of a server after minutes of use, in runs of their own.

use std::time::Duration;

use crate::Failure;
use crate::bench::Bench;
use crate::load::{self, Call, Load, Names, Pace, Work};
use crate::process::Program;
use crate::report::{Judged, Outcome, Plot, Table};
use crate::scrape::Page;
use crate::stats::short;
use crate::world;

const IN_FLIGHT: usize = 64;
/// Readings during the use.
const READINGS: u32 = 20;
/// Required and aimed at, in MB.
const LIMITS: [(f64, f64); 2] = [(60.0, 40.0), (700.0, 500.0)];
const MB: f64 = 1e6;

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let heads = [
        "quotas",
        "resident, MB",
        "of it operations, MB",
        "rest, MB",
        "peak, MB",
        "decisions",
    ];
    let mut table = Table::new("memory after use", &heads);
    let mut outcome = Outcome {
        name: "memory",
        ..Outcome::default()
    };
    let mut lines = Vec::new();
    for (quotas, (required, aim)) in bench.scale.quotas.into_iter().zip(LIMITS) {
        let used = use_it(bench, quotas).await?;
        let rest = used.resident_mb - used.operations_mb;
        table.row([
            short(quotas as f64),
            short(used.resident_mb),
            short(used.operations_mb),
            short(rest),
            short(used.peak_mb),
            short(used.decisions),
        ]);
        outcome.targets.push(Judged {
            work: format!(
                "memory with {} quotas, beside operation memory",
                short(quotas as f64)
            ),
            required: format!("< {required} MB"),
            aim: format!("{aim} MB"),
            measured: format!(
                "{} MB, and {} MB of operations",
                short(rest),
                short(used.operations_mb)
            ),
            median: rest,
            met: rest < required,
            aim_met: Some(rest <= aim),
        });
        lines.push((format!("{} quotas", short(quotas as f64)), used.readings));
    }
    outcome.tables.push(table);
    outcome.plots.push(Plot {
        file: "memory".into(),
        title: "resident memory, with operations".into(),
        across: "seconds of use".into(),
        up: "MB".into(),
        lines,
    });
    Ok(outcome)
}

struct Used {
    resident_mb: f64,
    operations_mb: f64,
    peak_mb: f64,
    decisions: f64,
    readings: Vec<(f64, f64)>,
}

async fn use_it(bench: &Bench, quotas: usize) -> Result<Used, Failure> {
    let place = bench.start(Program::Authority, &[]).await?;
    let server = &place.target.server;
    let names = Names::users(quotas);
    bench.progress.say(&format!("{quotas} quotas"));
    for some in names.all().chunks(100_000) {
        let some = some.iter().map(|name| world::ample(name));
        world::set(server.address, some.collect()).await?;
    }
    let step = bench.scale.long / READINGS;
    let load = Load {
        work: Work::granted(Call::Consume, &names),
        pace: Pace::Closed(IN_FLIGHT),
        warm: Duration::ZERO,
        length: step,
    };
    let mut readings = Vec::new();
    let mut decisions = 0.0;
    for reading in 1..=READINGS {
        bench
            .progress
            .say(&format!("{quotas} quotas, reading {reading}/{READINGS}"));
        decisions += load::run(&place.target, &load).await?.operations as f64;
        let seconds = step.as_secs_f64() * f64::from(reading);
        readings.push((seconds, server.memory()?.resident / MB));
    }
    let memory = server.memory()?;
    let page = Page::get(server.metrics.ok_or("the authority has no metrics")?)?;
    Ok(Used {
        resident_mb: memory.resident / MB,
        operations_mb: page.value("quota_operation_memory_bytes")? / MB,
        peak_mb: memory.peak / MB,
        decisions,
        readings,
    })
}
