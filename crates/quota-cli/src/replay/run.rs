//! A run: every event in strict order, each with an operation id of its own, so that a run that was cut off
//! can go on and charges nothing twice.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use quota_client::v1::{
    Amount, ConsumeRequest, Decision, ErrorReason, GetUsageRequest, ReleaseRequest,
};
use quota_client::{Client, Error, ProtoDuration};
use serde_json::json;
use tokio::time::Instant;

use super::log::{Event, Job, Log};
use crate::operate::list_allocations;
use crate::output::Output;
use crate::units::Units;
use crate::{Ending, Failure, is_unavailable};

const LABEL: &str = "replay";
const SOURCE: &str = "quotactl-replay";
/// What a resumed run says of the age of its operations.
const RESUME_AGE: Duration = Duration::from_secs(24 * 3600);
/// Events between two steps of the progress bar.
const STEP: usize = 64;

pub(super) struct Run {
    /// The same for the same log, limits and number of the run.
    pub(super) id: String,
    pub(super) resume: bool,
}

/// What has happened so far.
#[derive(Default)]
struct Figures {
    granted: usize,
    refused: usize,
    operations: usize,
    held: BTreeMap<&'static str, i64>,
    peak: BTreeMap<&'static str, i64>,
}

impl Run {
    pub(super) async fn play(
        &self,
        client: &Client,
        output: &Output,
        log: &Log,
    ) -> Result<Ending, Failure> {
        let events = log.events();
        let began = now();
        let mut figures = self.begin(client, log).await?;
        let mut granted = vec![false; log.jobs.len()];
        let bar = progress_bar(events.len());
        for (number, event) in events.iter().enumerate() {
            let job = &log.jobs[event.job];
            let result = match event.consumes {
                true => self.consume(client, number, job, &mut figures).await,
                false if granted[event.job] => {
                    self.release(client, number, job, &mut figures).await
                }
                false => Ok(false),
            };
            match result {
                Ok(decided) => granted[event.job] |= event.consumes && decided,
                Err(failure) => {
                    bar.abandon();
                    return Err(self.explain(failure, number, event, &events));
                }
            }
            if number % STEP == 0 {
                bar.set_position(number as u64);
                bar.set_message(format!(
                    "{} granted, {} refused",
                    figures.granted, figures.refused
                ));
            }
        }
        bar.finish_and_clear();
        self.report(client, output, log, &figures, began.elapsed())
            .await
    }

    /// What others have in use, beneath what this run takes; and whether this run may begin.
    async fn begin(&self, client: &Client, log: &Log) -> Result<Figures, Failure> {
        let labels = [(LABEL.to_owned(), self.id.clone())].into();
        let mine = list_allocations(client, "system", "", labels).await?;
        if !mine.is_empty() && !self.resume {
            return Err(known());
        }
        let usage = self.usage(client).await?;
        let mut figures = Figures::default();
        for key in log.resources() {
            let mine = mine.iter().flat_map(|row| &row.amounts);
            let mine: i64 = mine.filter(|a| a.resource == key).map(|a| a.amount).sum();
            let others = usage.get(key).copied().unwrap_or(0) - mine;
            figures.held.insert(key, others);
            figures.peak.insert(key, others);
        }
        Ok(figures)
    }

    /// What is in use at `system`, per resource.
    async fn usage(&self, client: &Client) -> Result<BTreeMap<String, i64>, Failure> {
        let request = GetUsageRequest {
            subject: "system".into(),
            resource: String::new(),
        };
        let usage = client.get_usage(request).await?.usage.unwrap_or_default();
        let lines = usage.resources.into_iter();
        Ok(lines.map(|line| (line.resource, line.used)).collect())
    }

    /// Says whether it was granted.
    async fn consume(
        &self,
        client: &Client,
        number: usize,
        job: &Job,
        figures: &mut Figures,
    ) -> Result<bool, Failure> {
        let request = ConsumeRequest {
            subject: job.subject.clone(),
            amounts: amounts(job),
            operation_id: self.operation_id(number),
            allocation_id: job.allocation.clone(),
            labels: [(LABEL.to_owned(), self.id.clone())].into(),
            source: SOURCE.into(),
            operation_age: self.age(),
            ..ConsumeRequest::default()
        };
        let first = number == 0 && !self.resume;
        let answer = match first {
            // Tried again by itself, it would take its own first answer for that of an earlier run.
            true => client.without_retries().consume(request).await?,
            false => client.consume(request).await?,
        };
        if answer.replayed && first {
            return Err(known());
        }
        figures.operations += 1;
        if answer.decision() == Decision::Denied {
            figures.refused += 1;
            return Ok(false);
        }
        figures.granted += 1;
        for (key, amount) in &job.amounts {
            let held = figures.held.entry(key).or_default();
            *held += amount;
            let peak = figures.peak.entry(key).or_default();
            *peak = (*peak).max(*held);
        }
        Ok(true)
    }

    async fn release(
        &self,
        client: &Client,
        number: usize,
        job: &Job,
        figures: &mut Figures,
    ) -> Result<bool, Failure> {
        let request = ReleaseRequest {
            subject: job.subject.clone(),
            allocation_id: job.allocation.clone(),
            operation_id: self.operation_id(number),
            source: SOURCE.into(),
            operation_age: self.age(),
            ..ReleaseRequest::default()
        };
        client.release(request).await?;
        figures.operations += 1;
        for (key, amount) in &job.amounts {
            *figures.held.entry(key).or_default() -= amount;
        }
        Ok(true)
    }

    fn operation_id(&self, number: usize) -> String {
        format!("{}-{number}", self.id)
    }

    fn age(&self) -> Option<ProtoDuration> {
        let age = self.resume.then_some(RESUME_AGE)?;
        ProtoDuration::try_from(age).ok()
    }

    fn explain(&self, failure: Failure, number: usize, event: &Event, events: &[Event]) -> Failure {
        let clears = format!(
            "`quotactl release-matching system --label {LABEL}={} --all` gives back what it holds; then use --run with another number",
            self.id
        );
        match failure {
            Failure::Call(error) if error.reason == Some(ErrorReason::OutcomeForgotten) => {
                Failure::Other(format!("{error}: this run cannot be resumed. {clears}"))
            }
            Failure::Call(error) if is_unavailable(&error) => Failure::Call(Error {
                message: format!(
                    "the server was lost at event {number} of {}: {}; go on with --resume",
                    events.len(),
                    error.message
                ),
                ..error
            }),
            Failure::Call(error) => {
                let what = if event.consumes { "consume" } else { "release" };
                Failure::Other(format!("event {number}, a {what}: {error}. {clears}"))
            }
            other => other,
        }
    }

    async fn report(
        &self,
        client: &Client,
        output: &Output,
        log: &Log,
        figures: &Figures,
        took: Duration,
    ) -> Result<Ending, Failure> {
        let usage = self.usage(client).await?;
        let left: BTreeMap<&str, i64> = log
            .resources()
            .into_iter()
            .map(|key| (key, usage.get(key).copied().unwrap_or(0)))
            .collect();
        let jobs = log.jobs.len() + log.skipped;
        let seconds = took.as_secs_f64();
        if output.is_json() {
            output.object(&json!({
                "jobs": jobs,
                "skipped": log.skipped,
                "granted": figures.granted,
                "refused": figures.refused,
                "operations": figures.operations,
                "peak": figures.peak,
                "final": left,
                "seconds": seconds,
            }))?;
            return Ok(Ending::Done);
        }
        output.text(&format!(
            "{jobs} jobs ({} skipped): {} granted, {} refused; {} operations in {seconds:.1} s\n",
            log.skipped, figures.granted, figures.refused, figures.operations
        ))?;
        let mut units = Units::new(client);
        let mut rows = Vec::new();
        for (key, left) in left {
            let peak = figures.peak.get(key).copied().unwrap_or(0);
            rows.push(vec![
                key.to_owned(),
                units.show(key, peak).await,
                units.show(key, left).await,
            ]);
        }
        output.table(&["resource", "peak", "final, of system"], rows, "")?;
        Ok(Ending::Done)
    }
}

fn known() -> Failure {
    Failure::Usage("this server has already answered this run; use --resume or --run".into())
}

fn amounts(job: &Job) -> Vec<Amount> {
    job.amounts
        .iter()
        .map(|(key, amount)| Amount {
            resource: (*key).into(),
            amount: *amount,
        })
        .collect()
}

fn progress_bar(events: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{elapsed_precise} {bar:30} {pos}/{len} events, {per_sec}, {eta} left; {msg}",
    );
    let bar = ProgressBar::new(events as u64);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// For the seconds in the report only.
fn now() -> Instant {
    Instant::now()
}
