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
    /// How many patterns have a default that is in force only from or until some time.
    timed: usize,
}

/// Whether time alone changes what is in force.
fn is_timed(quotas: &QuotaList) -> bool {
    let timed = |quota: &Arc<Quota>| quota.valid_from.is_some() || quota.valid_until.is_some();
    quotas.iter().any(timed)
}

impl Limits {
    /// Lays down what was written before, or what is in force where the journal no longer tells.
    pub fn lay(&mut self, pattern: SubjectPattern, quotas: QuotaList) {
        let before = self.defaults.get(&pattern);
        let was_timed = before.is_some_and(|entry| is_timed(&entry.quotas));
        let others = self.timed.saturating_sub(usize::from(was_timed));
        self.timed = others.saturating_add(usize::from(is_timed(&quotas)));
        self.defaults.set(pattern, quotas);
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
        (self.timed == 0).then_some(self.epoch)
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

#[cfg(test)]
mod tests {
    use quota_core::labels::Labels;
    use quota_core::quota::{Enforcement, Origin, PATTERNS_MAX};

    use super::*;

    const BEGINNING: Timestamp = Timestamp::from_nanos(0);

    fn list(until: Option<Timestamp>) -> QuotaList {
        let mut list = QuotaList::default();
        list.put(Arc::new(Quota {
            resource: ResourceKey::parse("compute.cpu").unwrap(),
            id: Id::parse("q").unwrap(),
            limit: Limit::Value(10),
            measure: Measure::Held,
            enforcement: Enforcement::Deny,
            state: State::Active,
            valid_from: None,
            valid_until: until,
            max_request: None,
            near_percent: None,
            rates_before: Vec::new(),
            display_name: String::new(),
            labels: Labels::default(),
            origin: Origin::Override,
            created: BEGINNING,
            updated: BEGINNING,
            version: 1,
        }));
        list
    }

    fn pattern(text: &str) -> SubjectPattern {
        SubjectPattern::parse(text).unwrap()
    }

    #[test]
    fn limits_change_by_time_alone_while_some_default_does() {
        let mut limits = Limits::default();
        let timed = || list(Some(BEGINNING));
        let (one, other) = ("tenants/*", "tenants/*/users/*");
        for (of, quotas, lasting) in [
            (one, list(None), true),
            (one, timed(), false),
            (one, timed(), false),
            (other, timed(), false),
            (one, list(None), false),
            (other, QuotaList::default(), true),
            (one, QuotaList::default(), true),
            (one, timed(), false),
            (one, QuotaList::default(), true),
        ] {
            let before = limits.epoch;
            limits.lay(pattern(of), quotas);
            assert_ne!(limits.epoch, before);
            assert_eq!(limits.epoch().is_some(), lasting, "{of}");
        }
    }

    /// As many patterns as there may be: it would not end if each looked at all the others.
    #[test]
    fn as_many_patterns_as_there_may_be() {
        let mut limits = Limits::default();
        for at in 0..PATTERNS_MAX {
            limits.lay(pattern(&format!("tenants/t{at}/users/*")), list(None));
        }
        let subject = SubjectName::parse("tenants/t7/users/u").unwrap();
        let cpu = ResourceKey::parse("compute.cpu").unwrap();
        let limit = limits.of(&subject, &cpu, &[], BEGINNING);
        assert_eq!(limit, Some(Limit::Value(10)));
        assert!(limits.epoch().is_some());
    }
}
