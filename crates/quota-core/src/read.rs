//! What can be read of a ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Ledger;
use crate::allocation::Allocation;
use crate::charge::{Lineup, charge_set};
use crate::defaults::Defaults;
use crate::evaluate::{Line, Scene};
use crate::event::Remembered;
use crate::hold::Hold;
use crate::ledger::{Bounds, Sizes};
use crate::name::SubjectName;
use crate::outcome::Answer;
use crate::quota::{QuotaList, Target};
use crate::resource::Resources;
use crate::subject::Subject;
use crate::time::Timestamp;

impl Ledger {
    /// A subject, unless it was deleted.
    pub fn subject(&self, name: &str) -> Option<&Subject> {
        self.shared_subject(name).map(|subject| &**subject)
    }

    /// The same, to be shared.
    pub fn shared_subject(&self, name: &str) -> Option<&Arc<Subject>> {
        let slot = self.subjects.get(name)?;
        (!is_dead(&self.dying, &slot.subject)).then_some(&slot.subject)
    }

    /// Number of subjects, those included that are deleted and not swept yet.
    pub fn subjects_count(&self) -> usize {
        self.subjects.len().saturating_add(self.elsewhere)
    }

    /// Deleted subjects with descendants that are not swept yet; see [`is_dead`].
    pub fn dying(&self) -> &Arc<BTreeMap<SubjectName, u64>> {
        &self.dying
    }

    /// Names of subjects after `after` that are `prefix` or below it, in the order of their texts.
    pub fn subject_names<'a>(
        &'a self,
        prefix: &'a str,
        after: &str,
    ) -> impl Iterator<Item = &'a SubjectName> {
        let living = |name: &&SubjectName| self.subject(name.as_str()).is_some();
        let own = self.subjects.get(prefix).map(|slot| &slot.subject.name);
        let own =
            own.filter(|name| !name.is_system() && (after.is_empty() || after < name.as_str()));
        let below = self.subjects.below(prefix, after).map(|(name, _)| name);
        own.into_iter().chain(below).filter(living)
    }

    /// Holds after `after` of `prefix` and all below it, live or ended, in the order of their keys.
    pub fn holds<'a>(
        &'a self,
        prefix: &'a str,
        after: &str,
    ) -> impl Iterator<Item = &'a Arc<Hold>> {
        let below = self.holds.below(prefix, after);
        below.filter_map(|(key, _)| self.hold(key.as_str()))
    }

    /// All subjects, in no order.
    pub fn subjects(&self) -> impl Iterator<Item = &Arc<Subject>> {
        self.subjects
            .things()
            .map(|slot| &slot.subject)
            .filter(|subject| !is_dead(&self.dying, subject))
    }

    /// An allocation.
    pub fn allocation(&self, key: &str) -> Option<&Arc<Allocation>> {
        self.allocations.get(key)
    }

    /// Allocations after `after` of `prefix` and all below it, in the order of their keys.
    pub fn allocations<'a>(
        &'a self,
        prefix: &'a str,
        after: &str,
    ) -> impl Iterator<Item = &'a Arc<Allocation>> {
        let below = self.allocations.below(prefix, after);
        below.map(|(_, allocation)| allocation)
    }

    /// Its bounds.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The default quotas.
    pub fn defaults(&self) -> &Arc<Defaults> {
        &self.defaults
    }

    /// The resources.
    pub fn resources(&self) -> &Arc<Resources> {
        &self.resources
    }

    /// Quotas set on a subject or a pattern.
    pub fn quotas(&self, target: &Target) -> Option<&QuotaList> {
        match target {
            Target::Subject(name) => self.subject(name.as_str()).map(|subject| &*subject.quotas),
            Target::Pattern(pattern) => self.defaults.get(pattern).map(|entry| &entry.quotas),
        }
    }

    /// How much there is.
    pub fn sizes(&self) -> Sizes {
        let (operations, operation_bytes) = self.memory.size();
        Sizes {
            subjects: self.subjects.len(),
            allocations: self.allocations.len(),
            holds: self.holds.len().saturating_sub(self.ended.len()),
            operations,
            operation_bytes,
        }
    }

    /// The state that an evaluation of these names sees; `subject` is the one that a request names first.
    /// `now` is the instant to evaluate at.
    pub fn scene<'a>(&'a self, subject: &'a str, names: &[&'a str], now: Timestamp) -> Scene<'a> {
        let lines = names.iter().map(|name| (*name, self.subject(name)));
        Scene::new(subject, lines, &self.defaults, &self.resources, now)
    }

    /// The charge set of a request, each name looked up once.
    pub(crate) fn lineup<'a>(
        &'a self,
        subject: &'a SubjectName,
        also: &'a [SubjectName],
    ) -> Lineup<'a> {
        let names = charge_set(subject, also);
        names
            .into_iter()
            .map(|name| (name, self.subject(name)))
            .collect()
    }

    /// The same state as [`Self::scene`], of a charge set that was looked up.
    pub(crate) fn scene_of<'a>(
        &'a self,
        subject: &'a SubjectName,
        lineup: &[(&'a str, Option<&'a Subject>)],
        now: Timestamp,
    ) -> Scene<'a> {
        let lines = lineup.iter().copied();
        Scene::new(
            subject.as_str(),
            lines,
            &self.defaults,
            &self.resources,
            now,
        )
    }

    /// An answer that was read back has names of its own; those that are the ledger's are shared with it again, as
    /// they were when it was given.
    pub(crate) fn share_names(&self, answered: &mut Remembered) {
        answered.lane = self.memory.lane(&answered.lane);
        let verdict = match Arc::get_mut(&mut answered.outcome).map(|outcome| &mut outcome.answer) {
            Some(
                Answer::Charged { verdict, .. }
                | Answer::Reserved { verdict, .. }
                | Answer::Committed { verdict, .. },
            ) => verdict,
            _ => return,
        };
        for headroom in verdict.near.iter_mut().chain(&mut verdict.tightest) {
            let subject = self.subjects.get(headroom.subject.as_str());
            let subject = subject.map(|slot| &slot.subject);
            let entry = headroom.pattern.as_ref();
            let entry = entry.and_then(|pattern| self.defaults.get(pattern));
            let quotas = match &headroom.pattern {
                Some(_) => entry.map(|entry| &entry.quotas),
                None => subject.map(|subject| &*subject.quotas),
            };
            let quota = quotas.and_then(|all| all.find(&headroom.resource, &headroom.quota));
            if let Some(subject) = subject {
                headroom.subject = subject.name.clone();
            }
            if let Some(quota) = quota {
                headroom.resource = quota.resource.clone();
                headroom.quota = quota.id.clone();
            }
            if let Some(entry) = entry {
                headroom.pattern = Some(entry.pattern.clone());
            }
        }
    }

    /// What an evaluation sees of one subject at `now`.
    pub(crate) fn line<T>(
        &self,
        name: &str,
        now: Timestamp,
        look: impl FnOnce(&Line<'_>) -> T,
    ) -> T {
        look(&Line::new(name, self.subject(name), &self.defaults, now))
    }
}

/// Whether a subject was deleted with one above it and is not swept yet.
pub fn is_dead(dying: &BTreeMap<SubjectName, u64>, subject: &Subject) -> bool {
    if dying.is_empty() {
        return false;
    }
    let mut lineage = subject.name.lineage();
    lineage.any(|above| {
        let revision = dying.get(above);
        revision.is_some_and(|revision| subject.profile.incarnation <= *revision)
    })
}
