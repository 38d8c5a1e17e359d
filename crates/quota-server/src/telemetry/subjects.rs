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

/// All that are selected, in their order. Whoever goes makes room for the next at once: a look at all subjects for it
/// would be a walk of a million, and would miss who comes meanwhile.
#[derive(Default)]
struct Shown {
    /// The first.
    names: BTreeSet<Place>,
    /// All that come after them.
    left_out: BTreeSet<Place>,
}

/// Rank and name.
type Place = (usize, SubjectName);

impl ShownSubjects {
    /// None yet.
    pub fn new(selection: Selection) -> Self {
        Self {
            selection,
            state: Mutex::default(),
        }
    }

    /// Takes all that there are. Who comes or goes meanwhile waits, so that nobody is missed.
    pub fn fill(&self, each_name: impl FnOnce(&mut dyn FnMut(&SubjectName))) {
        let mut state = self.state.lock();
        each_name(&mut |name| {
            if let Some(rank) = self.selection.rank(name.as_str()) {
                state.add((rank, name.clone()));
            }
        });
    }

    /// A subject came into being.
    pub fn came(&self, name: &SubjectName) {
        if let Some(rank) = self.selection.rank(name.as_str()) {
            self.state.lock().add((rank, name.clone()));
        }
    }

    /// A subject is gone.
    pub fn went(&self, name: &SubjectName) {
        if let Some(rank) = self.selection.rank(name.as_str()) {
            self.state.lock().remove(&(rank, name.clone()));
        }
    }

    /// Whether a subject has series.
    pub fn has(&self, name: &SubjectName) -> bool {
        let rank = self.selection.rank(name.as_str());
        rank.is_some_and(|rank| self.state.lock().names.contains(&(rank, name.clone())))
    }

    /// The subjects with series, and how many are left out.
    fn list(&self) -> (Vec<SubjectName>, usize) {
        let state = self.state.lock();
        let names = state.names.iter().map(|(_, name)| name.clone()).collect();
        (names, state.left_out.len())
    }
}

impl Shown {
    fn add(&mut self, place: Place) {
        self.names.insert(place);
        if self.names.len() > SERIES_MAX {
            self.left_out.extend(self.names.pop_last());
        }
    }

    fn remove(&mut self, place: &Place) {
        if self.names.remove(place) {
            self.names.extend(self.left_out.pop_first());
        } else {
            self.left_out.remove(place);
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
    let (names, mut left_out) = shown.list();
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

    /// The first by rank and name are shown, whatever the order in which they come and go.
    #[test]
    fn subjects_beyond_the_bound_are_counted() {
        let user = |at: usize| name(&format!("users/u{at:06}"));
        let shown = ShownSubjects::new(Selection::default());
        for at in 0..SERIES_MAX + 2 {
            shown.came(&user(at));
        }
        shown.came(&name("system"));
        assert_eq!(shown.list().1, 3);
        assert!(shown.has(&name("system")));
        assert!(!shown.has(&user(SERIES_MAX - 1)));
        shown.went(&user(SERIES_MAX));
        assert_eq!(shown.list().1, 2);
        shown.went(&user(0));
        assert!(shown.has(&user(SERIES_MAX - 1)), "the next takes its place");
        assert!(!shown.has(&user(SERIES_MAX + 1)));
        assert_eq!(shown.list().1, 1);
        shown.came(&user(0));
        assert!(!shown.has(&user(SERIES_MAX - 1)), "and gives it back");
        assert_eq!(shown.list().1, 2);
        shown.went(&name("users/nobody"));
        assert_eq!(shown.list().1, 2);
    }

    /// The series are those of the first that are there, after whatever came and went; nobody is counted twice.
    #[test]
    fn who_comes_and_goes_in_any_order() {
        let shown = ShownSubjects::new(Selection::default());
        let mut there: BTreeSet<SubjectName> = BTreeSet::new();
        let user = |at: usize| name(&format!("users/u{at:06}"));
        shown.fill(|each| {
            for at in 0..SERIES_MAX {
                each(&user(at * 2));
                there.insert(user(at * 2));
            }
        });
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let one = user(random.usize(0..2 * SERIES_MAX));
            if random.usize(0..5) < 2 {
                there.remove(&one);
                shown.went(&one);
            } else {
                there.insert(one.clone());
                shown.came(&one);
            }
        }
        let (listed, left_out) = shown.list();
        let first: Vec<SubjectName> = there.iter().take(SERIES_MAX).cloned().collect();
        assert_eq!(listed, first);
        assert_eq!(left_out, there.len().saturating_sub(SERIES_MAX));
        assert!(left_out > 0);
    }
}
