//! Absorbing: the only thing that changes the state. An event says what happened, so nothing here can
//! refuse; what does not hold is a bug and stops the thread.

use std::sync::Arc;

use thin_vec::ThinVec;

use crate::Ledger;
use crate::account::Account;
use crate::allocation::Allocation;
use crate::charge::charge_set;
use crate::command::{CorrectUsage, ResetUsage};
use crate::event::{Change, Charged, Event};
use crate::gauge::Gauge;
use crate::hold::{Hold, HoldKey};
use crate::name::{ResourceKey, SubjectName, SubjectPattern, is_within};
use crate::quota::{QuotaList, Target};
use crate::read::is_dead;
use crate::record::RecordKey;
use crate::resource::Kind;
use crate::stake::{RowKey, Stake};
use crate::subject::Subject;
use crate::time::Timestamp;
use crate::touched::Slot;

/// Most answers that are forgotten when one is remembered: a busy hour that is over costs no caller much.
const FORGET_MAX: usize = 1024;

impl Ledger {
    /// Lets an event have happened.
    pub fn absorb(&mut self, event: &Event) {
        self.touched.next_event();
        if event.change.is_notice() {
            return;
        }
        if event.revision != self.revision {
            self.revision = event.revision;
            self.touched.meta();
        }
        match &event.change {
            Change::SubjectCreated { name, profile } => {
                // A dead one of that name may not have been swept yet.
                let fresh = !self.subjects.contains(name.as_str());
                if !fresh {
                    self.remove_subject(name);
                }
                self.add_subject(Subject::new(name.clone(), profile.clone()));
                self.touch_subject(name.as_str(), fresh);
            }
            Change::SubjectChanged { name, profile } => {
                if let Some(slot) = self.subjects.get_mut(name.as_str()) {
                    slot.change().profile = profile.clone();
                }
                self.touch_subject(name.as_str(), false);
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
            Change::QuotaSet { target, quota, .. } => {
                self.settle(event.at, target, &quota.resource);
                let new = self.change_quotas(event.at, target, &quota.resource, |quotas| {
                    quotas.put(quota.clone())
                });
                if new {
                    self.count_quota(&quota.resource, true);
                }
            }
            Change::QuotaDeleted {
                target,
                resource,
                id,
                ..
            } => {
                self.settle(event.at, target, resource);
                let remove = |quotas: &mut QuotaList| quotas.remove(resource, id);
                if self.change_quotas(event.at, target, resource, remove) {
                    self.count_quota(resource, false);
                }
            }
            Change::SubjectDeleted { name } => self.delete_subtree(name, event.revision),
            Change::Charged(charged) => self.charge(event.at, charged),
            Change::UsageReset(reset) => self.reset(event.at, reset),
            Change::UsageCorrected(correct) => self.correct(event.at, correct),
            Change::ClockAccepted { offset_ns, to } if *offset_ns > 0 => self.memory.jumped(*to),
            Change::ClockAccepted { .. } => {}
            Change::Answered(answered) => {
                // First, so that what is forgotten by now pushes out nothing that is not.
                self.expire_answers(event.at, FORGET_MAX);
                self.recollect(answered.clone());
            }
            Change::Crossed(crossing) => self.cross(event.at, crossing),
            Change::Exceeded(_)
            | Change::Refused(_)
            | Change::Usage(_)
            | Change::ClockDoubted { .. }
            | Change::Started { .. } => {}
        }
    }

    /// Rows say what is in use and held; accounts move by the difference between a row before and after, so
    /// they are the sum over the rows whatever happens. What is only counted is in the event itself.
    fn charge(&mut self, at: Timestamp, charged: &Charged) {
        let counted: Vec<_> = charged
            .used
            .iter()
            .filter(|(key, _)| matches!(self.kind(key), Kind::Counter | Kind::Rate))
            .cloned()
            .collect();
        if !counted.is_empty() {
            let incarnations = charged.hold.as_ref().map(|hold| hold.incarnations.clone());
            self.count(at, charged, &counted, incarnations.as_deref());
        }
        if let Some(row) = &charged.allocation {
            self.put_allocation(row, charged);
        }
        if let Some(row) = &charged.hold {
            self.put_hold(row, charged);
        }
    }

    /// Counts what grows within a period, and takes from buckets.
    fn count(
        &mut self,
        at: Timestamp,
        charged: &Charged,
        counted: &[(ResourceKey, i64)],
        incarnations: Option<&[u64]>,
    ) {
        let names = charge_set(&charged.subject, &charged.also);
        for (nth, name) in names.into_iter().enumerate() {
            let recorded = incarnations.and_then(|all| all.get(nth)).copied();
            if !self.is_incarnation(name, recorded) {
                continue;
            }
            for (resource, amount) in counted {
                if self.kind(resource) == Kind::Counter {
                    let defined = self.line(name, at, |line| line.definitions(resource));
                    if let Some(account) = self.account_mut(name, resource) {
                        account.count(*amount, &defined, at);
                    }
                    continue;
                }
                let debited = |gauge: &Gauge<'_>| {
                    let brim = !gauge.quota().enforcement.vetoes();
                    let bucket = gauge.fill()?.debited(*amount, at, brim);
                    Some((gauge.quota().id.clone(), bucket))
                };
                let buckets: Option<ThinVec<_>> = self.line(name, at, |line| {
                    let gauges = line.gauges(resource);
                    (!gauges.is_empty()).then(|| gauges.iter().filter_map(debited).collect())
                });
                if let Some(buckets) = buckets
                    && let Some(account) = self.account_mut(name, resource)
                {
                    account.buckets = buckets;
                }
            }
            for (resource, _) in counted {
                self.touch_account(name, resource, true);
            }
        }
    }

    /// Notes that the record of a subject changed, if it is there.
    pub(crate) fn touch_subject(&mut self, name: &str, fresh: bool) {
        if let Some(slot) = self.subjects.get_mut(name) {
            self.touched.subject(slot, fresh);
        }
    }

    /// Notes that the event that is absorbed changed an account.
    fn touch_account(&mut self, name: &str, resource: &ResourceKey, usage: bool) {
        if let Some(slot) = self.subjects.get_mut(name) {
            self.touched.account(slot, resource, usage);
        }
    }

    fn account_mut(&mut self, name: &str, resource: &ResourceKey) -> Option<&mut Account> {
        let slot = self.subjects.get_mut(name)?;
        Some(slot.change().account_mut(resource, &self.resources))
    }

    /// Refills the buckets of a subject by the quotas in force until now: one of them is about to change.
    fn settle(&mut self, at: Timestamp, target: &Target, resource: &ResourceKey) {
        let Target::Subject(name) = target else {
            return;
        };
        if self.kind(resource) != Kind::Rate {
            return;
        }
        let debited = |gauge: &Gauge<'_>| {
            let bucket = gauge.fill()?.debited(0, at, false);
            Some((gauge.quota().id.clone(), bucket))
        };
        let settled: ThinVec<_> = self.line(name.as_str(), at, |line| {
            let gauges = line.gauges(resource);
            gauges.iter().filter_map(debited).collect()
        });
        let charged = self
            .subject(name.as_str())
            .and_then(|subject| subject.account(resource));
        if charged.is_none_or(|account| account.buckets.is_empty()) {
            return;
        }
        if let Some(account) = self.account_mut(name.as_str(), resource) {
            account.buckets = settled;
        }
        self.touch_subject(name.as_str(), false);
    }

    /// Whether a subject is there, and in the incarnation that a row recorded, if it did.
    pub(crate) fn is_incarnation(&self, name: &str, recorded: Option<u64>) -> bool {
        let subject = self.subject(name);
        subject.is_some_and(|subject| {
            recorded.is_none_or(|recorded| recorded == subject.profile.incarnation)
        })
    }

    /// Moves what a row adds to the accounts of its charge set: its own, which need not be that of whoever
    /// takes its name. Accounts that `event` says it changed are noted as changed by it.
    pub(crate) fn stake(&mut self, stake: &Stake<'_>, sign: i64, event: Option<&Charged>) {
        let names = charge_set(stake.subject, stake.also);
        for (name, recorded) in names.into_iter().zip(stake.incarnations) {
            let Some(slot) = self.subjects.get_mut(name) else {
                continue;
            };
            let another = slot.subject.profile.incarnation != *recorded;
            if another || is_dead(&self.dying, &slot.subject) || stake.amounts.is_empty() {
                continue;
            }
            let subject = slot.change();
            for (resource, amount) in stake.amounts {
                let added = stake.adds(amount.saturating_mul(sign));
                let account = subject.account_mut(resource, &self.resources);
                let (used, held) = (&mut account.used, &mut account.held);
                for (place, by) in [(used, added.used), (held, added.held)] {
                    *place = place
                        .checked_add(by)
                        .expect("no decision takes an account beyond its bounds");
                }
                if let Some(second) = stake.ends_of(self.resources.kind(resource)) {
                    account.ends.add(second, added);
                }
            }
            self.touched.subject(slot, false);
            for (resource, _) in stake.amounts {
                if event.is_some_and(|event| event.changes(resource)) {
                    self.touched.account(slot, resource, true);
                }
            }
        }
    }

    fn put_allocation(&mut self, allocation: &Arc<Allocation>, event: &Charged) {
        let key = allocation.key.clone();
        let before = match allocation.amounts.is_empty() {
            true => self.allocations.remove(key.as_str()),
            false => self.allocations.insert(key.clone(), allocation.clone()),
        };
        if let Some(before) = &before {
            self.index_labels(before, false);
            self.stake(&Stake::of_allocation(before), -1, Some(event));
            self.note_end(before.expires, RowKey::Allocation(key.clone()), false);
        }
        if !allocation.amounts.is_empty() {
            self.index_labels(allocation, true);
            self.stake(&Stake::of_allocation(allocation), 1, Some(event));
            self.note_end(allocation.expires, RowKey::Allocation(key.clone()), true);
        }
        self.touch(RecordKey::Allocation(key), before.is_none());
    }

    fn put_hold(&mut self, hold: &Arc<Hold>, event: &Charged) {
        let key = hold.key.clone();
        let before = self.remove_hold(&key, Some(event));
        match hold.ended {
            None => {
                self.stake(&Stake::of_hold(hold), 1, Some(event));
                self.note_end(Some(hold.expires), RowKey::Hold(key.clone()), true);
            }
            Some((_, at)) => {
                self.ended.insert((at, key.clone()));
            }
        }
        self.holds.insert(key.clone(), hold.clone());
        self.touch(RecordKey::Hold(key), before.is_none());
    }

    /// Takes a hold out of the maps, with what it adds to accounts.
    pub(crate) fn remove_hold(
        &mut self,
        key: &HoldKey,
        event: Option<&Charged>,
    ) -> Option<Arc<Hold>> {
        let before = self.holds.remove(key.as_str())?;
        match before.ended {
            None => {
                self.stake(&Stake::of_hold(&before), -1, event);
                self.note_end(Some(before.expires), RowKey::Hold(key.clone()), false);
            }
            Some((_, at)) => {
                self.ended.remove(&(at, key.clone()));
            }
        }
        Some(before)
    }

    /// Remembers, or forgets, that a row has to be closed when its second is over.
    fn note_end(&mut self, expires: Option<Timestamp>, key: RowKey, add: bool) {
        let Some(expires) = expires else {
            return;
        };
        let entry = (expires.next_whole_second(), key);
        match add {
            true => self.due.insert(entry),
            false => self.due.remove(&entry),
        };
    }

    fn reset(&mut self, at: Timestamp, reset: &ResetUsage) {
        let name = reset.subject.as_str();
        let quota = reset.quota.as_ref();
        let measured = self.line(name, at, |line| {
            let gauges = line.gauges(&reset.resource);
            let mut of_it = gauges
                .iter()
                .filter(|gauge| quota.is_some_and(|id| gauge.quota().id == *id));
            of_it.find_map(|gauge| gauge.quota().definition(at))
        });
        let Some(account) = self.account_mut(name, &reset.resource) else {
            return;
        };
        match (quota, measured) {
            (None, _) => {
                account.used = 0;
                account.counts.clear();
                account.buckets.clear();
            }
            (Some(_), Some((period, _))) if period.is_none() => account.used = 0,
            (Some(_), Some((period, _))) => account.counts.retain(|count| count.period != period),
            (Some(id), None) => account.buckets.retain(|(have, _)| have != id),
        }
        self.touch_account(name, &reset.resource, true);
    }

    fn correct(&mut self, at: Timestamp, correct: &CorrectUsage) {
        for name in charge_set(&correct.subject, &correct.also) {
            for (resource, change) in &correct.amounts {
                let defined = self.line(name, at, |line| line.definitions(resource));
                let Some(account) = self.account_mut(name, resource) else {
                    continue;
                };
                match correct.past {
                    true => account.used = account.used.saturating_add(*change),
                    false => account.count(*change, &defined, at),
                }
                self.touch_account(name, resource, true);
            }
        }
    }

    /// The subject goes at once, with the patterns below it; what is below it is dead from now on and is
    /// swept later (C2.5).
    fn delete_subtree(&mut self, name: &SubjectName, revision: u64) {
        let below = |pattern: &SubjectPattern| is_within(pattern.as_str(), name.as_str());
        let patterns: Vec<SubjectPattern> = self
            .defaults
            .iter()
            .map(|entry| entry.pattern.clone())
            .filter(below)
            .collect();
        for pattern in patterns {
            if let Some(entry) = self.defaults.get(&pattern).cloned() {
                for quota in entry.quotas.iter() {
                    self.count_quota(&quota.resource, false);
                }
            }
            Arc::make_mut(&mut self.defaults).set(pattern.clone(), QuotaList::default());
            self.touch(RecordKey::Quotas(Target::Pattern(pattern)), false);
        }
        self.remove_subject(name);
        self.subjects.put_in_order();
        let mut descendants = self.subject_names(name.as_str(), "");
        let more = descendants.next().is_some();
        drop(descendants);
        if more {
            self.put_dying(name.clone(), revision);
        }
    }

    fn put_dying(&mut self, name: SubjectName, revision: u64) {
        let before = self.dying.contains_key(&name);
        Arc::make_mut(&mut self.dying).insert(name.clone(), revision);
        self.touch(RecordKey::Dying(name), !before);
    }

    /// Takes a subject out of the maps, and its quotas.
    pub(crate) fn remove_subject(&mut self, name: &SubjectName) {
        self.forget_looks(name, None);
        if let Some(gone) = self.subjects.remove(name.as_str()) {
            for quota in gone.subject.quotas.iter() {
                self.count_quota(&quota.resource, false);
            }
            if !gone.subject.quotas.is_empty() {
                self.touch(RecordKey::Quotas(Target::Subject(name.clone())), false);
            }
        }
        self.touch(RecordKey::Subject(name.clone()), false);
    }

    fn change_quotas(
        &mut self,
        at: Timestamp,
        target: &Target,
        resource: &ResourceKey,
        change: impl FnOnce(&mut QuotaList) -> bool,
    ) -> bool {
        let fresh = self.quotas(target).is_none_or(QuotaList::is_empty);
        let changed = match target {
            Target::Subject(name) => {
                self.forget_looks(name, Some(resource));
                let slot = self.subjects.get_mut(name.as_str());
                let changed =
                    slot.is_some_and(|slot| change(Arc::make_mut(&mut slot.change().quotas)));
                self.expect_looks(name, Some(resource), at);
                self.touch_account(name.as_str(), resource, false);
                changed
            }
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
        let name = subject.name.clone();
        self.touched.weigh(&subject);
        self.subjects
            .insert(name.clone(), Slot::new(Arc::new(subject)));
        self.expect_looks(&name, None, Timestamp::MIN);
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
            self.touched.meta();
        }
        for lane in lanes {
            self.touched.floor(lane);
        }
    }

    /// A record that is new stays new until its image is taken, whatever follows.
    pub(crate) fn touch(&mut self, key: RecordKey, fresh: bool) {
        let bytes = match &key {
            RecordKey::Quotas(target) => self.quotas(target).map_or(0, QuotaList::weight),
            _ => 0,
        };
        self.touched.record(key, fresh, bytes);
    }
}
