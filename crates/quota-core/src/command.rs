//! Commands: what callers ask the ledger to do. Values are well formed; only the state can say no.

use std::sync::Arc;
use std::time::Duration;

use crate::amount::Limit;
use crate::evaluate::Mode;
use crate::labels::Labels;
use crate::name::{Id, OperationId, ResourceKey, SubjectName, first_pair};
use crate::quota::{Origin, Target};
use crate::resource::{Kind, WithoutQuota};

/// Amounts by resource in base units, each resource once.
pub type Amounts = Vec<(ResourceKey, i64)>;

/// One command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// How a retry of it is known.
    pub operation: Operation,
    /// Who asks, and why.
    pub provenance: Arc<Provenance>,
    /// What to do.
    pub action: Action,
}

/// The identity of a command over its retries (C6.6).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// Unique within the first pair of the command's subject.
    pub id: OperationId,
    /// Whether the caller chose the id.
    pub given: bool,
    /// Digest of the request without id and age.
    pub digest: Digest,
    /// How long ago the caller first tried.
    pub age: Option<Duration>,
}

/// Digest of the content of a request.
pub type Digest = [u8; 16];

/// Who caused an event (C6.7).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Provenance {
    /// Who asked.
    pub actor: String,
    /// The system that asked.
    pub source: String,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Check and charge in one step.
    Consume(Consume),
    /// Give back.
    Release(Release),
    /// Set new absolute amounts.
    Resize(Resize),
    /// Give back by label.
    ReleaseMatching(ReleaseMatching),
    /// Create or change a subject.
    SetSubject(SetSubject),
    /// Create or change a resource.
    SetResource(SetResource),
    /// Delete a resource.
    DeleteResource {
        /// The resource.
        key: ResourceKey,
        /// Version that it must have.
        etag: String,
    },
    /// Create or change a quota.
    SetQuota(SetQuota),
    /// Delete a quota.
    DeleteQuota {
        /// What it is set on.
        target: Target,
        /// The resource.
        resource: ResourceKey,
        /// Its id.
        id: Id,
        /// Version that it must have.
        etag: String,
        /// Accept that a lower default comes into force.
        force: bool,
    },
}

/// Check and charge in one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Consume {
    /// The subject.
    pub subject: SubjectName,
    /// Further subjects in canonical order.
    pub also: Vec<SubjectName>,
    /// What to charge; each amount positive.
    pub amounts: Amounts,
    /// Id of the allocation; absent for the anonymous one.
    pub allocation: Option<Id>,
    /// How to decide.
    pub mode: Mode,
    /// Labels of the allocation.
    pub labels: Labels,
    /// What it is for.
    pub purpose: String,
}

/// Give back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Release {
    /// The subject.
    pub subject: SubjectName,
    /// Further subjects of an anonymous allocation, in canonical order.
    pub also: Vec<SubjectName>,
    /// Id of the allocation; absent for the anonymous one.
    pub allocation: Option<Id>,
    /// What to give back, each amount positive; empty for everything.
    pub amounts: Amounts,
    /// Generation that the allocation must have.
    pub expected_generation: Option<u64>,
}

/// Set new absolute amounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resize {
    /// The subject.
    pub subject: SubjectName,
    /// Id of the allocation.
    pub allocation: Id,
    /// New amounts, zero included; a resource that is not named keeps what it has.
    pub amounts: Amounts,
    /// How growth is decided.
    pub mode: Mode,
    /// Generation that the allocation must have.
    pub expected_generation: Option<u64>,
}

/// Give back by label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReleaseMatching {
    /// Allocations of this subject and of all below it.
    pub subject: SubjectName,
    /// Labels that an allocation must all have; at least one.
    pub labels: Labels,
    /// At most so many.
    pub most: usize,
}

/// Whether the thing to set must be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existence {
    /// It must not exist.
    New,
    /// It must exist.
    Known,
    /// Either.
    Any,
}

/// Create or change a subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetSubject {
    /// Its name.
    pub name: SubjectName,
    /// For people.
    pub display_name: String,
    /// Its labels.
    pub labels: Labels,
    /// Whether it must be there.
    pub existence: Existence,
    /// Version that it must have; empty for any.
    pub etag: String,
}

/// Create or change a resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetResource {
    /// Its key.
    pub key: ResourceKey,
    /// How it is counted.
    pub kind: Kind,
    /// Unit of every amount.
    pub base_unit: String,
    /// Unit for people.
    pub display_unit: String,
    /// Base units in one display unit.
    pub display_ratio: i64,
    /// What happens without any quota.
    pub without_quota: WithoutQuota,
    /// For people.
    pub display_name: String,
    /// Whether it must be there.
    pub existence: Existence,
    /// Version that it must have; empty for any.
    pub etag: String,
}

/// Create or change a quota.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetQuota {
    /// What it is set on.
    pub target: Target,
    /// The resource.
    pub resource: ResourceKey,
    /// Its id.
    pub id: Id,
    /// The limit.
    pub limit: Limit,
    /// Largest amount of one request.
    pub max_request: Option<i64>,
    /// For people.
    pub display_name: String,
    /// Its labels.
    pub labels: Labels,
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it must be there.
    pub existence: Existence,
    /// Version that it must have; empty for any.
    pub etag: String,
    /// Accept a cut.
    pub force: bool,
}

impl Command {
    /// The first pair within which the operation id is unique.
    pub fn lane(&self) -> &str {
        match &self.action {
            Action::Consume(consume) => consume.subject.first_pair(),
            Action::Release(release) => release.subject.first_pair(),
            Action::Resize(resize) => resize.subject.first_pair(),
            Action::ReleaseMatching(matching) => matching.subject.first_pair(),
            Action::SetSubject(subject) => subject.name.first_pair(),
            Action::SetQuota(quota) => first_pair(quota.target.as_str()),
            Action::DeleteQuota { target, .. } => first_pair(target.as_str()),
            Action::SetResource(_) | Action::DeleteResource { .. } => crate::name::SYSTEM,
        }
    }
}
