//! Decisions: every limit of every account of the charge set, one after the other (C5.1 to C5.3).

use std::time::Duration;

use super::book::{ACCOUNTS_MOST, Book, Kind};
use super::calendar::SECOND;
use super::rules::Rule;
use crate::script::{self, Call};

/// What is said of one limit.
#[derive(Clone, Debug)]
pub(super) struct Found {
    reason: &'static str,
    resource: String,
    subject: String,
    quota: String,
    taken: i128,
    requested: i128,
    limit: String,
    shortfall: i128,
    retry: Option<i128>,
}

/// How full one limit is.
#[derive(Clone, Debug)]
struct Full {
    resource: String,
    subject: String,
    quota: String,
    taken: i128,
    limit: i128,
}

/// A decision with all that it says.
#[derive(Clone, Debug, Default)]
pub(super) struct Judgement {
    refusals: Vec<Found>,
    exceeded: Vec<Found>,
    warnings: Vec<Found>,
    shadows: Vec<Found>,
    near: Vec<Full>,
    tightest: Vec<Full>,
    pub(super) unbounded: bool,
    delay: i128,
    partial: Option<i128>,
}

/// How it is decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Strict,
    Best(i128),
    Record,
}

impl Judgement {
    pub(super) fn is_denied(&self) -> bool {
        !self.refusals.is_empty()
    }

    pub(super) fn decision(&self) -> &'static str {
        match (self.is_denied(), self.delay > 0, self.partial) {
            (true, _, _) => "denied",
            (_, true, _) => "delayed",
            (_, _, Some(_)) => "partial",
            _ => "granted",
        }
    }

    /// What of `asked` is charged.
    pub(super) fn granted(&self, asked: &[(String, i128)]) -> Vec<(String, i128)> {
        let part = |(key, n): &(String, i128)| (key.clone(), self.partial.unwrap_or(*n));
        asked.iter().map(part).collect()
    }

    /// In the words of scripts.
    pub(super) fn text(&self, call: &Call) -> String {
        let verdict = script::Verdict {
            decision: self.decision(),
            delay: (self.decision() == "delayed").then(|| duration(self.delay)),
            partial: self.partial.map(number),
            refusals: found(&self.refusals),
            exceeded: match self.is_denied() {
                true => Vec::new(),
                false => found(&self.exceeded),
            },
            warnings: found(&self.warnings),
            shadows: found(&self.shadows),
            near: full(&self.near),
            tightest: full(&self.tightest),
            replayed: false,
        };
        script::verdict(call, &verdict)
    }
}

pub(super) fn number(n: i128) -> i64 {
    i64::try_from(n).unwrap()
}

pub(super) fn duration(ns: i128) -> Duration {
    let seconds = u64::try_from(ns / SECOND).unwrap();
    Duration::new(seconds, u32::try_from(ns % SECOND).unwrap())
}

fn found(all: &[Found]) -> Vec<script::Finding<'_>> {
    let mut texts = Vec::new();
    for one in all {
        texts.push(script::Finding {
            reason: one.reason,
            resource: &one.resource,
            subject: &one.subject,
            quota: &one.quota,
            taken: number(one.taken),
            requested: number(one.requested),
            limit: one.limit.clone(),
            shortfall: number(one.shortfall),
            retry: one.retry.map(duration),
        });
    }
    texts
}

fn full(all: &[Full]) -> Vec<script::Headroom<'_>> {
    let mut texts = Vec::new();
    for one in all {
        texts.push(script::Headroom {
            resource: &one.resource,
            subject: &one.subject,
            quota: &one.quota,
            taken: number(one.taken),
            limit: number(one.limit),
        });
    }
    texts
}

/// Division, rounded up.
fn up(n: i128, by: i128) -> i128 {
    -((-n).div_euclid(by))
}

/// What one limit says of a request: reason, limit, what is missing, and after how long it could be admitted.
struct Says {
    refusals: Vec<(&'static str, String, i128, Option<i128>)>,
    wait: i128,
}

impl Book {
    /// Decides growth of every account of `set` by `asked`. `subject` is the one that the request names.
    pub(super) fn judge(
        &self,
        subject: &str,
        set: &[String],
        asked: &[(String, i128)],
        mode: Mode,
    ) -> Judgement {
        if let (Mode::Best(least), [(resource, most)]) = (mode, asked) {
            let least = least.max(1).min(*most);
            let amount = self.room(set, resource).min(*most).max(least);
            let mut judged = self.judge(subject, set, &[(resource.clone(), amount)], Mode::Strict);
            if !judged.is_denied() && amount < *most {
                judged.partial = Some(amount);
            }
            return judged;
        }
        let mut judged = Judgement::default();
        for (resource, amount) in asked {
            let mut bounded = false;
            for name in set {
                self.judge_account(name, resource, *amount, &mut judged);
                for rule in self.in_force(name, resource) {
                    bounded = true;
                    self.judge_rule(name, &rule, *amount, mode, &mut judged);
                }
            }
            if !bounded {
                let none = Found {
                    reason: "NO_QUOTA",
                    resource: resource.clone(),
                    subject: subject.to_owned(),
                    quota: String::new(),
                    taken: self.used(subject, resource) + self.held(subject, resource),
                    requested: *amount,
                    limit: String::new(),
                    shortfall: *amount,
                    retry: None,
                };
                match (self.denies_without_quota(resource), mode) {
                    (false, _) => judged.unbounded = true,
                    (true, Mode::Record) => judged.exceeded.push(none),
                    (true, _) => judged.refusals.push(none),
                }
            }
        }
        self.judge_headroom(set, asked, &mut judged);
        judged
    }

    /// C1.1: no account beyond 2^62, facts included.
    fn judge_account(&self, name: &str, resource: &str, amount: i128, judged: &mut Judgement) {
        let Some(most) = self.most_of_account(name, resource) else {
            return;
        };
        if most + amount > ACCOUNTS_MOST {
            judged.refusals.push(Found {
                reason: "TOO_LARGE",
                resource: resource.to_owned(),
                subject: name.to_owned(),
                quota: String::new(),
                taken: self.used(name, resource) + self.held(name, resource),
                requested: amount,
                limit: String::new(),
                shortfall: most + amount - ACCOUNTS_MOST,
                retry: None,
            });
        }
    }

    fn judge_rule(
        &self,
        name: &str,
        rule: &Rule,
        amount: i128,
        mode: Mode,
        judged: &mut Judgement,
    ) {
        let taken = self.taken(name, rule);
        let said = |reason, quota: &str, limit, shortfall, retry| Found {
            reason,
            resource: rule.resource.clone(),
            subject: name.to_owned(),
            quota: quota.to_owned(),
            taken,
            requested: amount,
            limit,
            shortfall,
            retry,
        };
        // A bucket that keeps what it is owed is an account as well.
        let keeps = rule.rate.is_some() && rule.vetoes() && rule.limit.is_some();
        if keeps && taken + amount > ACCOUNTS_MOST {
            let shortfall = taken + amount - ACCOUNTS_MOST;
            let found = said("TOO_LARGE", "", String::new(), shortfall, None);
            judged.refusals.push(found);
        }
        let says = self.ask(name, rule, amount);
        if mode != Mode::Record {
            judged.delay = judged.delay.max(says.wait);
        }
        for (reason, limit, shortfall, retry) in says.refusals {
            let place = match (rule.enforce.as_str(), mode) {
                ("warn", _) => &mut judged.warnings,
                ("shadow", _) => &mut judged.shadows,
                (_, Mode::Record) => &mut judged.exceeded,
                _ => &mut judged.refusals,
            };
            place.push(said(reason, &rule.id, limit, shortfall, retry));
        }
    }

    fn ask(&self, name: &str, rule: &Rule, amount: i128) -> Says {
        let mut says = Says {
            refusals: Vec::new(),
            wait: 0,
        };
        let shown = |limit: Option<i128>| match limit {
            Some(limit) => limit.to_string(),
            None => "unlimited".to_owned(),
        };
        if rule.state == "suspended" {
            says.refusals
                .push(("SUSPENDED", shown(rule.limit), amount, None));
            return says;
        }
        if let Some(most) = rule.max
            && amount > most
        {
            says.refusals
                .push(("TOO_LARGE", most.to_string(), amount - most, None));
        }
        let Some(limit) = rule.limit else {
            return says;
        };
        if let Some(rate) = &rule.rate {
            let bucket = rate.bucket.unwrap_or(limit);
            let beyond = self.owed(name, rule) + amount * rate.interval - bucket * rate.interval;
            if beyond <= 0 {
                return says;
            }
            let patience = match rule.enforce.as_str() {
                "throttle" => rate.delay,
                _ => 0,
            };
            // What would have been lent does not miss.
            let short = up(beyond - patience * limit, rate.interval).max(1);
            if amount > bucket || limit == 0 {
                says.refusals
                    .push(("TOO_LARGE", bucket.to_string(), short, None));
                return says;
            }
            let wait = up(beyond, limit);
            match wait <= patience {
                true => says.wait = wait,
                false => {
                    says.refusals
                        .push(("RATE", bucket.to_string(), short, Some(wait - patience)))
                }
            }
            return says;
        }
        let short = self.taken(name, rule) + amount - limit;
        if short > 0 {
            let end = self
                .period(rule)
                .and_then(|period| period.window(self.now).1);
            let (reason, retry) = match end {
                _ if amount > limit => ("TOO_LARGE", None),
                Some(_) if self.held(name, &rule.resource) + amount > limit => ("LIMIT", None),
                Some(end) => ("PERIOD_EXHAUSTED", Some(end - self.now)),
                None => ("LIMIT", None),
            };
            says.refusals
                .push((reason, limit.to_string(), short, retry));
        }
        says
    }

    /// What fits everywhere without waiting.
    pub(super) fn room(&self, set: &[String], resource: &str) -> i128 {
        let mut room = i128::from(i64::MAX);
        for name in set {
            if let Some(most) = self.most_of_account(name, resource) {
                room = room.min(ACCOUNTS_MOST - most);
            }
            for rule in self.in_force(name, resource) {
                if !rule.vetoes() {
                    continue;
                }
                if rule.state == "suspended" {
                    room = room.min(0);
                }
                room = room.min(rule.max.unwrap_or(room));
                let Some(limit) = rule.limit else {
                    continue;
                };
                room = room.min(match &rule.rate {
                    Some(rate) => {
                        let free =
                            rate.bucket.unwrap_or(limit) * rate.interval - self.owed(name, &rule);
                        free.max(0) / rate.interval
                    }
                    None => limit - self.taken(name, &rule),
                });
            }
        }
        room
    }

    fn judge_headroom(&self, set: &[String], asked: &[(String, i128)], judged: &mut Judgement) {
        for (resource, amount) in asked {
            let mut least: Option<Full> = None;
            for name in set {
                for rule in self.in_force(name, resource) {
                    let Some(limit) = rule.limit else {
                        continue;
                    };
                    if self.kind(resource) == Kind::PerRequest {
                        continue;
                    }
                    let limit = match &rule.rate {
                        Some(rate) => rate.bucket.unwrap_or(limit),
                        None => limit,
                    };
                    let added = if judged.is_denied() { 0 } else { *amount };
                    let mut taken = self.taken(name, &rule) + added;
                    if rule.rate.is_some() && !rule.vetoes() {
                        taken = taken.min(limit);
                    }
                    let full = Full {
                        resource: resource.clone(),
                        subject: name.clone(),
                        quota: rule.id.clone(),
                        taken,
                        limit,
                    };
                    let near = limit > 0 && taken * 100 >= limit * rule.share;
                    if near && rule.enforce != "shadow" {
                        judged.near.push(full.clone());
                    }
                    let less = |least: &Full| limit - taken < least.limit - least.taken;
                    if rule.vetoes() && least.as_ref().is_none_or(less) {
                        least = Some(full);
                    }
                }
            }
            judged.tightest.extend(least);
        }
    }
}
