//! Holds: capacity that is set aside for a time and then turned into use, or not (C6.3).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::labels::Labels;
use crate::name::{Id, ResourceKey, SubjectName};
use crate::time::Timestamp;

/// Longest time that a hold, or a CONCURRENCY allocation, can be given at once.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Time of a hold where the caller says none.
pub const TTL_DEFAULT: Duration = Duration::from_secs(60);
/// How long an ended hold can be read, and committed late.
pub const ENDED_KEPT: Duration = Duration::from_secs(3600);
/// Most ended holds that are kept; beyond it the oldest go first.
pub const ENDED_MAX: usize = 262_144;

/// `{subject}/holds/{id}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldKey(Arc<str>);

impl HoldKey {
    /// The key of a hold.
    pub fn new(subject: &SubjectName, id: &Id) -> Self {
        Self(format!("{subject}/holds/{id}").into())
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

impl Borrow<str> for HoldKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HoldKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a hold ended; once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It was turned into use.
    Committed,
    /// It was given up.
    Cancelled,
    /// Its time was over.
    Expired,
}

impl End {
    /// The name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Committed => "COMMITTED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
        }
    }
}

/// One hold. While it lives, it counts as held in the accounts of exactly the charge set of (`subject`,
/// `also`), in the incarnations that it names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Its key.
    pub key: HoldKey,
    /// The subject.
    pub subject: SubjectName,
    /// The further subjects, in canonical order.
    pub also: Vec<SubjectName>,
    /// Incarnations of the charge set, in canonical order.
    pub incarnations: Vec<u64>,
    /// Its id.
    pub id: Id,
    /// Id of the allocation that a commit creates.
    pub allocation: Id,
    /// What is held (ALLOCATION, CONCURRENCY, COUNTER), by resource; every amount is positive, in base units.
    pub amounts: Vec<(ResourceKey, i64)>,
    /// What was checked, and of RATE debited, when it was made, and does not come back.
    pub spent: Vec<(ResourceKey, i64)>,
    /// Revision of the ledger that last changed it.
    pub generation: u64,
    /// Labels of the allocation to come.
    pub labels: Labels,
    /// The system that holds it.
    pub source: String,
    /// What it is for.
    pub purpose: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it expires: from this instant on it cannot be committed.
    pub expires: Timestamp,
    /// How and when it ended; absent where nobody has closed it.
    pub ended: Option<(End, Timestamp)>,
    /// Whether it was committed after its time, checked anew or recorded. That happens once.
    pub late: bool,
}

impl Hold {
    /// How it has ended at `now`, closed or not.
    pub fn end(&self, now: Timestamp) -> Option<End> {
        match self.ended {
            Some((end, _)) => Some(end),
            None if self.expires <= now => Some(End::Expired),
            None => None,
        }
    }

    /// What it holds of a resource.
    pub fn amount(&self, resource: &ResourceKey) -> i64 {
        let mut amounts = self.amounts.iter();
        amounts
            .find(|(key, _)| key == resource)
            .map_or(0, |(_, amount)| *amount)
    }

    /// The same hold, ended.
    pub fn closed(&self, end: End, at: Timestamp, generation: u64) -> Self {
        Self {
            ended: Some((end, at)),
            generation,
            ..self.clone()
        }
    }
}
