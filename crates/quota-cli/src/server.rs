//! The server itself, and corrections of what was counted.

use clap::{Args, Subcommand};
use quota_client::Client;
use quota_client::v1::{
    AcceptClockRequest, ClockInfo, CorrectUsageRequest, GetServerInfoRequest, ResetUsageRequest,
    SetLogFilterRequest,
};
use serde_json::{Value, json};

use crate::operate::amounts;
use crate::output::{Output, time};
use crate::times;
use crate::units::{self, Units};
use crate::{Ending, Failure};

#[derive(Subcommand)]
pub(crate) enum ServerCommand {
    /// What runs there, and how it is.
    Info,
    /// Accept a step of the wall clock: forward at once, backward by waiting until it has caught up.
    AcceptClock,
    /// Say which log lines are written there until it stops, such as `quota_server=debug,info`.
    SetLogFilter {
        /// The filter.
        filter: String,
    },
}

#[derive(Args)]
pub(crate) struct ResetArgs {
    /// The subject; what its ancestors counted stays.
    subject: String,
    /// Key of a COUNTER or a RATE.
    resource: String,
    /// Only the count or the bucket that this quota measures.
    #[arg(long, default_value = "")]
    id: String,
    /// Why.
    #[arg(long, default_value = "")]
    purpose: String,
    /// Only say what would be answered; nothing is changed.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub(crate) struct CorrectArgs {
    /// Subject that was charged, with all its ancestors.
    subject: String,
    /// What to add; below zero to take off, such as network.egress=-5GB.
    #[arg(required = true, value_name = "RESOURCE=AMOUNT", value_parser = units::split)]
    amounts: Vec<(String, String)>,
    /// A further subject that was charged; up to four times.
    #[arg(long, value_name = "SUBJECT")]
    also: Vec<String>,
    /// It was counted in periods that are over: only the lifetime counts change.
    #[arg(long)]
    past: bool,
    /// Why.
    #[arg(long)]
    purpose: String,
    /// Only say what would be answered; nothing is changed.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn server(
    client: &Client,
    output: &Output,
    command: ServerCommand,
) -> Result<Ending, Failure> {
    match command {
        ServerCommand::Info => info(client, output).await,
        ServerCommand::SetLogFilter { filter } => set_log_filter(client, output, filter).await,
        ServerCommand::AcceptClock => {
            let answer = client.accept_clock(AcceptClockRequest::default()).await?;
            let before = answer.previous.unwrap_or_default();
            let after = answer.clock.unwrap_or_default();
            match output.is_json() {
                true => {
                    output.object(&json!({"previous": clock(&before), "clock": clock(&after)}))?
                }
                false => output.text(&format!(
                    "before: {}\nnow:    {}\n",
                    clock_text(&before),
                    clock_text(&after)
                ))?,
            }
            Ok(Ending::Done)
        }
    }
}

async fn set_log_filter(
    client: &Client,
    output: &Output,
    log_filter: String,
) -> Result<Ending, Failure> {
    let request = SetLogFilterRequest { log_filter };
    let answer = client.set_log_filter(request).await?;
    match output.is_json() {
        true => output.object(&json!({"previous": answer.previous}))?,
        false => output.text(&format!("set; it was {}\n", answer.previous))?,
    }
    Ok(Ending::Done)
}

async fn info(client: &Client, output: &Output) -> Result<Ending, Failure> {
    let info = client.get_server_info(GetServerInfoRequest {}).await?;
    let state = info.clock.unwrap_or_default();
    let uptime = info.uptime.as_ref().map(times::wait).unwrap_or_default();
    if output.is_json() {
        output.object(&json!({
            "version": info.version,
            "uptime": uptime,
            "clock": clock(&state),
            "subjects": info.subjects,
            "allocations": info.allocations,
            "holds": info.holds,
            "patterns": info.patterns,
            "operations": info.operations,
            "queued": info.queued,
            "journal_unavailable": info.journal_unavailable,
            "applied_sequence": info.applied_sequence,
            "rows_failure": info.rows_failure,
            "store_id": info.store_id,
        }))?;
        return Ok(Ending::Done);
    }
    let journal = match info.journal_unavailable {
        true => "cannot be written".to_owned(),
        false => "written".to_owned(),
    };
    let rows_state = match info.rows_failure.as_str() {
        "" => format!("applied up to batch {}", info.applied_sequence),
        failure => format!("cannot be written: {failure}"),
    };
    let rows = [
        ("version", info.version),
        ("store", info.store_id),
        ("uptime", uptime),
        ("clock", clock_text(&state)),
        ("subjects", info.subjects.to_string()),
        ("allocations", info.allocations.to_string()),
        ("holds", info.holds.to_string()),
        ("patterns with defaults", info.patterns.to_string()),
        ("remembered operations", info.operations.to_string()),
        ("waiting commands", info.queued.to_string()),
        ("journal", journal),
        ("rows", rows_state),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    output.table(&["", ""], rows.to_vec(), "")?;
    Ok(Ending::Done)
}

fn clock(info: &ClockInfo) -> Value {
    json!({
        "now": time(info.now),
        "offset": info.offset.as_ref().map(times::shown),
        "suspect": info.suspect,
        "waiting": info.waiting,
    })
}

fn clock_text(info: &ClockInfo) -> String {
    let now = time(info.now);
    let offset = info.offset.as_ref().map(times::shown).unwrap_or_default();
    match (info.suspect, info.waiting) {
        (true, _) => format!(
            "{now}; the wall clock stepped by {offset} and is not followed: `server accept-clock` once it is right"
        ),
        (_, true) => format!("{now}; at nine tenths until the wall clock has caught up ({offset})"),
        _ => format!("{now}; the wall clock is off by {offset}"),
    }
}

pub(crate) async fn reset(
    client: &Client,
    output: &Output,
    args: ResetArgs,
) -> Result<Ending, Failure> {
    let request = ResetUsageRequest {
        subject: args.subject,
        resource: args.resource.clone(),
        quota_id: args.id,
        purpose: args.purpose,
        validate_only: args.dry_run,
        ..ResetUsageRequest::default()
    };
    let answer = client.reset_usage(request).await?;
    if output.is_json() {
        output.object(&json!({"previous": answer.previous}))?;
        return Ok(Ending::Done);
    }
    let before = Units::new(client)
        .show(&args.resource, answer.previous)
        .await;
    let done = if args.dry_run { "would be" } else { "is" };
    output.text(&format!("{} {done} zero; it was {before}\n", args.resource))?;
    Ok(Ending::Done)
}

pub(crate) async fn correct(
    client: &Client,
    output: &Output,
    args: CorrectArgs,
) -> Result<Ending, Failure> {
    let mut units = Units::new(client);
    let request = CorrectUsageRequest {
        subject: args.subject,
        also: args.also,
        amounts: amounts(&mut units, &args.amounts).await?,
        past: args.past,
        purpose: args.purpose,
        validate_only: args.dry_run,
        ..CorrectUsageRequest::default()
    };
    let typed = request.amounts.clone();
    let answer = client.correct_usage(request).await?;
    if output.is_json() {
        let counts = answer.counts.iter().map(|count| {
            json!({
                "subject": count.subject,
                "resource": count.resource,
                "previous": count.previous,
            })
        });
        output.object(&json!({"counts": counts.collect::<Value>()}))?;
        return Ok(Ending::Done);
    }
    let mut rows = Vec::new();
    for count in &answer.counts {
        let change = typed
            .iter()
            .find(|amount| amount.resource == count.resource);
        let after = count
            .previous
            .saturating_add(change.map_or(0, |amount| amount.amount));
        rows.push(vec![
            count.subject.clone(),
            count.resource.clone(),
            units.show(&count.resource, count.previous).await,
            units.show(&count.resource, after).await,
        ]);
    }
    let after = if args.dry_run { "would be" } else { "is" };
    output.table(&["subject", "resource", "was", after], rows, "nothing")?;
    Ok(Ending::Done)
}
