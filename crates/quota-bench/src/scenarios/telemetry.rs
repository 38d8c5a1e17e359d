//! Telemetry: metrics that are scraped and one call in a hundred traced, beside neither.

use crate::Failure;
use crate::bench::Bench;
use crate::collector;
use crate::load::{Call, Load, Pace, Sample, Work};
use crate::process::{METRICS, Program};
use crate::report::{Bound, Judged, Outcome, Table, ratios};
use crate::scrape::Page;
use crate::world;

const IN_FLIGHT: usize = 64;

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let names = bench.users();
    let endpoint = collector::start().await?;
    let on_settings = [
        ("QUOTA_OTLP_ENDPOINT", endpoint),
        ("QUOTA_TRACE_SAMPLE_RATIO", "0.01".to_owned()),
    ];
    let off = bench
        .start(Program::Authority, &[(METRICS, "off".to_owned())])
        .await?;
    let on = bench.start(Program::Authority, &on_settings).await?;
    for place in [&off, &on] {
        let address = place.target.server.address;
        world::set(address, world::LEVELS.map(world::ample).into()).await?;
        world::settle(address, &names).await?;
    }
    let metrics = on.target.server.metrics;
    let metrics = metrics.ok_or("the authority has no metrics")?;
    let mut outcome = Outcome {
        name: "telemetry",
        ..Outcome::default()
    };
    for (what, call) in [("Check", Call::Check), ("Consume", Call::Consume)] {
        let load: Load = bench.load(Work::granted(call, &names), Pace::Closed(IN_FLIGHT));
        let contestants = [(&off.target, &load), (&on.target, &load)];
        let rounds = tokio::select! {
            rounds = bench.rounds(&contestants, None) => rounds?,
            failure = scrape(metrics) => return Err(failure),
        };
        let (without, with) = (&rounds.samples[0][..], &rounds.samples[1][..]);
        outcome.targets.push(Judged::new(
            format!("telemetry at 1 % sampling, metrics on: {what}"),
            ratios(with, without, Sample::rate),
            " × off",
            Bound::AtLeast,
            0.97,
            None,
        ));
        outcome.tables.push(Table::of_samples(
            format!("{what}, {IN_FLIGHT} in flight"),
            &[("off", without), ("on", with)],
        ));
    }
    let page = Page::get(metrics)?;
    let spans = page.value("quota_trace_spans_total{result=\"exported\"}")?;
    match spans > 0.0 {
        true => outcome.notes.push(format!(
            "{spans} spans were exported to a collector; metrics were scraped every five seconds."
        )),
        false => return Err("no span was exported".into()),
    }
    Ok(outcome)
}

/// Scrapes as often as Prometheus is often told to, until it fails.
async fn scrape(metrics: std::net::SocketAddr) -> Failure {
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        match tokio::task::spawn_blocking(move || Page::get(metrics)).await {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => return failure,
            Err(error) => return error.into(),
        }
    }
}
