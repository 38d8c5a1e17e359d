//! Records: the state of the ledger cut into rows. A batch carries the absolute new value of every record
//! that it touched, its *images*, so that recovery lays values over values and runs no rule of any version.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::account::Account;
use crate::allocation::{Allocation, AllocationKey};
use crate::ends::Ends;
use crate::hold::{Hold, HoldKey};
use crate::name::{ResourceKey, SubjectName};
use crate::quota::{QuotaList, Target};
use crate::resource::Resource;
use crate::subject::{Profile, Subject};
use crate::time::Timestamp;

/// What a record is about. The order is the one in which records are laid out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RecordKey {
    /// The ledger itself.
    Meta,
    /// A resource.
    Resource(ResourceKey),
    /// A subject: profile and accounts.
    Subject(SubjectName),
    /// The quotas of a subject or a pattern; apart from the subject, whose record changes with every charge.
    Quotas(Target),
    /// An allocation.
    Allocation(AllocationKey),
    /// A hold, live or ended.
    Hold(HoldKey),
    /// A deleted subject whose subtree is not swept yet.
    Dying(SubjectName),
    /// What a first pair has forgotten.
    Floor(Arc<str>),
}

/// The absolute value of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// The ledger itself.
    Meta(Meta),
    /// A resource.
    Resource(Arc<Resource>),
    /// A subject.
    Subject {
        /// Its profile.
        profile: Arc<Profile>,
        /// Its accounts, without what of them ends by itself: that follows from allocations and holds.
        accounts: Vec<(ResourceKey, Account)>,
    },
    /// Quotas.
    Quotas(Arc<QuotaList>),
    /// An allocation.
    Allocation(Arc<Allocation>),
    /// A hold.
    Hold(Arc<Hold>),
    /// A deleted subject: incarnations up to this revision are dead, its own and those of all below it.
    Dying(u64),
    /// What a first pair has forgotten.
    Floor(Floor),
}

/// The ledger itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Last revision.
    pub revision: u64,
    /// What first pairs without a floor of their own have forgotten.
    pub forgotten: Floor,
}

/// What a first pair has forgotten (C6.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Floor {
    /// Completely remembered since this instant (exclusive).
    pub since: Timestamp,
    /// Outcomes up to this revision are forgotten.
    pub outcomes: u64,
    /// Refusals up to this revision are forgotten.
    pub refusals: u64,
}

impl Default for Floor {
    fn default() -> Self {
        Self {
            since: Timestamp::MIN,
            outcomes: 0,
            refusals: 0,
        }
    }
}

/// The new value of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Image {
    /// What it is about.
    pub key: RecordKey,
    /// The value; absent where the record is gone.
    pub record: Option<Record>,
    /// Whether the record did not exist before this batch. One that comes and goes between two
    /// applications is never written.
    pub fresh: bool,
}

/// Records on their way to becoming a ledger: rows first, then the images of later batches over them.
#[derive(Default, Debug)]
pub struct Records(BTreeMap<RecordKey, Record>);

/// Records that do not fit together. They were not written by this ledger, or are damaged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("record {key} does not fit: {why}")]
pub struct Misfit {
    /// The record.
    pub key: String,
    /// What is wrong.
    pub why: &'static str,
}

impl Records {
    /// Lays a value over what is there.
    pub fn lay(&mut self, key: RecordKey, record: Option<Record>) {
        match record {
            Some(record) => {
                self.0.insert(key, record);
            }
            None => {
                self.0.remove(&key);
            }
        }
    }

    /// All records, in their order.
    pub fn into_iter_ordered(self) -> impl Iterator<Item = (RecordKey, Record)> {
        self.0.into_iter()
    }
}

/// The record of a subject.
pub(crate) fn of_subject(subject: &Subject) -> Record {
    Record::Subject {
        profile: subject.profile.clone(),
        accounts: subject.accounts().iter().map(without_ends).collect(),
    }
}

fn without_ends((resource, account): &(ResourceKey, Account)) -> (ResourceKey, Account) {
    let account = Account {
        ends: Ends::default(),
        ..account.clone()
    };
    (resource.clone(), account)
}
