//! What callers do: check, consume, release, resize.

use std::collections::BTreeMap;

use clap::Args;
use quota_client::v1::{
    Allocation, Amount, CheckRequest, ConsumeMode, ConsumeRequest, EffectiveLimit,
    ListAllocationsRequest, ReleaseMatchingRequest, ReleaseRequest, RenewAllocationsRequest,
    ResizeRequest, VerifyInvariantsRequest,
};
use quota_client::{Client, Error};
use serde_json::{Value, json};

use crate::output::{Output, labels, time};
use crate::pages::all_pages;
use crate::times;
use crate::units::{self, Units};
use crate::verdict::{self, Answered, describe};
use crate::{Ending, Failure, is_unavailable, json as show};

/// Who and what.
#[derive(Args)]
pub(crate) struct WhatArgs {
    /// Subject that would be charged, such as tenants/acme/projects/web.
    subject: String,
    /// What would be charged, such as compute.cpu=4cores compute.memory=16GiB.
    #[arg(required = true, value_name = "RESOURCE=AMOUNT", value_parser = units::split)]
    amounts: Vec<(String, String)>,
    /// A further subject to charge; up to four times.
    #[arg(long, value_name = "SUBJECT")]
    also: Vec<String>,
}

impl WhatArgs {
    /// Who and what, apart.
    pub(crate) async fn read(
        self,
        units: &mut Units<'_>,
    ) -> Result<(String, Vec<String>, Vec<Amount>), Failure> {
        let amounts = amounts(units, &self.amounts).await?;
        Ok((self.subject, self.also, amounts))
    }
}

/// How it is decided.
#[derive(Args)]
pub(crate) struct ModeArgs {
    /// It has happened: charge it even above limits.
    #[arg(long)]
    record: bool,
    /// As much of one resource as fits, at least one.
    #[arg(long, conflicts_with = "record")]
    best_effort: bool,
    /// As much of one resource as fits, at least this.
    #[arg(long, value_name = "AMOUNT", conflicts_with = "record")]
    minimum: Option<String>,
}

impl ModeArgs {
    async fn read(
        &self,
        units: &mut Units<'_>,
        amounts: &[(String, String)],
    ) -> Result<(i32, Option<i64>), Failure> {
        let minimum = match (&self.minimum, amounts.first()) {
            (Some(text), Some((resource, _))) => Some(units.amount(resource, text).await?),
            _ => None,
        };
        let mode = match (self.record, self.best_effort || minimum.is_some()) {
            (true, _) => ConsumeMode::Record,
            (_, true) => ConsumeMode::BestEffort,
            _ => ConsumeMode::Strict,
        };
        Ok((mode.into(), minimum))
    }
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    what: WhatArgs,
    #[command(flatten)]
    mode: ModeArgs,
    /// One instant over all accounts: waits for the writer.
    #[arg(long)]
    consistent: bool,
}

#[derive(Args)]
pub(crate) struct RenewArgs {
    /// Subject that was charged.
    subject: String,
    /// Names of its allocations.
    #[arg(required = true, value_name = "ALLOCATION")]
    allocations: Vec<String>,
    /// How long from now on.
    #[arg(long, value_name = "TIME", value_parser = times::duration)]
    ttl: quota_client::ProtoDuration,
    #[command(flatten)]
    operation: OperationArgs,
}

#[derive(Args)]
pub(crate) struct ConsumeArgs {
    #[command(flatten)]
    what: WhatArgs,
    /// Name of the allocation below the subject, such as a VM's uuid.
    #[arg(long, value_name = "ID")]
    allocation: Option<String>,
    /// How long the CONCURRENCY resources count unless renewed, such as 60s. Needed where there are any.
    #[arg(long, value_name = "TIME", value_parser = times::duration)]
    ttl: Option<quota_client::ProtoDuration>,
    #[command(flatten)]
    operation: OperationArgs,
    #[command(flatten)]
    mode: ModeArgs,
    /// A label of the allocation; up to eight times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// What it is for.
    #[arg(long, default_value = "")]
    purpose: String,
}

#[derive(Args)]
pub(crate) struct OperationArgs {
    /// Made before the first attempt, given again only when the answer was lost.
    #[arg(long, value_name = "ID", default_value = "")]
    operation_id: String,
    /// The system that asks.
    #[arg(long, default_value = "quotactl")]
    pub(crate) source: String,
}

#[derive(Args)]
pub(crate) struct ReleaseArgs {
    /// Subject that was charged.
    subject: String,
    /// What to give back; nothing named is everything.
    #[arg(value_name = "RESOURCE=AMOUNT", value_parser = units::split)]
    amounts: Vec<(String, String)>,
    /// Name of the allocation; without it the anonymous one of the subject.
    #[arg(long, value_name = "ID")]
    allocation: Option<String>,
    /// A further subject of the anonymous allocation; up to four times.
    #[arg(long, value_name = "SUBJECT")]
    also: Vec<String>,
    /// Generation that the allocation must have.
    #[arg(long)]
    generation: Option<u64>,
    #[command(flatten)]
    operation: OperationArgs,
}

#[derive(Args)]
pub(crate) struct ResizeArgs {
    /// Subject that was charged.
    subject: String,
    /// New absolute amounts; 0 gives a resource back, what is not named stays.
    #[arg(required = true, value_name = "RESOURCE=AMOUNT", value_parser = units::split)]
    amounts: Vec<(String, String)>,
    /// Name of the allocation.
    #[arg(long, value_name = "ID")]
    allocation: String,
    /// Generation that the allocation must have.
    #[arg(long)]
    generation: Option<u64>,
    /// It has happened: charge growth even above limits.
    #[arg(long)]
    record: bool,
    #[command(flatten)]
    operation: OperationArgs,
}

#[derive(Args)]
pub(crate) struct ReleaseMatchingArgs {
    /// Allocations of this subject and of all below it.
    subject: String,
    /// A label that they all have; at least one.
    #[arg(long = "label", required = true, value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// At most so many in one call.
    #[arg(long, default_value_t = 50)]
    page_size: i32,
    /// Call again, each time as an operation of its own, until nothing matches.
    #[arg(long, conflicts_with = "operation_id")]
    all: bool,
    #[command(flatten)]
    operation: OperationArgs,
}

#[derive(Args)]
pub(crate) struct AllocationsArgs {
    /// Only those of this subject and of all below it.
    #[arg(default_value = "system")]
    subject: String,
    /// Only those that hold this resource.
    #[arg(long, default_value = "")]
    resource: String,
    /// Only those with this label; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

impl OperationArgs {
    /// The id, made here if none was given, so that it is known when the answer is lost.
    pub(crate) fn id(&self) -> String {
        match self.operation_id.is_empty() {
            true => quota_client::new_operation_id(),
            false => self.operation_id.clone(),
        }
    }
}

/// Says how to ask again where the answer was lost.
pub(crate) fn lost(error: Error, operation_id: &str) -> Failure {
    if !is_unavailable(&error) {
        return error.into();
    }
    let message = format!(
        "{}; it may have been applied: ask again with the same arguments and --operation-id {operation_id}",
        error.message
    );
    Failure::Call(Error { message, ..error })
}

pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

pub(crate) async fn amounts(
    units: &mut Units<'_>,
    typed: &[(String, String)],
) -> Result<Vec<Amount>, Failure> {
    let mut amounts = Vec::new();
    for (resource, text) in typed {
        amounts.push(Amount {
            resource: resource.clone(),
            amount: units.amount(resource, text).await?,
        });
    }
    Ok(amounts)
}

pub(crate) async fn check(
    client: &Client,
    output: &Output,
    args: CheckArgs,
) -> Result<Ending, Failure> {
    let mut units = Units::new(client);
    let (mode, minimum) = args.mode.read(&mut units, &args.what.amounts).await?;
    let request = CheckRequest {
        amounts: amounts(&mut units, &args.what.amounts).await?,
        subject: args.what.subject,
        also: args.what.also,
        consistent: args.consistent,
        mode,
        minimum,
    };
    let answer = client.check(request).await?;
    let verdict = answer.verdict.clone().unwrap_or_default();
    let ending = verdict::ending(&verdict);
    if output.is_json() {
        let mut shown = show::verdict(&verdict);
        let limits = answer.effective_limits.iter().map(show::effective_limit);
        shown["effective_limits"] = limits.collect();
        shown["projections"] = answer.projections.iter().map(show::projection).collect();
        shown["journal_unavailable"] = answer.journal_unavailable.into();
        output.object(&shown)?;
        return Ok(ending);
    }
    let mut text = verdict::text(&mut units, &verdict, "granted").await;
    let bounded = |least: &&EffectiveLimit| {
        least.limit.is_some() || verdict.unbounded_resources.contains(&least.resource)
    };
    for least in answer.effective_limits.iter().filter(bounded) {
        text.push_str(&effective(&mut units, least).await);
    }
    if answer.journal_unavailable {
        text.push_str("The journal cannot be written: a consume would be refused now.\n");
    }
    output.text(&text)?;
    Ok(ending)
}

/// The least limit of a resource, as a line.
async fn effective(units: &mut Units<'_>, least: &EffectiveLimit) -> String {
    let limit = units
        .show_limit(&least.resource, least.limit.as_ref())
        .await;
    let per = match (&least.period, &least.interval) {
        (Some(period), _) => match times::period_name(period).as_str() {
            "none" => String::new(),
            name => format!(" per {name}"),
        },
        (None, Some(interval)) => format!(" per {}", times::duration_name(interval)),
        (None, None) => String::new(),
    };
    match least.subject.as_str() {
        "" => format!("{}: unbounded\n", least.resource),
        subject => format!(
            "{}: at most {limit}{per} ({} of {subject})\n",
            least.resource, least.quota
        ),
    }
}

pub(crate) async fn consume(
    client: &Client,
    output: &Output,
    args: ConsumeArgs,
) -> Result<Ending, Failure> {
    let mut units = Units::new(client);
    let id = args.operation.id();
    let (mode, minimum) = args.mode.read(&mut units, &args.what.amounts).await?;
    let request = ConsumeRequest {
        amounts: amounts(&mut units, &args.what.amounts).await?,
        subject: args.what.subject,
        also: args.what.also,
        operation_id: id.clone(),
        allocation_id: args.allocation.unwrap_or_default(),
        mode,
        minimum,
        ttl: args.ttl,
        labels: args.labels.into_iter().collect(),
        source: args.operation.source,
        purpose: args.purpose,
        operation_age: None,
    };
    let answer = client
        .consume(request)
        .await
        .map_err(|error| lost(error, &id))?;
    let answered = Answered {
        verdict: answer.verdict.unwrap_or_default(),
        granted: "granted",
        allocation: answer.allocation,
        hold: None,
        operation_id: answer.operation_id,
        replayed: answer.replayed,
    };
    answered.print(&mut units, output).await
}

pub(crate) async fn resize(
    client: &Client,
    output: &Output,
    args: ResizeArgs,
) -> Result<Ending, Failure> {
    let mut units = Units::new(client);
    let id = args.operation.id();
    let mode = match args.record {
        true => ConsumeMode::Record,
        false => ConsumeMode::Strict,
    };
    let request = ResizeRequest {
        subject: args.subject,
        allocation_id: args.allocation,
        amounts: amounts(&mut units, &args.amounts).await?,
        mode: mode.into(),
        operation_id: id.clone(),
        expected_generation: args.generation,
        source: args.operation.source,
        ..ResizeRequest::default()
    };
    let answer = client
        .resize(request)
        .await
        .map_err(|error| lost(error, &id))?;
    let answered = Answered {
        verdict: answer.verdict.unwrap_or_default(),
        granted: "granted",
        allocation: answer.allocation,
        hold: None,
        operation_id: answer.operation_id,
        replayed: answer.replayed,
    };
    answered.print(&mut units, output).await
}

pub(crate) async fn renew(
    client: &Client,
    output: &Output,
    args: RenewArgs,
) -> Result<Ending, Failure> {
    let id = args.operation.id();
    let request = RenewAllocationsRequest {
        subject: args.subject,
        allocation_ids: args.allocations,
        ttl: Some(args.ttl),
        operation_id: id.clone(),
        source: args.operation.source,
        operation_age: None,
    };
    let answer = client
        .renew_allocations(request)
        .await
        .map_err(|error| lost(error, &id))?;
    let ending = match answer.missing_allocation_ids.is_empty() {
        true => Ending::Done,
        false => Ending::Refused,
    };
    if output.is_json() {
        let renewed = answer.renewed.iter().map(|renewed| {
            json!({
                "allocation_id": renewed.allocation_id,
                "expire_time": time(renewed.expire_time),
            })
        });
        output.object(&json!({
            "renewed": renewed.collect::<Value>(),
            "missing_allocation_ids": answer.missing_allocation_ids,
            "operation_id": answer.operation_id,
            "replayed": answer.replayed,
        }))?;
        return Ok(ending);
    }
    let mut text = String::new();
    for renewed in &answer.renewed {
        let until = time(renewed.expire_time);
        text.push_str(&format!("{} until {until}\n", renewed.allocation_id));
    }
    for missing in &answer.missing_allocation_ids {
        text.push_str(&format!("{missing} has ended; consume it again\n"));
    }
    output.text(&text)?;
    Ok(ending)
}

pub(crate) async fn release(
    client: &Client,
    output: &Output,
    args: ReleaseArgs,
) -> Result<Ending, Failure> {
    let mut units = Units::new(client);
    let id = args.operation.id();
    let request = ReleaseRequest {
        subject: args.subject,
        also: args.also,
        allocation_id: args.allocation.unwrap_or_default(),
        amounts: amounts(&mut units, &args.amounts).await?,
        operation_id: id.clone(),
        expected_generation: args.generation,
        source: args.operation.source,
        ..ReleaseRequest::default()
    };
    let answer = client
        .release(request)
        .await
        .map_err(|error| lost(error, &id))?;
    if output.is_json() {
        output.object(&json!({
            "released": show::amounts(&answer.released),
            "allocation": answer.allocation.as_ref().map(show::allocation),
            "operation_id": answer.operation_id,
            "replayed": answer.replayed,
        }))?;
        return Ok(Ending::Done);
    }
    let mut text = format!("released {}\n", list(&mut units, &answer.released).await);
    match &answer.allocation {
        Some(left) => text.push_str(&format!("left: {}\n", describe(&mut units, left).await)),
        None => text.push_str("nothing is left; the allocation ended\n"),
    }
    output.text(&text)?;
    Ok(Ending::Done)
}

pub(crate) async fn release_matching(
    client: &Client,
    output: &Output,
    args: ReleaseMatchingArgs,
) -> Result<Ending, Failure> {
    let labels: BTreeMap<String, String> = args.labels.into_iter().collect();
    let mut released = 0_i64;
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        let id = args.operation.id();
        let request = ReleaseMatchingRequest {
            subject: args.subject.clone(),
            labels: labels.clone(),
            page_size: args.page_size,
            operation_id: id.clone(),
            source: args.operation.source.clone(),
            operation_age: None,
        };
        let answer = client
            .release_matching(request)
            .await
            .map_err(|error| lost(error, &id))?;
        released += i64::from(answer.released);
        for amount in answer.amounts {
            *sums.entry(amount.resource).or_default() += amount.amount;
        }
        if answer.more && args.all {
            continue;
        }
        if output.is_json() {
            output.object(&json!({"released": released, "more": answer.more, "amounts": sums}))?;
            return Ok(Ending::Done);
        }
        let mut units = Units::new(client);
        let amounts: Vec<Amount> = sums
            .into_iter()
            .map(|(resource, amount)| Amount { resource, amount })
            .collect();
        let more = if answer.more { "; more match" } else { "" };
        let what = list(&mut units, &amounts).await;
        output.text(&format!("released {released} allocations: {what}{more}\n"))?;
        return Ok(Ending::Done);
    }
}

pub(crate) async fn allocations(
    client: &Client,
    output: &Output,
    args: AllocationsArgs,
) -> Result<Ending, Failure> {
    let labels_typed = args.labels.into_iter().collect();
    let found = list_allocations(client, &args.subject, &args.resource, labels_typed).await?;
    if output.is_json() {
        let all: Value = found.iter().map(show::allocation).collect();
        output.object(&json!({"allocations": all}))?;
        return Ok(Ending::Done);
    }
    let mut units = Units::new(client);
    let mut rows = Vec::new();
    for allocation in &found {
        rows.push(vec![
            allocation.subject.clone(),
            allocation.allocation_id.clone(),
            allocation.also.join(", "),
            list(&mut units, &allocation.amounts).await,
            labels(&allocation.labels),
            time(allocation.create_time),
            time(allocation.expire_time),
        ]);
    }
    let header = [
        "subject",
        "allocation",
        "also",
        "holds",
        "labels",
        "since",
        "until",
    ];
    output.table(&header, rows, "no allocations")?;
    Ok(Ending::Done)
}

/// All allocations at and below a subject that hold a resource and have all labels.
pub(crate) async fn list_allocations(
    client: &Client,
    subject: &str,
    resource: &str,
    labels: BTreeMap<String, String>,
) -> Result<Vec<Allocation>, Failure> {
    let request = ListAllocationsRequest {
        subject_prefix: subject.into(),
        resource: resource.into(),
        labels,
        ..ListAllocationsRequest::default()
    };
    Ok(all_pages!(client.list_allocations(request).allocations))
}

pub(crate) async fn verify(client: &Client, output: &Output) -> Result<Ending, Failure> {
    let answer = client.verify_invariants(VerifyInvariantsRequest {}).await?;
    if output.is_json() {
        output.object(&json!({
            "violations": answer.violations,
            "subjects": answer.subjects,
            "allocations": answer.allocations,
        }))?;
    } else {
        let mut text = format!(
            "{} subjects and {} allocations checked\n",
            answer.subjects, answer.allocations
        );
        match answer.violations.is_empty() {
            true => text.push_str("every invariant holds\n"),
            false => text.push_str(&answer.violations.join("\n")),
        }
        output.text(&text)?;
    }
    match answer.violations.is_empty() {
        true => Ok(Ending::Done),
        false => Err(Failure::Other("invariants are broken".into())),
    }
}

pub(crate) async fn list(units: &mut Units<'_>, amounts: &[Amount]) -> String {
    let mut texts = Vec::new();
    for amount in amounts {
        let shown = units.show(&amount.resource, amount.amount).await;
        texts.push(format!("{} {shown}", amount.resource));
    }
    match texts.is_empty() {
        true => "nothing".into(),
        false => texts.join(", "),
    }
}
