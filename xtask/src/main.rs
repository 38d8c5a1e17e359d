//! The project's only automation: `cargo xtask help` lists it. It starts programs and decides nothing.

mod ci;
mod codegen;
mod tidy;

use std::path::Path;
use std::process::{Command, ExitCode};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const HELP: &str = "\
cargo xtask ci [--no-tests]     fmt, clippy, tidy, generated code, buf where it is installed, tests
cargo xtask codegen [--check]   generate crates/quota-proto from proto/ (--check: compare only)
cargo xtask tidy                crate arrows, file sizes, comments in proto/, clauses without a script
cargo xtask sim [--seed N]      simulated lives with faults, beside the auditor (--seeds, --steps, --soak 1h)
cargo xtask bench [--quick]     the server beside an empty service, as ratios (--only, --list, --write, --output json)
";

/// The top of the checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask stands in the checkout")
}

/// Runs a program of the checkout and demands its success.
fn start(program: &str, arguments: &[&str]) -> Result<(), Failure> {
    let shown = format!("{program} {}", arguments.join(" "));
    eprintln!("xtask: {shown}");
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .status()
        .map_err(|error| format!("{shown}: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{shown}: {status}").into()),
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["ci"] => ci::run(true),
        ["ci", "--no-tests"] => ci::run(false),
        ["codegen"] => codegen::run(false),
        ["codegen", "--check"] => codegen::run(true),
        ["tidy"] => tidy::run(),
        ["sim", rest @ ..] => run("quota-tests", &["--bin", "quota-sim"], rest),
        ["bench", rest @ ..] => bench(rest),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a program of the workspace, optimized.
fn run(package: &str, which: &[&str], rest: &[&str]) -> Result<(), Failure> {
    let run = ["run", "--quiet", "--release", "-p", package];
    start("cargo", &[&run, which, &["--"], rest].concat())
}

/// Runs the benchmark, which needs the server's program and its own second one beside itself.
fn bench(rest: &[&str]) -> Result<(), Failure> {
    let programs = ["-p", "quota-server", "-p", "quota-bench"];
    start(
        "cargo",
        &[&["build", "--quiet", "--release"], &programs[..]].concat(),
    )?;
    run("quota-bench", &["--bin", "quota-bench"], rest)
}
