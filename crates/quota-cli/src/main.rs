//! `quotactl`: the quota authority from the command line.
//!
//! Exit codes: 0 granted or done, 3 refused, 2 usage, 4 unavailable, 1 anything else. What people read is a
//! table; `--output json` is one object on stdout, or of a stream one a line; progress goes to stderr.

mod admin;
mod apply;
mod chart;
mod events;
mod history;
mod hold;
mod json;
mod manifest;
mod operate;
mod output;
mod pages;
mod replay;
mod server;
mod times;
mod units;
mod usage;
mod verdict;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use quota_client::v1::ErrorReason;
use quota_client::{Client, Error, Options};

use output::Output;

/// Ask and operate a quota authority.
#[derive(Parser)]
#[command(name = "quotactl", version)]
struct Cli {
    /// URL of the server.
    #[arg(long, global = true, env = "QUOTA_ENDPOINT", default_value = quota_client::DEFAULT_ENDPOINT)]
    endpoint: String,
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// Who asks; recorded with every change.
    #[arg(long, global = true, default_value = "")]
    actor: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Tenants, projects, users: who is bounded.
    #[command(subcommand)]
    Subject(admin::subject::SubjectCommand),
    /// What is limited, and in which units.
    #[command(subcommand)]
    Resource(admin::resource::ResourceCommand),
    /// Limits on subjects, and on patterns of subjects.
    #[command(subcommand)]
    Quota(Box<admin::quota::QuotaCommand>),
    /// What is in use, as a tree.
    Usage(usage::UsageArgs),
    /// What a consume would answer now. It promises nothing.
    Check(operate::CheckArgs),
    /// Check and charge in one step.
    Consume(operate::ConsumeArgs),
    /// Give back an allocation, or part of it.
    Release(operate::ReleaseArgs),
    /// Set new absolute amounts of an allocation.
    Resize(operate::ResizeArgs),
    /// Give CONCURRENCY allocations more time; exits 3 where one has ended.
    Renew(operate::RenewArgs),
    /// Hold for a time.
    Reserve(hold::ReserveArgs),
    /// Holds, and what becomes of them.
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// Release whole allocations by label.
    ReleaseMatching(operate::ReleaseMatchingArgs),
    /// List allocations.
    Allocations(operate::AllocationsArgs),
    /// Make quotas, subjects and resources as a YAML file says.
    Apply(apply::ApplyArgs),
    /// Write all quotas, described subjects and own resources as YAML.
    Export(apply::ExportArgs),
    /// Set the counts or buckets of a subject to zero.
    ResetUsage(server::ResetArgs),
    /// Change what was counted, on the whole path.
    CorrectUsage(server::CorrectArgs),
    /// The server itself.
    #[command(subcommand)]
    Server(server::ServerCommand),
    /// Play a real cluster log against the server.
    #[command(subcommand)]
    Replay(replay::ReplayCommand),
    /// Recompute every account from the live allocations and compare.
    Verify,
    /// What happened.
    Events(events::EventsArgs),
    /// Limits that were exceeded, and who was refused.
    Violations(events::EventsArgs),
    /// What happens, as it happens.
    Watch(events::WatchArgs),
    /// Check every byte of the record of what happened, and its chain of hashes.
    Audit(events::VerifyAuditArgs),
}

impl Command {
    /// Whether stdout gets a line per event, to which an object that says what failed does not belong.
    fn writes_lines(&self) -> bool {
        match self {
            Self::Watch(_) => true,
            Self::Events(args) | Self::Violations(args) => args.exports(),
            _ => false,
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Done,
    Refused,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Call(#[from] Error),
    #[error("{0}")]
    Other(String),
    /// Nobody reads what a stream writes, such as `head` that has its lines: an end like any other.
    #[error("stdout is closed")]
    Unread,
}

/// A server that is lost is reported within 5 s: one connection attempt may begin at the end of that.
const RETRY_FOR: Duration = Duration::from_millis(2500);
/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("quotactl: no runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let output = Output::new(cli.output == Format::Json);
    let endpoint = cli.endpoint.clone();
    let lines = cli.command.writes_lines();
    match runtime.block_on(run(cli)) {
        Ok(Ending::Done) | Err(Failure::Unread) => ExitCode::SUCCESS,
        Ok(Ending::Refused) => ExitCode::from(3),
        Err(failure) => {
            match &failure {
                Failure::Call(error) if error.is_lost() && error.reason.is_none() => {
                    output::note(&format!("quotactl: {endpoint}: {failure}"));
                }
                failure => output::note(&format!("quotactl: {failure}")),
            }
            if output.is_json() && !lines {
                let _ = output.object(&json::failure(&failure));
            }
            ExitCode::from(exit_code(&failure))
        }
    }
}

fn exit_code(failure: &Failure) -> u8 {
    match failure {
        Failure::Usage(_) => 2,
        Failure::Other(_) | Failure::Unread => 1,
        Failure::Call(error) if is_unavailable(error) => 4,
        Failure::Call(error) if !error.violations.is_empty() => 2,
        Failure::Call(_) => 1,
    }
}

/// Whether the server could not be reached, or has too much to do.
pub(crate) fn is_unavailable(error: &Error) -> bool {
    error.is_lost() || error.reason == Some(ErrorReason::Overloaded)
}

async fn run(cli: Cli) -> Result<Ending, Failure> {
    let client = Client::new(Options {
        endpoint: cli.endpoint,
        timeout: TIMEOUT,
        retry_for: RETRY_FOR,
        actor: cli.actor,
    })
    .map_err(|error| Failure::Usage(error.to_string()))?;
    let output = Output::new(cli.output == Format::Json);
    match cli.command {
        Command::Subject(command) => admin::subject::subject(&client, &output, command).await,
        Command::Resource(command) => admin::resource::resource(&client, &output, command).await,
        Command::Quota(command) => admin::quota::quota(&client, &output, *command).await,
        Command::Usage(args) => usage::usage(&client, &output, args).await,
        Command::Check(args) => operate::check(&client, &output, args).await,
        Command::Consume(args) => operate::consume(&client, &output, args).await,
        Command::Release(args) => operate::release(&client, &output, args).await,
        Command::Resize(args) => operate::resize(&client, &output, args).await,
        Command::Renew(args) => operate::renew(&client, &output, args).await,
        Command::Reserve(args) => hold::reserve(&client, &output, args).await,
        Command::Hold(command) => hold::hold(&client, &output, command).await,
        Command::Apply(args) => apply::apply(&client, &output, args).await,
        Command::Export(args) => apply::export(&client, &output, args).await,
        Command::ResetUsage(args) => server::reset(&client, &output, args).await,
        Command::CorrectUsage(args) => server::correct(&client, &output, args).await,
        Command::Server(command) => server::server(&client, &output, command).await,
        Command::ReleaseMatching(args) => operate::release_matching(&client, &output, args).await,
        Command::Allocations(args) => operate::allocations(&client, &output, args).await,
        Command::Replay(command) => replay::replay(&client, &output, command).await,
        Command::Verify => operate::verify(&client, &output).await,
        Command::Events(args) => events::events(&client, &output, args).await,
        Command::Violations(args) => events::violations(&client, &output, args).await,
        Command::Watch(args) => events::watch(&client, &output, args).await,
        Command::Audit(args) => events::verify(&client, &output, args).await,
    }
}
