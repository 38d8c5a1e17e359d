//! Runs the simulator: `cargo xtask sim`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::{ProgressBar, ProgressStyle};
use quota_testkit::sim::coverage::Coverage;
use quota_testkit::sim::steps::Life;
use quota_tests::sim::{self, Lived};

/// Lives simulated lives: ledger, engine and store on a test disk that fails, beside an auditor who knows
/// what each answer has to be. A seed is a life; the same seed is the same life.
#[derive(Parser)]
struct Options {
    /// The seed, or the first of them.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Steps of a life.
    #[arg(long, default_value_t = 150)]
    steps: usize,
    /// Goes on for so long, from the first seed on, whatever `--seeds` says; such as 1h.
    #[arg(long, value_parser = humantime::parse_duration)]
    soak: Option<Duration>,
    /// Lives the life in a file again.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Leaves a failing life as long as it is.
    #[arg(long)]
    whole: bool,
}

/// What all threads found together.
#[derive(Default)]
struct Found {
    coverage: Coverage,
    lives: u64,
    answers: u64,
    failed: Option<(u64, Lived)>,
    elapsed: Duration,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // What is wrong is reported with the life that led to it.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(file) = &options.replay {
        return match std::fs::read_to_string(file) {
            Ok(text) => replay(&text),
            Err(error) => {
                eprintln!("quota-sim: {}: {error}", file.display());
                ExitCode::from(2)
            }
        };
    }
    let found = search(&options);
    print(&table(&found.coverage));
    let missing = found.coverage.missing();
    // One life comes by little.
    if !missing.is_empty() && found.lives >= 100 {
        print(&format!("nothing came by: {}\n", missing.join(", ")));
    }
    let Found { lives, answers, .. } = found;
    let seconds = found.elapsed.as_secs();
    match found.failed {
        None => {
            print(&format!(
                "{lives} lives of {} steps, {answers} decided calls, {seconds} s: nothing wrong\n",
                options.steps
            ));
            ExitCode::SUCCESS
        }
        Some((seed, lived)) => {
            print(&format!("seed {seed} of {lives} lives, {seconds} s:\n"));
            report(lived, options.whole);
            ExitCode::FAILURE
        }
    }
}

/// Lives on, on every core, until the first failure.
fn search(options: &Options) -> Found {
    let found = Mutex::new(Found::default());
    let next = AtomicU64::new(options.seed);
    let stop = AtomicBool::new(false);
    let last = options.seed.saturating_add(options.seeds);
    let bar = match options.soak {
        Some(soak) => ProgressBar::new(soak.as_secs()),
        None => ProgressBar::new(options.seeds),
    };
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}");
    bar.set_style(style.expect("a template"));
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let over = match options.soak {
                        Some(soak) => bar.elapsed() >= soak,
                        None => seed >= last,
                    };
                    if over {
                        break;
                    }
                    let lived = sim::live(seed, options.steps);
                    let mut found = found.lock().expect("no thread stops");
                    found.coverage.add(&lived.coverage);
                    found.lives += 1;
                    found.answers += lived.answers as u64;
                    bar.set_message(format!("{} lives, {} calls", found.lives, found.answers));
                    bar.set_position(match options.soak {
                        Some(_) => bar.elapsed().as_secs(),
                        None => found.lives,
                    });
                    if lived.wrong.is_some() && found.failed.is_none() {
                        found.failed = Some((seed, lived));
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let elapsed = bar.elapsed();
    bar.finish_and_clear();
    Found {
        elapsed,
        ..found.into_inner().expect("no thread stops")
    }
}

fn replay(text: &str) -> ExitCode {
    let lived = sim::live_again(&Life::parse(text));
    match lived.wrong {
        None => {
            print("nothing wrong\n");
            ExitCode::SUCCESS
        }
        Some(_) => {
            report(lived, false);
            ExitCode::FAILURE
        }
    }
}

/// What is wrong, and the shortest life that was found in which it is.
fn report(lived: Lived, whole: bool) {
    let wrong = lived.wrong.unwrap_or_default();
    print(&format!("{wrong}\n"));
    if whole {
        return print(&lived.life.to_string());
    }
    let short = sim::cut_short(lived.life);
    let again = sim::live_again(&short).wrong.unwrap_or_default();
    match sim::as_script(&short) {
        Some(script) => print(&format!("\nas a script:\n\n{script}")),
        None => print(&format!(
            "\ncut short, for tests/scripts/NAME.life:\n\n{short}\n{again}\n"
        )),
    }
}

fn table(coverage: &Coverage) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    let mut row = Vec::new();
    let mut kind = "";
    for (of, name, count) in coverage.table() {
        if of != kind || row.len() >= 5 {
            table.add_row(std::mem::take(&mut row));
            row.push(if of == kind {
                String::new()
            } else {
                of.to_owned()
            });
            kind = of;
        }
        row.push(format!("{name} {count}"));
    }
    table.add_row(row);
    format!("{table}\n")
}

fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
