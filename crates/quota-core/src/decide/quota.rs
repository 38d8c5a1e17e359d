//! Quotas: set and deleted by administrators. Usage is never touched (C4.9).

use std::sync::Arc;

use crate::Ledger;
use crate::amount::Limit;
use crate::charge::charge_set;
use crate::command::{DeleteQuota, Existence, SetQuota};
use crate::decide::Step;
use crate::decide::resource::{guard_etag, guard_existence};
use crate::event::Change;
use crate::name::{Id, ResourceKey, SubjectName, SubjectPattern};
use crate::outcome::{Answer, QuotaAnswer};
use crate::period::Period;
use crate::quota::{
    Counting, Enforcement, Measure, PATTERNS_MAX, QUOTAS_PER_PAIR_MAX, QUOTAS_PER_TARGET_MAX,
    Quota, QuotaList, Target, default_id, definitions,
};
use crate::rate::RateBefore;
use crate::rejection::{Rejection, Violation};
use crate::resource::Kind;
use crate::time::Timestamp;

/// The rates of a default until now; of a subject's own quota the bucket is settled when it changes.
fn rates_before(now: Timestamp, set: &SetQuota, live: Option<&Arc<Quota>>) -> Vec<RateBefore> {
    let (Target::Pattern(_), Some(live)) = (&set.target, live) else {
        return Vec::new();
    };
    let Measure::Rated(rate) = &live.measure else {
        return Vec::new();
    };
    let before = RateBefore {
        until: now,
        limit: live.limit.value().unwrap_or(i64::MAX),
        interval_ns: rate.interval_ns(),
    };
    RateBefore::followed(&live.rates_before, before)
}

/// A quota that is not named where there are several.
pub fn several_quotas(ids: Vec<Id>) -> Rejection {
    let ids: Vec<&str> = ids.iter().map(Id::as_str).collect();
    let text = format!("is empty, and there are several quotas: {}", ids.join(", "));
    Rejection::Invalid(vec![Violation::new("quota_id", text)])
}

/// The limit of a quota as far as it can refuse anything at `now`.
pub fn bite(quota: &Quota, now: Timestamp) -> Limit {
    match quota.is_in_force(now) && quota.enforcement.vetoes() {
        true => quota.limit,
        false => Limit::Unlimited,
    }
}

impl Ledger {
    pub(crate) fn set_quota(&self, now: Timestamp, set: &SetQuota) -> Result<Step, Rejection> {
        let what = || format!("quota {} on {} of {}", set.id, set.resource, set.target);
        let have = self.quotas(&set.target);
        let live = have.and_then(|quotas| quotas.find(&set.resource, &set.id));
        self.guard_fits_kind(set)?;
        if live.is_none() && set.existence == Existence::Known {
            return Err(self.quota_unknown(&set.target, &set.resource, &set.id));
        }
        guard_existence(live.is_some(), set.existence, what)?;
        guard_etag(live.map(|live| live.version), &set.etag, what)?;
        if live.is_none() {
            self.guard_room(&set.target, &set.resource, have)?;
        }
        let quota = Arc::new(self.quota_to_be(now, set, live));
        if !set.force {
            self.guard_unforced(now, &set.target, &quota, live)?;
        }

        let (warnings, mut changes) = match &set.target {
            Target::Subject(name) => {
                let lineup = self.lineup(name, &[]);
                self.guard_capacity(&lineup)?;
                let names = charge_set(name, &[]);
                let above = names.split_last().map_or(&[][..], |(_, above)| above);
                (
                    self.above_parent(now, above, &quota),
                    self.births(now, &lineup),
                )
            }
            Target::Pattern(pattern) => {
                let above = pattern.literal_ancestors();
                (self.above_parent(now, &above, &quota), Vec::new())
            }
        };
        changes.push(Change::QuotaSet {
            target: set.target.clone(),
            quota: quota.clone(),
            before: live.map(|live| live.limit),
        });
        Ok(Step {
            answer: Answer::Quotas(vec![QuotaAnswer {
                target: set.target.clone(),
                quota,
                warnings,
            }]),
            changes,
        })
    }

    fn quota_to_be(&self, now: Timestamp, set: &SetQuota, live: Option<&Arc<Quota>>) -> Quota {
        let measure = match (self.kind(&set.resource), set.rate) {
            (Kind::Counter, _) => {
                let period = set.period.unwrap_or(Period::NONE);
                Measure::Counted(self.counting(now, set, period, live))
            }
            (Kind::Rate, Some(rate)) => Measure::Rated(rate),
            (Kind::PerRequest, _) => Measure::Request,
            _ => Measure::Held,
        };
        Quota {
            resource: set.resource.clone(),
            id: set.id.clone(),
            limit: set.limit,
            measure,
            enforcement: set.enforcement,
            state: set.state,
            valid_from: set.valid_from,
            valid_until: set.valid_until,
            max_request: set.max_request,
            near_percent: set.near_percent,
            rates_before: rates_before(now, set, live),
            display_name: set.display_name.clone(),
            labels: set.labels.clone(),
            origin: set.origin,
            created: live.map_or(now, |live| live.created),
            updated: now,
            version: self.next_revision(),
        }
    }

    /// A definition that is in force there already goes on; a new one begins now (C3.4, C7.3).
    fn counting(
        &self,
        now: Timestamp,
        set: &SetQuota,
        period: Period,
        live: Option<&Arc<Quota>>,
    ) -> Counting {
        let in_force = live.filter(|live| live.is_in_force(now));
        if let Some(Measure::Counted(counting)) = in_force.map(|live| live.measure) {
            return counting.replaced(period, now);
        }
        let defined = match &set.target {
            Target::Subject(name) => {
                self.line(name.as_str(), now, |line| line.definitions(&set.resource))
            }
            Target::Pattern(pattern) => {
                let own = self.defaults.get(pattern);
                let quotas = own.into_iter().flat_map(|entry| entry.quotas.iter());
                let fits =
                    |quota: &&Arc<Quota>| quota.resource == set.resource && quota.is_in_force(now);
                definitions(quotas.filter(fits).map(|quota| &**quota), now)
            }
        };
        let same = defined.iter().find(|(have, _)| *have == period);
        Counting {
            period,
            since: same.map_or(now, |(_, since)| *since),
            before: None,
        }
    }

    /// What could stop growth or lower a default by accident needs force (C4.9).
    fn guard_unforced(
        &self,
        now: Timestamp,
        target: &Target,
        quota: &Quota,
        live: Option<&Arc<Quota>>,
    ) -> Result<(), Rejection> {
        let was_in_force = live.filter(|live| live.is_in_force(now));
        if let Some(live) = was_in_force
            && !quota.is_in_force(now)
        {
            return self.guard_uncovered(now, target, live);
        }
        match target {
            // What does not lower the limit cuts nothing.
            Target::Subject(_)
                if live.is_some_and(|l| !bite(quota, now).is_below(bite(l, now))) =>
            {
                Ok(())
            }
            Target::Subject(name) => self.guard_cut(now, name, quota),
            Target::Pattern(pattern) => self.guard_default_lowered(now, pattern, quota),
        }
    }

    pub(crate) fn delete_quota(
        &self,
        now: Timestamp,
        delete: &DeleteQuota,
    ) -> Result<Step, Rejection> {
        let DeleteQuota {
            target,
            resource,
            id,
            etag,
            force,
        } = delete;
        let id = id.as_ref();
        let found = match self.quotas(target) {
            Some(quotas) => quotas.find_or_only(resource, id).map_err(several_quotas)?,
            None => None,
        };
        let Some(live) = found else {
            let named = default_id(resource, None, None);
            return Err(self.quota_unknown(target, resource, id.unwrap_or(&named)));
        };
        let id = &live.id;
        guard_etag(Some(live.version), etag, || {
            format!("quota {id} on {resource} of {target}")
        })?;
        if !*force {
            self.guard_uncovered(now, target, live)?;
        }
        Ok(Step {
            answer: Answer::Deleted,
            changes: vec![Change::QuotaDeleted {
                target: target.clone(),
                resource: resource.clone(),
                id: id.clone(),
                before: live.limit,
            }],
        })
    }

    fn guard_fits_kind(&self, set: &SetQuota) -> Result<(), Rejection> {
        let mut violations = Vec::new();
        let mut wrong = |field: &str, text: String| violations.push(Violation::new(field, text));
        let key = &set.resource;
        let Some(resource) = self.resources.get(key.as_str()) else {
            wrong(
                "quota.resource",
                format!("{key} is not a resource; `ListResources` names them"),
            );
            return Err(Rejection::Invalid(violations));
        };
        let kind = resource.kind;
        if kind == Kind::Measured {
            wrong(
                "quota.resource",
                format!("{key} is of kind MEASURED, which has no quotas yet"),
            );
        }
        if set.period.is_some() && kind != Kind::Counter {
            let text = format!(
                "is given; {key} is of kind {}, only a COUNTER has a period",
                kind.name()
            );
            wrong("quota.period", text);
        }
        match (kind, &set.rate) {
            (Kind::Rate, None) => wrong(
                "quota.rate",
                format!("is not given; {key} is of kind RATE and needs the interval of its limit"),
            ),
            (Kind::Rate, Some(rate)) => {
                let throttles = set.enforcement == Enforcement::Throttle;
                if throttles && rate.delay_max.is_zero() {
                    wrong(
                        "quota.rate.delay_max",
                        "is not given; the longest wait of a caller that is throttled".into(),
                    );
                }
            }
            (_, Some(_)) => {
                let text = format!(
                    "is given; {key} is of kind {}, only a RATE has a rate",
                    kind.name()
                );
                wrong("quota.rate", text);
            }
            (_, None) => {}
        }
        if set.enforcement == Enforcement::Throttle && kind != Kind::Rate {
            let text = format!(
                "is THROTTLE; {key} is of kind {}, only a RATE can be throttled: DENY, WARN or SHADOW",
                kind.name()
            );
            wrong("quota.enforcement", text);
        }
        match violations.is_empty() {
            true => Ok(()),
            false => Err(Rejection::Invalid(violations)),
        }
    }

    fn guard_room(
        &self,
        target: &Target,
        resource: &ResourceKey,
        have: Option<&QuotaList>,
    ) -> Result<(), Rejection> {
        let full = |what, most| Err(Rejection::Capacity { what, most });
        if have.is_some_and(|quotas| quotas.len() >= QUOTAS_PER_TARGET_MAX) {
            return full("quotas of one subject or pattern", QUOTAS_PER_TARGET_MAX);
        }
        let same = |quotas: &QuotaList| quotas.iter().filter(|q| q.resource == *resource).count();
        if have.map_or(0, same) >= QUOTAS_PER_PAIR_MAX {
            return full("quotas on one resource of one subject", QUOTAS_PER_PAIR_MAX);
        }
        let new_pattern = have.is_none() && matches!(target, Target::Pattern(_));
        if new_pattern && self.defaults.len() >= PATTERNS_MAX {
            return full("patterns with default quotas", PATTERNS_MAX);
        }
        Ok(())
    }

    /// A limit below what is taken stops all growth until it is given back: not by accident (C4.9). A bucket
    /// refills, and one request is no use, so only what is there and what is counted can be above a limit.
    fn guard_cut(
        &self,
        now: Timestamp,
        name: &SubjectName,
        quota: &Quota,
    ) -> Result<(), Rejection> {
        let account = self
            .subject(name.as_str())
            .and_then(|subject| subject.account(&quota.resource));
        let Some(account) = account else {
            return Ok(());
        };
        let mut taken = account.at(now);
        match &quota.measure {
            Measure::Held => {}
            Measure::Counted(counting) => {
                let (period, since) = counting.at(now);
                taken.used = account.counted(period, since, now).used;
            }
            Measure::Rated(_) | Measure::Request => return Ok(()),
        }
        match bite(quota, now) {
            Limit::Value(limit) if limit < taken.sum() => Err(Rejection::ForceNeeded(format!(
                "{name} has {} of {} used and {} held, above the limit of {limit}",
                taken.used, quota.resource, taken.held
            ))),
            _ => Ok(()),
        }
    }

    /// Lowering a default may put any number of subjects above it and looks at none (C4.9). It is lowered
    /// where the pattern had a higher one, or where a less specific pattern's higher one applied.
    fn guard_default_lowered(
        &self,
        now: Timestamp,
        pattern: &SubjectPattern,
        quota: &Quota,
    ) -> Result<(), Rejection> {
        let own = self
            .defaults
            .get(pattern)
            .and_then(|entry| entry.quotas.find(&quota.resource, &quota.id))
            .map(|live| (pattern, live));
        let covered = self
            .defaults
            .overlapping(pattern, quota)
            .filter(|(other, live)| live.is_in_force(now) && pattern.is_more_specific_than(other));
        // Where the pattern has one of its own, that is what applied so far.
        let applied: Vec<_> = match own {
            Some(own) => vec![own],
            None => covered.collect(),
        };
        let higher = applied
            .into_iter()
            .find(|(_, live)| bite(quota, now).is_below(bite(live, now)));
        match higher {
            Some((other, live)) => Err(Rejection::ForceNeeded(format!(
                "the default {} of {} on {other} allows {}; {pattern} would lower it to {} for subjects that are not looked at",
                quota.id,
                quota.resource,
                bite(live, now),
                quota.limit
            ))),
            None => Ok(()),
        }
    }

    /// Without this quota a default of the same id may come into force; a lower one needs force (C4.9).
    fn guard_uncovered(
        &self,
        now: Timestamp,
        target: &Target,
        quota: &Quota,
    ) -> Result<(), Rejection> {
        if !quota.is_in_force(now) {
            return Ok(());
        }
        let lowers = |default: &Quota| {
            default.is_in_force(now) && bite(default, now).is_below(bite(quota, now))
        };
        let lower = match target {
            Target::Subject(name) => self
                .defaults
                .applying(name.as_str(), &quota.resource, &quota.id, now)
                .filter(|default| lowers(default))
                .map(|default| default.limit),
            Target::Pattern(pattern) => self
                .defaults
                .overlapping(pattern, quota)
                .filter(|(other, _)| pattern.is_more_specific_than(other))
                .find(|(_, default)| lowers(default))
                .map(|(_, default)| default.limit),
        };
        match lower {
            Some(lower) => Err(Rejection::ForceNeeded(format!(
                "without quota {} on {} of {target} a default of {lower} comes into force where {} was",
                quota.id, quota.resource, quota.limit
            ))),
            None => Ok(()),
        }
    }

    /// A child limit above its parent's is accepted: the parent bounds it all the same (C4.4).
    fn above_parent(&self, now: Timestamp, above: &[&str], quota: &Quota) -> Vec<String> {
        let Some(parent) = above.last() else {
            return Vec::new();
        };
        let dimension = crate::evaluate::dimension(quota, now);
        let bounds = self
            .scene(parent, above, now)
            .effective_limits(&quota.resource);
        bounds
            .iter()
            .filter(|bound| bound.dimension == dimension)
            .filter(|bound| bound.limit.is_below(quota.limit))
            .map(|bound| {
                format!(
                    "the limit {} is above the {} that {} allows; the lower one bounds",
                    quota.limit, bound.limit, bound.subject
                )
            })
            .collect()
    }

    fn quota_unknown(&self, target: &Target, resource: &ResourceKey, id: &Id) -> Rejection {
        Rejection::QuotaUnknown {
            target: target.clone(),
            resource: resource.clone(),
            id: id.clone(),
        }
    }
}
