//! Absorbing: the only thing that changes the state. An event says what happened, so nothing here can
//! refuse; what does not hold is a bug and stops the thread.

use std::sync::Arc;

use crate::Ledger;
use crate::allocation::Allocation;
use crate::charge::charge_set;
use crate::event::{Change, Event};
use crate::name::ResourceKey;
use crate::quota::{QuotaList, Target};
use crate::record::RecordKey;
use crate::subject::Subject;

/// About what the image of a record takes that does not grow, in bytes.
const SMALL_RECORD_BYTES: usize = 512;

impl Ledger {
    /// Lets an event have happened.
    pub fn absorb(&mut self, event: &Event) {
        self.revision = event.revision;
        self.touch(RecordKey::Meta, false);
        match &event.change {
            Change::SubjectCreated { name, profile } => {
                self.add_subject(Subject::new(name.clone(), profile.clone()));
                self.touch(RecordKey::Subject(name.clone()), true);
            }
            Change::SubjectChanged { name, profile } => {
                if let Some(subject) = self.subjects.get_mut(name) {
                    subject.profile = profile.clone();
                }
                self.touch(RecordKey::Subject(name.clone()), false);
            }
            Change::ResourceSet(resource) => {
                let fresh = self.resources.get(resource.key.as_str()).is_none();
                Arc::make_mut(&mut self.resources).put(resource.clone());
                self.touch(RecordKey::Resource(resource.key.clone()), fresh);
            }
            Change::ResourceDeleted(key) => {
                Arc::make_mut(&mut self.resources).remove(key.as_str());
                self.touch(RecordKey::Resource(key.clone()), false);
            }
            Change::QuotaSet { target, quota } => {
                let new = self.change_quotas(target, |quotas| quotas.put(quota.clone()));
                if new {
                    self.count_quota(&quota.resource, true);
                }
            }
            Change::QuotaDeleted {
                target,
                resource,
                id,
            } => {
                if self.change_quotas(target, |quotas| quotas.remove(resource, id)) {
                    self.count_quota(resource, false);
                }
            }
            Change::Allocated {
                allocation, deltas, ..
            } => {
                self.charge(allocation, deltas);
                self.put_allocation(allocation);
            }
            Change::Answered(answered) => self.recollect(answered.clone()),
        }
    }

    /// The charge set is the recorded one; each account moves by the same amounts (C2.3).
    fn charge(&mut self, allocation: &Allocation, deltas: &[(ResourceKey, i64)]) {
        for name in charge_set(&allocation.subject, &allocation.also) {
            let subject = self
                .subjects
                .get_mut(name)
                .expect("every subject of a charge set came into being before the charge");
            for (resource, delta) in deltas {
                let account = subject.account_mut(resource);
                account.used = account
                    .used
                    .checked_add(*delta)
                    .expect("no decision takes an account beyond its bounds");
            }
            let (key, bytes) = (RecordKey::Subject(subject.name.clone()), subject.weight());
            self.touch_weighing(key, false, bytes);
        }
    }

    fn put_allocation(&mut self, allocation: &Arc<Allocation>) {
        let key = allocation.key.clone();
        let before = self.allocations.remove(&key);
        if let Some(before) = &before {
            self.index_labels(before, false);
        }
        if !allocation.amounts.is_empty() {
            self.index_labels(allocation, true);
            self.allocations.insert(key.clone(), allocation.clone());
        }
        self.touch(RecordKey::Allocation(key), before.is_none());
    }

    fn change_quotas(
        &mut self,
        target: &Target,
        change: impl FnOnce(&mut QuotaList) -> bool,
    ) -> bool {
        let fresh = self.quotas(target).is_none_or(QuotaList::is_empty);
        let changed = match target {
            Target::Subject(name) => match self.subjects.get_mut(name) {
                Some(subject) => change(Arc::make_mut(&mut subject.quotas)),
                None => false,
            },
            Target::Pattern(pattern) => {
                let defaults = Arc::make_mut(&mut self.defaults);
                let mut quotas = defaults
                    .get(pattern)
                    .map(|entry| entry.quotas.clone())
                    .unwrap_or_default();
                let changed = change(&mut quotas);
                defaults.set(pattern.clone(), quotas);
                changed
            }
        };
        self.touch(RecordKey::Quotas(target.clone()), fresh);
        changed
    }

    pub(crate) fn add_subject(&mut self, subject: Subject) {
        self.names.insert(subject.name.clone());
        self.subjects.insert(subject.name.clone(), subject);
    }

    pub(crate) fn index_labels(&mut self, allocation: &Allocation, add: bool) {
        for (key, value) in &allocation.labels {
            let label = (key.clone(), value.clone());
            let keys = self.by_label.entry(label.clone()).or_default();
            if add {
                keys.insert(allocation.key.clone());
            } else {
                keys.remove(&allocation.key);
                if keys.is_empty() {
                    self.by_label.remove(&label);
                }
            }
        }
    }

    pub(crate) fn count_quota(&mut self, resource: &ResourceKey, add: bool) {
        let count = self.quotas_on.entry(resource.clone()).or_default();
        *count = match add {
            true => count.saturating_add(1),
            false => count.saturating_sub(1),
        };
    }

    pub(crate) fn touch_floors(&mut self, lanes: Vec<Arc<str>>) {
        if !lanes.is_empty() {
            self.touch(RecordKey::Meta, false);
        }
        for lane in lanes {
            self.touch(RecordKey::Floor(lane), false);
        }
    }

    /// A record that is new stays new until its image is taken, whatever follows.
    fn touch(&mut self, key: RecordKey, fresh: bool) {
        let bytes = match &key {
            RecordKey::Subject(name) => self.subjects.get(name).map_or(0, Subject::weight),
            RecordKey::Quotas(target) => self.quotas(target).map_or(0, QuotaList::weight),
            _ => SMALL_RECORD_BYTES,
        };
        self.touch_weighing(key, fresh, bytes);
    }

    fn touch_weighing(&mut self, key: RecordKey, fresh: bool, bytes: usize) {
        if let std::collections::btree_map::Entry::Vacant(place) = self.touched.entry(key) {
            place.insert(fresh);
            self.touched_bytes = self.touched_bytes.saturating_add(bytes);
        }
    }
}
