//! Quotas: which are in force where (C4.1, C4.2), and what keeps one from being changed (C4.4, C4.9).

use super::book::{Book, Entry, Kind, What};
use super::calendar::Period;
use crate::script::{self, Call};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rate {
    /// In nanoseconds.
    pub(super) interval: i128,
    pub(super) bucket: Option<i128>,
    /// In nanoseconds.
    pub(super) delay: i128,
}

/// A quota, on a subject or a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    pub(super) place: String,
    pub(super) resource: String,
    pub(super) id: String,
    /// Absent for unlimited.
    pub(super) limit: Option<i128>,
    pub(super) period: Option<Period>,
    /// The period before, until its end.
    pub(super) before: Option<(Period, i128)>,
    pub(super) rate: Option<Rate>,
    pub(super) enforce: String,
    pub(super) state: String,
    pub(super) from: Option<i128>,
    pub(super) until: Option<i128>,
    pub(super) max: Option<i128>,
    /// In percent.
    pub(super) share: i128,
    pub(super) version: u64,
}

impl Rule {
    pub(super) fn vetoes(&self) -> bool {
        self.enforce == "deny" || self.enforce == "throttle"
    }

    pub(super) fn is_in_force(&self, now: i128) -> bool {
        self.state != "disabled"
            && self.from.is_none_or(|from| from <= now)
            && self.until.is_none_or(|until| now < until)
    }

    pub(super) fn is(&self, place: &str, resource: &str, id: &str) -> bool {
        self.place == place && self.resource == resource && self.id == id
    }

    /// The limit as far as it can refuse.
    fn bite(&self, now: i128) -> Option<i128> {
        match self.is_in_force(now) && self.vetoes() {
            true => self.limit,
            false => None,
        }
    }
}

fn is_below(this: Option<i128>, other: Option<i128>) -> bool {
    match (this, other) {
        (Some(this), Some(other)) => this < other,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

fn is_pattern(place: &str) -> bool {
    place.split('/').any(|part| part == "*")
}

/// Which parts are stars: the less, the more specific.
fn stars(place: &str) -> Vec<bool> {
    place.split('/').map(|part| part == "*").collect()
}

fn fits(place: &str, name: &str, both: bool) -> bool {
    let place: Vec<&str> = place.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    let same = |(p, n): (&&str, &&str)| p == n || *p == "*" || (both && *n == "*");
    place.len() == name.len() && place.iter().zip(&name).all(same)
}

/// All rules on a subject, its own first, then by how specific their pattern is; each group by id.
fn all_of(rules: &[Rule], name: &str, resource: &str) -> Vec<Rule> {
    let mut found: Vec<Rule> = rules
        .iter()
        .filter(|rule| rule.resource == resource && fits(&rule.place, name, false))
        .cloned()
        .collect();
    found.sort_by_key(|rule| (is_pattern(&rule.place), stars(&rule.place), rule.id.clone()));
    found
}

/// Those in force: of an id only the most specific.
pub(super) fn in_force_of(rules: &[Rule], name: &str, resource: &str, now: i128) -> Vec<Rule> {
    let mut found: Vec<Rule> = Vec::new();
    for rule in all_of(rules, name, resource) {
        let covered = found.iter().any(|have| have.id == rule.id);
        if rule.is_in_force(now) && !covered {
            found.push(rule);
        }
    }
    found
}

impl Book {
    pub(super) fn in_force(&self, name: &str, resource: &str) -> Vec<Rule> {
        in_force_of(&self.rules, name, resource, self.now)
    }

    /// The period that a rule counts in now.
    pub(super) fn period(&self, rule: &Rule) -> Option<Period> {
        match &rule.before {
            Some((period, until)) if self.now < *until => Some(period.clone()),
            _ => rule.period.clone(),
        }
    }

    /// The periods in which a counter is counted here: also those of defaults that another covers.
    pub(super) fn periods(&self, name: &str, resource: &str) -> Vec<Period> {
        let mut periods = Vec::new();
        for rule in all_of(&self.rules, name, resource) {
            if let Some(period) = self.period(&rule)
                && rule.is_in_force(self.now)
                && !periods.contains(&period)
            {
                periods.push(period);
            }
        }
        periods
    }

    pub(super) fn set_rule(&mut self, call: &Call) -> Result<String, &'static str> {
        let (resource, limit) = call.amounts[0].clone();
        let ns = |text: &str| script::duration(text).as_nanos() as i128;
        let place = call.place.clone();
        let kind = self.resource(&resource).ok_or("INVALID_FIELDS")?.kind;
        let interval = call.option("rate");
        let later = |key| call.option(key).map(|text| self.now + ns(text));
        let number = |key| call.option(key).map(|text| text.parse::<i128>().unwrap());
        let mut rule = Rule {
            id: rule_id(call, &resource).unwrap_or_else(|| default_id(call, &resource)),
            place: place.clone(),
            limit: limit.parse().ok(),
            period: (kind == Kind::Counter)
                .then(|| Period(call.option("period").unwrap_or("none").to_owned())),
            before: None,
            rate: interval.map(|text| Rate {
                interval: ns(text),
                bucket: number("bucket"),
                delay: call.option("delay").map_or(0, ns),
            }),
            enforce: call.option("enforce").unwrap_or("deny").to_owned(),
            state: call.option("state").unwrap_or("active").to_owned(),
            from: later("from"),
            until: later("until"),
            max: number("max"),
            share: number("share").unwrap_or(80),
            version: self.revision + 1,
            resource: resource.clone(),
        };
        let throttles = rule.enforce == "throttle";
        let wrong = (call.option("period").is_some() && kind != Kind::Counter)
            || (rule.rate.is_some() != (kind == Kind::Rate))
            || (throttles && rule.rate.as_ref().is_none_or(|rate| rate.delay == 0));
        if wrong {
            return Err("INVALID_FIELDS");
        }
        let live = self
            .rules
            .iter()
            .find(|have| have.is(&place, &resource, &rule.id))
            .cloned();
        self.guard_versions(
            call,
            live.as_ref().map(|live| live.version),
            "QUOTA_UNKNOWN",
        )?;
        let on_pair = |have: &&Rule| have.place == place && have.resource == resource;
        if live.is_none() && self.rules.iter().filter(on_pair).count() >= 16 {
            return Err("CAPACITY");
        }
        if let (Some(live), Some(period)) = (&live, &rule.period)
            && live.is_in_force(self.now)
        {
            let current = self.period(live).expect("a counter's rule has a period");
            if current != *period {
                rule.before = current.window(self.now).1.map(|end| (current, end));
            }
        }
        if !call.has("force") && self.needs_force(&rule, live.as_ref()) {
            return Err("FORCE_NEEDED");
        }
        let warned = self.is_above_parent(&rule);
        let names = Self::set(&place, &[]);
        if !is_pattern(&place) {
            self.guard_capacity(&names)?;
            self.be_born(&names);
        }
        self.settle(&place, &resource);
        self.history.push((self.now, self.rules.clone()));
        self.rules
            .retain(|have| !have.is(&place, &resource, &rule.id));
        self.rules.push(rule);
        Ok(if warned { "set warned" } else { "set" }.to_owned())
    }

    pub(super) fn delete_rule(&mut self, call: &Call) -> Result<String, &'static str> {
        let (place, resource) = (call.place.clone(), call.amounts[0].0.clone());
        let id = rule_id(call, &resource);
        let mut found = self.rules.iter().filter(|have| {
            have.place == place
                && have.resource == resource
                && id.as_ref().is_none_or(|id| have.id == *id)
        });
        let live = found.next().cloned().ok_or("QUOTA_UNKNOWN")?;
        if found.next().is_some() {
            return Err("INVALID_FIELDS");
        }
        self.guard_versions(call, Some(live.version), "QUOTA_UNKNOWN")?;
        if !call.has("force") && self.uncovers_lower(&live) {
            return Err("FORCE_NEEDED");
        }
        self.settle(&place, &resource);
        self.history.push((self.now, self.rules.clone()));
        self.rules
            .retain(|have| !have.is(&place, &resource, &live.id));
        Ok("deleted".to_owned())
    }

    /// The buckets of a subject are refilled by the rules in force until now.
    fn settle(&mut self, place: &str, resource: &str) {
        let (Some(life), Kind::Rate) = (self.life(place), self.kind(resource)) else {
            return;
        };
        let rules = self.in_force(place, resource);
        self.entries.push(Entry {
            name: place.to_owned(),
            life,
            resource: resource.to_owned(),
            at: self.now,
            what: What::Settle(rules),
        });
    }

    fn needs_force(&self, rule: &Rule, live: Option<&Rule>) -> bool {
        let now = self.now;
        if let Some(live) = live
            && live.is_in_force(now)
            && !rule.is_in_force(now)
        {
            return self.uncovers_lower(live);
        }
        if is_pattern(&rule.place) {
            let lowers = |other: &Rule| is_below(rule.bite(now), other.bite(now));
            return match live {
                Some(live) => lowers(live),
                None => self.others(rule).iter().any(|other| {
                    other.is_in_force(now)
                        && stars(&rule.place) < stars(&other.place)
                        && lowers(other)
                }),
            };
        }
        if live.is_some_and(|live| !is_below(rule.bite(now), live.bite(now))) {
            return false;
        }
        let kind = self.kind(&rule.resource);
        let counts = kind != Kind::Rate && kind != Kind::PerRequest;
        let exists = self.life(&rule.place).is_some();
        counts
            && exists
            && rule
                .bite(now)
                .is_some_and(|limit| limit < self.taken(&rule.place, rule))
    }

    /// Other patterns' rules of the same id that a subject could meet beside this one.
    fn others(&self, rule: &Rule) -> Vec<Rule> {
        let same = |other: &&Rule| {
            is_pattern(&other.place)
                && other.place != rule.place
                && other.resource == rule.resource
                && other.id == rule.id
                && fits(&other.place, &rule.place, true)
        };
        self.rules.iter().filter(same).cloned().collect()
    }

    fn uncovers_lower(&self, live: &Rule) -> bool {
        let now = self.now;
        if !live.is_in_force(now) {
            return false;
        }
        let lowers =
            |other: &Rule| other.is_in_force(now) && is_below(other.bite(now), live.bite(now));
        if is_pattern(&live.place) {
            let mut others = self.others(live).into_iter();
            return others.any(|other| stars(&live.place) < stars(&other.place) && lowers(&other));
        }
        // What comes into force without it: of the patterns the most specific.
        let next = all_of(&self.rules, &live.place, &live.resource)
            .into_iter()
            .find(|other| {
                is_pattern(&other.place) && other.id == live.id && other.is_in_force(now)
            });
        next.is_some_and(|next| lowers(&next))
    }

    /// C4.4: above what its parents allow, of what measures alike.
    fn is_above_parent(&self, rule: &Rule) -> bool {
        let parts: Vec<&str> = rule.place.split('/').collect();
        let mut above = Vec::new();
        if rule.place != "system" {
            above.push("system".to_owned());
        }
        for end in (2..parts.len()).step_by(2) {
            if parts[..end].contains(&"*") {
                break;
            }
            above.push(parts[..end].join("/"));
        }
        let bounds = self.least(&above, &rule.resource);
        let bound = bounds.iter().find(|(_, bound)| self.alike(bound, rule));
        bound.is_some_and(|(_, bound)| is_below(bound.limit, rule.limit))
    }

    /// Whether two rules on one resource measure alike.
    fn alike(&self, one: &Rule, other: &Rule) -> bool {
        let interval = |rule: &Rule| rule.rate.as_ref().map(|rate| rate.interval);
        self.period(one) == self.period(other) && interval(one) == interval(other)
    }

    /// The least limits of those that can refuse, one of what measures alike, each with whose it is: the first
    /// of `names` where several are least (C4.4).
    pub(super) fn least(&self, names: &[String], resource: &str) -> Vec<(String, Rule)> {
        let mut least: Vec<(String, Rule)> = Vec::new();
        for name in names {
            for rule in self.in_force(name, resource) {
                if !rule.vetoes() {
                    continue;
                }
                match least.iter_mut().find(|(_, have)| self.alike(have, &rule)) {
                    Some(have) if is_below(rule.limit, have.1.limit) => {
                        *have = (name.clone(), rule);
                    }
                    Some(_) => {}
                    None => least.push((name.clone(), rule)),
                }
            }
        }
        least
    }
}

/// The id that a call gives a quota: as it stands, or after its resource where it begins with a dot.
fn rule_id(call: &Call, resource: &str) -> Option<String> {
    let id = call.option("id")?;
    Some(match id.starts_with('.') {
        true => format!("{resource}{id}"),
        false => id.to_owned(),
    })
}

/// C4.2: after the resource, its period or its rate's interval.
fn default_id(call: &Call, resource: &str) -> String {
    match (call.option("period"), call.option("rate")) {
        (Some(period), _) if period != "none" => {
            let unit = period.split('@').next().unwrap_or_default();
            format!("{resource}.{unit}")
        }
        (_, Some(rate)) => {
            let seconds = script::duration(rate).as_secs_f64();
            format!("{resource}.{seconds}s")
        }
        _ => resource.to_owned(),
    }
}
