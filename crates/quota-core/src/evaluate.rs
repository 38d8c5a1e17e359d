//! The one evaluation behind every decision: pure, over whatever state it is shown, at one instant (C5.1).
//! The writer shows it the ledger, a Check shows it published copies, and both get the same answer. Refill,
//! the change of a period and the end of a hold are computed here from the instant; nothing has to happen
//! for them to be seen.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::account::{Account, Taken};
use crate::amount::{ACCOUNT_MAX, Limit};
use crate::defaults::{Defaults, Matching};
use crate::gauge::Gauge;
use crate::name::{ResourceKey, SubjectName, SubjectPattern};
use crate::period::Period;
use crate::quota::{Enforcement, Measure, Quota, definitions};
use crate::resource::{Kind, Resources, WithoutQuota};
use crate::subject::Subject;
use crate::time::Timestamp;
use crate::verdict::{
    Decision, Dimension, EffectiveLimit, Finding, Mode, Projection, Reason, Verdict,
};

/// A quota in force on one subject.
#[derive(Clone, Debug)]
pub struct InForce<'a> {
    /// The quota.
    pub quota: &'a Arc<Quota>,
    /// The pattern that it was set on; absent for the subject's own.
    pub pattern: Option<&'a SubjectPattern>,
}

/// Quotas in force on one account; most have one or two.
pub type Found<'a> = SmallVec<[InForce<'a>; 2]>;
/// The same with what they measure.
pub type Gauges<'a> = SmallVec<[Gauge<'a>; 2]>;
/// Of a whole charge set, with what is asked of each.
type Read<'s, 'a> = SmallVec<[(&'s Line<'a>, Gauge<'a>, i64); 6]>;

/// One subject of a charge set, as the evaluation sees it.
pub struct Line<'a> {
    name: &'a str,
    subject: Option<&'a Subject>,
    defaults: Matching<'a>,
    now: Timestamp,
}

/// A charge set in its canonical order, with the state to evaluate and the instant to do it at.
pub struct Scene<'a> {
    lines: SmallVec<[Line<'a>; 6]>,
    /// Name of the subject that the request names first.
    subject: &'a str,
    resources: &'a Resources,
    now: Timestamp,
}

impl<'a> Scene<'a> {
    /// Shows the subjects of a charge set; a subject that does not exist yet has empty accounts, and the
    /// defaults of its name apply to it.
    pub fn new(
        subject: &'a str,
        names: impl IntoIterator<Item = (&'a str, Option<&'a Subject>)>,
        defaults: &'a Defaults,
        resources: &'a Resources,
        now: Timestamp,
    ) -> Self {
        let lines = names
            .into_iter()
            .map(|(name, subject)| Line::new(name, subject, defaults, now))
            .collect();
        Self {
            lines,
            subject,
            resources,
            now,
        }
    }

    /// Decides growth by `amounts` (base units, each positive) of every account in the charge set. A best
    /// effort is of exactly one amount.
    pub fn evaluate(&self, amounts: &[(ResourceKey, i64)], mode: Mode) -> Verdict {
        let (Mode::BestEffort { minimum }, [(resource, asked)]) = (mode, amounts) else {
            return self.judge(amounts, mode);
        };
        let least = minimum.clamp(1, (*asked).max(1));
        let fits = self.room(resource).min(*asked);
        let amount = fits.max(least);
        let mut verdict = self.judge(&[(resource.clone(), amount)], Mode::Strict);
        if !verdict.is_denied() && amount < *asked {
            verdict.partial = Some(amount);
            verdict.decision = verdict.decision.min(Decision::Partial);
        }
        verdict
    }

    fn judge(&self, amounts: &[(ResourceKey, i64)], mode: Mode) -> Verdict {
        let mut verdict = Verdict {
            decision: Decision::Granted,
            refusals: Vec::new(),
            exceeded: Vec::new(),
            warnings: Vec::new(),
            shadows: Vec::new(),
            near: Vec::new(),
            tightest: Vec::new(),
            unbounded: Vec::new(),
            delay: Duration::ZERO,
            partial: None,
        };
        let mut gauges = Read::new();
        for (resource, requested) in amounts {
            let kind = self.kind(resource);
            let mut bounded = false;
            for line in &self.lines {
                let beyond = line.beyond_account(resource, kind, *requested);
                verdict.refusals.extend(beyond);
                for gauge in line.gauges(resource) {
                    bounded = true;
                    verdict
                        .refusals
                        .extend(line.beyond_bucket(&gauge, *requested));
                    line.weigh(&gauge, *requested, mode, &mut verdict);
                    gauges.push((line, gauge, *requested));
                }
            }
            if !bounded {
                self.unbounded(resource, *requested, mode, &mut verdict);
            }
        }
        if !verdict.refusals.is_empty() {
            verdict.decision = Decision::Denied;
            verdict.exceeded.clear();
            verdict.delay = Duration::ZERO;
        } else if !verdict.delay.is_zero() {
            verdict.decision = Decision::Delayed;
        }
        report_headroom(&gauges, &mut verdict);
        verdict
    }

    fn unbounded(&self, resource: &ResourceKey, requested: i64, mode: Mode, verdict: &mut Verdict) {
        let without = self
            .resources
            .get(resource.as_str())
            .map_or(WithoutQuota::Allow, |resource| resource.without_quota);
        match (without, mode) {
            (WithoutQuota::Allow, _) => verdict.unbounded.push(resource.clone()),
            (WithoutQuota::Deny, Mode::Record) => {
                verdict.exceeded.extend(self.no_quota(resource, requested));
            }
            (WithoutQuota::Deny, _) => {
                verdict.refusals.extend(self.no_quota(resource, requested));
            }
        }
    }

    /// What of a resource fits everywhere now, without a delay.
    fn room(&self, resource: &ResourceKey) -> i64 {
        let kind = self.kind(resource);
        let mut room = i64::MAX;
        for line in &self.lines {
            if let Some(taken) = line.account_taken(resource, kind) {
                room = room.min(ACCOUNT_MAX.saturating_sub(taken));
            }
            for gauge in line.gauges(resource) {
                if gauge.quota().enforcement.vetoes() {
                    room = room.min(gauge.room());
                }
            }
        }
        room
    }

    /// The least limits on the path that refuse or throttle, one for what measures alike; the one nearest
    /// the root where several are least (C4.4).
    pub fn effective_limits(&self, resource: &ResourceKey) -> Vec<EffectiveLimit> {
        let mut least: Vec<(Dimension, &Line<'a>, &Quota)> = Vec::new();
        for line in &self.lines {
            for in_force in line.in_force(resource) {
                let quota: &Quota = in_force.quota;
                if !quota.enforcement.vetoes() {
                    continue;
                }
                let found = dimension(quota, self.now);
                match least.iter_mut().find(|(have, _, _)| *have == found) {
                    Some(have) if quota.limit.is_below(have.2.limit) => {
                        *have = (found, line, quota);
                    }
                    Some(_) => {}
                    None => least.push((found, line, quota)),
                }
            }
        }
        least.sort_by_key(|(dimension, _, _)| *dimension);
        let shown = |(dimension, line, quota): (Dimension, &Line<'a>, &Quota)| EffectiveLimit {
            limit: quota.limit,
            subject: line.subject_name(),
            quota: quota.id.clone(),
            dimension,
        };
        least.into_iter().map(shown).collect()
    }

    /// What every account has and would have if `amounts` were granted (C6.1).
    pub fn project<'s>(&'s self, amounts: &'s [(ResourceKey, i64)]) -> Vec<Projection<'s>> {
        let mut projections = Vec::new();
        for (resource, requested) in amounts {
            let kind = self.kind(resource);
            for line in &self.lines {
                let projection = |taken: Taken| Projection {
                    subject: line.name,
                    resource,
                    quota: None,
                    window: None,
                    used: taken.used,
                    held: taken.held,
                    projected: taken.used.saturating_add(*requested),
                };
                if matches!(kind, Kind::Allocation | Kind::Concurrency | Kind::Counter) {
                    projections.push(projection(line.taken(resource)));
                }
                // Of other kinds no quota has an account of its own.
                if !matches!(kind, Kind::Counter | Kind::Rate) {
                    continue;
                }
                for gauge in line.gauges(resource) {
                    let lifetime = gauge.window.is_some_and(|window| window.end.is_none());
                    if !lifetime {
                        projections.push(Projection {
                            quota: Some(&gauge.quota().id),
                            window: gauge.window,
                            ..projection(gauge.taken)
                        });
                    }
                }
            }
        }
        projections
    }

    /// The subjects, in canonical order.
    pub fn lines(&self) -> &[Line<'a>] {
        &self.lines
    }

    fn kind(&self, resource: &ResourceKey) -> Kind {
        self.resources.kind(resource)
    }

    fn no_quota(&self, resource: &ResourceKey, requested: i64) -> Option<Finding> {
        let line = self.lines.iter().find(|line| line.name == self.subject)?;
        Some(Finding {
            reason: Reason::NoQuota,
            shortfall: requested,
            ..line.finding(resource, line.taken(resource), requested)
        })
    }
}

/// Names the limits that are nearly full after the decision, and of each resource the one with the least left,
/// the one nearest the root where several have.
fn report_headroom(gauges: &[(&Line<'_>, Gauge<'_>, i64)], verdict: &mut Verdict) {
    let mut tightest: SmallVec<[(&ResourceKey, i64, usize); 2]> = SmallVec::new();
    for (at, (line, gauge, requested)) in gauges.iter().enumerate() {
        let added = if verdict.is_denied() { 0 } else { *requested };
        let Some((limit, taken)) = gauge.level(added) else {
            continue;
        };
        let quota = gauge.quota();
        if quota.enforcement.vetoes() {
            let remaining = limit.saturating_sub(taken);
            let mut known = tightest.iter_mut();
            match known.rfind(|(resource, _, _)| **resource == quota.resource) {
                Some(have) if remaining < have.1 => *have = (have.0, remaining, at),
                Some(_) => {}
                None => tightest.push((&quota.resource, remaining, at)),
            }
        }
        if quota.enforcement != Enforcement::Shadow && quota.is_near(taken, limit, 0) {
            verdict
                .near
                .push(gauge.headroom(line.subject_name(), limit, taken));
        }
    }
    // Kept with the answer for an hour: no room for more than there is.
    verdict.tightest.reserve_exact(tightest.len());
    for (_, remaining, at) in tightest {
        if let Some((line, gauge, requested)) = gauges.get(at) {
            let added = if verdict.is_denied() { 0 } else { *requested };
            if let Some((limit, taken)) = gauge.level(added) {
                debug_assert_eq!(remaining, limit.saturating_sub(taken));
                verdict
                    .tightest
                    .push(gauge.headroom(line.subject_name(), limit, taken));
            }
        }
    }
}

/// What the limit of a quota can be compared with.
pub(crate) fn dimension(quota: &Quota, now: Timestamp) -> Dimension {
    match &quota.measure {
        Measure::Held => Dimension::Held,
        Measure::Counted(counting) => Dimension::Period(counting.at(now).0),
        Measure::Rated(rate) => Dimension::Interval(rate.interval),
        Measure::Request => Dimension::Request,
    }
}

impl<'a> Line<'a> {
    pub(crate) fn new(
        name: &'a str,
        subject: Option<&'a Subject>,
        defaults: &'a Defaults,
        now: Timestamp,
    ) -> Self {
        Self {
            name,
            subject,
            defaults: defaults.matching(name),
            now,
        }
    }

    /// The subject's name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The same, to keep.
    pub fn subject_name(&self) -> SubjectName {
        match self.subject {
            Some(subject) => subject.name.clone(),
            None => SubjectName::of_checked(self.name),
        }
    }

    /// The account of a resource; none where it was never charged.
    pub fn account(&self, resource: &ResourceKey) -> Option<&'a Account> {
        self.subject.and_then(|subject| subject.account(resource))
    }

    /// What the subject has of a resource now; of a COUNTER in its lifetime.
    pub fn taken(&self, resource: &ResourceKey) -> Taken {
        let account = self.account(resource);
        account
            .map(|account| account.at(self.now))
            .unwrap_or_default()
    }

    /// Quotas in force on this subject: its own, and of the matching defaults those whose id neither it
    /// nor a more specific pattern has in force (C4.2).
    pub fn in_force(&self, resource: &ResourceKey) -> Found<'a> {
        let mut found = Found::new();
        let fits = |quota: &Quota| quota.resource == *resource && quota.is_in_force(self.now);
        if let Some(subject) = self.subject {
            let own = subject.quotas.iter().filter(|quota| fits(quota));
            found.extend(own.map(|quota| InForce {
                quota,
                pattern: None,
            }));
        }
        for entry in &self.defaults {
            for quota in entry.quotas.iter().filter(|quota| fits(quota)) {
                if !found.iter().any(|have| have.quota.id == quota.id) {
                    found.push(InForce {
                        quota,
                        pattern: Some(&entry.pattern),
                    });
                }
            }
        }
        found
    }

    /// The quotas in force with what each of them measures now.
    pub fn gauges(&self, resource: &ResourceKey) -> Gauges<'a> {
        let in_force = self.in_force(resource);
        if in_force.is_empty() {
            return Gauges::new();
        }
        let defined = match self.counts(&in_force) {
            true => self.definitions(resource),
            false => Vec::new(),
        };
        let account = self.account(resource);
        in_force
            .into_iter()
            .map(|found| Gauge::read(found, account, &defined, self.now))
            .collect()
    }

    /// The periods in which a COUNTER is counted here: those of every quota that is in force or would be if
    /// none of its id covered it, so that a default that is uncovered has counted all the time.
    pub(crate) fn definitions(&self, resource: &ResourceKey) -> Vec<(Period, Timestamp)> {
        let all = self.all_quotas(resource);
        let quotas = all.iter().map(|found| &**found.quota);
        definitions(quotas.filter(|quota| quota.is_in_force(self.now)), self.now)
    }

    fn counts(&self, in_force: &[InForce<'_>]) -> bool {
        let mut quotas = in_force.iter().map(|found| &found.quota.measure);
        quotas.any(|measure| matches!(measure, Measure::Counted(_)))
    }

    /// Every quota on this subject and of the patterns that match it, in force or not, the one that wins
    /// first.
    pub fn all_quotas(&self, resource: &ResourceKey) -> Vec<InForce<'a>> {
        let own = self.subject.into_iter().flat_map(|subject| {
            subject.quotas.iter().map(|quota| InForce {
                quota,
                pattern: None,
            })
        });
        let defaults = self.defaults.iter().flat_map(|entry| {
            entry.quotas.iter().map(|quota| InForce {
                quota,
                pattern: Some(&entry.pattern),
            })
        });
        let all = own.chain(defaults);
        all.filter(|found| found.quota.resource == *resource)
            .collect()
    }

    /// Every resource with an account or a quota in force here, by key.
    pub fn resources(&self) -> Vec<ResourceKey> {
        let own = self.subject.into_iter().flat_map(|subject| {
            let accounts = subject.accounts().iter().map(|(key, _)| key.clone());
            accounts.chain(subject.quotas.iter().map(|quota| quota.resource.clone()))
        });
        let defaults = self
            .defaults
            .iter()
            .flat_map(|entry| entry.quotas.iter().map(|quota| quota.resource.clone()));
        let mut keys: Vec<ResourceKey> = own.chain(defaults).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// What is bounded by [`ACCOUNT_MAX`]; none of a kind without an account of the subject.
    fn account_taken(&self, resource: &ResourceKey, kind: Kind) -> Option<i64> {
        match kind {
            // What is over but not closed yet is still in the sums.
            Kind::Allocation | Kind::Concurrency => self
                .account(resource)
                .map(|account| account.used.saturating_add(account.held)),
            Kind::Counter => {
                let account = self.account(resource)?;
                let counts = account.counts.iter().map(|count| count.used).max();
                let most = account.used.max(counts.unwrap_or(0));
                Some(most.saturating_add(account.held))
            }
            Kind::Rate | Kind::PerRequest | Kind::Measured => None,
        }
    }

    fn beyond_account(
        &self,
        resource: &ResourceKey,
        kind: Kind,
        requested: i64,
    ) -> Option<Finding> {
        let taken = self.account_taken(resource, kind)?;
        let beyond = taken.saturating_add(requested).saturating_sub(ACCOUNT_MAX);
        (beyond > 0).then(|| Finding {
            reason: Reason::TooLarge,
            shortfall: beyond,
            ..self.finding(resource, self.taken(resource), requested)
        })
    }

    /// A bucket that keeps what it is owed is an account like the others (C1.1).
    fn beyond_bucket(&self, gauge: &Gauge<'_>, requested: i64) -> Option<Finding> {
        let quota = gauge.quota();
        gauge.fill().filter(|_| quota.enforcement.vetoes())?;
        let beyond = gauge
            .taken
            .used
            .saturating_add(requested)
            .saturating_sub(ACCOUNT_MAX);
        (beyond > 0).then(|| Finding {
            reason: Reason::TooLarge,
            shortfall: beyond,
            ..self.finding(&quota.resource, gauge.taken, requested)
        })
    }

    /// Puts what a gauge finds where its enforcement and the mode want it.
    fn weigh(&self, gauge: &Gauge<'_>, requested: i64, mode: Mode, verdict: &mut Verdict) {
        let quota = gauge.quota();
        let base = || self.finding(&quota.resource, gauge.taken, requested);
        let (found, delay) = gauge.judge(base, requested);
        let place = match (quota.enforcement, mode) {
            (Enforcement::Warn, _) => &mut verdict.warnings,
            (Enforcement::Shadow, _) => &mut verdict.shadows,
            (_, Mode::Record) => &mut verdict.exceeded,
            _ => &mut verdict.refusals,
        };
        place.extend(found);
        if mode != Mode::Record {
            verdict.delay = verdict.delay.max(delay);
        }
    }

    fn finding(&self, resource: &ResourceKey, taken: Taken, requested: i64) -> Finding {
        Finding {
            subject: self.subject_name(),
            resource: resource.clone(),
            quota: None,
            pattern: None,
            reason: Reason::Limit,
            limit: None,
            window: None,
            used: taken.used,
            held: taken.held,
            requested,
            shortfall: 0,
            retry: None,
        }
    }
}

impl Limit {
    /// The number, where there is one.
    pub fn value(self) -> Option<i64> {
        match self {
            Self::Value(value) => Some(value),
            Self::Unlimited => None,
        }
    }
}
