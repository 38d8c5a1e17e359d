//! What happened, and what happens.

use clap::{Args, ValueEnum};
use quota_client::v1::event::Detail;
use quota_client::v1::{
    Event, EventKind, GetServerInfoRequest, ListEventsRequest, Severity, VerifyAuditRequest,
    WatchRequest,
};
use quota_client::{Client, Timestamp};
use serde_json::{Value, json};

use crate::output::{Output, exact_time, line, note, time};
use crate::pages::PAGE;
use crate::units::Units;
use crate::{Ending, Failure, json as to_json, times};

/// Kinds that `violations` lists.
const VIOLATIONS: &[EventKind] = &[
    EventKind::Violation,
    EventKind::QuotaExceeded,
    EventKind::OverLimit,
];

/// Which events.
#[derive(Args, Clone)]
pub(crate) struct Which {
    /// Only events about this subject and all below it.
    #[arg(long, default_value = "", value_name = "SUBJECT")]
    subject: String,
    /// Only this kind, such as near_limit or allocation_created; may be given again.
    #[arg(long = "kind", value_name = "KIND", value_parser = kind)]
    kinds: Vec<EventKind>,
    /// Only what matters that much, or more.
    #[arg(long, value_enum)]
    severity: Option<AtLeast>,
}

#[derive(Clone, Copy, ValueEnum)]
enum AtLeast {
    Info,
    Warning,
    Critical,
}

#[derive(Args)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    which: Which,
    /// From then on: an instant such as 2026-12-01T08:00:00Z, or how long ago, such as 1h.
    #[arg(long, default_value = "1h", value_parser = since, value_name = "WHEN")]
    since: Timestamp,
    /// Until then (exclusive).
    #[arg(long, value_parser = since, value_name = "WHEN")]
    until: Option<Timestamp>,
    /// Only what this actor caused. (The global --actor says who asks.)
    #[arg(long, default_value = "", value_name = "ACTOR")]
    by: String,
    /// Only what this operation caused.
    #[arg(long, default_value = "")]
    operation_id: String,
    /// Most events.
    #[arg(long, default_value_t = 1000)]
    most: usize,
    /// Write all events that match, one JSON object per line.
    #[arg(long, value_enum)]
    export: Option<Export>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Export {
    /// As `--output json` has them.
    Jsonl,
    /// CloudEvents 1.0, structured mode.
    Cloudevents,
}

#[derive(Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    which: Which,
    /// Number of the first event to show; those from now on where it is not given.
    #[arg(long, value_name = "SEQUENCE")]
    from: Option<u64>,
}

#[derive(Args)]
pub(crate) struct VerifyAuditArgs {
    /// Hash that an earlier check ended with, and the batch after it: BATCH:HASH.
    #[arg(long, value_parser = anchor, value_name = "BATCH:HASH")]
    after: Option<(u64, String)>,
}

impl EventsArgs {
    /// Whether all go to stdout, one a line.
    pub(crate) fn exports(&self) -> bool {
        self.export.is_some()
    }
}

/// Reads the name of a kind, in either case, with or without its prefix.
fn kind(text: &str) -> Result<EventKind, String> {
    let name = text.to_ascii_uppercase().replace('-', "_");
    let name = name.strip_prefix("EVENT_KIND_").unwrap_or(&name);
    let known = EventKind::from_str_name(&format!("EVENT_KIND_{name}"));
    known
        .filter(|kind| *kind != EventKind::Unspecified)
        .ok_or_else(|| {
            let all: Vec<String> = kinds().map(|kind| kind_name(kind).to_lowercase()).collect();
            format!("is no kind of event; one of {}", all.join(", "))
        })
}

fn kinds() -> impl Iterator<Item = EventKind> {
    (1..).map_while(|number| EventKind::try_from(number).ok())
}

fn kind_name(kind: EventKind) -> &'static str {
    kind.as_str_name().trim_start_matches("EVENT_KIND_")
}

/// Reads an instant, or how long ago it was.
fn since(text: &str) -> Result<Timestamp, String> {
    match times::duration(text) {
        Ok(ago) => times::ago(&ago),
        Err(_) => times::instant(text),
    }
}

fn anchor(text: &str) -> Result<(u64, String), String> {
    let parts = text.split_once(':');
    let read = parts.and_then(|(batch, hash)| Some((batch.parse().ok()?, hash.to_owned())));
    read.ok_or_else(|| "is no BATCH:HASH, as `audit` prints them".to_owned())
}

impl Which {
    fn kinds(&self) -> Vec<i32> {
        self.kinds.iter().map(|kind| (*kind).into()).collect()
    }

    fn severity_min(&self) -> i32 {
        let severity = self
            .severity
            .map_or(Severity::Unspecified, |least| match least {
                AtLeast::Info => Severity::Info,
                AtLeast::Warning => Severity::Warning,
                AtLeast::Critical => Severity::Critical,
            });
        severity.into()
    }
}

pub(crate) async fn events(
    client: &Client,
    output: &Output,
    args: EventsArgs,
) -> Result<Ending, Failure> {
    let mut request = ListEventsRequest {
        start_time: Some(args.since),
        end_time: args.until,
        subject_prefix: args.which.subject.clone(),
        actor: args.by,
        operation_id: args.operation_id,
        kinds: args.which.kinds(),
        severity_min: args.which.severity_min(),
        page_size: PAGE,
        page_token: String::new(),
    };
    let most = match args.export {
        Some(_) => usize::MAX,
        None => args.most,
    };
    let source = match args.export {
        Some(Export::Cloudevents) => source(client).await?,
        _ => String::new(),
    };
    let mut shown = Vec::new();
    let mut more = false;
    loop {
        let page = client.list_events(request.clone()).await?;
        let left = most.saturating_sub(shown.len());
        more |= page.events.len() > left;
        let taken = page.events.into_iter().take(left);
        match args.export {
            Some(export) => taken
                .map(|event| exported(&event, export, &source))
                .try_for_each(|event| line(&event))?,
            None => shown.extend(taken),
        }
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || more {
            break;
        }
    }
    if args.export.is_some() {
        return Ok(Ending::Done);
    }
    if output.is_json() {
        let events: Value = shown.iter().map(to_json::event).collect();
        output.object(&json!({"events": events, "more": more}))?;
        return Ok(Ending::Done);
    }
    let mut units = Units::new(client);
    let mut rows = Vec::new();
    for event in &shown {
        rows.push(vec![
            event.sequence.to_string(),
            time(event.time),
            severity_name(event.severity()).to_lowercase(),
            kind_name(event.kind()).to_lowercase(),
            subject(event),
            about(&mut units, event).await,
            event.actor.clone(),
        ]);
    }
    let header = [
        "event", "time", "severity", "kind", "subject", "about", "actor",
    ];
    output.table(&header, rows, "no such events")?;
    if more {
        note(&"there are more; --most shows more of them, --export all");
    }
    Ok(Ending::Done)
}

/// The same, of limits that were exceeded.
pub(crate) async fn violations(
    client: &Client,
    output: &Output,
    mut args: EventsArgs,
) -> Result<Ending, Failure> {
    if args.which.kinds.is_empty() {
        args.which.kinds = VIOLATIONS.to_vec();
    }
    events(client, output, args).await
}

/// Shows events as they happen, until it is interrupted. A server that goes away is waited for; one that was
/// never there is not.
pub(crate) async fn watch(
    client: &Client,
    output: &Output,
    args: WatchArgs,
) -> Result<Ending, Failure> {
    let mut place = None;
    let ended = follow(client, output, args, &mut place).await;
    let unread = matches!(ended, Err(Failure::Unread));
    if let Some(place) = place.filter(|_| !unread) {
        note(&format!("go on with --from {place}"));
    }
    ended
}

/// Watches; `place` is the first event that was not shown, once there has been a server.
async fn follow(
    client: &Client,
    output: &Output,
    args: WatchArgs,
    place: &mut Option<u64>,
) -> Result<Ending, Failure> {
    let mut watch = client.watch(WatchRequest {
        from_sequence: args.from,
        subject_prefix: args.which.subject.clone(),
        kinds: args.which.kinds(),
        severity_min: args.which.severity_min(),
    });
    let mut units = Units::new(client);
    let mut waiting = false;
    loop {
        let response = match watch.next().await {
            Ok(response) => response,
            Err(error) if place.is_some() && error.is_lost() => {
                if !waiting {
                    note(&"the server is lost; waiting for it");
                }
                waiting = true;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match *place {
            Some(next) if waiting => {
                note(&format!("the server is back; going on from event {next}"));
            }
            Some(_) => {}
            None => {
                let first = response.events.first().map(|event| event.sequence);
                let from = args.from.or(first).unwrap_or(response.next_sequence);
                note(&format!("watching from event {from}"));
            }
        }
        waiting = false;
        for event in &response.events {
            *place = Some(event.sequence);
            show(output, &mut units, event).await?;
        }
        *place = Some(response.next_sequence);
    }
}

async fn show(output: &Output, units: &mut Units<'_>, event: &Event) -> Result<(), Failure> {
    if output.is_json() {
        return line(&to_json::event(event));
    }
    let what = about(units, event).await;
    line(&format!(
        "{:>8}  {}  {:<8}  {:<20}  {}  {what}",
        event.sequence,
        time(event.time),
        severity_name(event.severity()).to_lowercase(),
        kind_name(event.kind()).to_lowercase(),
        subject(event),
    ))
}

/// Checks the whole record, part by part.
pub(crate) async fn verify(
    client: &Client,
    output: &Output,
    args: VerifyAuditArgs,
) -> Result<Ending, Failure> {
    let (from_batch, previous_hash) = args.after.unwrap_or_default();
    let before = format!("{from_batch}:{previous_hash}");
    let mut request = VerifyAuditRequest {
        from_batch,
        previous_hash,
    };
    let (mut first, mut batches) = (0, 0);
    let last = loop {
        let part = client.verify_audit(request).await?;
        if first == 0 {
            first = part.first_batch;
        }
        if part.last_batch > 0 {
            batches += part.last_batch - part.first_batch + 1;
        }
        if !part.problem.is_empty() || part.next_batch == 0 {
            break part;
        }
        note(&format!("{batches} batches are whole so far"));
        request = VerifyAuditRequest {
            from_batch: part.next_batch,
            previous_hash: part.last_hash,
        };
    };
    let anchor = match last.last_batch {
        0 => before,
        batch => format!("{}:{}", batch + 1, last.last_hash),
    };
    if output.is_json() {
        output.object(&json!({
            "first_batch": first,
            "last_batch": last.last_batch,
            "last_hash": last.last_hash,
            "problem": last.problem,
        }))?;
    } else if last.problem.is_empty() {
        output.text(&format!(
            "whole: {batches} batches from {first} on, each bears the hash of the one before\n\
             a later check goes on with --after {anchor}\n"
        ))?;
    }
    match last.problem.is_empty() {
        true => Ok(Ending::Done),
        false => Err(Failure::Other(format!("not whole: {}", last.problem))),
    }
}

/// The source of CloudEvents: events of two stores have the same numbers, and no two may have the same source
/// and id.
async fn source(client: &Client) -> Result<String, Failure> {
    let info = client.get_server_info(GetServerInfoRequest {}).await?;
    match info.store_id.as_str() {
        "" => Err(Failure::Other(
            "the server does not say the id of its store, which CloudEvents need; it is an older one".into(),
        )),
        id => Ok(format!("/quota.v1/stores/{id}")),
    }
}

fn exported(event: &Event, export: Export, source: &str) -> Value {
    match export {
        Export::Jsonl => to_json::event(event),
        Export::Cloudevents => json!({
            "specversion": "1.0",
            "id": event.sequence.to_string(),
            "source": source,
            "type": format!("quota.v1.{}", kind_name(event.kind()).to_lowercase()),
            "subject": subject(event),
            "time": event.time.map(exact_time),
            "datacontenttype": "application/json",
            "data": to_json::event(event),
        }),
    }
}

pub(crate) fn severity_name(severity: Severity) -> &'static str {
    severity.as_str_name().trim_start_matches("SEVERITY_")
}

/// Whom it is about; the pattern for a default quota.
fn subject(event: &Event) -> String {
    match &event.detail {
        Some(Detail::LimitChange(change)) => change.target.clone(),
        _ if event.subject.is_empty() => "-".into(),
        _ => event.subject.clone(),
    }
}

/// The detail in a few words.
async fn about(units: &mut Units<'_>, event: &Event) -> String {
    match &event.detail {
        None => String::new(),
        Some(Detail::Charge(charge)) => {
            let mut parts = Vec::new();
            for (what, amounts) in [("", &charge.used), ("held ", &charge.held)] {
                for amount in amounts {
                    let shown = units.show(&amount.resource, amount.amount).await;
                    let sign = if amount.amount > 0 { "+" } else { "" };
                    parts.push(format!("{what}{} {sign}{shown}", amount.resource));
                }
            }
            parts.extend(allocation_id(&charge.allocation));
            parts.extend(last_part(&charge.hold));
            parts.join(", ")
        }
        Some(Detail::LimitChange(change)) => {
            let key = &change.resource;
            let (before, after) = (change.before.as_ref(), change.after.as_ref());
            let mut texts = Vec::new();
            for limit in [before, after] {
                texts.push(match limit {
                    Some(_) => units.show_limit(key, limit).await,
                    None => "none".into(),
                });
            }
            format!("{}: {}", quota_text(key, &change.quota), texts.join(" -> "))
        }
        Some(Detail::Refusal(refusal)) => {
            let finding = refusal.finding.clone().unwrap_or_default();
            format!(
                "{}, {} refused",
                finding_text(units, &finding).await,
                refusal.count
            )
        }
        Some(Detail::Finding(finding)) => finding_text(units, finding).await,
        Some(Detail::Crossing(crossing)) => {
            let key = &crossing.resource;
            let level = |level: quota_client::v1::LimitLevel| {
                let name = level.as_str_name();
                name.trim_start_matches("LIMIT_LEVEL_").to_lowercase()
            };
            let limit = match crossing.limit {
                Some(limit) => units.show(key, limit).await,
                None => "none".into(),
            };
            let taken = units
                .show(key, crossing.used.saturating_add(crossing.held))
                .await;
            let (from, to) = (level(crossing.from()), level(crossing.to()));
            format!(
                "{key} {}: {taken} of {limit}, {from} -> {to}",
                crossing.quota
            )
        }
        Some(Detail::Usage(usage)) => {
            let mut parts = Vec::new();
            for account in &usage.accounts {
                let used = units.show(&account.resource, account.used).await;
                let held = match account.held {
                    0 => String::new(),
                    held => format!(" + {} held", units.show(&account.resource, held).await),
                };
                parts.push(format!("{} {used}{held}", account.resource));
            }
            parts.join(", ")
        }
        Some(Detail::ResourceChange(change)) => change.resource.clone(),
        Some(Detail::UsageChange(change)) => format!("{} {}", change.resource, change.purpose),
        Some(Detail::ClockChange(change)) => {
            let offset = change.offset.as_ref().map(times::shown);
            format!("wall clock off by {}", offset.unwrap_or_default())
        }
        Some(Detail::Recovery(recovery)) => match recovery.rows_rebuilt {
            true => format!("{} batches laid over rebuilt rows", recovery.batches),
            false => format!("{} batches laid over the rows", recovery.batches),
        },
    }
}

/// The id of an allocation, of its name; the anonymous one has the further subjects in its place.
fn allocation_id(name: &str) -> Option<String> {
    match name.contains("/allocations/?") {
        true => Some("(anonymous)".into()),
        false => last_part(name),
    }
}

fn last_part(name: &str) -> Option<String> {
    let part = name.rsplit('/').next()?;
    (!part.is_empty()).then(|| part.to_owned())
}

/// A quota, by its resource where it is named after that.
fn quota_text(resource: &str, quota: &str) -> String {
    match quota == resource {
        true => resource.to_owned(),
        false => format!("{resource} {quota}"),
    }
}

async fn finding_text(units: &mut Units<'_>, finding: &quota_client::v1::LimitFinding) -> String {
    let key = &finding.resource;
    let reason = finding.reason().as_str_name();
    let limit = units.show_limit(key, finding.limit.as_ref()).await;
    let used = units
        .show(key, finding.used.saturating_add(finding.held))
        .await;
    let asked = units.show(key, finding.requested).await;
    format!(
        "{} {key} of {}: {used} + {asked} > {limit}",
        reason.trim_start_matches("REFUSAL_REASON_"),
        finding.subject,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_told_by_their_ids() {
        for (name, told) in [
            ("tenants/a/allocations/job-1", Some("job-1")),
            ("tenants/a/allocations/?", Some("(anonymous)")),
            (
                "tenants/a/allocations/?teams/x,users/u",
                Some("(anonymous)"),
            ),
            ("", None),
        ] {
            assert_eq!(allocation_id(name).as_deref(), told, "{name}");
        }
    }
}
