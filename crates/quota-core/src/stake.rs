//! What a row adds to the accounts of its charge set (C11.4).

use crate::allocation::{Allocation, AllocationKey};
use crate::ends::Ending;
use crate::hold::{Hold, HoldKey};
use crate::name::{ResourceKey, SubjectName};
use crate::resource::Kind;

/// The key of a row whose time ends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum RowKey {
    /// An allocation.
    Allocation(AllocationKey),
    /// A hold.
    Hold(HoldKey),
}

/// What a live row adds.
#[derive(Debug)]
pub(crate) struct Stake<'a> {
    pub(crate) subject: &'a SubjectName,
    pub(crate) also: &'a [SubjectName],
    pub(crate) incarnations: &'a [u64],
    pub(crate) amounts: &'a [(ResourceKey, i64)],
    /// Whether it is held, and not in use.
    pub(crate) held: bool,
    /// The second since the Unix epoch at which it ends, as far as it does.
    pub(crate) ends: Option<i64>,
}

impl<'a> Stake<'a> {
    /// The second at which amounts of a kind end by themselves, if they do.
    pub(crate) fn ends_of(&self, kind: Kind) -> Option<i64> {
        self.ends.filter(|_| self.held || kind == Kind::Concurrency)
    }

    /// An amount, as what it adds to an account.
    pub(crate) fn adds(&self, amount: i64) -> Ending {
        match self.held {
            true => Ending {
                used: 0,
                held: amount,
            },
            false => Ending {
                used: amount,
                held: 0,
            },
        }
    }

    pub(crate) fn of_allocation(row: &'a Allocation) -> Self {
        Self {
            subject: &row.subject,
            also: &row.also,
            incarnations: &row.incarnations,
            amounts: &row.amounts,
            held: false,
            ends: row.expires.map(|at| at.next_whole_second()),
        }
    }

    pub(crate) fn of_hold(row: &'a Hold) -> Self {
        Self {
            subject: &row.subject,
            also: &row.also,
            incarnations: &row.incarnations,
            amounts: &row.amounts,
            held: true,
            ends: Some(row.expires.next_whole_second()),
        }
    }
}
