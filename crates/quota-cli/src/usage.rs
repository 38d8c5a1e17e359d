//! `usage`: the accounts as a tree, with a bar where there is a limit.

use std::collections::BTreeMap;

use clap::Args;
use quota_client::v1::{
    AppliedQuota, Enforcement, GetResourceRequest, GetUsageRequest, ListUsageRequest, QuotaState,
    ResourceUsage, SubjectUsage, limit,
};
use quota_client::{Client, Error, ProtoDuration};
use serde_json::{Value, json};

use crate::output::{Output, time};
use crate::pages::all_pages;
use crate::times;
use crate::units::Units;
use crate::{Ending, Failure, history, json as show};

const BAR: usize = 20;
const BRANCH: &str = "├─ ";
const LAST_BRANCH: &str = "└─ ";
const TRUNK: &str = "│  ";
const NO_TRUNK: &str = "   ";

#[derive(Args)]
pub(crate) struct UsageArgs {
    /// Only this subject and all below it.
    #[arg(default_value = "system")]
    subject: String,
    /// Only this resource.
    #[arg(long, default_value = "")]
    resource: String,
    /// Draw how this subject's accounts went in the last so long, such as 6h, 7d or 90d.
    #[arg(long, value_parser = times::duration, value_name = "LENGTH")]
    history: Option<ProtoDuration>,
}

pub(crate) async fn usage(
    client: &Client,
    output: &Output,
    args: UsageArgs,
) -> Result<Ending, Failure> {
    if let Some(length) = &args.history {
        let of = (args.subject.as_str(), args.resource.as_str());
        return history::history(client, output, of, length).await;
    }
    // An unknown name is an error, not an empty tree.
    let request = GetUsageRequest {
        subject: args.subject.clone(),
        resource: String::new(),
    };
    client.get_usage(request).await?;
    if !args.resource.is_empty() {
        let key = args.resource.clone();
        client.get_resource(GetResourceRequest { key }).await?;
    }
    let found = list(client, &args.subject, &args.resource).await?;
    if output.is_json() {
        output.object(&json!({"usage": found.iter().map(show::usage).collect::<Value>()}))?;
        return Ok(Ending::Done);
    }
    let mut units = Units::new(client);
    let mut tree = Tree::default();
    for usage in &found {
        tree.add(usage);
    }
    let mut text = String::new();
    for line in tree.lines() {
        text.push_str(&line.text);
        text.push('\n');
        for account in line.accounts {
            for shown in account_lines(&mut units, account).await {
                text.push_str(&format!("{}{shown}\n", line.indent));
            }
        }
    }
    if text.is_empty() {
        text.push_str("nothing is in use and no quota is set\n");
    }
    output.text(&text)?;
    Ok(Ending::Done)
}

async fn list(client: &Client, subject: &str, resource: &str) -> Result<Vec<SubjectUsage>, Error> {
    let request = ListUsageRequest {
        subject_prefix: subject.into(),
        resource: resource.into(),
        ..ListUsageRequest::default()
    };
    Ok(all_pages!(client.list_usage(request).usage))
}

/// Subjects below subjects.
#[derive(Default)]
struct Tree<'a> {
    usage: Option<&'a SubjectUsage>,
    below: BTreeMap<String, Tree<'a>>,
}

struct Line<'a> {
    text: String,
    indent: String,
    accounts: &'a [ResourceUsage],
}

impl<'a> Tree<'a> {
    fn add(&mut self, usage: &'a SubjectUsage) {
        let mut node = self;
        if usage.subject != "system" {
            let parts: Vec<&str> = usage.subject.split('/').collect();
            for pair in parts.chunks(2) {
                node = node.below.entry(pair.join("/")).or_default();
            }
        }
        node.usage = Some(usage);
    }

    fn lines(&self) -> Vec<Line<'a>> {
        let mut lines = Vec::new();
        if let Some(usage) = self.usage {
            lines.push(Line {
                text: usage.subject.clone(),
                indent: self.trunk(""),
                accounts: &usage.resources,
            });
        }
        self.draw("", &mut lines);
        lines
    }

    fn draw(&self, indent: &str, lines: &mut Vec<Line<'a>>) {
        let last = self.below.len().saturating_sub(1);
        for (at, (pair, node)) in self.below.iter().enumerate() {
            let (branch, trunk) = match at == last {
                true => (LAST_BRANCH, NO_TRUNK),
                false => (BRANCH, TRUNK),
            };
            let below = format!("{indent}{trunk}");
            lines.push(Line {
                text: format!("{indent}{branch}{pair}"),
                indent: node.trunk(&below),
                accounts: node.usage.map_or(&[], |usage| &usage.resources),
            });
            node.draw(&below, lines);
        }
    }

    /// How the accounts of a subject are indented: along its trunk where something is below.
    fn trunk(&self, indent: &str) -> String {
        let trunk = if self.below.is_empty() {
            NO_TRUNK
        } else {
            TRUNK
        };
        format!("{indent}{trunk}")
    }
}

/// An account in lines: what is in use, with a bar for the limit that is fullest; of a COUNTER and a RATE a
/// line for every quota, which has a count or a bucket of its own.
async fn account_lines(units: &mut Units<'_>, account: &ResourceUsage) -> Vec<String> {
    let key = &account.resource;
    let own = |quota: &&AppliedQuota| quota.period.is_some() || quota.interval.is_some();
    let mut lines = Vec::new();
    for quota in account.quotas.iter().filter(own) {
        lines.push(quota_line(units, key, quota).await);
    }
    if !lines.is_empty() {
        return lines;
    }
    let used = units.show(key, account.used).await;
    let held = match account.held {
        0 => String::new(),
        held => format!(" + {} held", units.show(key, held).await),
    };
    let limits = account
        .quotas
        .iter()
        .filter_map(|quota| Some((quota, value(quota)?)));
    match limits.min_by_key(|(_, value)| *value) {
        Some((quota, limit)) => {
            let taken = account.used.saturating_add(account.held);
            let limit_shown = units.show(key, limit).await;
            let bar = bar(taken, limit);
            lines.push(format!(
                "{key:<28} {bar} {used}{held} / {limit_shown}{}",
                notes(quota)
            ));
        }
        None => {
            let none = if account.quotas.is_empty() {
                "no quota here"
            } else {
                "unlimited"
            };
            lines.push(blank(key, &format!("{used}{held}  ({none})")));
        }
    }
    lines
}

/// One count or bucket.
async fn quota_line(units: &mut Units<'_>, key: &str, quota: &AppliedQuota) -> String {
    let taken = quota.used.saturating_add(quota.held);
    let shown = units.show(key, taken).await;
    let per = match (&quota.period, &quota.interval) {
        (Some(period), _) => match times::period_name(period).as_str() {
            "none" => " in all".into(),
            name => format!(" per {name}"),
        },
        (None, Some(interval)) => {
            let limit = units.show_limit(key, quota.limit.as_ref()).await;
            format!(" at once, {limit} per {}", times::duration_name(interval))
        }
        (None, None) => String::new(),
    };
    let limit = match quota.bucket {
        0 => value(quota),
        bucket => Some(bucket),
    };
    let end = match quota.period_end_time {
        Some(_) => format!(", until {}", time(quota.period_end_time)),
        None => String::new(),
    };
    match limit {
        Some(limit) => {
            let limit_shown = units.show(key, limit).await;
            let bar = bar(taken, limit);
            format!(
                "{key:<28} {bar} {shown} / {limit_shown}{per}{end}{}",
                notes(quota)
            )
        }
        None => blank(key, &format!("{shown}{per}  (unlimited)")),
    }
}

/// Where a quota comes from, and what it does where that is not to refuse.
fn notes(quota: &AppliedQuota) -> String {
    let mut notes = String::new();
    if quota
        .period
        .as_ref()
        .is_some_and(|period| period.anchor_time.is_some())
    {
        notes.push_str(&format!("  {}", quota.quota_id));
    }
    if !quota.pattern.is_empty() {
        notes.push_str(&format!("  (default of {})", quota.pattern));
    }
    let enforcement = Enforcement::as_str_name(&quota.enforcement());
    match quota.enforcement() {
        Enforcement::Unspecified | Enforcement::Deny => {}
        _ => notes.push_str(&format!(
            "  {}",
            enforcement.trim_start_matches("ENFORCEMENT_")
        )),
    }
    if quota.state() == QuotaState::Suspended {
        notes.push_str("  SUSPENDED");
    }
    notes
}

fn value(quota: &AppliedQuota) -> Option<i64> {
    match quota.limit.as_ref()?.limit.as_ref()? {
        limit::Limit::Value(value) => Some(*value),
        limit::Limit::Unlimited(_) => None,
    }
}

/// A line without a bar.
fn blank(key: &str, text: &str) -> String {
    format!("{key:<28} {:<width$} {text}", "", width = BAR + 7)
}

fn bar(taken: i64, limit: i64) -> String {
    let percent = match limit {
        0 if taken == 0 => 0,
        0 => 100,
        limit => i128::from(taken) * 100 / i128::from(limit),
    };
    let filled = usize::try_from(percent.clamp(0, 100)).unwrap_or(100) * BAR / 100;
    let cells: String = (0..BAR)
        .map(|cell| if cell < filled { '█' } else { '░' })
        .collect();
    format!("{cells} {percent:>4} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_say_how_full_it_is() {
        assert!(bar(0, 0).ends_with("   0 %"));
        assert!(bar(5, 0).ends_with(" 100 %"));
        assert!(bar(150, 100).starts_with(&"█".repeat(BAR)));
        assert!(bar(150, 100).ends_with(" 150 %"));
        assert_eq!(bar(50, 100).chars().filter(|c| *c == '█').count(), BAR / 2);
    }

    #[test]
    fn subjects_stand_below_their_parents() {
        let names = ["system", "tenants/a", "tenants/a/users/u", "tenants/b"];
        let usage: Vec<SubjectUsage> = names
            .iter()
            .map(|name| SubjectUsage {
                subject: (*name).into(),
                resources: Vec::new(),
            })
            .collect();
        let mut tree = Tree::default();
        for usage in &usage {
            tree.add(usage);
        }
        let lines: Vec<String> = tree.lines().into_iter().map(|line| line.text).collect();
        assert_eq!(
            lines,
            ["system", "├─ tenants/a", "│  └─ users/u", "└─ tenants/b"]
        );
    }
}
