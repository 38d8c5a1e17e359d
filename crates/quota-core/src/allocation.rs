//! Allocations: what is in use by name until it is released, or until its time is over (C6.4).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::labels::Labels;
use crate::name::{Id, ResourceKey, SubjectName};
use crate::time::Timestamp;

/// `{subject}/allocations/{id}`, or for the anonymous one `{subject}/allocations/?{also,also}`, which is
/// no id. Allocations of a subject and of all below it are one range of keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllocationKey(Arc<str>);

impl AllocationKey {
    /// The key of an allocation; without an id that of the anonymous one of (subject, also).
    pub fn new(subject: &SubjectName, id: Option<&Id>, also: &[SubjectName]) -> Self {
        let mut text = format!("{subject}/allocations/");
        match id {
            Some(id) => text.push_str(id.as_str()),
            None => {
                text.push('?');
                let names: Vec<&str> = also.iter().map(SubjectName::as_str).collect();
                text.push_str(&names.join(","));
            }
        }
        Self(text.into())
    }

    /// A key that was written before; `text` is not checked.
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for AllocationKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AllocationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One allocation. It touches the accounts of exactly the charge set of (`subject`, `also`), in the
/// incarnations that it names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allocation {
    /// Its key.
    pub key: AllocationKey,
    /// The subject that was charged.
    pub subject: SubjectName,
    /// The further subjects, in canonical order.
    pub also: Vec<SubjectName>,
    /// Incarnations of the charge set, in canonical order.
    pub incarnations: Vec<u64>,
    /// The caller's id; absent for the anonymous one.
    pub id: Option<Id>,
    /// What is held, by resource; every amount is positive, in base units.
    pub amounts: Vec<(ResourceKey, i64)>,
    /// Revision of the ledger that last changed it.
    pub generation: u64,
    /// At most 8 labels.
    pub labels: Labels,
    /// The system that charged it.
    pub source: String,
    /// What it is for.
    pub purpose: String,
    /// When it was first charged.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// When its CONCURRENCY amounts end unless renewed; absent where it has none.
    pub expires: Option<Timestamp>,
}

impl Allocation {
    /// What it holds of a resource.
    pub fn amount(&self, resource: &ResourceKey) -> i64 {
        self.amounts
            .iter()
            .find(|(key, _)| key == resource)
            .map_or(0, |(_, amount)| *amount)
    }

    /// The same allocation with other amounts, zeros dropped.
    pub fn with_amounts(
        &self,
        mut amounts: Vec<(ResourceKey, i64)>,
        generation: u64,
        now: Timestamp,
    ) -> Self {
        amounts.retain(|(_, amount)| *amount != 0);
        amounts.sort();
        Self {
            amounts,
            generation,
            updated: now,
            ..self.clone()
        }
    }
}
