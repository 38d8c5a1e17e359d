//! The calls of C6 and of Admin, one after the other.

use quota_core::ledger::AutoCreate;

use super::Done;
use super::book::{Book, Entry, Kind, Row, State, Subject, What};
use super::judge::Mode;
use crate::script::{self, Call};

type Amounts = Vec<(String, i128)>;

impl Book {
    /// Does what a call asks; nothing where it refuses or is in error.
    pub(super) fn perform(&mut self, call: &Call) -> Done {
        let done = self.perform_one(call);
        // An allocation with nothing left has ended.
        self.rows.retain(|row| row.held || !row.amounts.is_empty());
        done
    }

    fn perform_one(&mut self, call: &Call) -> Done {
        match call.verb.as_str() {
            "consume" => self.consume(call),
            "release" => plain(self.release(call)),
            "resize" => self.resize(call),
            "renew" => plain(self.renew(call)),
            "release-matching" => plain(self.release_matching(call)),
            "linked" => self.linked(call),
            "reserve" => self.reserve(call),
            "commit" => self.commit(call),
            "renew-hold" => plain(self.renew_hold(call)),
            "cancel" => plain(self.cancel(call)),
            "subject" => plain(self.set_subject(call)),
            "unsubject" => plain(self.delete_subject(call)),
            "resource" => plain(self.set_resource(call)),
            "unresource" => plain(self.delete_resource(call)),
            "quota" => plain(self.set_rule(call)),
            "unquota" => plain(self.delete_rule(call)),
            "reset" => plain(self.reset(call)),
            "correct" => plain(self.correct(call)),
            "accept-clock" => plain(Ok("accepted".to_owned())),
            other => panic!("no call is named {other}"),
        }
    }

    fn consume(&mut self, call: &Call) -> Done {
        let (amounts, also) = (amounts(call), also(call)?);
        let (id, ttl) = (call.option("id"), call.option("ttl"));
        let kinds = self.kinds(&amounts)?;
        let ends = kinds.contains(&Kind::Concurrency);
        let kept = ends || kinds.contains(&Kind::Allocation);
        if (ends && (id.is_none() || ttl.is_none()))
            || (!ends && ttl.is_some())
            || (id.is_some() && !kept)
        {
            return Err("INVALID_FIELDS");
        }
        let mode = mode(call);
        if matches!(mode, Mode::Best(_)) && amounts.len() != 1 {
            return Err("INVALID_FIELDS");
        }
        let set = Self::set(&call.place, &also);
        self.guard_birth(&call.place, &also, &set)?;
        let at = self.find(false, &call.place, id, &also);
        if at.is_some() && id.is_some() {
            return Err("EXISTS");
        }
        let judged = self.judge(&call.place, &set, &amounts, mode);
        if judged.is_denied() {
            return Ok((judged.text(call), true));
        }
        let granted = judged.granted(&amounts);
        self.be_born(&set);
        self.count(&set, &granted);
        let kept = self.of_kinds(&granted, &[Kind::Allocation, Kind::Concurrency]);
        match at {
            Some(at) => {
                let after = sum(&self.rows[at].amounts, &kept);
                self.set_amounts(at, after);
            }
            None if kept.is_empty() => {}
            None => {
                let row = Row {
                    amounts: sum(&[], &kept),
                    expires: ttl.map(|ttl| self.now + ns(ttl)),
                    ..self.row(call, &also, id.map(str::to_owned))
                };
                self.put(row);
            }
        }
        Ok((judged.text(call), false))
    }

    fn release(&mut self, call: &Call) -> Result<String, &'static str> {
        let mut given = amounts(call);
        self.guard_kinds(&given, &[Kind::Allocation, Kind::Concurrency])?;
        let also = also(call)?;
        let at = self.find(false, &call.place, call.option("id"), &also);
        let at = at.ok_or("ALLOCATION_UNKNOWN")?;
        self.guard_generation(call, at)?;
        let there = self.amounts_of(at);
        if given.is_empty() {
            given.clone_from(&there);
        }
        for (key, amount) in &given {
            if *amount > amount_of(&there, key) {
                return Err("RELEASE_TOO_LARGE");
            }
        }
        let minus: Amounts = given.iter().map(|(key, n)| (key.clone(), -n)).collect();
        let left = sum(&there, &minus);
        self.set_amounts(at, left.clone());
        given.sort();
        let left = (!left.is_empty()).then(|| numbers(&left));
        Ok(script::released(&numbers(&given), left.as_deref(), false))
    }

    fn resize(&mut self, call: &Call) -> Done {
        let wanted = amounts(call);
        self.guard_kinds(&wanted, &[Kind::Allocation, Kind::Concurrency])?;
        let at = self.find(false, &call.place, call.option("id"), &[]);
        let at = at.ok_or("ALLOCATION_UNKNOWN")?;
        self.guard_generation(call, at)?;
        let row = Row {
            amounts: self.amounts_of(at),
            ..self.rows[at].clone()
        };
        let is_over = row.is_over(self.now);
        let begins = |(key, n): &(String, i128)| *n > 0 && self.kind(key) == Kind::Concurrency;
        if (row.expires.is_none() || is_over) && wanted.iter().any(begins) {
            return Err("INVALID_FIELDS");
        }
        let mut growth = Vec::new();
        let mut after = row.amounts.clone();
        for (key, amount) in &wanted {
            let more = amount - amount_of(&row.amounts, key);
            if more > 0 {
                growth.push((key.clone(), more));
            }
            after.retain(|(have, _)| have != key);
            after.push((key.clone(), *amount));
        }
        let set = Self::set(&row.subject, &row.also);
        let judged = self.judge(&row.subject, &set, &growth, mode(call));
        if judged.is_denied() {
            return Ok((judged.text(call), true));
        }
        self.set_amounts(at, sum(&after, &[]));
        Ok((judged.text(call), false))
    }

    fn renew(&mut self, call: &Call) -> Result<String, &'static str> {
        let until = self.now + ns(call.option("ttl").unwrap());
        let (mut renewed, mut missing) = (0, 0);
        for id in call.list("ids") {
            let found = self.find(false, &call.place, Some(&id), &[]);
            let ends =
                |at: &usize| self.rows[*at].expires.is_some() && !self.rows[*at].is_over(self.now);
            match found.filter(ends) {
                Some(at) => {
                    let generation = self.revision + 1;
                    let row = &mut self.rows[at];
                    row.expires = row.expires.max(Some(until));
                    row.generation = generation;
                    renewed += 1;
                }
                None => missing += 1,
            }
        }
        Ok(format!("renewed {renewed} missing {missing}"))
    }

    fn release_matching(&mut self, call: &Call) -> Result<String, &'static str> {
        let most = call.option("most").map_or(50, |text| text.parse().unwrap());
        let mut found: Vec<(String, usize)> = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            let within = call.place == "system"
                || row.subject == call.place
                || row.subject.starts_with(&format!("{}/", call.place));
            let labels = call.labels();
            let bears = labels
                .iter()
                .all(|(key, value)| row.labels.get(key) == Some(value));
            if within && bears && !row.held && self.is_there(row) {
                // Those without an id come after digits and before letters, by whom else they charge.
                let id = row.id.clone();
                let id = id.unwrap_or_else(|| format!("?{}", row.also.join(",")));
                found.push((format!("{}/allocations/{id}", row.subject), at));
            }
        }
        found.sort();
        let more = if found.len() > most { " more" } else { "" };
        found.truncate(most);
        for (_, at) in &found {
            self.set_amounts(*at, Vec::new());
        }
        Ok(format!("released {} allocations{more}", found.len()))
    }

    fn linked(&mut self, call: &Call) -> Done {
        let mut after = self.clone();
        let mut steps: Vec<(String, bool)> = Vec::new();
        for member in &call.members {
            match after.perform(member) {
                Ok((text, refusal)) => steps.push((text, refusal)),
                Err(_) if steps.iter().any(|(_, refusal)| *refusal) => {
                    steps.push(("undecided".to_owned(), false));
                }
                Err(reason) => return Err(reason),
            }
        }
        let refused = steps.iter().any(|(_, refusal)| *refusal);
        let mut texts = Vec::new();
        for (text, _) in &steps {
            // Nothing was done, so nothing was released and nothing is left.
            let undone = refused && text.starts_with("released ");
            texts.push(if undone { "released nothing" } else { text });
        }
        let strongest = ["denied", "delayed", "partial"]
            .into_iter()
            .find(|word| texts.iter().any(|text| text.starts_with(word)));
        let text = format!("{} [{}]", strongest.unwrap_or("granted"), texts.join("; "));
        if !refused {
            *self = after;
        }
        Ok((text, refused))
    }

    /// What a check answers.
    pub(super) fn check(&self, call: &Call) -> String {
        let checked = || -> Result<String, &'static str> {
            let (amounts, also) = (amounts(call), also(call)?);
            self.kinds(&amounts)?;
            let set = Self::set(&call.place, &also);
            if self.may_not_be(&call.place, &also) {
                return Err("SUBJECT_UNKNOWN");
            }
            let judged = self.judge(&call.place, &set, &amounts, mode(call));
            let outlook = self.outlook(call, &set, &judged.granted(&amounts), judged.unbounded);
            Ok(format!("{}{outlook}", judged.text(call)))
        };
        checked().unwrap_or_else(|reason| format!("error {reason}"))
    }

    /// What an account or a quota has, or how a hold is.
    pub(super) fn read(&self, call: &Call) -> String {
        if call.verb == "hold" {
            return match self.find_hold(&call.place, call.option("id").unwrap()) {
                Some(at) => self.end_of(at).unwrap_or("LIVE").to_owned(),
                None => "error HOLD_UNKNOWN".to_owned(),
            };
        }
        let key = &call.amounts[0].0;
        if self.life(&call.place).is_none() {
            return "error SUBJECT_UNKNOWN".to_owned();
        }
        match call.verb.as_str() {
            "used" => self.used(&call.place, key).to_string(),
            "held" => self.held(&call.place, key).to_string(),
            _ => {
                let id = call.option("id").map(|id| format!("{key}.{id}"));
                let rules = self.in_force(&call.place, key);
                let rule = rules
                    .iter()
                    .find(|rule| id.as_ref().is_none_or(|id| rule.id == *id));
                let held = match self.kind(key) {
                    Kind::Rate => 0,
                    _ => self.held(&call.place, key),
                };
                rule.map_or("none".to_owned(), |rule| {
                    (self.taken(&call.place, rule) - held).to_string()
                })
            }
        }
    }

    /// Kinds of all amounts; an unknown resource is an error.
    pub(super) fn kinds(&self, amounts: &[(String, i128)]) -> Result<Vec<Kind>, &'static str> {
        let kind = |(key, _): &(String, i128)| {
            let found = self.resource(key).map(|found| found.kind);
            found.ok_or("INVALID_FIELDS")
        };
        amounts.iter().map(kind).collect()
    }

    pub(super) fn guard_kinds(
        &self,
        amounts: &[(String, i128)],
        these: &[Kind],
    ) -> Result<(), &'static str> {
        match self.kinds(amounts)?.iter().all(|kind| these.contains(kind)) {
            true => Ok(()),
            false => Err("INVALID_FIELDS"),
        }
    }

    /// `known`, `new` and `etag`.
    pub(super) fn guard_versions(
        &self,
        call: &Call,
        version: Option<u64>,
        unknown: &'static str,
    ) -> Result<(), &'static str> {
        let etag = call.option("etag");
        match version {
            None if call.has("known") => Err(unknown),
            Some(_) if call.has("new") => Err("EXISTS"),
            None if etag.is_some() => Err("ETAG_MISMATCH"),
            Some(version) if etag.is_some_and(|etag| etag != version.to_string()) => {
                Err("ETAG_MISMATCH")
            }
            _ => Ok(()),
        }
    }

    fn guard_generation(&self, call: &Call, at: usize) -> Result<(), &'static str> {
        let generation = self.rows[at].generation.to_string();
        match call.option("gen") {
            Some(expected) if expected != generation => Err("GENERATION_MISMATCH"),
            _ => Ok(()),
        }
    }

    fn may_not_be(&self, subject: &str, also: &[String]) -> bool {
        let unknown = |name: &str| match self.auto_create {
            AutoCreate::All => false,
            AutoCreate::BelowTop => {
                let pair: Vec<&str> = name.split('/').take(2).collect();
                self.life(&pair.join("/")).is_none()
            }
            AutoCreate::None => self.life(name).is_none(),
        };
        unknown(subject) || also.iter().any(|name| unknown(name))
    }

    pub(super) fn guard_birth(
        &self,
        subject: &str,
        also: &[String],
        set: &[String],
    ) -> Result<(), &'static str> {
        if self.may_not_be(subject, also) {
            return Err("SUBJECT_UNKNOWN");
        }
        self.guard_capacity(set)
    }

    pub(super) fn guard_capacity(&self, names: &[String]) -> Result<(), &'static str> {
        let coming = names
            .iter()
            .filter(|name| self.life(name).is_none())
            .count();
        match coming > 0 && self.subjects.len() + coming > self.subjects_max {
            true => Err("CAPACITY"),
            false => Ok(()),
        }
    }

    pub(super) fn be_born(&mut self, names: &[String]) {
        let life = self.revision + 1;
        for name in names {
            if self.life(name).is_none() {
                let version = life;
                self.subjects
                    .insert(name.clone(), Subject { life, version });
            }
        }
    }

    /// Counts what is of kind COUNTER and debits what is of kind RATE, on every subject.
    pub(super) fn count(&mut self, set: &[String], amounts: &[(String, i128)]) {
        for name in set {
            let life = self.life(name).unwrap();
            for (resource, amount) in amounts {
                let what = match self.kind(resource) {
                    Kind::Counter => What::Count(*amount, self.periods(name, resource)),
                    Kind::Rate => {
                        let rules = self.in_force(name, resource);
                        if rules.is_empty() {
                            continue;
                        }
                        What::Debit(*amount, rules)
                    }
                    _ => continue,
                };
                self.note_charged(name, resource);
                self.entries.push(Entry {
                    name: name.clone(),
                    life,
                    resource: resource.clone(),
                    at: self.now,
                    what,
                });
            }
        }
    }

    fn note_charged(&mut self, name: &str, resource: &str) {
        for found in &mut self.resources {
            found.charged |= name == "system" && found.key == resource;
        }
    }

    pub(super) fn row(&self, call: &Call, also: &[String], id: Option<String>) -> Row {
        let set = Self::set(&call.place, also);
        let lived = |name: String| {
            let life = self.life(&name).unwrap();
            (name, life)
        };
        Row {
            held: false,
            subject: call.place.clone(),
            also: also.to_vec(),
            id,
            set: set.into_iter().map(lived).collect(),
            amounts: Vec::new(),
            spent: Vec::new(),
            becomes: String::new(),
            expires: None,
            labels: call.labels(),
            generation: self.revision + 1,
            state: State::Live,
            late: false,
        }
    }

    pub(super) fn put(&mut self, row: Row) {
        for (key, _) in row.amounts.clone() {
            self.note_charged("system", &key);
        }
        // Whoever bore the name before is over.
        if let Some(id) = &row.id {
            let same = |have: &Row| {
                have.held == row.held && have.subject == row.subject && have.id.as_ref() == Some(id)
            };
            self.rows.retain(|have| !same(have));
        }
        self.rows.push(row);
    }

    /// Whether an allocation is there: alive, and with something that its time has not ended.
    pub(super) fn is_there(&self, row: &Row) -> bool {
        let stays = |(key, _): &(String, i128)| {
            !row.is_over(self.now) || self.kind(key) != Kind::Concurrency
        };
        self.is_alive(row) && row.state == State::Live && row.amounts.iter().any(stays)
    }

    pub(super) fn find(
        &self,
        held: bool,
        subject: &str,
        id: Option<&str>,
        also: &[String],
    ) -> Option<usize> {
        self.rows.iter().position(|row| {
            let named = row.id.as_deref() == id && (id.is_some() || row.also == also);
            row.held == held && row.subject == subject && named && self.is_there(row)
        })
    }

    /// When its time is over, what is of kind CONCURRENCY is gone and the rest stays (A13).
    fn amounts_of(&self, at: usize) -> Amounts {
        let row = &self.rows[at];
        match row.is_over(self.now) {
            true => self.of_kinds(&row.amounts, &[Kind::Allocation]),
            false => row.amounts.clone(),
        }
    }

    fn set_amounts(&mut self, at: usize, amounts: Amounts) {
        let ends = amounts
            .iter()
            .any(|(key, _)| self.kind(key) == Kind::Concurrency);
        for (key, _) in &amounts {
            self.note_charged("system", key);
        }
        let generation = self.revision + 1;
        let row = &mut self.rows[at];
        row.generation = generation;
        row.expires = row.expires.filter(|_| ends);
        row.amounts = amounts;
    }

    pub(super) fn of_kinds(&self, amounts: &[(String, i128)], kinds: &[Kind]) -> Amounts {
        let fits = |(key, _): &&(String, i128)| kinds.contains(&self.kind(key));
        amounts.iter().filter(fits).cloned().collect()
    }
}

fn plain(done: Result<String, &'static str>) -> Done {
    done.map(|text| (text, false))
}

pub(super) fn amounts(call: &Call) -> Amounts {
    let wide = |(key, n): (String, i64)| (key, i128::from(n));
    call.numbers().into_iter().map(wide).collect()
}

fn numbers(amounts: &[(String, i128)]) -> Vec<(String, i64)> {
    let narrow = |(key, n): &(String, i128)| (key.clone(), i64::try_from(*n).unwrap());
    amounts.iter().map(narrow).collect()
}

/// The further subjects, each once, by name.
pub(super) fn also(call: &Call) -> Result<Vec<String>, &'static str> {
    let mut also = call.list("also");
    also.retain(|name| *name != call.place);
    also.sort();
    also.dedup();
    Ok(also)
}

pub(super) fn amount_of(amounts: &[(String, i128)], key: &str) -> i128 {
    let found = amounts.iter().find(|(have, _)| have == key);
    found.map_or(0, |(_, amount)| *amount)
}

/// Both, by resource, zeros left out.
pub(super) fn sum(some: &[(String, i128)], more: &[(String, i128)]) -> Amounts {
    let mut sums = Amounts::new();
    for (key, amount) in some.iter().chain(more) {
        match sums.iter_mut().find(|(have, _)| have == key) {
            Some((_, sum)) => *sum += amount,
            None => sums.push((key.clone(), *amount)),
        }
    }
    sums.retain(|(_, amount)| *amount != 0);
    sums.sort();
    sums
}

pub(super) fn ns(text: &str) -> i128 {
    script::duration(text).as_nanos() as i128
}

pub(super) fn word<'a>(call: &'a Call, key: &str) -> &'a str {
    call.option(key).unwrap_or("refuse")
}

fn mode(call: &Call) -> Mode {
    match (call.has("record"), call.has("best")) {
        (true, _) => Mode::Record,
        (_, true) => Mode::Best(call.option("min").map_or(1, |text| text.parse().unwrap())),
        _ => Mode::Strict,
    }
}
