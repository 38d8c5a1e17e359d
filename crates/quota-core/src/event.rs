//! Events: what happened. The ledger's state is what its events make of it; everything that later wants
//! to know (watchers, audit, history) reads them from the journal.

use std::sync::Arc;

use crate::allocation::Allocation;
use crate::command::{Digest, Provenance};
use crate::evaluate::Finding;
use crate::name::{Id, OperationId, ResourceKey, SubjectName};
use crate::outcome::Outcome;
use crate::quota::{Quota, Target};
use crate::resource::Resource;
use crate::subject::Profile;
use crate::time::Timestamp;

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// When, by the server's clock.
    pub at: Timestamp,
    /// Revision of the ledger: one per command that changed anything.
    pub revision: u64,
    /// The operation that caused it.
    pub operation: OperationId,
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
            Change::Answered(answered) => answered.outcome.weight().saturating_add(EVENT),
            Change::Allocated { exceeded, .. } => exceeded.len().saturating_mul(EVENT),
            _ => EVENT,
        }
    }
}

/// Why an allocation changed.
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
    /// ReleaseMatching.
    ReleaseMatching,
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
    },
    /// A quota was deleted.
    QuotaDeleted {
        /// What it was set on.
        target: Target,
        /// The resource.
        resource: ResourceKey,
        /// Its id.
        id: Id,
    },
    /// An allocation was charged, changed or released.
    Allocated {
        /// The allocation afterwards; without amounts where it ended.
        allocation: Arc<Allocation>,
        /// What changed in every account of its charge set, in base units.
        deltas: Vec<(ResourceKey, i64)>,
        /// Why.
        cause: Cause,
        /// Limits that a fact exceeded.
        exceeded: Vec<Finding>,
    },
    /// A command was answered and its answer is remembered.
    Answered(Arc<Remembered>),
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
