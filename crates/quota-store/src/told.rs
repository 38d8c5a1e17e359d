//! What the journal tells of what happened: events as they are read back, for watchers, audit and history.
//!
//! An event in the journal says names and differences; the values that it led to stand in the images of its batch.
//! So this is less than what the ledger absorbed, and recovery never reads it.

use quota_core::amount::Limit;
use quota_core::event::Cause;
use quota_core::hold::End;
use quota_core::labels::Labels;
use quota_core::name::{Id, ResourceKey, SubjectName};
use quota_core::notice::{Crossing, Exceeded, Refused, UsageNow};
use quota_core::quota::Target;
use quota_core::time::Timestamp;

use crate::batch::Stamp;

/// The events of one batch, with their numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct ToldBatch {
    /// The clocks.
    pub stamp: Stamp,
    /// The number of the first event, or of the next one where the batch has none: events are numbered from 1
    /// without a gap, over restarts too.
    pub first: u64,
    /// The events.
    pub events: Vec<Told>,
}

impl ToldBatch {
    /// The number of the event after the last.
    pub fn next(&self) -> u64 {
        self.first.saturating_add(self.events.len() as u64)
    }
}

/// One event.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// When, by the server's clock.
    pub at: Timestamp,
    /// The operation that caused it; empty where time did.
    pub operation: String,
    /// Who caused it; empty where nobody was named.
    pub actor: String,
    /// The system that asked.
    pub source: String,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum What {
    /// A subject came into being.
    SubjectCreated(SubjectName),
    /// A subject's profile changed.
    SubjectChanged(SubjectName),
    /// A subject was deleted with all below it.
    SubjectDeleted(SubjectName),
    /// A resource was created or changed.
    ResourceSet(ResourceKey),
    /// A resource was deleted.
    ResourceDeleted(ResourceKey),
    /// A quota was created, changed or deleted.
    Quota {
        /// What it is set on.
        target: Target,
        /// The resource.
        resource: ResourceKey,
        /// Its id.
        id: Id,
        /// The limit before; absent where it is new.
        before: Option<Limit>,
        /// The limit afterwards; absent where it is deleted.
        after: Option<Limit>,
    },
    /// Accounts changed.
    Charged(Box<ToldCharge>),
    /// Counts and buckets were set to zero.
    UsageReset {
        /// The subject.
        subject: SubjectName,
        /// The resource.
        resource: ResourceKey,
        /// Only what this quota measures, where one is named.
        quota: Option<Id>,
        /// Why, in the operator's words.
        purpose: String,
    },
    /// What was counted was changed.
    UsageCorrected {
        /// The subject.
        subject: SubjectName,
        /// The further subjects.
        also: Vec<SubjectName>,
        /// What was added, in base units.
        amounts: Vec<(ResourceKey, i64)>,
        /// Why, in the operator's words.
        purpose: String,
    },
    /// A step of the wall clock was accepted.
    ClockAccepted {
        /// The wall clock less the server's before, in nanoseconds.
        offset_ns: i64,
    },
    /// The wall clock stepped and is not followed, or does not differ any more.
    ClockDoubted {
        /// The wall clock less the server's, in nanoseconds.
        offset_ns: i64,
        /// Whether it is in doubt.
        doubted: bool,
    },
    /// A server was started on what another left.
    Started {
        /// Batches that were laid over the rows.
        batches: u64,
        /// Whether the rows had to be rebuilt.
        rebuilt: bool,
    },
    /// A limit was exceeded by what was charged all the same.
    Exceeded(Box<Exceeded>),
    /// An account came to be near a limit or above it, or no longer is.
    Crossed(Box<Crossing>),
    /// Commands were refused.
    Refused(Box<Refused>),
    /// What a subject has.
    Usage(Box<UsageNow>),
}

/// Accounts changed, and the rows that say why. Amounts in base units.
#[derive(Clone, PartialEq, Debug)]
pub struct ToldCharge {
    /// The subject.
    pub subject: SubjectName,
    /// The further subjects, in canonical order.
    pub also: Vec<SubjectName>,
    /// What changed of what is in use or was counted, in every account of the charge set.
    pub used: Vec<(ResourceKey, i64)>,
    /// What changed of what is held.
    pub held: Vec<(ResourceKey, i64)>,
    /// Why.
    pub cause: Cause,
    /// The allocation that changed, if one did.
    pub allocation: Option<ToldAllocation>,
    /// The hold that changed, if one did.
    pub hold: Option<ToldHold>,
}

/// An allocation that changed.
#[derive(Clone, PartialEq, Debug)]
pub struct ToldAllocation {
    /// Its key, as in [`AllocationKey`](quota_core::allocation::AllocationKey).
    pub key: String,
    /// Its generation afterwards.
    pub generation: u64,
    /// Whether it was not there before.
    pub born: bool,
    /// Whether nothing of it is left.
    pub ended: bool,
    /// Its labels.
    pub labels: Labels,
}

/// A hold that changed.
#[derive(Clone, PartialEq, Debug)]
pub struct ToldHold {
    /// Its key, as in [`HoldKey`](quota_core::hold::HoldKey).
    pub key: String,
    /// Its generation afterwards.
    pub generation: u64,
    /// How it ended, if it did.
    pub end: Option<End>,
    /// Its labels.
    pub labels: Labels,
}

impl What {
    /// The subjects that it is about: that of its account or row first, then those that were charged with it.
    pub fn subjects(&self) -> Vec<&SubjectName> {
        match self {
            Self::SubjectCreated(name)
            | Self::SubjectChanged(name)
            | Self::SubjectDeleted(name) => vec![name],
            Self::Quota {
                target: Target::Subject(name),
                ..
            } => vec![name],
            Self::Charged(charge) => std::iter::once(&charge.subject)
                .chain(&charge.also)
                .collect(),
            Self::UsageReset { subject, .. } => vec![subject],
            Self::UsageCorrected { subject, also, .. } => {
                std::iter::once(subject).chain(also).collect()
            }
            Self::Exceeded(exceeded) => vec![&exceeded.subject, &exceeded.finding.subject],
            Self::Crossed(crossing) => vec![&crossing.subject],
            Self::Refused(refused) => vec![&refused.subject, &refused.finding.subject],
            Self::Usage(usage) => vec![&usage.subject],
            Self::Quota { .. }
            | Self::ResourceSet(_)
            | Self::ResourceDeleted(_)
            | Self::ClockAccepted { .. }
            | Self::ClockDoubted { .. }
            | Self::Started { .. } => Vec::new(),
        }
    }
}
