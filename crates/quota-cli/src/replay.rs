//! `replay`: a real cluster log against the live server, in strict order, one call at a time.

mod log;
mod openb;
mod plan;
mod run;
mod swf;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quota_client::Client;

use crate::output::Output;
use crate::{Ending, Failure};

#[derive(Subcommand)]
pub(crate) enum ReplayCommand {
    /// A log in Standard Workload Format (Parallel Workloads Archive).
    Swf(ReplayArgs),
    /// A pod list of the Alibaba cluster-trace-gpu-v2023.
    Openb(ReplayArgs),
}

#[derive(Args)]
pub(crate) struct ReplayArgs {
    /// The log; may be gzipped.
    file: PathBuf,
    /// Limit of one subject, such as system:compute.cpu=128cores. May be repeated.
    #[arg(long = "limit", value_name = "SUBJECT:RESOURCE=AMOUNT", value_parser = plan::target)]
    limits: Vec<plan::Typed>,
    /// Limit of every subject whose last collection is COLLECTION, such as users:compute.cpu=32cores.
    /// May be repeated.
    #[arg(long = "limit-each", value_name = "COLLECTION:RESOURCE=AMOUNT", value_parser = plan::target)]
    limits_each: Vec<plan::Typed>,
    /// Go on from what this server has already answered.
    #[arg(long)]
    resume: bool,
    /// Run although other quotas are set on the resources of the log.
    #[arg(long)]
    force: bool,
    /// Number of this run of the same log with the same limits.
    #[arg(long, default_value_t = 0, value_name = "N")]
    run: u32,
}

/// Reads a log.
type Parse = fn(&str) -> Result<log::Log, String>;

pub(crate) async fn replay(
    client: &Client,
    output: &Output,
    command: ReplayCommand,
) -> Result<Ending, Failure> {
    let (args, parse): (_, Parse) = match command {
        ReplayCommand::Swf(args) => (args, swf::parse),
        ReplayCommand::Openb(args) => (args, openb::parse),
    };
    let bytes = log::read(&args.file)?;
    let text = String::from_utf8_lossy(&bytes);
    let shown = args.file.display();
    let log = parse(&text).map_err(|why| Failure::Usage(format!("{shown}: {why}")))?;
    let plan = plan::Plan::new(client, &log, &args.limits, &args.limits_each).await?;
    plan.apply(client, args.force).await?;
    let run = run::Run {
        id: plan.id(&bytes, args.run),
        resume: args.resume,
    };
    run.play(client, output, &log).await
}
