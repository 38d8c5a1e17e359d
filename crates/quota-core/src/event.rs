//! Events: what happened. The ledger's state is what its events make of it; everything that later wants
//! to know (watchers, audit, history) reads them from the journal.

use std::sync::Arc;

use crate::allocation::Allocation;
use crate::amount::Limit;
use crate::command::{CorrectUsage, Digest, Provenance, ResetUsage};
use crate::hold::Hold;
use crate::name::{Id, OperationId, ResourceKey, SubjectName};
use crate::notice::{Crossing, Exceeded, Refused, UsageNow};
use crate::outcome::Outcome;
use crate::quota::{Quota, Target};
use crate::resource::Resource;
use crate::subject::Profile;
use crate::time::Timestamp;
use crate::verdict::{Finding, Verdict};

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// When, by the server's clock.
    pub at: Timestamp,
    /// Revision of the ledger: one per command that changed anything.
    pub revision: u64,
    /// The operation that caused it; absent where time did.
    pub operation: Option<OperationId>,
    /// Who caused it.
    pub provenance: Arc<Provenance>,
    /// What.
    pub change: Change,
}

impl Event {
    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        const EVENT: usize = 512;
        match &self.change {
            Change::Answered(answered) => answered.outcome.bytes().saturating_add(EVENT),
            Change::Charged(charged) => {
                let findings = charged.facts.len().saturating_add(charged.shadows.len());
                findings.saturating_add(2).saturating_mul(EVENT)
            }
            Change::Usage(usage) => {
                let accounts = usage.accounts.len().saturating_mul(96);
                accounts.saturating_add(EVENT)
            }
            _ => EVENT,
        }
    }
}

/// Why accounts changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Consume.
    Consume,
    /// Consume of something that had happened.
    Record,
    /// Release.
    Release,
    /// Resize.
    Resize,
    /// Resize to what had happened.
    ResizeRecord,
    /// ReleaseMatching.
    ReleaseMatching,
    /// RenewAllocations.
    Renew,
    /// Reserve.
    Reserve,
    /// CommitHold.
    Commit,
    /// CommitHold after the hold's time, or of more than was held, as a fact.
    CommitRecord,
    /// RenewHold.
    RenewHold,
    /// CancelHold.
    Cancel,
    /// Its time was over.
    Expire,
}

/// Accounts, and the rows that say why, changed together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Charged {
    /// The subject.
    pub subject: SubjectName,
    /// The further subjects, in canonical order.
    pub also: Vec<SubjectName>,
    /// What changed of what is in use or was counted, in every account of the charge set, in base units.
    pub used: Vec<(ResourceKey, i64)>,
    /// What changed of what is held.
    pub held: Vec<(ResourceKey, i64)>,
    /// The allocation afterwards; without amounts where it ended.
    pub allocation: Option<Arc<Allocation>>,
    /// Whether the allocation was not there before.
    pub born: bool,
    /// The hold afterwards.
    pub hold: Option<Arc<Hold>>,
    /// Why.
    pub cause: Cause,
    /// Limits that a fact exceeded, and WARN limits that were violated (C4.3).
    pub facts: Vec<Finding>,
    /// SHADOW limits that would have refused.
    pub shadows: Vec<Finding>,
    /// Where time ended it, from when on it did not count any more: bookkeeping comes later.
    pub over: Option<Timestamp>,
}

impl Charged {
    /// A change without anything in it yet.
    pub(crate) fn new(subject: &SubjectName, also: &[SubjectName], cause: Cause) -> Self {
        Self {
            subject: subject.clone(),
            also: also.to_vec(),
            used: Vec::new(),
            held: Vec::new(),
            allocation: None,
            born: false,
            hold: None,
            cause,
            facts: Vec::new(),
            shadows: Vec::new(),
            over: None,
        }
    }

    /// Whether it changed accounts of a resource.
    pub(crate) fn changes(&self, resource: &ResourceKey) -> bool {
        let mut changed = self.used.iter().chain(&self.held);
        changed.any(|(key, _)| key == resource)
    }

    /// Notes what the verdict found without refusing.
    pub(crate) fn noting(mut self, verdict: &Verdict) -> Self {
        let facts = verdict.exceeded.iter().chain(&verdict.warnings);
        self.facts = facts.cloned().collect();
        self.shadows.clone_from(&verdict.shadows);
        self
    }
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A subject came into being.
    SubjectCreated {
        /// Its name.
        name: SubjectName,
        /// Its profile.
        profile: Arc<Profile>,
    },
    /// A subject's profile changed.
    SubjectChanged {
        /// Its name.
        name: SubjectName,
        /// Its profile afterwards.
        profile: Arc<Profile>,
    },
    /// A resource was created or changed.
    ResourceSet(Arc<Resource>),
    /// A resource was deleted.
    ResourceDeleted(ResourceKey),
    /// A quota was created or changed.
    QuotaSet {
        /// What it is set on.
        target: Target,
        /// The quota afterwards.
        quota: Arc<Quota>,
        /// Its limit before; absent where it is new.
        before: Option<Limit>,
    },
    /// A quota was deleted.
    QuotaDeleted {
        /// What it was set on.
        target: Target,
        /// The resource.
        resource: ResourceKey,
        /// Its id.
        id: Id,
        /// Its limit.
        before: Limit,
    },
    /// A subject was deleted with all below it, and the patterns below it.
    SubjectDeleted {
        /// Its name.
        name: SubjectName,
    },
    /// Accounts changed, and the rows that say why.
    Charged(Box<Charged>),
    /// Counts and buckets were set to zero.
    UsageReset(ResetUsage),
    /// What was counted was changed.
    UsageCorrected(CorrectUsage),
    /// A step of the wall clock was accepted.
    ClockAccepted {
        /// The wall clock less the server's before, in nanoseconds.
        offset_ns: i64,
        /// What the server's clock says afterwards, at the earliest.
        to: Timestamp,
    },
    /// A command was answered and its answer is remembered.
    Answered(Arc<Remembered>),
    /// A limit was exceeded by what was charged all the same.
    Exceeded(Box<Exceeded>),
    /// An account came to be near a limit or above it, or no longer is.
    Crossed(Box<Crossing>),
    /// Commands were refused.
    Refused(Box<Refused>),
    /// What a subject has, once in a second in which that changed.
    Usage(Box<UsageNow>),
    /// The wall clock stepped, and is not followed; or it does not differ any more.
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
}

impl Change {
    /// Whether it is for whoever asks what happened. An answer is kept for its caller alone.
    pub fn is_told(&self) -> bool {
        !matches!(self, Self::Answered(_))
    }

    /// Whether it only tells what else is known, and is no command's.
    pub fn is_notice(&self) -> bool {
        matches!(
            self,
            Self::Exceeded(_)
                | Self::Refused(_)
                | Self::Usage(_)
                | Self::ClockDoubted { .. }
                | Self::Started { .. }
        )
    }
}

/// An outcome with what is needed to know its operation again (C6.6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// First pair of the command's subject.
    pub lane: Arc<str>,
    /// The operation.
    pub id: OperationId,
    /// Digest of its content.
    pub digest: Digest,
    /// Revision of the ledger at which it was answered.
    pub revision: u64,
    /// What was answered.
    pub outcome: Arc<Outcome>,
}
