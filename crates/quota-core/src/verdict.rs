//! Decisions and what led to them (C5.2, C5.3).

use std::time::Duration;

use crate::amount::Limit;
use crate::name::{Id, ResourceKey, SubjectName, SubjectPattern};
use crate::period::Window;

/// Why a limit refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The account is too full.
    Limit,
    /// The bucket is too empty.
    Rate,
    /// The period's count is used up.
    PeriodExhausted,
    /// The amount alone cannot fit, or the account would pass
    /// [`ACCOUNT_MAX`](crate::amount::ACCOUNT_MAX). Waiting does not help.
    TooLarge,
    /// The resource must have a quota and has none.
    NoQuota,
    /// The quota is suspended.
    Suspended,
}

/// One limit that refuses, or would or should have, with the numbers that say why; amounts in base units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The subject whose account it bounds.
    pub subject: SubjectName,
    /// The resource.
    pub resource: ResourceKey,
    /// The quota; absent where none is involved.
    pub quota: Option<Id>,
    /// The pattern that the quota was set on; absent for the subject's own.
    pub pattern: Option<SubjectPattern>,
    /// Why.
    pub reason: Reason,
    /// The limit, of RATE the bucket; absent where no quota is involved.
    pub limit: Option<Limit>,
    /// The period of a counter.
    pub window: Option<Window>,
    /// In use, counted or taken from the bucket before.
    pub used: i64,
    /// Held before.
    pub held: i64,
    /// Asked of this account.
    pub requested: i64,
    /// What is missing; at least 1.
    pub shortfall: i64,
    /// After how long the same request can be admitted; absent where waiting does not help, or nobody knows.
    pub retry: Option<Duration>,
}

/// How full a limit is after the decision; amounts in base units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Headroom {
    /// The subject whose account it bounds.
    pub subject: SubjectName,
    /// The resource.
    pub resource: ResourceKey,
    /// The quota.
    pub quota: Id,
    /// The pattern that the quota was set on; absent for the subject's own.
    pub pattern: Option<SubjectPattern>,
    /// The limit, of RATE the bucket.
    pub limit: i64,
    /// In use and held, counted, or taken from the bucket.
    pub taken: i64,
    /// The period of a counter.
    pub window: Option<Window>,
}

impl Headroom {
    /// What is left; below zero where a fact or a cut put the account above its limit.
    pub fn remaining(&self) -> i64 {
        self.limit.saturating_sub(self.taken)
    }
}

/// How growth is decided (C6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// All or nothing, within every limit.
    Strict,
    /// As much of one resource as fits.
    BestEffort {
        /// Not less than this; at least 1.
        minimum: i64,
    },
    /// It has happened: limits are reported and do not refuse.
    Record,
}

/// What the authority decides, the strongest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Decision {
    /// Nothing.
    Denied,
    /// Everything, to be acted on after a delay.
    Delayed,
    /// A part.
    Partial,
    /// Everything asked for.
    Granted,
}

/// A decision with all that led to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// Every limit that refuses; empty unless denied.
    pub refusals: Vec<Finding>,
    /// Every limit that a fact exceeds.
    pub exceeded: Vec<Finding>,
    /// Every WARN limit that is violated.
    pub warnings: Vec<Finding>,
    /// Every SHADOW limit that would have refused.
    pub shadows: Vec<Finding>,
    /// Every limit at or above its near share, after the decision.
    pub near: Vec<Headroom>,
    /// Of each resource the limit with the least left, after the decision.
    pub tightest: Vec<Headroom>,
    /// Resources that no quota bounds.
    pub unbounded: Vec<ResourceKey>,
    /// How long the caller should wait before acting; zero unless delayed.
    pub delay: Duration,
    /// What was granted of the one resource of a best effort, where that is less than was asked for.
    pub partial: Option<i64>,
}

impl Verdict {
    /// Whether nothing was admitted.
    pub fn is_denied(&self) -> bool {
        self.decision == Decision::Denied
    }

    /// What of `requested` was admitted.
    pub fn granted(&self, requested: &[(ResourceKey, i64)]) -> Vec<(ResourceKey, i64)> {
        let mut granted = match self.is_denied() {
            true => Vec::new(),
            false => requested.to_vec(),
        };
        if let (Some(partial), [(_, amount)]) = (self.partial, granted.as_mut_slice()) {
            *amount = partial;
        }
        granted
    }

    /// All findings, of whatever weight.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        let facts = self.refusals.iter().chain(&self.exceeded);
        facts.chain(&self.warnings).chain(&self.shadows)
    }
}

/// The least limit on a path that refuses or throttles, of those that measure alike (C4.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EffectiveLimit {
    /// The limit.
    pub limit: Limit,
    /// The subject whose account it bounds.
    pub subject: SubjectName,
    /// The quota.
    pub quota: Id,
    /// What it measures.
    pub dimension: Dimension,
}

/// What can be compared: limits per hour with limits per hour.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Dimension {
    /// What is there.
    Held,
    /// What is counted in a period.
    Period(crate::period::Period),
    /// What is taken per interval.
    Interval(Duration),
    /// One request.
    Request,
}

/// What an account has now and would have if the request were granted; in base units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Projection<'a> {
    /// The subject.
    pub subject: &'a str,
    /// The resource.
    pub resource: &'a ResourceKey,
    /// The quota that the account belongs to; absent for the account of the subject itself.
    pub quota: Option<&'a Id>,
    /// The period of a counter; absent for its lifetime.
    pub window: Option<Window>,
    /// In use now.
    pub used: i64,
    /// Held now.
    pub held: i64,
    /// In use if granted.
    pub projected: i64,
}
