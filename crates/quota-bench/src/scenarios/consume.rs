//! Unary Consume and Release in equal parts, at the number in flight at which the authority does most.

use crate::Failure;
use crate::bench::Bench;
use crate::disk::GROUP_BYTES;
use crate::load::{self, Call, Pace, Sample, Work};
use crate::report::{Bound, Judged, Outcome, Plot, Table, ratios};
use crate::scrape::Page;
use crate::stats::short;

/// What is tried.
const IN_FLIGHT: [usize; 4] = [64, 256, 512, 1024];

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let names = bench.users();
    let echo = bench.echo().await?;
    let authority = bench.authority(&names).await?;
    load::demand_alike(&echo.target, &authority.target, &names).await?;
    let work = Work::granted(Call::Consume, &names);
    let (best, tried) = bench
        .best_in_flight(&authority.target, &work, &IN_FLIGHT, 1)
        .await?;
    let load = bench.load(work, Pace::Closed(best));
    let contestants = [(&echo.target, &load), (&authority.target, &load)];
    let rounds = bench.rounds(&contestants, Some(GROUP_BYTES)).await?;
    let server = &authority.target.server;
    let page = Page::get(server.metrics.ok_or("the authority has no metrics")?)?;
    let lag = page.value("quota_apply_lag_bytes")?;
    let group = page.value("quota_group_size_sum")? / page.value("quota_group_size_count")?;
    let (echo, authority) = (&rounds.samples[0][..], &rounds.samples[1][..]);
    let both = [("echo", echo), ("authority", authority)];
    let title = format!("Consume and Release, {best} in flight");
    let mut searched = Table::new("the search", &["in flight", "per second"]);
    for (in_flight, rate) in &tried {
        searched.row([in_flight.to_string(), short(*rate)]);
    }
    Ok(Outcome {
        name: "consume",
        targets: vec![Judged::new(
            format!("unary Consume at its best number in flight ({best})"),
            ratios(authority, echo, Sample::rate),
            " × echo",
            Bound::AtLeast,
            0.5,
            Some(0.7),
        )],
        tables: vec![
            Table::of_samples(&title, &both),
            Table::of_appends(GROUP_BYTES, &rounds.appends),
            searched,
        ],
        plots: vec![Plot::of_rounds(
            "consume",
            &title,
            "per second",
            Sample::rate,
            &both,
        )],
        notes: vec![format!(
            "Rows were {} bytes behind the journal at the end; a group had {} commands on average.",
            short(lag),
            short(group)
        )],
    })
}
