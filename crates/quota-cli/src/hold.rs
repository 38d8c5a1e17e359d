//! Holds: reserve, and what becomes of them.

use clap::{Args, Subcommand, ValueEnum};
use quota_client::v1::{
    CancelHoldRequest, CommitHoldRequest, GetHoldRequest, Hold, HoldState, ListHoldsRequest,
    RenewHoldRequest, ReserveRequest, UncoveredPolicy,
};
use quota_client::{Client, ProtoDuration};
use serde_json::{Value, json};

use crate::operate::{OperationArgs, WhatArgs, amounts, label, list, lost};
use crate::output::{Output, labels, time};
use crate::pages::all_pages;
use crate::times;
use crate::units::{self, Units};
use crate::verdict::{Answered, describe_hold};
use crate::{Ending, Failure, json as show};

#[derive(Args)]
pub(crate) struct ReserveArgs {
    #[command(flatten)]
    what: WhatArgs,
    /// Name of the hold below the subject; the server makes one where it is left out.
    #[arg(long, value_name = "ID", default_value = "")]
    hold: String,
    /// Name of the allocation that a commit creates; that of the hold where it is left out.
    #[arg(long, value_name = "ID", default_value = "")]
    allocation: String,
    /// How long, up to 24h.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = times::duration)]
    ttl: ProtoDuration,
    /// A label of the allocation; up to eight times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// What it is for.
    #[arg(long, default_value = "")]
    purpose: String,
    #[command(flatten)]
    operation: OperationArgs,
}

#[derive(Subcommand)]
pub(crate) enum HoldCommand {
    /// Turn a hold into use; what is less than held is freed.
    Commit(CommitArgs),
    /// Give a live hold more time, never less.
    Renew {
        #[command(flatten)]
        name: NameArgs,
        /// How long from now on, up to 24h.
        #[arg(long, value_name = "TIME", value_parser = times::duration)]
        ttl: ProtoDuration,
        #[command(flatten)]
        operation: OperationArgs,
    },
    /// Give a live hold up.
    Cancel {
        #[command(flatten)]
        name: NameArgs,
        #[command(flatten)]
        operation: OperationArgs,
    },
    /// Show one, live or ended within the last hour.
    Get(NameArgs),
    /// List those at and below a subject.
    List {
        /// Where to begin.
        #[arg(default_value = "system")]
        prefix: String,
        /// Only those that hold this resource.
        #[arg(long, default_value = "")]
        resource: String,
        /// Only those in this state.
        #[arg(long, value_enum)]
        state: Option<StateArg>,
        /// Only those with this label; may be repeated.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
}

#[derive(Args)]
pub(crate) struct NameArgs {
    /// Subject of the hold.
    subject: String,
    /// Name of the hold.
    hold: String,
}

#[derive(Args)]
pub(crate) struct CommitArgs {
    #[command(flatten)]
    name: NameArgs,
    /// What to charge; nothing named is all that is held, 0 gives a resource back.
    #[arg(value_name = "RESOURCE=AMOUNT", value_parser = units::split)]
    amounts: Vec<(String, String)>,
    /// What to do with more than is held.
    #[arg(long, value_enum, default_value_t = PolicyArg::Refuse)]
    more: PolicyArg,
    /// What to do when the hold's time is over.
    #[arg(long, value_enum, default_value_t = PolicyArg::Refuse)]
    late: PolicyArg,
    /// How long the CONCURRENCY resources count unless renewed. Needed where there are any.
    #[arg(long, value_name = "TIME", value_parser = times::duration)]
    ttl: Option<ProtoDuration>,
    #[command(flatten)]
    operation: OperationArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyArg {
    /// It is an error.
    Refuse,
    /// Decide it as a consume.
    Check,
    /// It has happened: charge it even above limits.
    Record,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateArg {
    Live,
    Committed,
    Cancelled,
    Expired,
}

impl From<PolicyArg> for i32 {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Refuse => UncoveredPolicy::Refuse.into(),
            PolicyArg::Check => UncoveredPolicy::Check.into(),
            PolicyArg::Record => UncoveredPolicy::Record.into(),
        }
    }
}

pub(crate) async fn reserve(
    client: &Client,
    output: &Output,
    args: ReserveArgs,
) -> Result<Ending, Failure> {
    let mut units = Units::new(client);
    let id = args.operation.id();
    let (subject, also, amounts) = args.what.read(&mut units).await?;
    let request = ReserveRequest {
        subject,
        also,
        amounts,
        hold_id: args.hold,
        allocation_id: args.allocation,
        ttl: Some(args.ttl),
        labels: args.labels.into_iter().collect(),
        operation_id: id.clone(),
        source: args.operation.source,
        purpose: args.purpose,
        operation_age: None,
    };
    let answer = client
        .reserve(request)
        .await
        .map_err(|error| lost(error, &id))?;
    let answered = Answered {
        verdict: answer.verdict.unwrap_or_default(),
        granted: "held",
        allocation: None,
        hold: answer.hold,
        operation_id: answer.operation_id,
        replayed: answer.replayed,
    };
    answered.print(&mut units, output).await
}

pub(crate) async fn hold(
    client: &Client,
    output: &Output,
    command: HoldCommand,
) -> Result<Ending, Failure> {
    let mut units = Units::new(client);
    let hold = match command {
        HoldCommand::Commit(args) => return commit(client, output, args).await,
        HoldCommand::Renew {
            name,
            ttl,
            operation,
        } => {
            let id = operation.id();
            let request = RenewHoldRequest {
                subject: name.subject,
                hold_id: name.hold,
                ttl: Some(ttl),
                operation_id: id.clone(),
                source: operation.source,
                operation_age: None,
            };
            let answer = client.renew_hold(request).await;
            answer.map_err(|error| lost(error, &id))?.hold
        }
        HoldCommand::Cancel { name, operation } => {
            let id = operation.id();
            let request = CancelHoldRequest {
                subject: name.subject,
                hold_id: name.hold,
                operation_id: id.clone(),
                source: operation.source,
                operation_age: None,
            };
            let answer = client.cancel_hold(request).await;
            answer.map_err(|error| lost(error, &id))?.hold
        }
        HoldCommand::Get(name) => {
            let request = GetHoldRequest {
                subject: name.subject,
                hold_id: name.hold,
            };
            client.get_hold(request).await?.hold
        }
        HoldCommand::List {
            prefix,
            resource,
            state,
            labels,
        } => {
            let state = match state {
                None => HoldState::Unspecified,
                Some(StateArg::Live) => HoldState::Live,
                Some(StateArg::Committed) => HoldState::Committed,
                Some(StateArg::Cancelled) => HoldState::Cancelled,
                Some(StateArg::Expired) => HoldState::Expired,
            };
            let request = ListHoldsRequest {
                subject_prefix: prefix,
                resource,
                state: state.into(),
                labels: labels.into_iter().collect(),
                ..ListHoldsRequest::default()
            };
            let all = all_pages!(client.list_holds(request).holds);
            return print_holds(output, &mut units, &all).await;
        }
    };
    let hold = hold.unwrap_or_default();
    match output.is_json() {
        true => output.object(&show::hold(&hold))?,
        false => {
            let text = describe_hold(&mut units, &hold).await;
            output.text(&format!("{text}\n"))?;
        }
    }
    Ok(Ending::Done)
}

async fn commit(client: &Client, output: &Output, args: CommitArgs) -> Result<Ending, Failure> {
    let mut units = Units::new(client);
    let id = args.operation.id();
    let request = CommitHoldRequest {
        subject: args.name.subject,
        hold_id: args.name.hold,
        amounts: amounts(&mut units, &args.amounts).await?,
        more: args.more.into(),
        late: args.late.into(),
        ttl: args.ttl,
        operation_id: id.clone(),
        source: args.operation.source,
        operation_age: None,
    };
    let answer = client
        .commit_hold(request)
        .await
        .map_err(|error| lost(error, &id))?;
    let answered = Answered {
        verdict: answer.verdict.unwrap_or_default(),
        granted: "committed",
        allocation: answer.allocation,
        hold: answer.hold,
        operation_id: answer.operation_id,
        replayed: answer.replayed,
    };
    answered.print(&mut units, output).await
}

async fn print_holds(
    output: &Output,
    units: &mut Units<'_>,
    holds: &[Hold],
) -> Result<Ending, Failure> {
    if output.is_json() {
        output.object(&json!({"holds": holds.iter().map(show::hold).collect::<Value>()}))?;
        return Ok(Ending::Done);
    }
    let mut rows = Vec::new();
    for hold in holds {
        let state = hold.state().as_str_name().trim_start_matches("HOLD_STATE_");
        rows.push(vec![
            hold.subject.clone(),
            hold.hold_id.clone(),
            state.to_owned(),
            list(units, &hold.amounts).await,
            labels(&hold.labels),
            time(hold.create_time),
            time(hold.expire_time),
        ]);
    }
    let header = [
        "subject", "hold", "state", "holds", "labels", "since", "until",
    ];
    output.table(&header, rows, "no holds")?;
    Ok(Ending::Done)
}
