//! Quotas.

use clap::{Args, Subcommand, ValueEnum};
use quota_client::v1::{
    DeleteQuotaRequest, Enforcement, ErrorReason, ExplainQuotaRequest, ExplainedQuota,
    GetQuotaRequest, ListQuotasRequest, Period, Quota, QuotaState, Rate, UpdateQuotaRequest,
    WithoutQuota,
};
use quota_client::{Client, Timestamp};
use serde_json::{Value, json};

use super::{ChangeArgs, deleted, given_or, labels_of, print_json};
use crate::operate::label;
use crate::output::{Output, labels, note, time};
use crate::pages::all_pages;
use crate::times;
use crate::units::Units;
use crate::{Ending, Failure, json as show};

#[derive(Subcommand)]
#[allow(
    clippy::large_enum_variant,
    reason = "one value, made once from the command line"
)]
pub(crate) enum QuotaCommand {
    /// Create a quota, or change it; what is not given stays. Usage is never touched.
    Set(SetArgs),
    /// Show one.
    Get(KeyArgs),
    /// List those at and below a subject or pattern.
    List {
        /// Where to begin.
        #[arg(default_value = "system")]
        prefix: String,
        /// Only this resource.
        #[arg(long, default_value = "")]
        resource: String,
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<StateArg>,
        /// Only those with this label; may be repeated.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
    /// Delete one. Usage stays.
    Delete {
        #[command(flatten)]
        key: KeyArgs,
        /// Accept that a lower default comes into force.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Explain which quotas bound a resource of a subject, from the system down, and why.
    Explain {
        /// A subject; it need not exist.
        subject: String,
        /// Key of the resource.
        resource: String,
        /// A further subject that would be charged; up to four times.
        #[arg(long, value_name = "SUBJECT")]
        also: Vec<String>,
    },
}

#[derive(Args)]
pub(crate) struct KeyArgs {
    /// A subject, or a pattern such as 'tenants/*'.
    subject: String,
    /// Key of the resource.
    resource: String,
    /// Id of the quota. Left out: the only one there is, or one named after the resource with its period or
    /// the interval of its rate.
    #[arg(long, default_value = "")]
    id: String,
}

#[derive(Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// The limit, such as 128cores, 1TiB, 0 or unlimited; of a RATE the amount per interval. Needed for a new
    /// quota.
    #[arg(long, value_name = "AMOUNT|unlimited")]
    limit: Option<String>,
    /// Period of a COUNTER: none, hour, day, week, month, year, a number of them such as 3months, or a fixed
    /// time such as 600s.
    #[arg(long, value_parser = times::period)]
    period: Option<Period>,
    /// An instant at which a period begins, such as 2026-01-15.
    #[arg(long, value_name = "TIME", value_parser = times::instant, requires = "period")]
    anchor: Option<Timestamp>,
    /// Interval of a RATE, such as 60s.
    #[arg(long, value_name = "INTERVAL", value_parser = times::duration)]
    rate: Option<quota_client::ProtoDuration>,
    /// The most at once of a RATE; the limit where left out.
    #[arg(long, value_name = "AMOUNT")]
    bucket: Option<String>,
    /// What it does when exceeded.
    #[arg(long, value_enum)]
    enforcement: Option<EnforcementArg>,
    /// Longest time that a throttled caller is told to wait, such as 5s.
    #[arg(long, value_name = "TIME", value_parser = times::duration)]
    delay_max: Option<quota_client::ProtoDuration>,
    /// Whether it is in force.
    #[arg(long, value_enum)]
    state: Option<StateArg>,
    /// From when on it is in force: 2026-12-01, 2026-12-01T08:00:00Z or +7d; `always` takes the bound away.
    #[arg(long, value_name = "TIME", value_parser = times::bound)]
    from: Option<times::Bound>,
    /// Until when it is in force (exclusive).
    #[arg(long, value_name = "TIME", value_parser = times::bound)]
    until: Option<times::Bound>,
    /// Largest amount of one request; `unlimited` takes the bound away.
    #[arg(long, value_name = "AMOUNT|unlimited")]
    max_request: Option<String>,
    /// Share of the limit, in percent, from which answers warn.
    #[arg(long, value_name = "PERCENT")]
    near: Option<i32>,
    /// For people.
    #[arg(long)]
    display_name: Option<String>,
    /// A label; may be repeated. They take the place of those that were there.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Take all labels away.
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// Accept a limit below what is in use, or a lower default.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnforcementArg {
    /// Refuses.
    Deny,
    /// Lets pass and reports the violation.
    Warn,
    /// Lets pass and reports that it would have refused.
    Shadow,
    /// Asks the caller to wait; of a RATE.
    Throttle,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateArg {
    /// In force.
    Active,
    /// As if absent.
    Disabled,
    /// No growth.
    Suspended,
}

impl From<EnforcementArg> for Enforcement {
    fn from(enforcement: EnforcementArg) -> Self {
        match enforcement {
            EnforcementArg::Deny => Self::Deny,
            EnforcementArg::Warn => Self::Warn,
            EnforcementArg::Shadow => Self::Shadow,
            EnforcementArg::Throttle => Self::Throttle,
        }
    }
}

impl From<StateArg> for QuotaState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Active => Self::Active,
            StateArg::Disabled => Self::Disabled,
            StateArg::Suspended => Self::Suspended,
        }
    }
}

pub(crate) async fn quota(
    client: &Client,
    output: &Output,
    command: QuotaCommand,
) -> Result<Ending, Failure> {
    let mut units = Units::new(client);
    let quota = match command {
        QuotaCommand::Set(args) => set(client, &mut units, args).await?,
        QuotaCommand::Get(key) => {
            let request = GetQuotaRequest {
                subject: key.subject,
                resource: key.resource,
                quota_id: key.id,
            };
            client.get_quota(request).await?.quota.unwrap_or_default()
        }
        QuotaCommand::List {
            prefix,
            resource,
            state,
            labels,
        } => {
            let request = ListQuotasRequest {
                subject_prefix: prefix,
                resource,
                state: state.map_or(QuotaState::Unspecified, Into::into).into(),
                labels: labels.into_iter().collect(),
                ..ListQuotasRequest::default()
            };
            let all = all_pages!(client.list_quotas(request).quotas);
            return print_quotas(output, &mut units, &all, true).await;
        }
        QuotaCommand::Delete { key, force, change } => {
            let request = DeleteQuotaRequest {
                subject: key.subject,
                resource: key.resource,
                quota_id: key.id,
                etag: change.etag,
                force,
                validate_only: change.dry_run,
                ..DeleteQuotaRequest::default()
            };
            client.delete_quota(request).await?;
            return deleted(output, change.dry_run);
        }
        QuotaCommand::Explain {
            subject,
            resource,
            also,
        } => {
            let request = ExplainQuotaRequest {
                subject,
                also,
                resource,
            };
            return explain(client, output, &mut units, request).await;
        }
    };
    print_quotas(output, &mut units, &[quota], false).await
}

async fn set(client: &Client, units: &mut Units<'_>, args: SetArgs) -> Result<Quota, Failure> {
    let mut key = args.key;
    if key.id.is_empty() {
        key.id = default_id(&key.resource, args.period.as_ref(), args.rate.as_ref());
    }
    let live = live_quota(client, &key).await?;
    let resource = key.resource.as_str();
    let limit = match &args.limit {
        Some(text) => Some(units.limit(resource, text).await?),
        None => live.limit,
    };
    let max_request = match args.max_request.as_deref() {
        Some("unlimited") => None,
        Some(text) => Some(units.amount(resource, text).await?),
        None => live.max_request,
    };
    let bucket = match &args.bucket {
        Some(text) => Some(units.amount(resource, text).await?),
        None => live.rate.as_ref().and_then(|rate| rate.bucket),
    };
    let enforcement = args.enforcement.map_or(live.enforcement(), Into::into);
    let throttles = enforcement == Enforcement::Throttle;
    let live_rate = live.rate.unwrap_or_default();
    let rate = Rate {
        interval: args.rate.or(live_rate.interval),
        bucket,
        delay_max: args.delay_max.or(live_rate.delay_max.filter(|_| throttles)),
    };
    let period = args.period.map(|period| Period {
        anchor_time: args.anchor,
        ..period
    });
    let quota = Quota {
        subject: key.subject.clone(),
        resource: key.resource.clone(),
        quota_id: given_or(key.id, live.quota_id),
        limit,
        enforcement: enforcement.into(),
        max_request,
        near_percent: args.near.or(live.near_percent),
        state: args
            .state
            .map_or(live.state, |state| QuotaState::from(state).into()),
        valid_from_time: times::over(args.from, live.valid_from_time),
        valid_until_time: times::over(args.until, live.valid_until_time),
        display_name: args.display_name.unwrap_or(live.display_name),
        labels: labels_of(args.labels, args.no_labels, live.labels),
        origin: live.origin,
        etag: given_or(args.change.etag, live.etag),
        period: period.or(live.period),
        rate: (rate != Rate::default()).then_some(rate),
        ..Quota::default()
    };
    let request = UpdateQuotaRequest {
        quota: Some(quota),
        allow_missing: true,
        force: args.force,
        validate_only: args.change.dry_run,
        ..UpdateQuotaRequest::default()
    };
    let answer = client.update_quota(request).await?;
    for warning in &answer.warnings {
        note(&format!("quotactl: warning: {warning}"));
    }
    if args.change.dry_run {
        note(&"quotactl: this is what it would be; nothing was changed");
    }
    Ok(answer.quota.unwrap_or_default())
}

/// The id that the server would give a new quota, where it is told by a period or a rate.
pub(crate) fn default_id(
    resource: &str,
    period: Option<&Period>,
    rate: Option<&quota_client::ProtoDuration>,
) -> String {
    match (period, rate) {
        (Some(period), _) => match times::period_name(period).as_str() {
            "none" => resource.to_owned(),
            name => format!("{resource}.{name}"),
        },
        (None, Some(interval)) => format!("{resource}.{}", times::duration_name(interval)),
        (None, None) => String::new(),
    }
}

/// The quota as it is, or an empty one.
async fn live_quota(client: &Client, key: &KeyArgs) -> Result<Quota, Failure> {
    let request = GetQuotaRequest {
        subject: key.subject.clone(),
        resource: key.resource.clone(),
        quota_id: key.id.clone(),
    };
    match client.get_quota(request).await {
        Ok(answer) => Ok(answer.quota.unwrap_or_default()),
        Err(error) if error.reason == Some(ErrorReason::QuotaUnknown) => Ok(Quota::default()),
        // There are several, and the one that is meant is the one that is named after the resource.
        Err(error)
            if error
                .violations
                .iter()
                .any(|wrong| wrong.field == "quota_id") =>
        {
            let named = KeyArgs {
                subject: key.subject.clone(),
                resource: key.resource.clone(),
                id: key.resource.clone(),
            };
            Box::pin(live_quota(client, &named)).await
        }
        Err(error) => Err(error.into()),
    }
}

/// All quotas at and below a subject or pattern.
pub(crate) async fn list_quotas(
    client: &Client,
    prefix: &str,
    resource: &str,
) -> Result<Vec<Quota>, Failure> {
    let request = ListQuotasRequest {
        subject_prefix: prefix.into(),
        resource: resource.into(),
        ..ListQuotasRequest::default()
    };
    Ok(all_pages!(client.list_quotas(request).quotas))
}

async fn print_quotas(
    output: &Output,
    units: &mut Units<'_>,
    quotas: &[Quota],
    many: bool,
) -> Result<Ending, Failure> {
    if output.is_json() {
        let all: Vec<Value> = quotas.iter().map(show::quota).collect();
        print_json(output, "quotas", all, many)?;
        return Ok(Ending::Done);
    }
    let mut rows = Vec::new();
    for quota in quotas {
        let most = match quota.max_request {
            Some(most) => units.show(&quota.resource, most).await,
            None => "-".into(),
        };
        rows.push(vec![
            quota.subject.clone(),
            quota.resource.clone(),
            quota.quota_id.clone(),
            describe_limit(units, quota).await,
            describe_state(quota),
            most,
            labels(&quota.labels),
            quota.etag.clone(),
        ]);
    }
    let header = [
        "subject",
        "resource",
        "id",
        "limit",
        "enforcement",
        "largest request",
        "labels",
        "etag",
    ];
    output.table(&header, rows, "no quotas")?;
    Ok(Ending::Done)
}

/// `128 cores`, `1000 per hour`, `30 per 60s, 60 at once`.
pub(crate) async fn describe_limit(units: &mut Units<'_>, quota: &Quota) -> String {
    let key = &quota.resource;
    let limit = units.show_limit(key, quota.limit.as_ref()).await;
    if let Some(period) = &quota.period {
        let next = match &quota.current_period {
            Some(current) => format!(
                " (per {} until {})",
                times::period_name(current),
                time(quota.period_change_time)
            ),
            None => String::new(),
        };
        let anchor = match period.anchor_time {
            Some(_) => format!(" from {}", time(period.anchor_time)),
            None => String::new(),
        };
        return match times::period_name(period).as_str() {
            "none" => format!("{limit} in all{next}"),
            name => format!("{limit} per {name}{anchor}{next}"),
        };
    }
    let Some(rate) = &quota.rate else {
        return limit;
    };
    let interval = rate
        .interval
        .as_ref()
        .map(times::duration_name)
        .unwrap_or_default();
    let mut text = format!("{limit} per {interval}");
    if let Some(bucket) = rate.bucket {
        text.push_str(&format!(", {} at once", units.show(key, bucket).await));
    }
    if let Some(delay) = &rate.delay_max {
        text.push_str(&format!(", waiting up to {}", times::shown(delay)));
    }
    text
}

/// What it does, and whether and when it is in force.
fn describe_state(quota: &Quota) -> String {
    let bare = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_owned();
    let mut text = bare(
        Enforcement::as_str_name(&quota.enforcement()),
        "ENFORCEMENT_",
    );
    if quota.state() != QuotaState::Active {
        let state = bare(QuotaState::as_str_name(&quota.state()), "QUOTA_STATE_");
        text.push_str(&format!(", {state}"));
    }
    if quota.valid_from_time.is_some() {
        text.push_str(&format!(", from {}", time(quota.valid_from_time)));
    }
    if quota.valid_until_time.is_some() {
        text.push_str(&format!(", until {}", time(quota.valid_until_time)));
    }
    text
}

async fn explain(
    client: &Client,
    output: &Output,
    units: &mut Units<'_>,
    request: ExplainQuotaRequest,
) -> Result<Ending, Failure> {
    let resource = request.resource.clone();
    let answer = client.explain_quota(request).await?;
    if output.is_json() {
        let quotas = answer.quotas.iter().map(show::explained);
        output.object(&json!({
            "quotas": quotas.collect::<Value>(),
            "effective_limits": answer.effective_limits.iter().map(show::effective_limit).collect::<Value>(),
        }))?;
        return Ok(Ending::Done);
    }
    let mut rows = Vec::new();
    for found in &answer.quotas {
        rows.push(explained_row(units, found).await);
    }
    let header = [
        "bounds",
        "set on",
        "id",
        "limit",
        "enforcement",
        "in use",
        "held",
        "in force",
    ];
    let none = match units.of(&resource).await?.without_quota() {
        WithoutQuota::Deny => "no quota bounds it, and it needs one: it is refused (NO_QUOTA)",
        _ => "no quota bounds it: it is only counted",
    };
    output.table(&header, rows, none)?;
    Ok(Ending::Done)
}

async fn explained_row(units: &mut Units<'_>, found: &ExplainedQuota) -> Vec<String> {
    let quota = found.quota.clone().unwrap_or_default();
    let set_on = match quota.subject == found.subject {
        true => "itself".into(),
        false => quota.subject.clone(),
    };
    let in_force = match (found.in_force, found.effective) {
        (true, true) => "yes, the least".into(),
        (true, false) => "yes".into(),
        (false, _) => format!("no: {}", found.why_not),
    };
    vec![
        found.subject.clone(),
        set_on,
        quota.quota_id.clone(),
        describe_limit(units, &quota).await,
        describe_state(&quota),
        units.show(&quota.resource, found.used).await,
        units.show(&quota.resource, found.held).await,
        in_force,
    ]
}
