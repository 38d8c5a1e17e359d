//! Usage, limit and utilization of subjects, read from the live views when somebody scrapes: a decision pays
//! nothing for them. Which subjects have such series is settled by name, so that only a subject that comes or
//! goes is looked at, and there are at most [`SERIES_MAX`] of them however many subjects there are.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use quota_core::amount::Limit;
use quota_core::evaluate::{Line, Scene};
use quota_core::name::{ResourceKey, SubjectName};
use quota_core::quota::{Measure, Target};
use quota_core::resource::Kind;
use quota_core::time::Timestamp;
use quota_core::verdict::Dimension;

use super::metrics::{AccountLabels, Metrics, whole};
use crate::engine::views::Views;

/// Most series of usage, limit and utilization together; also most subjects that are looked at.
pub const SERIES_MAX: usize = 10_000;
/// Subjects of so many pairs have series without being listed: `system`, tenants, what tenants own.
const PAIRS_MAX: usize = 2;

/// Which subjects have series: those of the first levels, and those that are listed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection(pub Vec<Target>);

impl Selection {
    /// How early a subject comes where there are too many; none for one without series.
    fn rank(&self, name: &str) -> Option<usize> {
        if name == level_of(name) {
            return Some(0);
        }
        let listed = |target: &Target| match target {
            Target::Subject(subject) => subject.as_str() == name,
            Target::Pattern(pattern) => pattern.matches(name),
        };
        if self.0.iter().any(listed) {
            return Some(1);
        }
        let pairs = name.matches('/').count().div_ceil(2);
        (pairs <= PAIRS_MAX).then(|| pairs.saturating_add(1))
    }
}

/// The last collection of a name; `system` for the root.
pub(crate) fn level_of(name: &str) -> &str {
    name.rsplit('/').nth(1).unwrap_or(name)
}

/// The subjects that have series: of those selected the first, by rank and name.
pub struct ShownSubjects {
    selection: Selection,
    state: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    names: BTreeSet<(usize, SubjectName)>,
    left_out: usize,
    /// One that was shown has gone, and its place is free for one that was left out.
    stale: bool,
}

impl ShownSubjects {
    /// None yet.
    pub fn new(selection: Selection) -> Self {
        Self {
            selection,
            state: Mutex::default(),
        }
    }

    /// A subject came into being.
    pub fn came(&self, name: &SubjectName) {
        if let Some(rank) = self.selection.rank(name.as_str()) {
            self.state.lock().add(rank, name);
        }
    }

    /// A subject is gone.
    pub fn went(&self, name: &SubjectName) {
        let Some(rank) = self.selection.rank(name.as_str()) else {
            return;
        };
        let mut state = self.state.lock();
        if state.names.remove(&(rank, name.clone())) {
            state.stale |= state.left_out > 0;
        } else {
            state.left_out = state.left_out.saturating_sub(1);
        }
    }

    /// Whether a subject has series.
    pub fn has(&self, name: &SubjectName) -> bool {
        let rank = self.selection.rank(name.as_str());
        rank.is_some_and(|rank| self.state.lock().names.contains(&(rank, name.clone())))
    }

    /// The subjects with series, and how many are left out.
    fn list(&self, views: &Views) -> (Vec<SubjectName>, usize) {
        if std::mem::take(&mut self.state.lock().stale) {
            let mut fresh = Shown::default();
            views.each_name(|name| {
                if let Some(rank) = self.selection.rank(name.as_str()) {
                    fresh.add(rank, name);
                }
            });
            *self.state.lock() = fresh;
        }
        let state = self.state.lock();
        let names = state.names.iter().map(|(_, name)| name.clone()).collect();
        (names, state.left_out)
    }
}

impl Shown {
    fn add(&mut self, rank: usize, name: &SubjectName) {
        self.names.insert((rank, name.clone()));
        if self.names.len() > SERIES_MAX {
            self.names.pop_last();
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

/// Sets the series of all subjects that have some.
pub(super) fn read(views: &Views, now: Timestamp, metrics: &Metrics) {
    metrics.usage.clear();
    metrics.limit.clear();
    metrics.utilization.clear();
    let Some(shown) = views.shown() else {
        return;
    };
    let (names, mut left_out) = shown.list(views);
    let mut series: usize = 0;
    for name in &names {
        let snapshot = views.snapshot(name, &[]);
        if !snapshot.exists(name.as_str()) {
            continue;
        }
        let scene = snapshot.scene(now);
        let Some(own) = scene.lines().last() else {
            continue;
        };
        for resource in own.resources() {
            for account in accounts(own, &scene, &resource, snapshot.kind(&resource)) {
                let wanted = account.series();
                if series.saturating_add(wanted) > SERIES_MAX {
                    left_out = left_out.saturating_add(wanted);
                    continue;
                }
                series = series.saturating_add(wanted);
                account.set(name.as_str(), &resource, metrics);
            }
        }
    }
    metrics.series_left_out.set(whole(left_out));
}

/// What one account of a subject shows.
struct Shows {
    period: String,
    usage: i64,
    limit: Option<i64>,
}

impl Shows {
    fn utilization(&self) -> Option<f64> {
        let limit = self.limit?;
        // Nothing of nothing is neither empty nor full.
        (limit > 0 || self.usage > 0).then(|| ratio(self.usage, limit))
    }

    fn series(&self) -> usize {
        1 + usize::from(self.limit.is_some()) + usize::from(self.utilization().is_some())
    }

    fn set(&self, name: &str, resource: &ResourceKey, metrics: &Metrics) {
        let labels = AccountLabels {
            entity_id: name.to_owned(),
            resource_type: resource.to_string(),
            level: level_of(name).to_owned(),
            period: self.period.clone(),
        };
        metrics.usage.get_or_create(&labels).set(self.usage);
        if let Some(limit) = self.limit {
            metrics.limit.get_or_create(&labels).set(limit);
        }
        if let Some(utilization) = self.utilization() {
            metrics.utilization.get_or_create(&labels).set(utilization);
        }
    }
}

fn accounts(own: &Line<'_>, scene: &Scene<'_>, resource: &ResourceKey, kind: Kind) -> Vec<Shows> {
    let mut shown: Vec<Shows> = Vec::new();
    if matches!(kind, Kind::Allocation | Kind::Concurrency | Kind::Counter) {
        shown.push(Shows {
            period: String::new(),
            usage: own.taken(resource).sum(),
            limit: None,
        });
    }
    for gauge in own.gauges(resource) {
        let quota = gauge.quota();
        let (period, limit) = match (&quota.measure, gauge.period()) {
            (Measure::Counted(_), Some(period)) if !period.is_none() => (period.to_string(), None),
            (Measure::Rated(rate), _) => (rate.to_string(), rate.bucket.or(quota.limit.value())),
            _ => continue,
        };
        match shown.iter_mut().find(|have| have.period == period) {
            Some(have) if limit.is_some() && limit < have.limit => {
                have.limit = limit;
                have.usage = gauge.taken.sum();
            }
            Some(_) => {}
            None => shown.push(Shows {
                period,
                usage: gauge.taken.sum(),
                limit,
            }),
        }
    }
    for least in scene.effective_limits(resource) {
        let period = match least.dimension {
            Dimension::Held => String::new(),
            Dimension::Period(period) if period.is_none() => String::new(),
            Dimension::Period(period) => period.to_string(),
            Dimension::Interval(_) | Dimension::Request => continue,
        };
        if let Limit::Value(limit) = least.limit
            && let Some(have) = shown.iter_mut().find(|have| have.period == period)
        {
            have.limit = Some(limit);
        }
    }
    shown
}

/// Amounts are below 2^53 but for sums, where the last digit is not what anybody looks at.
#[allow(clippy::cast_precision_loss)]
fn ratio(usage: i64, limit: i64) -> f64 {
    usage as f64 / limit as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SubjectName {
        SubjectName::parse(text).unwrap()
    }

    #[test]
    fn levels_and_ranks() {
        assert_eq!(level_of("system"), "system");
        assert_eq!(level_of("tenants/acme"), "tenants");
        assert_eq!(level_of("tenants/acme/projects/web"), "projects");
        let list = [
            "tenants/acme/projects/web/users/ann",
            "tenants/*/teams/*/users/*",
        ];
        let selection = Selection(list.map(|text| Target::parse(text).unwrap()).into());
        let rank = |text: &str| selection.rank(text);
        assert_eq!(rank("system"), Some(0));
        assert_eq!(rank("tenants/acme/projects/web/users/ann"), Some(1));
        assert_eq!(rank("tenants/acme/teams/ml/users/bob"), Some(1));
        assert_eq!(rank("tenants/acme"), Some(2));
        assert_eq!(rank("tenants/acme/projects/web"), Some(3));
        assert_eq!(rank("tenants/acme/projects/web/users/bob"), None);
    }

    /// The first by rank and name are shown, whatever the order in which they come.
    #[test]
    fn subjects_beyond_the_bound_are_counted() {
        let shown = ShownSubjects::new(Selection::default());
        for at in 0..SERIES_MAX + 2 {
            shown.came(&name(&format!("users/u{at:06}")));
        }
        shown.came(&name("system"));
        assert_eq!(shown.state.lock().left_out, 3);
        assert!(shown.has(&name("system")));
        assert!(!shown.has(&name(&format!("users/u{:06}", SERIES_MAX - 1))));
        shown.went(&name(&format!("users/u{:06}", SERIES_MAX)));
        assert_eq!(shown.state.lock().left_out, 2);
        assert!(!shown.state.lock().stale);
        shown.went(&name("users/u000000"));
        assert!(shown.state.lock().stale);
    }
}
