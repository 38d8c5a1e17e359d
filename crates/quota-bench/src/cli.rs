//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::bench::{Bench, Scale};
use crate::counted::{runtime, say};
use crate::machine::Machine;
use crate::report::{self, Outcome, Progress};
use crate::rival::Rival;
use crate::scenarios::{SCENARIOS, Scenario};
use crate::{Failure, echo};

/// Measure the server beside an empty service and the disk.
#[derive(Parser)]
#[command(name = "quota-bench")]
struct Cli {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    /// Every scenario, small: under two minutes in all.
    #[arg(long)]
    quick: bool,
    /// Only these scenarios, separated by commas; --list names all.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Name the scenarios and end.
    #[arg(long)]
    list: bool,
    /// Rounds; one more warms up.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: Option<u64>,
    /// Measured seconds of a round.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Seconds of use in the scenarios of long use.
    #[arg(long, value_name = "SECONDS")]
    long_seconds: Option<f64>,
    /// Where data directories are made; by default beside the programs. A full run takes up to 12 GB there.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Also measure another server, if it is on PATH.
    #[arg(long, value_enum)]
    rival: Option<Rival>,
    /// How results are shown.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Write docs/BENCHMARKS.md and its plots.
    #[arg(long)]
    write: bool,
}

#[derive(Subcommand)]
enum Hidden {
    /// Serve the empty service.
    #[command(hide = true)]
    Echo,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// The program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = runtime().and_then(|runtime| {
        runtime.block_on(async {
            match cli.hidden {
                Some(Hidden::Echo) => echo::serve().await,
                // Dropping a run ends its servers and removes their directories.
                None => tokio::select! {
                    done = run(&cli) => done,
                    stopped = stop() => stopped,
                },
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("quota-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Until somebody stops the program.
async fn stop() -> Result<(), Failure> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Err("stopped".into())
}

async fn run(cli: &Cli) -> Result<(), Failure> {
    if cli.list {
        let lines = SCENARIOS.iter();
        let lines = lines.map(|scenario| format!("{:<12} {}\n", scenario.name, scenario.about));
        return Ok(say(&lines.collect::<String>())?);
    }
    let chosen = |name: &str| match name {
        // Measured where somebody asks for it.
        "rivals" => cli.rival.is_some(),
        name => cli.only.is_empty() || cli.only.iter().any(|only| only == name),
    };
    if let Some(unknown) = cli.only.iter().find(|only| !is_known(only)) {
        return Err(format!("there is no scenario {unknown:?}; --list names all").into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let directory = match &cli.dir {
        Some(directory) => directory.clone(),
        None => std::env::current_exe()?.with_file_name(""),
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let machine = Machine::this(&root, &directory, &arguments.join(" "))?;
    let bench = Bench {
        scale: scale(cli)?,
        progress: Progress::default(),
        directory,
        rival: cli.rival,
    };
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(|one| chosen(one.name)).collect();
    let seconds: f64 = chosen.iter().map(|one| one.seconds(&bench.scale)).sum();
    let estimate = Duration::from_secs_f64(seconds.ceil());
    eprintln!("quota-bench: this takes about {estimate:?}");
    // An hour of measuring is not thrown away for one of them.
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    for scenario in chosen {
        let name = scenario.name;
        bench.progress.begin(name);
        match (scenario.run)(&bench).await {
            Ok(outcome) => outcomes.push(outcome),
            Err(failure) => failed.push(format!("{name}: {failure}")),
        }
    }
    bench.progress.end();
    show(cli, &machine, &outcomes)?;
    if cli.write {
        let scale = described(&bench.scale);
        report::write(&root, &outcomes, &failed, &machine, &scale)?;
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("not measured: {}", failed.join("; ")).into()),
    }
}

fn is_known(name: &str) -> bool {
    SCENARIOS.iter().any(|scenario| scenario.name == name)
}

fn scale(cli: &Cli) -> Result<Scale, Failure> {
    let mut scale = match cli.quick {
        true => Scale::quick(),
        false => Scale::full(),
    };
    if let Some(rounds) = cli.rounds {
        scale.rounds = usize::try_from(rounds)?;
    }
    if let Some(seconds) = cli.seconds {
        scale.length = Duration::try_from_secs_f64(seconds)?;
    }
    if let Some(seconds) = cli.long_seconds {
        scale.long = Duration::try_from_secs_f64(seconds)?;
    }
    Ok(scale)
}

fn described(scale: &Scale) -> String {
    format!(
        "{} rounds in turn, each of {:?} after {:?} at the same load; {} users in 100 projects of 10 tenants; {:?} of use\n\
         in the scenarios of long use{}.",
        scale.rounds,
        scale.length,
        scale.warm,
        scale.users,
        scale.long,
        match scale.quick {
            true => ". **A quick run: tables and times are too small to judge by**",
            false => "",
        }
    )
}

fn show(cli: &Cli, machine: &Machine, outcomes: &[Outcome]) -> Result<(), Failure> {
    let text = match cli.output {
        Output::Text => report::show(outcomes),
        Output::Json => {
            let all = serde_json::json!({ "machine": machine, "scenarios": outcomes });
            serde_json::to_string_pretty(&all)? + "\n"
        }
    };
    Ok(say(&text)?)
}
