//! The limits of accounts over time, as the journal tells them: the least of a subject's own quotas and of the
//! defaults that apply to it, among those that refuse and measure what is there.
//!
//! The alternative, looking at what is in force when the history is written, would put today's limit into last
//! month when the history is rebuilt.

use std::collections::BTreeMap;
use std::sync::Arc;

use quota_core::amount::Limit;
use quota_core::defaults::Defaults;
use quota_core::name::{Id, ResourceKey, SubjectName, SubjectPattern};
use quota_core::quota::{Measure, Quota, QuotaList, State};
use quota_core::time::Timestamp;

/// A quota of a subject's own, as far as its limit goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnLimit {
    /// Its id.
    pub id: Id,
    /// The limit.
    pub limit: Limit,
    /// From when on it is in force.
    pub from: Option<Timestamp>,
    /// Until when (exclusive).
    pub until: Option<Timestamp>,
    /// Whether it can refuse; one that only warns hides the default of its id all the same.
    pub vetoes: bool,
}

impl OwnLimit {
    fn is_in_force(&self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }
}

/// The limits of a subject's own quotas on a resource.
pub fn own_limits(quotas: &QuotaList, resource: &ResourceKey) -> Vec<OwnLimit> {
    let of = |quota: &&Arc<Quota>| {
        quota.resource == *resource
            && quota.measure == Measure::Held
            && quota.state != State::Disabled
    };
    quotas
        .iter()
        .filter(of)
        .map(|quota| OwnLimit {
            id: quota.id.clone(),
            limit: quota.limit,
            from: quota.valid_from,
            until: quota.valid_until,
            vetoes: quota.enforcement.vetoes(),
        })
        .collect()
}

/// The default quotas at the place in the journal that the history has reached.
#[derive(Default)]
pub struct Limits {
    defaults: Defaults,
    /// Patterns that changed since they were last written down.
    changed: BTreeMap<SubjectPattern, Arc<QuotaList>>,
    /// Grows whenever a default changes, so that what was worked out before is worked out anew.
    epoch: u64,
    /// Some default has a time from or until which it is in force.
    timed: bool,
}

impl Limits {
    /// Lays down what was written before, or what is in force where the journal no longer tells.
    pub fn lay(&mut self, pattern: SubjectPattern, quotas: QuotaList) {
        self.defaults.set(pattern, quotas);
        let mut all = self.defaults.iter().flat_map(|entry| entry.quotas.iter());
        self.timed = all.any(|quota| quota.valid_from.is_some() || quota.valid_until.is_some());
        self.epoch += 1;
    }

    /// A default changed.
    pub fn change(&mut self, pattern: SubjectPattern, quotas: Arc<QuotaList>) {
        self.lay(pattern.clone(), (*quotas).clone());
        self.changed.insert(pattern, quotas);
    }

    /// What has to be written down.
    pub fn changed(&self) -> impl Iterator<Item = (&SubjectPattern, &Arc<QuotaList>)> {
        self.changed.iter()
    }

    /// It is written down.
    pub fn written(&mut self, pattern: &SubjectPattern, quotas: &Arc<QuotaList>) {
        if self.changed.get(pattern) == Some(quotas) {
            self.changed.remove(pattern);
        }
    }

    /// What changes whenever a limit may, apart from a subject's own quotas; none where time alone may change it.
    pub fn epoch(&self) -> Option<u64> {
        (!self.timed).then_some(self.epoch)
    }

    /// The least limit that can refuse; unlimited where quotas say so and none has a value; none without any.
    pub fn of(
        &self,
        subject: &SubjectName,
        resource: &ResourceKey,
        own: &[OwnLimit],
        now: Timestamp,
    ) -> Option<Limit> {
        let own: Vec<&OwnLimit> = own.iter().filter(|own| own.is_in_force(now)).collect();
        let mut ids: Vec<&Id> = own.iter().map(|own| &own.id).collect();
        let vetoing = own.iter().filter(|own| own.vetoes);
        let mut limits: Vec<Limit> = vetoing.map(|own| own.limit).collect();
        // The most specific pattern comes first, and decides for its id.
        for entry in self.defaults.matching(subject.as_str()) {
            let here = entry.quotas.iter().filter(|quota| {
                quota.resource == *resource
                    && quota.measure == Measure::Held
                    && quota.is_in_force(now)
            });
            for quota in here {
                if ids.contains(&&quota.id) {
                    continue;
                }
                ids.push(&quota.id);
                if quota.enforcement.vetoes() {
                    limits.push(quota.limit);
                }
            }
        }
        let least = limits.iter().filter_map(|limit| limit.value()).min();
        match (least, limits.is_empty()) {
            (Some(least), _) => Some(Limit::Value(least)),
            (None, false) => Some(Limit::Unlimited),
            (None, true) => None,
        }
    }
}
