//! The decisions, one family of commands per file: guards in a column, then the changes.

mod commit;
mod consume;
mod correct;
mod linked;
mod quota;
mod release;
mod renew;
mod reserve;
mod resize;
mod resource;
mod subject;
mod uses;

use std::sync::Arc;

use crate::Ledger;
use crate::allocation::{Allocation, AllocationKey};
use crate::charge::charge_set;
use crate::command::Amounts;
use crate::event::Change;
use crate::hold::{Hold, HoldKey};
use crate::ledger::AutoCreate;
use crate::name::{ResourceKey, SubjectName};
use crate::outcome::Answer;
use crate::rejection::Rejection;
use crate::resource::Kind;
use crate::stake::RowKey;
use crate::subject::{Profile, Subject};
use crate::time::Timestamp;

pub use quota::{bite, several_quotas};
pub use uses::{Use, check_use};

/// A decided command on its way to its reply.
pub(crate) struct Step {
    pub(crate) answer: Answer,
    pub(crate) changes: Vec<Change>,
}

impl Ledger {
    fn guard_use(&self, amounts: &Amounts, purpose: Use) -> Result<(), Rejection> {
        let violations = check_use(&self.resources, amounts, purpose);
        if violations.is_empty() {
            Ok(())
        } else {
            Err(Rejection::Invalid(violations))
        }
    }

    /// Guards that all of the charge set exists or may come into being (C2.4).
    fn guard_subjects(
        &self,
        subject: &SubjectName,
        also: &[SubjectName],
        lineup: &[(&str, Option<&Subject>)],
    ) -> Result<(), Rejection> {
        let mut named = std::iter::once(subject).chain(also);
        match may_be(self.bounds.auto_create, &mut named, |name| {
            self.subject(name).is_some()
        }) {
            Some(unknown) => Err(Rejection::SubjectUnknown(unknown.clone())),
            None => self.guard_capacity(lineup),
        }
    }

    fn guard_capacity(&self, lineup: &[(&str, Option<&Subject>)]) -> Result<(), Rejection> {
        let coming = lineup.iter().filter(|(_, known)| known.is_none()).count();
        let most = self.bounds.subjects_max;
        if coming > 0 && self.subjects_count().saturating_add(coming) > most {
            return Err(Rejection::Capacity {
                what: "subjects_max",
                most,
            });
        }
        Ok(())
    }

    /// The subjects of a charge set that come into being now.
    fn births(&self, now: Timestamp, lineup: &[(&str, Option<&Subject>)]) -> Vec<Change> {
        let unknown = lineup.iter().filter(|(_, known)| known.is_none());
        unknown
            .map(|(name, _)| Change::SubjectCreated {
                name: SubjectName::of_checked(name),
                profile: Arc::new(Profile {
                    display_name: String::new(),
                    labels: Default::default(),
                    incarnation: self.next_revision(),
                    created: now,
                    updated: now,
                    version: self.next_revision(),
                }),
            })
            .collect()
    }

    /// Incarnations of the charge set, in canonical order; those that come into being now included.
    fn incarnations(&self, lineup: &[(&str, Option<&Subject>)]) -> Vec<u64> {
        let incarnation = |known: &Subject| known.profile.incarnation;
        lineup
            .iter()
            .map(|(_, known)| known.map_or(self.next_revision(), incarnation))
            .collect()
    }

    /// Of `amounts` those of one of the kinds.
    fn of_kind(&self, amounts: &[(ResourceKey, i64)], kinds: &[Kind]) -> Amounts {
        let fits = |(key, _): &&(ResourceKey, i64)| kinds.contains(&self.kind(key));
        amounts.iter().filter(fits).cloned().collect()
    }

    /// The kind of a resource.
    pub fn kind(&self, key: &ResourceKey) -> Kind {
        self.resources.kind(key)
    }

    /// An allocation as it is at `now`: CONCURRENCY amounts whose time is over are not there any more.
    pub fn live_allocation(&self, key: &str, now: Timestamp) -> Option<Arc<Allocation>> {
        let row = self.allocations.get(key)?;
        self.current_allocation(row, now)
    }

    /// What is left of a row at `now`, if anything.
    pub(crate) fn current_allocation(
        &self,
        row: &Arc<Allocation>,
        now: Timestamp,
    ) -> Option<Arc<Allocation>> {
        if !self.is_of_the_living(&row.subject, &row.also, &row.incarnations) {
            return None;
        }
        match row.expires {
            Some(expires) if expires <= now => {
                let left = self.without_concurrency(row, row.generation, row.updated);
                (!left.amounts.is_empty()).then(|| Arc::new(left))
            }
            _ => Some(row.clone()),
        }
    }

    /// What of an allocation stays when its time is over.
    pub(crate) fn without_concurrency(
        &self,
        row: &Allocation,
        generation: u64,
        updated: Timestamp,
    ) -> Allocation {
        let left = self.of_kind(&row.amounts, &[Kind::Allocation]);
        Allocation {
            expires: None,
            ..row.with_amounts(left, generation, updated)
        }
    }

    /// An allocation with other amounts; without CONCURRENCY amounts it has no end.
    fn with_amounts(&self, row: &Allocation, amounts: Amounts, now: Timestamp) -> Allocation {
        let row = row.with_amounts(amounts, self.next_revision(), now);
        let ends = row
            .amounts
            .iter()
            .any(|(key, _)| self.kind(key) == Kind::Concurrency);
        Allocation {
            expires: row.expires.filter(|_| ends),
            ..row
        }
    }

    /// The closing of a row whose time is over, where a change is about to take its place: it ends once, and
    /// everybody who reads the events sees it.
    fn closed_first(&self, now: Timestamp, key: RowKey) -> Option<Change> {
        let expires = match &key {
            RowKey::Allocation(key) => self.allocations.get(key.as_str())?.expires,
            RowKey::Hold(key) => {
                let hold = self.holds.get(key.as_str())?;
                hold.ended.is_none().then_some(hold.expires)
            }
        };
        expires.filter(|expires| *expires <= now)?;
        let charged = self.closing(now, &key)?;
        Some(Change::Charged(Box::new(charged)))
    }

    fn live(&self, key: &AllocationKey, now: Timestamp) -> Result<Arc<Allocation>, Rejection> {
        self.live_allocation(key.as_str(), now)
            .ok_or_else(|| Rejection::AllocationUnknown(key.as_str().to_owned()))
    }

    /// A hold, live or ended, unless a subject that it was made for is not there any more.
    pub fn hold(&self, key: &str) -> Option<&Arc<Hold>> {
        let hold = self.holds.get(key)?;
        self.is_of_the_living(&hold.subject, &hold.also, &hold.incarnations)
            .then_some(hold)
    }

    fn known_hold(&self, key: &HoldKey) -> Result<&Arc<Hold>, Rejection> {
        self.hold(key.as_str())
            .ok_or_else(|| Rejection::HoldUnknown(key.as_str().to_owned()))
    }

    /// Whether every subject of a row's charge set is still the incarnation that was charged (C2.5). One that
    /// was deleted had nothing of the row in its accounts any more, and none that bears its name now has.
    fn is_of_the_living(
        &self,
        subject: &SubjectName,
        also: &[SubjectName],
        incarnations: &[u64],
    ) -> bool {
        let names = charge_set(subject, also);
        names.len() == incarnations.len()
            && names
                .iter()
                .zip(incarnations)
                .all(|(name, recorded)| self.is_incarnation(name, Some(*recorded)))
    }
}

/// The first of `named` that neither exists nor may come into being with a charge.
pub fn may_be<'a>(
    auto_create: AutoCreate,
    mut named: impl Iterator<Item = &'a SubjectName>,
    exists: impl Fn(&str) -> bool,
) -> Option<&'a SubjectName> {
    named.find(|name| match auto_create {
        AutoCreate::All => false,
        AutoCreate::BelowTop => !exists(name.first_pair()),
        AutoCreate::None => !exists(name.as_str()),
    })
}

/// The negative of each amount.
pub(crate) fn negative(amounts: &[(ResourceKey, i64)]) -> Amounts {
    let negative = |(key, amount): &(ResourceKey, i64)| (key.clone(), amount.saturating_neg());
    amounts.iter().map(negative).collect()
}

/// Both amounts of each resource, by resource. An account holds the sum, so it cannot overflow.
fn sum(some: &[(ResourceKey, i64)], more: &[(ResourceKey, i64)]) -> Amounts {
    let mut sums = std::collections::BTreeMap::new();
    for (resource, amount) in some.iter().chain(more) {
        let sum: &mut i64 = sums.entry(resource.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
    sums.into_iter().collect()
}
