//! Quotas: limits on the account of a subject, or of every subject that matches a pattern (C4).

use std::fmt;
use std::sync::Arc;

use crate::amount::Limit;
use crate::labels::Labels;
use crate::name::{Id, NameError, ResourceKey, SubjectName, SubjectPattern};
use crate::period::Period;
use crate::rate::{Rate, RateBefore};
use crate::time::Timestamp;

/// Most quotas on one subject or pattern: its record is read and written whole.
pub const QUOTAS_PER_TARGET_MAX: usize = 1_000;
/// Most quotas on one resource of one subject or pattern: a refusal lists all that refuse.
pub const QUOTAS_PER_PAIR_MAX: usize = 16;
/// Most patterns with default quotas: they live in one table that is copied when it changes.
pub const PATTERNS_MAX: usize = 100_000;

/// Where a quota comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A default.
    Default,
    /// Made from a template.
    Template,
    /// Made by a policy.
    Policy,
    /// Set by hand.
    Override,
    /// Set by a program.
    Automatic,
}

/// What a quota is set on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// One subject.
    Subject(SubjectName),
    /// Every subject that matches.
    Pattern(SubjectPattern),
}

impl Target {
    /// Reads the name of a subject or a pattern.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.split('/').any(|part| part == "*") {
            SubjectPattern::parse(text).map(Self::Pattern)
        } else {
            SubjectName::parse(text).map(Self::Subject)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Subject(name) => name.as_str(),
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a quota does when its limit is exceeded (C4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enforcement {
    /// Refuses.
    Deny,
    /// Lets pass and reports the violation.
    Warn,
    /// Lets pass and reports that it would have refused.
    Shadow,
    /// RATE only: lets pass and tells the caller to wait, up to the rate's longest delay; then refuses.
    Throttle,
}

impl Enforcement {
    /// Whether it can refuse.
    pub fn vetoes(self) -> bool {
        matches!(self, Self::Deny | Self::Throttle)
    }
}

/// Whether a quota is in force (C4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// In force.
    Active,
    /// As if absent.
    Disabled,
    /// In force, and nothing may grow.
    Suspended,
}

/// How the quota of a COUNTER counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counting {
    /// The definition of its periods.
    pub period: Period,
    /// When that definition came into force.
    pub since: Timestamp,
    /// The definition before it, which stays in force until its period ends (C7.3).
    pub before: Option<Before>,
}

/// A definition that is about to be replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Before {
    /// The definition.
    pub period: Period,
    /// When it came into force.
    pub since: Timestamp,
    /// When its last period ends.
    pub until: Timestamp,
}

impl Counting {
    /// The definition in force at `now`, and since when it is.
    pub fn at(&self, now: Timestamp) -> (Period, Timestamp) {
        match self.before {
            Some(before) if now < before.until => (before.period, before.since),
            _ => (self.period, self.since),
        }
    }

    /// A new definition in place of this one: at the end of the period that is under way, at once where it
    /// has no end (C7.3).
    pub fn replaced(&self, period: Period, now: Timestamp) -> Self {
        let (current, since) = self.at(now);
        if current == period {
            return Self {
                period,
                since,
                before: None,
            };
        }
        let until = current.window(now).end;
        Self {
            period,
            since: until.unwrap_or(now),
            before: until.map(|until| Before {
                period: current,
                since,
                until,
            }),
        }
    }
}

/// How a quota measures; it follows from the kind of its resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// ALLOCATION and CONCURRENCY: what is there.
    Held,
    /// COUNTER: what was counted in the period.
    Counted(Counting),
    /// RATE: what is taken from a bucket.
    Rated(Rate),
    /// PER_REQUEST: one request.
    Request,
}

/// Share of a limit from which answers warn, in percent, where a quota does not say (C4.1).
pub const NEAR_PERCENT: u8 = 80;

/// A limit on one resource of its target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quota {
    /// The resource.
    pub resource: ResourceKey,
    /// Id on its target and resource.
    pub id: Id,
    /// The limit.
    pub limit: Limit,
    /// How it measures.
    pub measure: Measure,
    /// What it does when exceeded.
    pub enforcement: Enforcement,
    /// Whether it is in force.
    pub state: State,
    /// From when on it is in force.
    pub valid_from: Option<Timestamp>,
    /// Until when it is in force (exclusive).
    pub valid_until: Option<Timestamp>,
    /// Largest amount of one request, in base units.
    pub max_request: Option<i64>,
    /// Share of the limit from which answers warn, in percent; [`NEAR_PERCENT`] where absent.
    pub near_percent: Option<u8>,
    /// Of a default on a RATE: how its buckets were refilled until it was changed, the oldest first.
    pub rates_before: Vec<RateBefore>,
    /// For people.
    pub display_name: String,
    /// At most 8 labels.
    pub labels: Labels,
    /// Where it comes from.
    pub origin: Origin,
    /// When it was first set.
    pub created: Timestamp,
    /// When it was last set.
    pub updated: Timestamp,
    /// Revision of the ledger that last set it.
    pub version: u64,
}

impl Quota {
    /// Whether this is the quota of that id on that resource.
    pub fn is(&self, resource: &ResourceKey, id: &Id) -> bool {
        self.resource == *resource && self.id == *id
    }

    /// Whether it is in force at `now`; one that is not is as if absent (C4.1, C4.2).
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.state != State::Disabled
            && self.valid_from.is_none_or(|from| from <= now)
            && self.valid_until.is_none_or(|until| now < until)
    }

    /// The period that it counts in at `now` and since when that definition is in force; none where it does
    /// not count.
    pub fn definition(&self, now: Timestamp) -> Option<(Period, Timestamp)> {
        let Measure::Counted(counting) = &self.measure else {
            return None;
        };
        let (period, since) = counting.at(now);
        let valid = self.valid_from.unwrap_or(Timestamp::MIN);
        Some((period, since.max(valid)))
    }

    /// Whether `taken` is at or above the share of `limit` from which answers warn, less `slack` percent of it, but
    /// not less than half of that share. Nothing is never near.
    pub fn is_near(&self, taken: i64, limit: i64, slack: u8) -> bool {
        let share = self.near_percent.unwrap_or(NEAR_PERCENT);
        let share = i128::from(share.saturating_sub(slack.min(share / 2)));
        let taken = i128::from(taken).saturating_mul(100);
        limit > 0 && taken > 0 && taken >= i128::from(limit).saturating_mul(share)
    }
}

/// The period definitions of these quotas at `now`, each once, with the earliest instant from which one of
/// them is in force.
pub fn definitions<'a>(
    quotas: impl Iterator<Item = &'a Quota>,
    now: Timestamp,
) -> Vec<(Period, Timestamp)> {
    let mut defined: Vec<(Period, Timestamp)> = Vec::new();
    for (period, since) in quotas.filter_map(|quota| quota.definition(now)) {
        match defined.iter_mut().find(|(have, _)| *have == period) {
            Some((_, earliest)) => *earliest = since.min(*earliest),
            None => defined.push((period, since)),
        }
    }
    defined
}

/// Quotas of one target, by resource and id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QuotaList(Vec<Arc<Quota>>);

impl QuotaList {
    /// All of them, by resource and id.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Quota>> {
        self.0.iter()
    }

    /// The quota of that id.
    pub fn find(&self, resource: &ResourceKey, id: &Id) -> Option<&Arc<Quota>> {
        self.0.iter().find(|quota| quota.is(resource, id))
    }

    /// The quota of that id; without one the only one on the resource. Where there are several, their ids.
    pub fn find_or_only(
        &self,
        resource: &ResourceKey,
        id: Option<&Id>,
    ) -> Result<Option<&Arc<Quota>>, Vec<Id>> {
        if let Some(id) = id {
            return Ok(self.find(resource, id));
        }
        let all: Vec<&Arc<Quota>> = self.0.iter().filter(|q| q.resource == *resource).collect();
        match all.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(*only)),
            several => Err(several.iter().map(|quota| quota.id.clone()).collect()),
        }
    }

    /// About how many bytes their record takes.
    pub(crate) fn weight(&self) -> usize {
        const QUOTA: usize = 1024;
        self.0.len().saturating_mul(QUOTA)
    }

    /// Number of quotas.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a quota in place of the one of its id, if any; says whether it is new.
    pub fn put(&mut self, quota: Arc<Quota>) -> bool {
        let key = (&quota.resource, &quota.id);
        match self
            .0
            .binary_search_by(|have| (&have.resource, &have.id).cmp(&key))
        {
            Ok(at) => {
                if let Some(place) = self.0.get_mut(at) {
                    *place = quota;
                }
                false
            }
            Err(at) => {
                self.0.insert(at, quota);
                true
            }
        }
    }

    /// Takes out the quota of that id; says whether there was one.
    pub fn remove(&mut self, resource: &ResourceKey, id: &Id) -> bool {
        let before = self.0.len();
        self.0.retain(|quota| !quota.is(resource, id));
        self.0.len() < before
    }
}

/// The id of a quota that is given none (C4.2): its resource, with its period or the interval of its rate.
pub fn default_id(resource: &ResourceKey, period: Option<&Period>, rate: Option<&Rate>) -> Id {
    let text = match (period, rate) {
        (Some(period), _) if !period.is_none() => format!("{resource}.{period}"),
        (_, Some(rate)) => format!("{resource}.{rate}"),
        _ => resource.to_string(),
    };
    Id::parse(&text).expect("a resource key with a word is an id")
}
