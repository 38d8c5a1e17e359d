//! How accounts went.

use std::sync::Arc;
use std::time::Duration;

use quota_core::rejection::Rejection;
use quota_core::resource::Kind;
use quota_core::time::{SECOND_NS, Timestamp};
use quota_proto::v1;
use quota_store::rows::RowsError;
use tonic::Status;

use super::Admin;
use crate::api::from_proto::{Caller, Reader};
use crate::api::{page, status, to_proto};
use crate::history::History;
use crate::history::rollup::Step;
use crate::history::series::{Point, Query};

/// Steps of a page when none is asked for.
const POINTS_DEFAULT: usize = 1000;
/// Most steps of a page.
const POINTS_MAX: usize = 5000;
/// How long a caller waits for what was durable when it asked.
const CATCH_UP: Duration = Duration::from_millis(500);
/// Nanoseconds of an hour.
const HOUR_NS: i128 = 3600 * SECOND_NS as i128;

impl Admin {
    pub(super) async fn get_usage_history(
        &self,
        request: v1::GetUsageHistoryRequest,
        _: Caller,
    ) -> Result<v1::GetUsageHistoryResponse, Status> {
        let mut reader = Reader::default();
        let subject = reader.subject("subject", &request.subject);
        let resource = reader.resource("resource", &request.resource);
        let step = match request.step() {
            v1::HistoryStep::FiveMinutes => Some(Step::FiveMinutes),
            v1::HistoryStep::Hour => Some(Step::Hour),
            v1::HistoryStep::Day => Some(Step::Day),
            v1::HistoryStep::Unspecified => {
                let text = format!("{} is no step; FIVE_MINUTES, HOUR or DAY", request.step);
                reader.wrong("step", text);
                None
            }
        };
        if request.start_time.is_none() {
            reader.wrong("start_time", "is not given; from when on");
        }
        let start = reader.instant("start_time", request.start_time);
        let end = reader.instant("end_time", request.end_time);
        if let (Some(start), Some(end)) = (start, end)
            && end <= start
        {
            reader.wrong("end_time", "is not after start_time");
        }
        let most = page::size_of(&mut reader, request.page_size, POINTS_DEFAULT, POINTS_MAX);
        let filter = format!(
            "GetUsageHistory {subject} {} {step:?} {start:?} {end:?}",
            request.resource
        );
        let after = page::after(&mut reader, &filter, &request.page_token);
        reader.finish()?;
        let after = after.parse().ok().map(Timestamp::from_nanos);
        let (Some(resource), Some(step), Some(start)) = (resource, step, after.or(start)) else {
            return Err(status::bug());
        };
        let tables = self.engine.views().tables();
        let known = tables
            .resources
            .get(resource.as_str())
            .map(|known| known.kind);
        let query = Query {
            subject: subject.clone(),
            resource: resource.clone(),
            step,
            from: start,
            to: end.unwrap_or(Timestamp::from_nanos(i64::MAX)),
            most,
        };
        let engine = self.engine.clone();
        let read = reading(&self.history, move |history| {
            let complete = history.catch_up(CATCH_UP);
            let now = engine.clock().now();
            Ok((history.series(&query, now)?, now, complete))
        });
        let (series, now, complete) = read.await?;
        let Some(series) = series else {
            // A name that never was is a mistake; a subject of which nothing is known yet is not.
            if self.engine.views().subject(subject.as_str()).is_none() {
                return Err(status::of_rejection(&Rejection::NoSubject(subject)));
            }
            let Some(kind) = known else {
                return Err(status::of_rejection(&Rejection::ResourceUnknown(resource)));
            };
            return Ok(v1::GetUsageHistoryResponse {
                kind: to_proto::kind(kind).into(),
                read_time: Some(to_proto::timestamp(now)),
                complete,
                ..v1::GetUsageHistoryResponse::default()
            });
        };
        let token = |next: Timestamp| page::token(&filter, &next.nanos().to_string());
        Ok(v1::GetUsageHistoryResponse {
            points: series
                .points
                .iter()
                .map(|point| point_of(point, series.kind))
                .collect(),
            next_page_token: series.next.map_or(String::new(), token),
            kind: to_proto::kind(series.kind).into(),
            oldest_time: Some(to_proto::timestamp(series.oldest)),
            read_time: Some(to_proto::timestamp(now)),
            complete,
        })
    }

    /// Adds what the history knows to the accounts of a subject. It is no part of what is in use: where it cannot
    /// be read, the answer goes without.
    pub(super) async fn add_history(
        &self,
        mut usage: v1::SubjectUsage,
        now: Timestamp,
    ) -> v1::SubjectUsage {
        let mut reader = Reader::default();
        let subject = reader.subject("subject", &usage.subject);
        let asked: Vec<_> = usage
            .resources
            .iter()
            .map(|account| reader.resource("resource", &account.resource))
            .collect();
        let read = reading(&self.history, move |history| {
            let summary = |resource: &Option<_>| match resource {
                Some(resource) => history.summary(&subject, resource, now),
                None => Ok(None),
            };
            asked.iter().map(summary).collect::<Result<Vec<_>, _>>()
        });
        let Ok(summaries) = read.await else {
            return usage;
        };
        for (account, summary) in usage.resources.iter_mut().zip(summaries) {
            let Some(summary) = summary else {
                continue;
            };
            // What was charged a moment ago may not have been told yet.
            account.used_peak_day = summary.peak.map(|peak| peak.max(account.used));
            if is_held(summary.kind) {
                account.unit_hours = Some(unit_hours(summary.total.used));
                account.unit_hours_since_time = Some(to_proto::timestamp(summary.since));
            }
        }
        usage
    }
}

/// Reads the history, away from the runtime's threads.
async fn reading<T: Send + 'static>(
    history: &Arc<History>,
    read: impl FnOnce(&History) -> Result<T, RowsError> + Send + 'static,
) -> Result<T, Status> {
    let history = history.clone();
    match tokio::task::spawn_blocking(move || read(&history)).await {
        Ok(read) => read.map_err(|error| status::of_history(&error)),
        Err(_) => Err(status::bug()),
    }
}

/// Whether an amount over time means anything.
fn is_held(kind: Kind) -> bool {
    matches!(kind, Kind::Allocation | Kind::Concurrency)
}

fn point_of(point: &Point, kind: Kind) -> v1::UsagePoint {
    let bucket = &point.bucket;
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let over = |area: i128| is_held(kind).then(|| unit_hours(area));
    v1::UsagePoint {
        start_time: Some(to_proto::timestamp(point.start)),
        end_time: Some(to_proto::timestamp(point.end)),
        used_min: bucket.used_min,
        used_max: bucket.used_max,
        used_mean: if is_held(kind) { point.used_mean() } else { 0 },
        used_last: bucket.last.used,
        held_max: bucket.held_max,
        held_last: bucket.last.held,
        limit: bucket.limit.map(to_proto::limit),
        unit_hours: over(bucket.area.used),
        held_unit_hours: over(bucket.area.held),
        counted: bucket.counted,
        granted_count: count(bucket.granted),
        refused_count: count(bucket.refused),
    }
}

fn unit_hours(area: i128) -> v1::UnitHours {
    let number = |wide: i128| i64::try_from(wide).unwrap_or(i64::MAX);
    v1::UnitHours {
        hours: number(area / HOUR_NS),
        nanos: number(area % HOUR_NS),
    }
}
