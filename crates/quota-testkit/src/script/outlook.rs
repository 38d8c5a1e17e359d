//! What a Check says beside its verdict, in the words of scripts.

use std::time::Duration;

use super::{Call, named};

/// The least of the limits on a path that measure alike (C4.4).
pub struct Effective<'a> {
    /// The resource.
    pub resource: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// The quota's id.
    pub quota: &'a str,
    /// The limit as text.
    pub limit: String,
}

/// What an account has, and would have if the request were granted (C6.1).
pub struct Projected<'a> {
    /// The resource.
    pub resource: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// The quota's id; empty for the account of the subject itself.
    pub quota: &'a str,
    /// used.
    pub used: i64,
    /// held.
    pub held: i64,
    /// used if it were granted.
    pub projected: i64,
    /// How long its period goes on; none where it has no end.
    pub left: Option<Duration>,
}

/// All of it.
pub struct Outlook<'a> {
    /// Whether a resource has no quota.
    pub unbounded: bool,
    /// The least limits.
    pub effective: Vec<Effective<'a>>,
    /// The accounts.
    pub projected: Vec<Projected<'a>>,
}

/// What follows the verdict. Limits and accounts are shown where the call asks for them; of the limits on one
/// resource no order is promised.
pub fn outlook(call: &Call, outlook: &Outlook<'_>) -> String {
    let mut text = String::new();
    if call.has("effective") {
        let mut texts: Vec<String> = Vec::new();
        for limits in outlook
            .effective
            .chunk_by(|one, next| one.resource == next.resource)
        {
            let mut alike: Vec<String> = limits.iter().map(least).collect();
            alike.sort();
            texts.extend(alike);
        }
        text.push_str(&format!(" effective {}", all(&texts)));
    }
    if call.has("projected") {
        let texts: Vec<String> = outlook.projected.iter().map(account).collect();
        text.push_str(&format!(" projected {}", all(&texts)));
    }
    if outlook.unbounded {
        text.push_str(" unbounded");
    }
    text
}

fn all(texts: &[String]) -> String {
    match texts.is_empty() {
        true => "none".into(),
        false => texts.join(", "),
    }
}

fn least(least: &Effective<'_>) -> String {
    let quota = named(least.quota, least.resource);
    format!("{}{quota} {}", least.subject, least.limit)
}

fn account(account: &Projected<'_>) -> String {
    let quota = named(account.quota, account.resource);
    let left = match account.left {
        Some(left) => format!(" for {left:?}"),
        None => String::new(),
    };
    format!(
        "{}{quota} {}+{} then {}{left}",
        account.subject, account.used, account.held, account.projected
    )
}
