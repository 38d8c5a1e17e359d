//! The longest commit in minutes of use, beside the longest raw fdatasync of the same run.

use std::time::Duration;

use crate::Failure;
use crate::bench::Bench;
use crate::disk::{self, GROUP_BYTES};
use crate::load::{self, Call, Load, Pace, Work};
use crate::report::{Judged, Outcome, Plot, Table};
use crate::scrape::Page;
use crate::stats::short;

const IN_FLIGHT: usize = 256;
/// Turns of the authority and of the disk.
const TURNS: u32 = 20;
/// Share of a turn that the raw appends have.
const RAW_SHARE: f64 = 0.2;

pub(super) async fn run(bench: &Bench) -> Result<Outcome, Failure> {
    let names = bench.users();
    let authority = bench.authority(&names).await?;
    let turn = bench.scale.long / TURNS;
    let load = Load {
        work: Work::granted(Call::Consume, &names),
        pace: Pace::Closed(IN_FLIGHT),
        warm: Duration::ZERO,
        length: turn.mul_f64(1.0 - RAW_SHARE),
    };
    let (mut waits, mut syncs, mut decisions) = (Vec::new(), Vec::new(), 0);
    for at in 1..=TURNS {
        bench.progress.round(at as usize, TURNS as usize);
        let sample = load::run(&authority.target, &load).await?;
        let appends = tokio::task::block_in_place(|| {
            disk::append(&bench.directory, GROUP_BYTES, turn.mul_f64(RAW_SHARE))
        })?;
        decisions += sample.operations;
        let second = turn.as_secs_f64() * f64::from(at);
        waits.push((second, sample.longest_ms()));
        syncs.push((second, appends.max() as f64 / 1e6));
    }
    let server = &authority.target.server;
    let page = Page::get(server.metrics.ok_or("the authority has no metrics")?)?;
    let longest = |points: &[(f64, f64)]| points.iter().map(|point| point.1).fold(0.0, f64::max);
    let (wait, sync) = (longest(&waits), longest(&syncs));
    let bucket = top(&page.buckets("quota_commit_duration_seconds")?) * 1e3;
    // No commit took longer than either.
    let commit = wait.min(bucket);
    let required = f64::max(100.0, 2.0 * sync);
    let mut table = Table::new("the longest of the run", &["what", "ms"]);
    table.row(["wait for an answer".into(), short(wait)]);
    table.row([
        "commit, by the bounds of the server's histogram: at most".into(),
        short(bucket),
    ]);
    table.row(["raw append and fdatasync".into(), short(sync)]);
    Ok(Outcome {
        name: "longest",
        targets: vec![Judged {
            work: format!("longest commit in {:?}", bench.scale.long),
            required: format!(
                "≤ max(100 ms, 2 × the longest append): {} ms",
                short(required)
            ),
            aim: String::new(),
            measured: format!("at most {} ms", short(commit)),
            median: commit,
            met: commit <= required,
            aim_met: None,
        }],
        tables: vec![table],
        plots: vec![Plot {
            file: "longest".into(),
            title: format!("longest of each turn, {IN_FLIGHT} in flight"),
            across: "seconds".into(),
            up: "ms".into(),
            lines: vec![
                ("wait for an answer".into(), waits),
                ("raw append".into(), syncs),
            ],
        }],
        notes: vec![format!(
            "{} decisions; a fifth of the time is the raw appends'.",
            short(decisions as f64)
        )],
    })
}

/// Upper bound of the highest bucket with anything in it.
fn top(buckets: &[(f64, f64)]) -> f64 {
    let all = buckets.last().map_or(0.0, |bucket| bucket.1);
    let first = buckets.iter().find(|bucket| bucket.1 >= all);
    first.map_or(f64::INFINITY, |bucket| bucket.0)
}
