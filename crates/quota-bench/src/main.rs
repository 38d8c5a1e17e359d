//! `quota-bench`: the real server over loopback, beside an empty tonic service with the same messages and
//! the same runtime settings, in turn, in one run. Every figure is a ratio to that service: a single absolute
//! number of a shared machine says little.

mod echo;
mod load;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use quota_client::v1::{Limit, Quota, UpdateQuotaRequest, limit};
use quota_client::{Client, Options};
use quota_server::config::Config;
use quota_server::engine::Engine;
use quota_server::server::{self};
use quota_server::store;
use quota_server::telemetry::Telemetry;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use load::{Sample, Work};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measure unary Check and Consume beside an empty service.
#[derive(Parser)]
struct Cli {
    /// Fewer and shorter rounds: under two minutes in all.
    #[arg(long)]
    quick: bool,
    /// Calls in flight.
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("quota-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let (rounds, length) = match cli.quick {
        true => (7, Duration::from_millis(1500)),
        false => (9, Duration::from_secs(5)),
    };
    let directory = tempfile::tempdir()?;
    let config = Config {
        data_dir: directory.path().join("data"),
        ..Config::default()
    };
    // Load and servers have runtimes of their own, with the same settings.
    let (serving, loading) = (runtime()?, runtime()?);
    let authority = start_authority(&serving, &config)?;
    let empty = serving.block_on(echo::start())?;
    loading.block_on(set_quotas(authority))?;

    let mut pairs = [
        Pair::new("Check", Work::Check),
        Pair::new("Consume and Release", Work::Consume),
    ];
    let steps = rounds * pairs.len() * 2;
    let mut step = 0;
    for round in 0..rounds {
        for pair in &mut pairs {
            for (target, samples) in [(empty, &mut pair.empty), (authority, &mut pair.authority)] {
                step += 1;
                eprint!("\rround {}/{rounds}, step {step}/{steps} ", round + 1);
                let sample = load::run(target, pair.work, cli.in_flight, length);
                let sample = loading.block_on(sample)?;
                // The first round warms up.
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
    }
    eprintln!();
    report(&pairs, cli, rounds - 1, length)
}

/// One kind of call at both services.
struct Pair {
    name: &'static str,
    work: Work,
    empty: Vec<Sample>,
    authority: Vec<Sample>,
}

impl Pair {
    fn new(name: &'static str, work: Work) -> Self {
        Self {
            name,
            work,
            empty: Vec::new(),
            authority: Vec::new(),
        }
    }
}

fn report(pairs: &[Pair], cli: &Cli, rounds: usize, length: Duration) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header([
        "unary call",
        "echo, calls/s",
        "authority, calls/s",
        "ratio: median (min - max)",
        "p50, us: echo / authority",
        "p99, us: echo / authority",
    ]);
    for pair in pairs {
        let ratios = pair.empty.iter().zip(&pair.authority);
        let ratios = ratios.map(|(empty, authority)| authority.per_second / empty.per_second);
        let ratios = sorted(ratios.collect());
        let rate =
            |samples: &[Sample]| middle(&sorted(samples.iter().map(|s| s.per_second).collect()));
        let at = |samples: &[Sample], of: fn(&Sample) -> f64| {
            middle(&sorted(samples.iter().map(of).collect()))
        };
        table.add_row([
            pair.name.to_owned(),
            format!("{:.0}", rate(&pair.empty)),
            format!("{:.0}", rate(&pair.authority)),
            format!(
                "{:.2} ({:.2} - {:.2})",
                middle(&ratios),
                ratios.first().unwrap_or(&0.0),
                ratios.last().unwrap_or(&0.0)
            ),
            format!(
                "{:.0} / {:.0}",
                at(&pair.empty, |s| s.p50_us),
                at(&pair.authority, |s| s.p50_us)
            ),
            format!(
                "{:.0} / {:.0}",
                at(&pair.empty, |s| s.p99_us),
                at(&pair.authority, |s| s.p99_us)
            ),
        ]);
    }
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let text = format!(
        "{rounds} rounds of {length:?} each, in turn, closed loop, {} in flight, {cores} cores for load and servers together,\n\
         4 levels with a quota at each, every change durable before its answer\n\n{table}\n",
        cli.in_flight
    );
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn sorted(mut numbers: Vec<f64>) -> Vec<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers
}

fn middle(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

fn start_authority(runtime: &Runtime, config: &Config) -> Result<SocketAddr, Failure> {
    let opened = store::open(config)?;
    let engine = Arc::new(Engine::start(opened.parts, config.engine(), opened.clock)?);
    let limits = config.limits();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let directory = opened.directory;
    let history = store::start_history(config, &directory, &engine)?;
    runtime.spawn(async move {
        let served = server::serve(
            engine,
            history,
            listener,
            limits,
            Telemetry::default(),
            std::future::pending(),
        )
        .await;
        drop(directory);
        served
    });
    Ok(address)
}

async fn set_quotas(address: SocketAddr) -> Result<(), Failure> {
    let client = Client::new(Options {
        endpoint: format!("http://{address}"),
        ..Options::default()
    })?;
    for place in [
        "system",
        "tenants/*",
        "tenants/*/projects/*",
        "tenants/*/projects/*/users/*",
    ] {
        let quota = Quota {
            subject: place.into(),
            resource: load::RESOURCE.into(),
            limit: Some(Limit {
                limit: Some(limit::Limit::Value(1 << 50)),
            }),
            ..Quota::default()
        };
        let request = UpdateQuotaRequest {
            quota: Some(quota),
            allow_missing: true,
            ..UpdateQuotaRequest::default()
        };
        client.update_quota(request).await?;
    }
    Ok(())
}
