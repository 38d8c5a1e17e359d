//! `usage --history`: how accounts went, drawn in the terminal.

use quota_client::v1::{
    ErrorReason, GetUsageHistoryRequest, GetUsageRequest, HistoryStep, Resource, ResourceKind,
    UnitHours, UsagePoint, limit,
};
use quota_client::{Client, ProtoDuration, Timestamp};
use serde_json::{Value, json};

use crate::output::{Output, time};
use crate::units::{self, Units};
use crate::{Ending, Failure, chart, json as show, times};

/// Most steps in one answer.
const PAGE: i32 = 5000;
const HOUR_NS: i128 = 3_600_000_000_000;
const MINUTE_SECS: i64 = 60;
const DAY_SECS: i64 = 86_400;
/// A limit so many times the peak stands beside the chart: drawn to it, the columns could not be seen.
const LIMIT_TIMES_MAX: i64 = 4;

/// How one account went.
struct History {
    resource: String,
    kind: ResourceKind,
    step: HistoryStep,
    points: Vec<UsagePoint>,
    complete: bool,
    /// When the account came into being, where that is known.
    since: Option<Timestamp>,
}

/// Shows how the accounts of a subject went in the last `length`; of one resource where it is named.
pub(crate) async fn history(
    client: &Client,
    output: &Output,
    (subject, resource): (&str, &str),
    length: &ProtoDuration,
) -> Result<Ending, Failure> {
    let start = times::ago(length).map_err(Failure::Usage)?;
    let resources = match resource {
        "" => resources(client, subject).await?,
        resource => vec![resource.to_owned()],
    };
    let mut all = Vec::new();
    for resource in resources {
        let history = read(client, subject, resource.clone(), start, length.seconds).await?;
        // Afterwards: the answer before waited for what was durable.
        let since = since(client, subject, resource).await?;
        all.push(History { since, ..history });
    }
    if output.is_json() {
        let series = all.iter().map(series_json).collect::<Value>();
        output.object(&json!({"subject": subject, "history": series}))?;
        return Ok(Ending::Done);
    }
    let mut units = Units::new(client);
    let mut text = String::new();
    for history in &all {
        if !text.is_empty() {
            text.push('\n');
        }
        for line in draw(&mut units, subject, history).await {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    if text.is_empty() {
        text.push_str("nothing was ever in use\n");
    }
    output.text(&text)?;
    Ok(Ending::Done)
}

async fn resources(client: &Client, subject: &str) -> Result<Vec<String>, Failure> {
    let request = GetUsageRequest {
        subject: subject.into(),
        resource: String::new(),
    };
    let usage = client.get_usage(request).await?.usage.unwrap_or_default();
    Ok(usage
        .resources
        .into_iter()
        .map(|have| have.resource)
        .collect())
}

/// When an account came into being; of a deleted subject nobody says.
async fn since(
    client: &Client,
    subject: &str,
    resource: String,
) -> Result<Option<Timestamp>, Failure> {
    let request = GetUsageRequest {
        subject: subject.into(),
        resource,
    };
    let usage = match client.get_usage(request).await {
        Ok(answer) => answer.usage.unwrap_or_default(),
        Err(error) if error.reason == Some(ErrorReason::SubjectUnknown) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let account = usage.resources.into_iter().next();
    Ok(account.and_then(|account| account.unit_hours_since_time))
}

async fn read(
    client: &Client,
    subject: &str,
    resource: String,
    start: Timestamp,
    seconds: i64,
) -> Result<History, Failure> {
    // About as many steps as there are columns, or a few times that.
    let step = match seconds {
        seconds if seconds <= 12 * 60 * MINUTE_SECS => HistoryStep::FiveMinutes,
        seconds if seconds <= 31 * DAY_SECS => HistoryStep::Hour,
        _ => HistoryStep::Day,
    };
    let mut request = GetUsageHistoryRequest {
        subject: subject.into(),
        resource: resource.clone(),
        step: step.into(),
        start_time: Some(start),
        page_size: PAGE,
        ..GetUsageHistoryRequest::default()
    };
    let mut points = Vec::new();
    loop {
        let page = client.get_usage_history(request.clone()).await?;
        let (kind, complete) = (page.kind(), page.complete);
        points.extend(page.points);
        if page.next_page_token.is_empty() {
            return Ok(History {
                resource,
                kind,
                step,
                points,
                complete,
                since: None,
            });
        }
        request.page_token = page.next_page_token;
    }
}

/// Whether it is a level; otherwise something that is counted.
fn is_level(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::Allocation | ResourceKind::Concurrency)
}

async fn draw(units: &mut Units<'_>, subject: &str, history: &History) -> Vec<String> {
    let key = &history.resource;
    let (Some(first), Some(last)) = (history.points.first(), history.points.last()) else {
        return vec![format!("{key}: no history of {subject} yet")];
    };
    let level = is_level(history.kind);
    let value = |point: &UsagePoint| match level {
        true => point.used_max,
        false => point.counted,
    };
    let values: Vec<i64> = history.points.iter().map(value).collect();
    let (columns, each) = chart::columns(&values, |part| match level {
        true => part.iter().copied().max().unwrap_or(0),
        false => part.iter().copied().fold(0, i64::saturating_add),
    });
    let most = columns.iter().copied().max().unwrap_or(0).max(0);
    let limit = last.limit.as_ref().and_then(|limit| match limit.limit {
        Some(limit::Limit::Value(value)) => Some(value),
        _ => None,
    });
    let top = match limit {
        Some(limit) if limit <= most.saturating_mul(LIMIT_TIMES_MAX) => most.max(limit),
        _ => most,
    };
    // Half of it is a label as well.
    let top = top.saturating_add(top % 2).max(2);
    let (high, half) = (units.show(key, top).await, units.show(key, top / 2).await);
    let of_each = match history.step {
        HistoryStep::FiveMinutes => minutes(5 * each),
        HistoryStep::Hour => minutes(60 * each),
        _ => format!("{each} d"),
    };
    let what = if level { "most in use" } else { "counted" };
    let mut lines = vec![format!("{key} of {subject}: {what} in each {of_each}")];
    lines.extend(chart::draw(&columns, top, limit, [&high, &half]));
    let indent = high.chars().count().max(half.chars().count()) + 2;
    let (from, to) = (short(first.start_time), short(last.end_time));
    lines.push(chart::below(columns.len(), indent, &from, &to));
    let resource = units.of(key).await.unwrap_or_default();
    lines.push(summary(&resource, history, last, limit));
    if !history.complete {
        lines.push("the server is still reading its journal; the newest is missing".to_owned());
    }
    lines
}

fn summary(
    resource: &Resource,
    history: &History,
    last: &UsagePoint,
    limit: Option<i64>,
) -> String {
    let points = &history.points;
    let shown = |amount| units::show(amount, resource);
    let mut parts = Vec::new();
    if is_level(history.kind) {
        if let Some(peak) = points.iter().rev().max_by_key(|point| point.used_max) {
            let at = short(peak.start_time);
            parts.push(format!("peak {} at {at}", shown(peak.used_max)));
        }
        let areas = points.iter().map(|point| area(point.unit_hours.as_ref()));
        let area: i128 = areas.sum();
        // Before it came into being it had not nothing: it was not.
        let first = points.first().and_then(|point| point.start_time);
        let began = nanos(first).max(nanos(history.since));
        let mean = units::show_part(area, nanos(last.end_time) - began, resource);
        parts.push(format!("mean {mean}"));
        parts.push(format!("now {}", shown(last.used_last)));
        let hours = units::show_part(area, HOUR_NS, resource);
        parts.push(format!("{hours} × h"));
    } else {
        let counted = points.iter().map(|point| point.counted);
        let counted = counted.fold(0, i64::saturating_add);
        parts.push(format!("{} in all", shown(counted)));
    }
    if let Some(limit) = limit {
        parts.push(format!("limit {}", shown(limit)));
    }
    let sum = |count: fn(&UsagePoint) -> i64| points.iter().map(count).fold(0, i64::saturating_add);
    parts.push(format!("{} granted", sum(|point| point.granted_count)));
    parts.push(format!("{} refused", sum(|point| point.refused_count)));
    parts.join(", ")
}

/// Nanoseconds since the Unix epoch.
fn nanos(at: Option<Timestamp>) -> i128 {
    at.map_or(0, |at| {
        i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos)
    })
}

fn minutes(minutes: usize) -> String {
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

/// An instant to the minute.
fn short(at: Option<Timestamp>) -> String {
    let text = time(at);
    text.get(..16).unwrap_or(&text).replace('T', " ")
}

/// Base units × nanoseconds.
fn area(hours: Option<&UnitHours>) -> i128 {
    hours.map_or(0, |have| {
        i128::from(have.hours) * HOUR_NS + i128::from(have.nanos)
    })
}

fn series_json(history: &History) -> Value {
    let hours = |have: Option<&UnitHours>| {
        have.map(|have| json!({"hours": have.hours, "nanos": have.nanos}))
    };
    let point = |point: &UsagePoint| {
        json!({
            "start_time": time(point.start_time),
            "end_time": time(point.end_time),
            "used_min": point.used_min,
            "used_max": point.used_max,
            "used_mean": point.used_mean,
            "used_last": point.used_last,
            "held_max": point.held_max,
            "held_last": point.held_last,
            "limit": point.limit.as_ref().map(|limit| show::limit(Some(limit))),
            "unit_hours": hours(point.unit_hours.as_ref()),
            "held_unit_hours": hours(point.held_unit_hours.as_ref()),
            "counted": point.counted,
            "granted_count": point.granted_count,
            "refused_count": point.refused_count,
        })
    };
    json!({
        "resource": history.resource,
        "kind": history.kind.as_str_name().trim_start_matches("RESOURCE_KIND_"),
        "step": history.step.as_str_name().trim_start_matches("HISTORY_STEP_"),
        "complete": history.complete,
        "points": history.points.iter().map(point).collect::<Value>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    /// An account of 4 cores that came into being ten minutes before the end of its first hour, and lost half of
    /// it after half of the next.
    #[test]
    fn the_mean_is_of_the_time_since_it_came_into_being() {
        let point = |hour: i64, used_last, core_minutes: i64| UsagePoint {
            start_time: at(hour * 3600),
            end_time: at(hour * 3600 + 3600),
            used_max: 4000,
            used_last,
            unit_hours: Some(UnitHours {
                hours: core_minutes * 1000 / 60,
                nanos: core_minutes * 1000 % 60 * 60_000_000_000,
            }),
            ..UsagePoint::default()
        };
        let cpu = Resource {
            base_unit: "millicores".into(),
            display_unit: "cores".into(),
            display_ratio: 1000,
            ..Resource::default()
        };
        let mut history = History {
            resource: "compute.cpu".into(),
            kind: ResourceKind::Allocation,
            step: HistoryStep::Hour,
            points: vec![point(0, 4000, 40), point(1, 2000, 180)],
            complete: true,
            since: at(3000),
        };
        let told = |history: &History| summary(&cpu, history, &history.points[1], None);
        let text = told(&history);
        assert!(
            text.contains("mean ~3.143 cores, now 2 cores, ~3.667 cores × h"),
            "{text}"
        );
        // One that was there before counts from where the first step begins.
        history.since = at(-9000);
        assert!(told(&history).contains("mean ~1.833 cores"));
        history.since = None;
        assert!(told(&history).contains("mean ~1.833 cores"));
    }
}
