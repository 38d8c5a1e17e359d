//! Quotas: limits on the account of a subject, or of every subject that matches a pattern (C4).

use std::fmt;
use std::sync::Arc;

use crate::amount::Limit;
use crate::labels::Labels;
use crate::name::{Id, NameError, ResourceKey, SubjectName, SubjectPattern};
use crate::time::Timestamp;

/// Most quotas on one subject or pattern: its record is read and written whole.
pub const QUOTAS_PER_TARGET_MAX: usize = 1_000;
/// Most quotas on one resource of one subject or pattern: a refusal lists all that refuse.
pub const QUOTAS_PER_PAIR_MAX: usize = 16;
/// Most patterns with default quotas: they live in one table that is copied when it changes.
pub const PATTERNS_MAX: usize = 100_000;

/// Where a quota comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A default.
    Default,
    /// Made from a template.
    Template,
    /// Made by a policy.
    Policy,
    /// Set by hand.
    Override,
    /// Set by a program.
    Automatic,
}

/// What a quota is set on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// One subject.
    Subject(SubjectName),
    /// Every subject that matches.
    Pattern(SubjectPattern),
}

impl Target {
    /// Reads the name of a subject or a pattern.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.split('/').any(|part| part == "*") {
            SubjectPattern::parse(text).map(Self::Pattern)
        } else {
            SubjectName::parse(text).map(Self::Subject)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Subject(name) => name.as_str(),
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A limit on one resource of its target. It denies; the other enforcements have their place in the
/// formats and none here yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quota {
    /// The resource.
    pub resource: ResourceKey,
    /// Id on its target and resource.
    pub id: Id,
    /// The limit.
    pub limit: Limit,
    /// Largest amount of one request, in base units.
    pub max_request: Option<i64>,
    /// For people.
    pub display_name: String,
    /// At most 8 labels.
    pub labels: Labels,
    /// Where it comes from.
    pub origin: Origin,
    /// When it was first set.
    pub created: Timestamp,
    /// When it was last set.
    pub updated: Timestamp,
    /// Revision of the ledger that last set it.
    pub version: u64,
}

impl Quota {
    /// Whether this is the quota of that id on that resource.
    pub fn is(&self, resource: &ResourceKey, id: &Id) -> bool {
        self.resource == *resource && self.id == *id
    }
}

/// Quotas of one target, by resource and id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QuotaList(Vec<Arc<Quota>>);

impl QuotaList {
    /// All of them, by resource and id.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Quota>> {
        self.0.iter()
    }

    /// The quota of that id.
    pub fn find(&self, resource: &ResourceKey, id: &Id) -> Option<&Arc<Quota>> {
        self.0.iter().find(|quota| quota.is(resource, id))
    }

    /// About how many bytes their record takes.
    pub(crate) fn weight(&self) -> usize {
        const QUOTA: usize = 1024;
        self.0.len().saturating_mul(QUOTA)
    }

    /// Number of quotas.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a quota in place of the one of its id, if any; says whether it is new.
    pub fn put(&mut self, quota: Arc<Quota>) -> bool {
        let key = (&quota.resource, &quota.id);
        match self
            .0
            .binary_search_by(|have| (&have.resource, &have.id).cmp(&key))
        {
            Ok(at) => {
                if let Some(place) = self.0.get_mut(at) {
                    *place = quota;
                }
                false
            }
            Err(at) => {
                self.0.insert(at, quota);
                true
            }
        }
    }

    /// Takes out the quota of that id; says whether there was one.
    pub fn remove(&mut self, resource: &ResourceKey, id: &Id) -> bool {
        let before = self.0.len();
        self.0.retain(|quota| !quota.is(resource, id));
        self.0.len() < before
    }
}
